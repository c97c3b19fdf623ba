//! A loss curve as a picture: SVG, which needs no library to write and every browser to read.

use std::fmt::Write as _;

use crate::rpc::pb;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 40.0;
/// Points of one curve: more than there are pixels show nothing.
const POINTS_MAX: usize = 1_000;
const TICKS: usize = 4;

/// The training and, where there is one, the validation loss of a job, by epoch.
pub(in crate::cli) fn svg(title: &str, reports: &[pb::EpochReport]) -> String {
    let training: Vec<(f64, f64)> = reports.iter().map(|it| (f64::from(it.epoch), it.loss)).collect();
    let validation = reports.iter().filter_map(|it| Some((f64::from(it.epoch), it.validation_loss?)));
    let validation: Vec<(f64, f64)> = validation.collect();
    let plane = Plane::around(training.iter().chain(&validation));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>
<text x="{LEFT}" y="20" font-size="14">{}</text>
"##,
        escaped(title)
    );
    plane.draw_grid(&mut text);
    plane.draw_curve(&mut text, &training, "#1f6feb", "loss", 0);
    if !validation.is_empty() {
        plane.draw_curve(&mut text, &validation, "#d1540b", "validation loss", 1);
    }
    text.push_str("</svg>\n");
    text
}

/// From epochs and losses to places in the picture.
struct Plane {
    epochs: (f64, f64),
    losses: (f64, f64),
}

impl Plane {
    fn around<'a>(points: impl Iterator<Item = &'a (f64, f64)> + Clone) -> Self {
        let range = |values: &mut dyn Iterator<Item = f64>| {
            let (low, high) =
                values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
            if low < high { (low, high) } else { (low.min(0.0), high.max(1.0)) }
        };
        let losses = range(&mut points.clone().map(|point| point.1));
        Self { epochs: range(&mut points.map(|point| point.0)), losses: (losses.0.min(0.0), losses.1) }
    }

    fn x(&self, epoch: f64) -> f64 {
        LEFT + (epoch - self.epochs.0) / (self.epochs.1 - self.epochs.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, loss: f64) -> f64 {
        HEIGHT - BOTTOM - (loss - self.losses.0) / (self.losses.1 - self.losses.0) * (HEIGHT - TOP - BOTTOM)
    }

    fn draw_grid(&self, text: &mut String) {
        for tick in 0..=TICKS {
            let share = tick as f64 / TICKS as f64;
            let loss = self.losses.0 + share * (self.losses.1 - self.losses.0);
            let epoch = (self.epochs.0 + share * (self.epochs.1 - self.epochs.0)).round();
            let (x, y) = (self.x(epoch), self.y(loss));
            let (end, label) = (WIDTH - RIGHT, HEIGHT - BOTTOM + 18.0);
            let _ = write!(
                text,
                r##"<line x1="{LEFT}" y1="{y:.1}" x2="{end}" y2="{y:.1}" stroke="#ddd"/>
<text x="{:.1}" y="{:.1}" text-anchor="end">{loss:.3}</text>
<text x="{x:.1}" y="{label}" text-anchor="middle">{epoch}</text>
"##,
                LEFT - 8.0,
                y + 4.0
            );
        }
        let (x, y) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 6.0);
        let _ = writeln!(text, r##"<text x="{x}" y="{y}" text-anchor="middle" fill="#555">epoch</text>"##);
    }

    fn draw_curve(&self, text: &mut String, points: &[(f64, f64)], color: &str, name: &str, place: usize) {
        let step = points.len().div_ceil(POINTS_MAX).max(1);
        let last = points.len().saturating_sub(1);
        let shown = points.iter().enumerate().filter(|(index, _)| index % step == 0 || *index == last);
        let places: Vec<String> =
            shown.map(|(_, &(epoch, loss))| format!("{:.1},{:.1}", self.x(epoch), self.y(loss))).collect();
        let (x, y) = (WIDTH - RIGHT - 8.0, TOP + 12.0 + 16.0 * place as f64);
        let _ = write!(
            text,
            r##"<polyline fill="none" stroke="{color}" stroke-width="1.5" points="{}"/>
<text x="{x}" y="{y}" text-anchor="end" fill="{color}">{name}</text>
"##,
            places.join(" ")
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports(count: i32) -> Vec<pb::EpochReport> {
        let report = |epoch: i32| pb::EpochReport { epoch, loss: 1.0 / f64::from(epoch), ..Default::default() };
        (1..=count).map(report).collect()
    }

    #[test]
    fn a_curve_begins_at_the_top_left_and_ends_low_on_the_right() {
        let picture = svg("a < b", &reports(10));
        assert!(picture.contains("a &lt; b") && picture.ends_with("</svg>\n"));
        assert!(picture.contains(r#"points="64.0,36.0 "#), "{picture}");
        assert!(picture.contains("624.0,"), "{picture}");
        assert!(!picture.contains("validation"));
    }

    #[test]
    fn a_long_job_makes_no_longer_picture_and_one_epoch_makes_one() {
        assert!(svg("long", &reports(100_000)).len() < 30_000);
        for picture in [svg("one", &reports(1)), svg("none", &[])] {
            assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
        }
    }
}
