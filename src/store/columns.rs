//! The payload of a chunk of reports: column after column, since the numbers of one are like each other. `docs/storage.md` describes the
//! bytes.
//!
//! ```text
//! [0xC1][format u8][reports u32] then columns to the end: [number u16][form u8][bytes u32][…]
//! ```
//!
//! Chunks of before are MessagePack, which no 0xC1 begins.

use crate::domain::Reports;
use crate::limits::CHUNK_REPORTS;

/// The byte that MessagePack never uses.
const MARK: u8 = 0xC1;
const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 6;
const COLUMN_HEAD_BYTES: usize = 7;
const WORD_BYTES: usize = 8;

/// The first number, and what each is more than the one before.
const LINE: u8 = 0;
/// The numbers.
const PLAIN: u8 = 1;
/// The lengths of what each is more than the one before, then that.
const STEPS: u8 = 2;
/// Besides: a bit a report comes first, whether it has the number. Else all have.
const PARTIAL: u8 = 0x80;

/// Reports as they are stored.
pub(super) fn encode(reports: &Reports) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + 16 * reports.len());
    bytes.extend_from_slice(&[MARK, FORMAT]);
    bytes.extend_from_slice(&(reports.len() as u32).to_le_bytes());
    let mut values = Vec::with_capacity(reports.len());
    for column in reports.columns() {
        values.clear();
        values.extend(reports.column(column).flatten());
        let head = bytes.len();
        bytes.extend_from_slice(&[0; COLUMN_HEAD_BYTES]);
        let is_partial = values.len() < reports.len();
        if is_partial {
            put_bits(&mut bytes, reports.column(column).map(|value| value.is_some()));
        }
        let form = put_values(&mut bytes, &values) | if is_partial { PARTIAL } else { 0 };
        let length = (bytes.len() - head - COLUMN_HEAD_BYTES) as u32;
        bytes[head..head + 2].copy_from_slice(&column.to_le_bytes());
        bytes[head + 2] = form;
        bytes[head + 3..head + COLUMN_HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
    }
    bytes
}

fn put_bits(bytes: &mut Vec<u8>, bits: impl Iterator<Item = bool>) {
    let first = bytes.len();
    for (place, bit) in bits.enumerate() {
        if place % 8 == 0 {
            bytes.push(0);
        }
        bytes[first + place / 8] |= u8::from(bit) << (place % 8);
    }
}

/// Puts the numbers in the form that takes least; which it is.
fn put_values(bytes: &mut Vec<u8>, values: &[u64]) -> u8 {
    let first = values.first().copied().unwrap_or(0);
    let step = values.get(1).map_or(0, |second| second.wrapping_sub(first));
    // Of one number the other forms are shorter.
    if values.len() != 1 && values.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step) {
        bytes.extend_from_slice(&first.to_le_bytes());
        bytes.extend_from_slice(&step.to_le_bytes());
        return LINE;
    }
    let start = bytes.len();
    put_steps(bytes, values);
    if bytes.len() - start < values.len() * WORD_BYTES {
        return STEPS;
    }
    bytes.truncate(start);
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    PLAIN
}

fn put_steps(bytes: &mut Vec<u8>, values: &[u64]) {
    let lengths = bytes.len();
    let mut end = lengths + values.len().div_ceil(2);
    // Each step is written as a whole word, and the next one over what of it is zeros.
    bytes.resize(end + (values.len() + 1) * WORD_BYTES, 0);
    let mut before = 0_u64;
    for (place, &value) in values.iter().enumerate() {
        let step = fold_sign(value.wrapping_sub(before));
        before = value;
        let length = (u64::BITS - step.leading_zeros()).div_ceil(u8::BITS) as usize;
        bytes[lengths + place / 2] |= (length as u8) << (place % 2 * 4);
        bytes[end..end + WORD_BYTES].copy_from_slice(&step.to_le_bytes());
        end += length;
    }
    bytes.truncate(end);
}

/// A small step down is a small number, too: 0, −1, 1, −2 … become 0, 1, 2, 3 …
fn fold_sign(step: u64) -> u64 {
    step << 1 ^ ((step as i64) >> 63) as u64
}

fn unfold_sign(folded: u64) -> u64 {
    folded >> 1 ^ (folded & 1).wrapping_neg()
}

/// Whether a payload is of this format; else it is MessagePack.
pub(super) fn is_columns(payload: &[u8]) -> bool {
    payload.first() == Some(&MARK)
}

