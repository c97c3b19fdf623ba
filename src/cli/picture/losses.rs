//! Losses by epoch.

use plotters::prelude::{BLACK, ChartBuilder, Color as _, LineSeries, PathElement, SeriesLabelPosition, WHITE};

use super::{Canvas, FONT, LABEL_PIXELS, TITLE_PIXELS, color, range};
use crate::rpc::pb;

/// Points of one curve: more than there are pixels show nothing.
const POINTS_MAX: usize = 1_000;

/// The losses of the epochs that were reported, of the training rows and, where there are any, of those that validate.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Losses {
    training: Vec<(f64, f64)>,
    validation: Vec<(f64, f64)>,
}

impl Losses {
    /// Adds an epoch.
    pub(in crate::cli) fn add(&mut self, report: &pb::EpochReport) {
        let epoch = f64::from(report.epoch);
        self.training.push((epoch, report.loss));
        self.validation.extend(report.validation_loss.map(|loss| (epoch, loss)));
    }

    /// Draws the curves from 0, or from below where a loss is.
    pub(super) fn draw(&self, canvas: &Canvas<'_>, title: &str) -> Result<(), Box<dyn std::error::Error>> {
        let points = || self.training.iter().chain(&self.validation);
        let (first, last) = range(points().map(|point| point.0));
        let (low, high) = range(points().map(|point| point.1));
        let mut chart = ChartBuilder::on(canvas)
            .caption(title, (FONT, TITLE_PIXELS))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(first..last, low.min(0.0)..high.max(0.0))?;
        chart
            .configure_mesh()
            .x_desc("epoch")
            .x_label_formatter(&|epoch| format!("{epoch:.0}"))
            .light_line_style(WHITE)
            .bold_line_style(BLACK.mix(0.12))
            .label_style((FONT, LABEL_PIXELS))
            .draw()?;
        for (place, (name, curve)) in
            [("loss", &self.training), ("validation loss", &self.validation)].into_iter().enumerate()
        {
            if curve.is_empty() {
                continue;
            }
            let style = color(place).stroke_width(2);
            chart
                .draw_series(LineSeries::new(thinned(curve), style))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE)
            .label_font((FONT, LABEL_PIXELS))
            .draw()?;
        Ok(())
    }
}

/// As many points as can be seen, the last among them.
fn thinned(curve: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    let step = curve.len().div_ceil(POINTS_MAX).max(1);
    let last = curve.len().saturating_sub(1);
    let is_shown = move |&(index, point): &(usize, &(f64, f64))| {
        (index.is_multiple_of(step) || index == last) && point.1.is_finite()
    };
    curve.iter().enumerate().filter(is_shown).map(|(_, &point)| point)
}

#[cfg(test)]
mod tests {
    use super::super::svg;
    use super::*;

    fn losses(count: i32) -> Losses {
        let mut losses = Losses::default();
        for epoch in 1..=count {
            losses.add(&pb::EpochReport { epoch, loss: 1.0 / f64::from(epoch), ..Default::default() });
        }
        losses
    }

    #[test]
    fn a_picture_has_its_title_and_a_curve_for_each_loss() {
        let picture = svg("a < b", &losses(10), None).unwrap();
        assert!(picture.contains("a &lt; b") && picture.trim_end().ends_with("</svg>"), "{picture}");
        assert!(picture.contains(">\nloss\n<") && !picture.contains("validation"), "{picture}");
        let mut both = losses(9);
        both.add(&pb::EpochReport { epoch: 10, validation_loss: Some(0.5), ..Default::default() });
        assert!(svg("", &both, None).unwrap().contains("validation loss"));
    }

    #[test]
    fn a_long_job_makes_no_longer_picture_and_one_epoch_or_none_makes_one() {
        assert!(svg("long", &losses(100_000), None).unwrap().len() < 40_000);
        for count in [0, 1] {
            let picture = svg("short", &losses(count), None).unwrap();
            assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
        }
    }
}
