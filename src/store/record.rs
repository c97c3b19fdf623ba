//! The envelope of every record: `[format u8][revision u64][payload][checksum u64]`, numbers little-endian.
//!
//! The checksum is xxh3 over all before it, seeded by the key: a record found under another's key is as wrong as one with
//! a flipped bit. redb verifies none of its own when it reads, so this is what stands between a bad disk and a caller.

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::error::StoreError;

const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 1 + 8;
const CHECKSUM_BYTES: usize = 8;

/// A record's value with the revision that compare-and-set expects.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored<T> {
    pub revision: u64,
    pub value: T,
}

/// A value as MessagePack with field names: exact floats, room for new fields.
pub(super) fn encode<T: Serialize>(key: &str, value: &T) -> Result<Vec<u8>, StoreError> {
    rmp_serde::to_vec_named(value)
        .map_err(|error| StoreError::Encoding { key: key.to_owned(), reason: error.to_string() })
}

/// The bytes to store.
pub(super) fn seal(key: &str, revision: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len() + CHECKSUM_BYTES);
    bytes.push(FORMAT);
    bytes.extend_from_slice(&revision.to_le_bytes());
    bytes.extend_from_slice(payload);
    let checksum = checksum(key, &bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The revision and the payload of stored bytes, verified.
pub(super) fn open<'a>(key: &str, bytes: &'a [u8]) -> Result<(u64, &'a [u8]), StoreError> {
    let corrupt = || StoreError::corrupt(key);
    let (body, told) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(corrupt)?;
    if checksum(key, body) != u64::from_le_bytes(*told) {
        return Err(corrupt());
    }
    let (&format, rest) = body.split_first().ok_or_else(corrupt)?;
    let (revision, payload) = rest.split_first_chunk::<8>().ok_or_else(corrupt)?;
    if format != FORMAT {
        return Err(StoreError::corrupt(format!("{key} (record format {format} is unknown)")));
    }
    Ok((u64::from_le_bytes(*revision), payload))
}

/// The value of stored bytes, verified.
pub(super) fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<Stored<T>, StoreError> {
    let (revision, payload) = open(key, bytes)?;
    let value = rmp_serde::from_slice(payload).map_err(|error| StoreError::corrupt(format!("{key} ({error})")))?;
    Ok(Stored { revision, value })
}

fn checksum(key: &str, body: &[u8]) -> u64 {
    xxh3_64_with_seed(body, xxh3_64(key.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_reads_back_and_any_flipped_bit_is_noticed(
            payload in proptest::collection::vec(any::<u8>(), 0..64), revision: u64, at: usize, bit in 0..8_u32,
        ) {
            let mut bytes = seal("default/a", revision, &payload);
            prop_assert_eq!(open("default/a", &bytes).unwrap(), (revision, payload.as_slice()));
            prop_assert!(open("default/b", &bytes).is_err());
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let is_told = matches!(open("default/a", &bytes), Err(StoreError::Corrupt { what }) if what == "default/a");
            prop_assert!(is_told);
        }

        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(decode::<String>("default/a", &bytes).is_err());
            prop_assert!(decode::<Vec<u64>>("default/a", &seal("default/a", 1, &bytes)).is_err() || !bytes.is_empty());
        }
    }
}