/// The reports of a payload, or what is wrong with it.
pub(super) fn decode(payload: &[u8]) -> Result<Reports, &'static str> {
    let (head, mut rest) = payload.split_first_chunk::<HEAD_BYTES>().ok_or("it is too short")?;
    let &[mark, format, count @ ..] = head;
    if (mark, format) != (MARK, FORMAT) {
        return Err("its format is unknown");
    }
    let count = u32::from_le_bytes(count) as usize;
    if count > CHUNK_REPORTS {
        return Err("it has too many reports");
    }
    let (mut columns, mut before) = (Vec::new(), None);
    while !rest.is_empty() {
        let (head, after) = rest.split_first_chunk::<COLUMN_HEAD_BYTES>().ok_or("a column is cut off")?;
        let &[low, high, form, length @ ..] = head;
        let length = u32::from_le_bytes(length) as usize;
        let (column, after) = after.split_at_checked(length).ok_or("a column is cut off")?;
        rest = after;
        let number = u16::from_le_bytes([low, high]);
        if before.replace(number).is_some_and(|before| before >= number) {
            return Err("its columns are not in order");
        }
        // Of a newer epochd: whatever its form is.
        if !Reports::has_column(number) {
            continue;
        }
        let values = decode_column(form, column, count).ok_or("a column has another length than its form says")?;
        columns.push((number, values));
    }
    Reports::from_columns(count, &columns).ok_or("a column is missing")
}

fn decode_column(form: u8, bytes: &[u8], count: usize) -> Option<Vec<Option<u64>>> {
    if form & PARTIAL == 0 {
        return Some(decode_values(form, bytes, count)?.into_iter().map(Some).collect());
    }
    let (bits, bytes) = bytes.split_at_checked(count.div_ceil(8))?;
    let is_there = |place: usize| bits[place / 8] >> (place % 8) & 1 == 1;
    let there = (0..count).filter(|&place| is_there(place)).count();
    let mut values = decode_values(form & !PARTIAL, bytes, there)?.into_iter();
    Some((0..count).map(|place| if is_there(place) { values.next() } else { None }).collect())
}

fn decode_values(form: u8, bytes: &[u8], count: usize) -> Option<Vec<u64>> {
    match form {
        LINE => {
            let (first, step) = bytes.split_first_chunk()?;
            let (first, step) = (u64::from_le_bytes(*first), u64::from_le_bytes(step.try_into().ok()?));
            Some((0..count as u64).map(|place| first.wrapping_add(step.wrapping_mul(place))).collect())
        }
        PLAIN => {
            let (words, rest) = bytes.as_chunks::<WORD_BYTES>();
            let is_whole = words.len() == count && rest.is_empty();
            is_whole.then(|| words.iter().map(|word| u64::from_le_bytes(*word)).collect())
        }
        STEPS => decode_steps(bytes, count),
        _ => None,
    }
}

