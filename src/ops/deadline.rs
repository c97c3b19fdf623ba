//! The time that a caller gives a call, in `grpc-timeout`.

use std::time::Duration;

use http::HeaderMap;

/// Digits of the number, at most.
const DIGITS_MAX: usize = 8;

/// How long the caller waits; `None` where it does not say, or says nothing that the protocol knows.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.len() > DIGITS_MAX || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", text.parse().unwrap());
        timeout(&headers)
    }

    #[test]
    fn every_unit_is_read() {
        let units =
            [("2H", 7_200_000_000), ("3M", 180_000_000), ("7S", 7_000_000), ("99999999m", 99_999_999_000), ("5u", 5)];
        for (text, micros) in units {
            assert_eq!(read(text), Some(Duration::from_micros(micros)), "{text}");
        }
        assert_eq!(read("1n"), Some(Duration::from_nanos(1)));
    }

    #[test]
    fn what_the_protocol_does_not_know_is_no_deadline() {
        for text in ["", "S", "1", "1s", "100000000m", "-1S", "+1S", "1.5S", " 1S"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }
}
