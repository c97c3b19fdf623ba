use proptest::prelude::*;

use super::*;

fn metrics() -> impl Strategy<Value = Metrics> {
    let words = prop::collection::vec(prop_oneof![3 => Just(None), 1 => any::<u64>().prop_map(Some)], Metrics::COUNT);
    words
        .prop_map(|words| Metrics::from_words(words.into_iter().enumerate().filter_map(|(at, word)| Some((at, word?)))))
}

fn layers() -> impl Strategy<Value = Vec<LayerDiagnostics>> {
    let layer = any::<[f64; 4]>().prop_map(|[gradient_norm, weight_norm, update_ratio, dead_units]| LayerDiagnostics {
        gradient_norm,
        weight_norm,
        update_ratio,
        dead_units,
    });
    prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(layer, 0..3)]
}

/// Any reports, alike or not.
pub fn reports() -> impl Strategy<Value = Vec<EpochReport>> {
    let times = (any::<f64>(), any::<u64>(), any::<f64>());
    let losses = (any::<f64>(), any::<Option<f64>>());
    let report = (losses, metrics(), proptest::option::of(metrics()), times, layers()).prop_map(
        |((loss, validation_loss), metrics, validation_metrics, times, diagnostics)| EpochReport {
            epoch: 0,
            loss,
            validation_loss,
            metrics,
            validation_metrics,
            learning_rate: times.0,
            elapsed_micros: times.1,
            samples_per_second: times.2,
            diagnostics,
        },
    );
    let steps = prop::collection::vec(1..5_u32, 0..20);
    (prop::collection::vec(report, 0..20), steps).prop_map(|(mut reports, steps)| {
        let mut epoch = 0;
        for (report, step) in reports.iter_mut().zip(steps.into_iter().chain(std::iter::repeat(1))) {
            epoch += step;
            report.epoch = epoch;
        }
        reports
    })
}

fn words(metrics: Metrics) -> Vec<(usize, u64)> {
    let mut words = Vec::new();
    metrics.for_each_word(|place, word| words.push((place, word)));
    words
}

/// What tells two reports apart, NaN from NaN too.
fn text(report: &EpochReport) -> String {
    let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let layers = report.diagnostics.iter().flat_map(layer_words).collect::<Vec<_>>();
    let validation = (report.validation_loss.map(f64::to_bits), report.validation_metrics.map(words));
    let plain = bits(&[report.loss, report.learning_rate, report.samples_per_second]);
    format!("{:?}", (report.epoch, plain, report.elapsed_micros, words(report.metrics), validation, layers))
}

fn texts(reports: &[EpochReport]) -> Vec<String> {
    reports.iter().map(text).collect()
}

proptest! {
    #[test]
    fn reports_come_back_bit_for_bit_and_in_order(reports in reports()) {
        let all: Reports = reports.iter().collect();
        prop_assert_eq!(all.len(), reports.len());
        let back: Vec<_> = all.rows().map(|row| row.report()).collect();
        prop_assert_eq!(texts(&back), texts(&reports));
        prop_assert_eq!(all.last().as_ref().map(text), reports.last().map(text));
        prop_assert!(all.get(reports.len()).is_none());
    }

    #[test]
    fn a_part_equals_what_was_made_of_its_reports(reports in reports(), start in 0..22_usize, length in 0..22_usize) {
        let all: Reports = reports.iter().collect();
        let part = all.part(start..start + length);
        let expected: Reports = reports.iter().skip(start).take(length).collect();
        prop_assert!(part == expected);
        prop_assert_eq!(part == all, expected.len() == all.len());
        // One that is grown goes on as if it had been whole.
        let mut appended = part.clone();
        appended.append(&all, 0..all.len());
        let mut grown = part;
        reports.iter().for_each(|report| grown.push(report));
        let expected: Vec<_> = expected.rows().map(|row| row.report()).chain(reports.iter().cloned()).collect();
        let back: Vec<_> = grown.rows().map(|row| row.report()).collect();
        prop_assert_eq!(texts(&back), texts(&expected));
        prop_assert!(appended == grown);
    }

    #[test]
    fn what_is_appended_to_any_others_comes_after_them(
        one in reports(),
        other in reports(),
        start in 0..22_usize,
        length in 0..22_usize,
        is_cleared: bool,
    ) {
        let mut grown: Reports = one.iter().collect();
        let before = if is_cleared { &[] } else { one.as_slice() };
        if is_cleared {
            grown.clear();
        }
        grown.append(&other.iter().collect(), start..start + length);
        let expected: Reports = before.iter().chain(other.iter().skip(start).take(length)).collect();
        prop_assert!(grown == expected);
    }

    #[test]
    fn those_before_an_epoch_are_left_out(reports in reports(), epoch in 0..40_u32) {
        let mut all: Reports = reports.iter().collect();
        all.skip_before(epoch);
        let expected: Reports = reports.iter().filter(|report| report.epoch >= epoch).collect();
        prop_assert!(all == expected);
    }
}