fn decode_steps(bytes: &[u8], count: usize) -> Option<Vec<u64>> {
    let (lengths, mut steps) = bytes.split_at_checked(count.div_ceil(2))?;
    let (mut values, mut value) = (Vec::with_capacity(count), 0_u64);
    for place in 0..count {
        let length = usize::from(lengths[place / 2] >> (place % 2 * 4) & 0xF);
        if length > WORD_BYTES {
            return None;
        }
        let (step, rest) = steps.split_at_checked(length)?;
        let mut word = [0; WORD_BYTES];
        word[..length].copy_from_slice(step);
        value = value.wrapping_add(unfold_sign(u64::from_le_bytes(word)));
        values.push(value);
        steps = rest;
    }
    steps.is_empty().then_some(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{EpochReport, Metrics};

    fn report(epoch: u32) -> EpochReport {
        EpochReport {
            epoch,
            loss: 0.25 + 1.0 / f64::from(epoch),
            metrics: Metrics { accuracy: Some(0.5), misclassified_rows: Some(2), ..Metrics::default() },
            learning_rate: 0.5,
            elapsed_micros: u64::from(epoch / 2),
            samples_per_second: f64::from(epoch / 400),
            ..EpochReport::default()
        }
    }

    fn values() -> impl Strategy<Value = Vec<u64>> {
        let near = |first: u64| {
            prop::collection::vec(-300_i64..300, 0..70)
                .prop_map(move |steps| steps.iter().map(|&step| first.wrapping_add_signed(step)).collect())
        };
        let line = (any::<u64>(), any::<u64>(), 0..70_u64);
        let line = line.prop_map(|(first, step, count)| {
            (0..count).map(|place| step.wrapping_mul(place).wrapping_add(first)).collect::<Vec<_>>()
        });
        prop_oneof![prop::collection::vec(any::<u64>(), 0..70), any::<u64>().prop_flat_map(near), line,]
    }

    proptest! {
        #[test]
        fn numbers_come_back_in_no_more_bytes_than_they_have(values in values()) {
            let mut bytes = Vec::new();
            let form = put_values(&mut bytes, &values);
            prop_assert!(bytes.len() <= 16.max(values.len() * 8));
            let back = decode_values(form, &bytes, values.len());
            prop_assert_eq!(back.as_ref(), Some(&values));
            if form != LINE {
                prop_assert_eq!(decode_values(form, &bytes[..bytes.len() - 1], values.len()), None);
            }
        }

        #[test]
        fn a_column_that_not_all_have_comes_back(values in prop::collection::vec(any::<Option<u64>>(), 0..40)) {
            let mut bytes = Vec::new();
            put_bits(&mut bytes, values.iter().map(Option::is_some));
            let form = PARTIAL | put_values(&mut bytes, &values.iter().copied().flatten().collect::<Vec<_>>());
            prop_assert_eq!(decode_column(form, &bytes, values.len()), Some(values));
        }

        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
            for (place, byte) in [MARK, FORMAT, 3, 0, 0, 0].into_iter().enumerate() {
                if let Some(there) = bytes.get_mut(place) {
                    *there = byte;
                }
            }
            let _ = decode(&bytes);
        }

        #[test]
        fn a_chunk_with_a_byte_changed_or_cut_off_never_panics(at in 0..200_usize, byte: u8) {
            let reports: Reports = [report(1), report(2), report(900)].iter().collect();
            let mut bytes = encode(&reports);
            let at = at % bytes.len();
            // What every report has may be there, and the rest missing.
            prop_assert!(decode(&bytes[..at]).as_ref() != Ok(&reports));
            bytes[at] = byte;
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn columns_that_do_not_rise_are_refused_and_new_ones_left_out() {
        let reports: Reports = [report(1), report(2)].iter().collect();
        let with = |number: u16, form: u8| {
            let column = [&number.to_le_bytes()[..], &[form, 0, 0, 0, 0]].concat();
            decode(&[encode(&reports), column].concat())
        };
        assert_eq!(with(u16::MAX, 9), Ok(reports.clone()));
        for column in [0, 32, 33] {
            assert_eq!(with(column, 0), Err("its columns are not in order"));
        }
    }

    #[test]
    fn one_report_takes_no_more_than_its_numbers_and_seven_bytes_for_each() {
        let reports: Reports = [report(3)].iter().collect();
        let (bytes, columns) = (encode(&reports), reports.columns().count());
        assert_eq!(decode(&bytes).as_ref(), Ok(&reports));
        assert!(bytes.len() <= HEAD_BYTES + columns * (COLUMN_HEAD_BYTES + WORD_BYTES), "{}", bytes.len());
    }

    #[test]
    fn reports_of_a_quick_training_take_an_eighth_of_what_they_are() {
        let reports: Reports = (1..=1_024).map(report).collect::<Vec<_>>().iter().collect();
        let bytes = encode(&reports);
        assert!(decode(&bytes).unwrap() == reports);
        assert!(bytes.len() < 9 * 1_024, "{}", bytes.len());
    }

    /// Where this fails, stored histories would be misread.
    #[test]
    fn the_bytes_are_those_of_the_format() {
        let metrics = |misclassified_rows| Metrics { misclassified_rows, ..Metrics::default() };
        let report = |epoch: u32, rows| EpochReport {
            epoch: 10 * epoch,
            loss: f64::from_bits([7, 9, 4][epoch as usize]),
            metrics: metrics(rows),
            learning_rate: f64::from_bits([u64::MAX / 2, 1 << 62, u64::MAX][epoch as usize]),
            ..EpochReport::default()
        };
        let reports: Reports = [report(0, None), report(1, Some(3)), report(2, Some(5))].iter().collect();
        let word = |value: u64| value.to_le_bytes().to_vec();
        let column = |number: u16, form: u8, bytes: Vec<u8>| {
            let head = [&number.to_le_bytes()[..], &[form], &(bytes.len() as u32).to_le_bytes()].concat();
            [head, bytes].concat()
        };
        let expected = [
            vec![0xC1, 1, 3, 0, 0, 0],
            column(0, 0, [word(0), word(10)].concat()),
            // +7, +2, −5, a byte each.
            column(1, 2, vec![0x11, 0x01, 14, 4, 9]),
            column(2, 1, [word(u64::MAX / 2), word(1 << 62), word(u64::MAX)].concat()),
            column(3, 0, [word(0), word(0)].concat()),
            column(4, 0, [word(0), word(0)].concat()),
            column(33, 0x80, [vec![0b110], word(3), word(2)].concat()),
        ]
        .concat();
        assert_eq!(encode(&reports), expected);
    }
}
