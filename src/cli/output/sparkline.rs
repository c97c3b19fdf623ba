//! A curve in one line of text, on a logarithmic scale where there is one: a loss falls by factors.

const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The values as a line of `width` characters at most, each the mean of its share of them.
pub(in crate::cli) fn sparkline(values: &[f64], width: usize) -> String {
    let width = width.min(values.len());
    let means = (0..width).map(|column| {
        let share = &values[column * values.len() / width..(column + 1) * values.len() / width];
        share.iter().sum::<f64>() / share.len() as f64
    });
    let mut means: Vec<f64> = means.collect();
    if means.iter().all(|&mean| mean > 0.0) {
        means.iter_mut().for_each(|mean| *mean = mean.ln());
    }
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let span = means.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low;
    let level = |mean: &f64| if span > 0.0 { ((mean - low) / span * 7.0).round() as usize } else { 0 };
    means.iter().map(|mean| LEVELS[level(mean).min(7)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_loss_falls_from_left_to_right() {
        assert_eq!(sparkline(&[128.0, 64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0], 8), "█▇▆▅▄▃▂▁");
        assert_eq!(sparkline(&[7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0], 8), "█▇▆▅▄▃▂▁");
        assert_eq!(sparkline(&[4.0, 4.0, 1.0, 1.0], 2), "█▁");
        assert_eq!(sparkline(&[1.0; 3], 10), "▁▁▁");
        assert_eq!(sparkline(&[], 10), "");
    }
}