#[test]
fn reports_that_are_alike_take_a_word_for_each_number() {
    let metrics = Metrics { accuracy: Some(0.5), misclassified_rows: Some(2), ..Metrics::default() };
    let report = |epoch| EpochReport { epoch, metrics, ..EpochReport::default() };
    let all: Reports = (1..=1_024).map(report).collect::<Vec<_>>().iter().collect();
    assert_eq!(all.words.len(), 1_024 * (FIXED + 2));
    assert!(all.bytes() < 1_024 * 8 * (FIXED + 2) + 100);
}

proptest! {
    #[test]
    fn reports_come_back_from_their_columns(reports in reports()) {
        let all: Reports = reports.iter().collect();
        let columns: Vec<(u16, Vec<Option<u64>>)> =
            all.columns().map(|column| (column, all.column(column).collect())).collect();
        prop_assert!(columns.is_sorted_by_key(|(column, _)| *column));
        let newer = (31, vec![Some(1); all.len()]);
        let with_newer: Vec<_> = columns.iter().cloned().chain([newer]).collect();
        prop_assert!(Reports::from_columns(all.len(), &with_newer).unwrap() == all);
        for missing in 0..5 {
            let rest: Vec<_> = columns.iter().filter(|(column, _)| *column != missing).cloned().collect();
            prop_assert!(Reports::from_columns(all.len(), &rest).is_none());
        }
    }
}

/// Where this fails, stored histories would be misread.
#[test]
fn the_numbers_of_columns_are_part_of_the_format() {
    let number = |place: u64| (place as usize, f64::from(place as u32).to_bits());
    let layer = LayerDiagnostics { gradient_norm: 50.0, weight_norm: 51.0, update_ratio: 52.0, dead_units: 53.0 };
    let report = EpochReport {
        epoch: 1,
        loss: 2.0,
        validation_loss: Some(3.0),
        metrics: Metrics::from_words((0..17).map(number)),
        validation_metrics: Some(Metrics::from_words((0..17).map(|place| (place, (place as u64) << 32)))),
        learning_rate: 4.0,
        elapsed_micros: 5,
        samples_per_second: 6.0,
        diagnostics: vec![layer; 2],
    };
    let all: Reports = [report].iter().collect();
    let told: Vec<(u16, u64)> =
        all.columns().map(|column| (column, all.column(column).next().flatten().unwrap())).collect();
    let plain = [(0, 1), (1, 2.0_f64.to_bits()), (2, 4.0_f64.to_bits()), (3, 5), (4, 6.0_f64.to_bits())];
    let mut expected = plain.to_vec();
    expected.extend([(5, 3.0_f64.to_bits()), (6, 1)]);
    expected.extend((0..17).map(|place| (32 + place, f64::from(place).to_bits())));
    expected.extend((0..17).map(|place| (96 + place, u64::from(place) << 32)));
    expected.extend((0..8).map(|place| (256 + place, f64::from(50 + place % 4).to_bits())));
    assert_eq!(told, expected);
}
