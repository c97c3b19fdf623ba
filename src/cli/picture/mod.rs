//! Pictures of a training as SVG: its losses by epoch, and what a model with two inputs says over the plane of them.

mod losses;
mod plane;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use plotters::coord::Shift;
use plotters::prelude::{DrawingArea, IntoDrawingArea as _, RGBColor, SVGBackend, WHITE};

pub(super) use losses::Losses;
pub(super) use plane::{Area, Plane};

/// Pixels of the losses, side by side with those of the plane.
const LOSSES_WIDTH: u32 = 640;
const PLANE_WIDTH: u32 = 460;
const HEIGHT: u32 = 360;
const FONT: &str = "sans-serif";
const TITLE_PIXELS: i32 = 15;
const LABEL_PIXELS: i32 = 12;
/// The colours of curves and of classes; they begin anew where there are more.
const COLORS: [RGBColor; 8] = [
    RGBColor(0x1f, 0x6f, 0xeb),
    RGBColor(0xd1, 0x49, 0x5b),
    RGBColor(0x2a, 0x9d, 0x8f),
    RGBColor(0xe9, 0xa0, 0x3b),
    RGBColor(0x7b, 0x5e, 0xa7),
    RGBColor(0x5c, 0x67, 0x7d),
    RGBColor(0x8c, 0x6d, 0x46),
    RGBColor(0xc7, 0x5d, 0xab),
];

/// A part of the picture to draw in.
type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The colour of a curve or class by its place.
fn color(place: usize) -> RGBColor {
    COLORS[place % COLORS.len()]
}

/// Where a picture goes: the name of an SVG file in a folder that is there, so that this is known before the training.
pub(super) fn file(name: &str) -> Result<PathBuf, String> {
    let file = PathBuf::from(name);
    if !file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("svg")) {
        return Err("pictures are SVG: let the name end in .svg".to_owned());
    }
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            Err(format!("there is no folder {}", folder.display()))
        }
        _ => Ok(file),
    }
}

/// Draws the losses, and beside them the plane where there is one, into a file.
pub(super) fn draw(file: &Path, title: &str, losses: &Losses, plane: Option<&Plane>) -> anyhow::Result<()> {
    std::fs::write(file, svg(title, losses, plane)?).with_context(|| format!("cannot write {}", file.display()))
}

fn svg(title: &str, losses: &Losses, plane: Option<&Plane>) -> anyhow::Result<String> {
    let mut text = String::new();
    let width = if plane.is_some() { LOSSES_WIDTH + PLANE_WIDTH } else { LOSSES_WIDTH };
    {
        let canvas = SVGBackend::with_string(&mut text, (width, HEIGHT)).into_drawing_area();
        let draw = || -> Result<(), Box<dyn std::error::Error>> {
            canvas.fill(&WHITE)?;
            let (left, right) = canvas.split_horizontally(LOSSES_WIDTH);
            losses.draw(&left, title)?;
            if let Some(plane) = plane {
                plane.draw(&right)?;
            }
            Ok(canvas.present()?)
        };
        draw().map_err(|error| anyhow!("the picture cannot be drawn: {error}"))?;
    }
    Ok(text)
}

/// The least and the largest of the numbers that are finite, and some room around a single one.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    match low.partial_cmp(&high) {
        Some(std::cmp::Ordering::Less) => (low, high),
        Some(std::cmp::Ordering::Equal) => (low - 0.5, high + 0.5),
        // There is no number at all.
        _ => (0.0, 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_svg_or_has_no_folder_is_refused_before_anything_is_done() {
        assert!(file("loss.png").unwrap_err().contains(".svg"));
        assert!(file("nowhere/at/all/loss.svg").unwrap_err().contains("nowhere/at/all"));
        assert_eq!(file("loss.SVG").unwrap(), PathBuf::from("loss.SVG"));
    }

    #[test]
    fn a_range_is_never_empty() {
        assert_eq!(range([2.0, 1.0, f64::NAN, f64::INFINITY].into_iter()), (1.0, 2.0));
        assert_eq!(range([3.0, 3.0].into_iter()), (2.5, 3.5));
        assert_eq!(range(std::iter::empty()), (0.0, 1.0));
    }
}
