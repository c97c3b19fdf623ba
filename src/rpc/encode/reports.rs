//! Reports to the wire as bytes: where a job reports two million epochs a second, a message as a struct of each costs more than to train
//! it. The bytes are those that prost writes.

use crate::domain::{LayerDiagnostics, ReportRow, Reports};
use crate::rpc::pb;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;

/// Bytes that a report without validation takes, about.
const REPORT_BYTES: usize = 72;

/// The place of `misclassified_rows` among the words of metrics, which are in the order of the message's fields otherwise too.
const MISCLASSIFIED_ROWS: usize = 1;

/// Reports, in order.
pub(super) fn epoch_reports(reports: &Reports) -> pb::EpochReports {
    let mut bytes = Vec::with_capacity(reports.len() * REPORT_BYTES);
    for row in reports.rows() {
        put_message(&mut bytes, 1, |bytes| put_report(bytes, row));
    }
    pb::EpochReports { reports: Vec::new(), written: bytes.into() }
}

fn put_report(bytes: &mut Vec<u8>, row: ReportRow<'_>) {
    put_whole(bytes, 1, i64::from(row.epoch() as i32));
    put_number(bytes, 2, row.loss());
    if let Some(loss) = row.validation_loss() {
        put_bits(bytes, 3, loss.to_bits());
    }
    put_message(bytes, 4, |bytes| put_metrics(bytes, row.metrics()));
    if let Some(metrics) = row.validation_metrics() {
        put_message(bytes, 5, |bytes| put_metrics(bytes, metrics));
    }
    put_number(bytes, 6, row.learning_rate());
    put_message(bytes, 7, |bytes| {
        let (seconds, micros) = (row.elapsed_micros() / 1_000_000, row.elapsed_micros() % 1_000_000);
        put_whole(bytes, 1, seconds as i64);
        put_whole(bytes, 2, micros as i64 * 1_000);
    });
    put_number(bytes, 8, row.samples_per_second());
    for layer in row.diagnostics() {
        put_message(bytes, 9, |bytes| put_layer(bytes, layer));
    }
}

/// Metrics that were told have a field, also where they are 0.
fn put_metrics(bytes: &mut Vec<u8>, metrics: impl Iterator<Item = (usize, u64)>) {
    for (place, word) in metrics {
        let field = place as u64 + 1;
        if place == MISCLASSIFIED_ROWS {
            put_key(bytes, field, VARINT);
            put_varint(bytes, i64::from(word as i32) as u64);
        } else {
            put_bits(bytes, field, word);
        }
    }
}

fn put_layer(bytes: &mut Vec<u8>, layer: LayerDiagnostics) {
    let LayerDiagnostics { gradient_norm, weight_norm, update_ratio, dead_units } = layer;
    for (number, field) in [gradient_norm, weight_norm, update_ratio, dead_units].into_iter().zip(1..) {
        put_number(bytes, field, number);
    }
}

/// A field of a message type, written by `put`.
#[inline]
fn put_message(bytes: &mut Vec<u8>, field: u64, put: impl FnOnce(&mut Vec<u8>)) {
    put_key(bytes, field, LENGTH_DELIMITED);
    // Most have a length of one byte. Others are moved by what more it takes.
    bytes.push(0);
    let start = bytes.len();
    put(bytes);
    let end = bytes.len();
    let length = end - start;
    if length < 0x80 {
        bytes[start - 1] = length as u8;
        return;
    }
    put_varint(bytes, length as u64);
    let length_bytes = bytes.len() - end;
    bytes[start - 1..].rotate_right(length_bytes);
    // What stood for it is behind it now.
    bytes.remove(start - 1 + length_bytes);
}

/// A whole number that is left out where it is 0.
#[inline]
fn put_whole(bytes: &mut Vec<u8>, field: u64, value: i64) {
    if value != 0 {
        put_key(bytes, field, VARINT);
        put_varint(bytes, value as u64);
    }
}

/// A number that is left out where it is 0.
#[inline]
fn put_number(bytes: &mut Vec<u8>, field: u64, value: f64) {
    if value != 0.0 {
        put_bits(bytes, field, value.to_bits());
    }
}

#[inline]
fn put_bits(bytes: &mut Vec<u8>, field: u64, bits: u64) {
    put_key(bytes, field, FIXED64);
    bytes.extend_from_slice(&bits.to_le_bytes());
}

#[inline]
fn put_key(bytes: &mut Vec<u8>, field: u64, wire_type: u64) {
    put_varint(bytes, field << 3 | wire_type);
}

#[inline]
fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::super::training::epoch_report;
    use super::*;
    use crate::domain::{EpochReport, Metrics};

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![any::<f64>(), Just(0.0), Just(-0.0), Just(f64::NAN), Just(f64::INFINITY), Just(0.1)]
    }

    fn metrics() -> impl Strategy<Value = Metrics> {
        let words = prop::collection::vec(proptest::option::of(number()), Metrics::COUNT);
        (words, proptest::option::of(any::<u64>())).prop_map(|(words, misclassified_rows)| {
            let words = words.into_iter().enumerate().filter_map(|(place, word)| Some((place, word?.to_bits())));
            Metrics { misclassified_rows, ..Metrics::from_words(words) }
        })
    }

    fn report() -> impl Strategy<Value = EpochReport> {
        let layer = [number(), number(), number(), number()].prop_map(|[a, b, c, d]| LayerDiagnostics {
            gradient_norm: a,
            weight_norm: b,
            update_ratio: c,
            dead_units: d,
        });
        let layers = prop::collection::vec(layer, 0..3);
        let elapsed_micros = prop_oneof![0..3_000_000_u64, any::<u64>()];
        let numbers = (number(), proptest::option::of(number()), number(), number());
        (any::<u32>(), numbers, metrics(), proptest::option::of(metrics()), elapsed_micros, layers).prop_map(
            |(epoch, numbers, metrics, validation_metrics, elapsed_micros, diagnostics)| EpochReport {
                epoch,
                loss: numbers.0,
                validation_loss: numbers.1,
                metrics,
                validation_metrics,
                learning_rate: numbers.2,
                elapsed_micros,
                samples_per_second: numbers.3,
                diagnostics,
            },
        )
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_that_prost_writes(reports in prop::collection::vec(report(), 0..6)) {
            let written = epoch_reports(&reports.iter().collect()).encode_to_vec();
            let messages: Vec<_> = reports.iter().map(epoch_report).collect();
            let expected = pb::EpochReports { reports: messages, ..Default::default() };
            prop_assert_eq!(&written, &expected.encode_to_vec());
            prop_assert_eq!(written.len(), expected.encoded_len());
            // NaN is not equal to itself, its bytes are.
            let read = pb::EpochReports::decode(written.as_slice()).unwrap();
            prop_assert_eq!(read.reports.len(), reports.len());
            prop_assert_eq!(read.encode_to_vec(), written);
        }
    }
}
