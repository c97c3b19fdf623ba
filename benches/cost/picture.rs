//! Curves over logarithmic axes, as SVG.

use std::ops::Range;
use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::{
    BLACK, ChartBuilder, Circle, Color as _, DrawingArea, IntoDrawingArea as _, IntoLogRange as _, LineSeries,
    RGBColor, SVGBackend, WHITE,
};

const SIZE: (u32, u32) = (760, 320);
const FONT: &str = "sans-serif";
const COLOR: RGBColor = RGBColor(0x1f, 0x6f, 0xeb);

/// A name, and points.
type Series<'a> = (&'a str, &'a [(f64, f64)]);

/// Draws the series side by side, over the same thing that grows.
pub fn draw(file: &Path, x: &str, series: &[Series<'_>]) -> anyhow::Result<()> {
    let canvas = SVGBackend::new(file, SIZE).into_drawing_area();
    let drawn = || -> Result<(), Box<dyn std::error::Error>> {
        canvas.fill(&WHITE)?;
        for (part, series) in canvas.split_evenly((1, series.len())).iter().zip(series) {
            draw_one(part, x, series)?;
        }
        Ok(canvas.present()?)
    };
    drawn().map_err(|error| anyhow!("{} cannot be drawn: {error}", file.display()))
}

fn draw_one(
    canvas: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    x: &str,
    &(name, points): &Series<'_>,
) -> Result<(), Box<dyn std::error::Error>> {
    let xs = range(points.iter().map(|point| point.0)).log_scale();
    let ys = range(points.iter().map(|point| point.1)).log_scale();
    let mut chart = ChartBuilder::on(canvas)
        .caption(name, (FONT, 15))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(xs, ys)?;
    chart
        .configure_mesh()
        .x_desc(x)
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .light_line_style(WHITE)
        .bold_line_style(BLACK.mix(0.12))
        .label_style((FONT, 12))
        .draw()?;
    chart.draw_series(LineSeries::new(points.iter().copied(), COLOR.stroke_width(2)))?;
    chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, COLOR.filled())))?;
    Ok(())
}

/// From a little below the least value to a little above the largest, and so far that two powers of ten, which alone have labels, are in it.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), it| (low.min(it), high.max(it)));
    let (low, high) = (low / 1.5, high * 1.5);
    let (first, last) = (low.log10().ceil(), high.log10().floor());
    if first < last {
        return low..high;
    }
    // A hair lower: a power of ten at the very beginning may be rounded out of it.
    0.999 * 10_f64.powf(low.log10().floor())..10_f64.powf(high.log10().ceil())
}

fn label(value: &f64) -> String {
    if (0.01..10_000.0).contains(value) { format!("{value}") } else { format!("{value:.0e}") }
}
