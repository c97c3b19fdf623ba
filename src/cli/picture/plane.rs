//! What a model with two inputs says over the plane of them: the boundary between classes, or a number's height.

use plotters::prelude::{BLACK, ChartBuilder, Circle, Color as _, RGBColor, Rectangle, SeriesLabelPosition, WHITE};
use plotters::style::colors::colormaps::ViridisRGB;

use super::{Canvas, FONT, LABEL_PIXELS, TITLE_PIXELS, color, range};

/// Cells along each side.
const CELLS: usize = 120;
/// Part of the data's range that is shown beyond it on each side.
const BEYOND: f64 = 0.08;
/// Bands of a number's height.
const BANDS: f64 = 16.0;
/// Rows that are shown, at most.
const POINTS_MAX: usize = 2_000;
/// Classes that are named beside the plane, at most.
const NAMES_MAX: usize = 12;

/// A part of the plane, cut into cells.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Area {
    x: (f64, f64),
    y: (f64, f64),
}

impl Area {
    /// The area of rows of two numbers, with some room around them.
    pub(in crate::cli) fn around(rows: &[f64]) -> Self {
        let side = |column: usize| {
            let (low, high) = range(rows.iter().skip(column).step_by(2).copied());
            let room = (high - low) * BEYOND;
            (low - room, high + room)
        };
        Self { x: side(0), y: side(1) }
    }

    /// The middles of the cells, two numbers each, row after row from the lowest.
    pub(in crate::cli) fn middles(&self) -> Vec<f64> {
        let at = |(low, high): (f64, f64), cell: usize| low + (high - low) * (cell as f64 + 0.5) / CELLS as f64;
        (0..CELLS * CELLS).flat_map(|cell| [at(self.x, cell % CELLS), at(self.y, cell / CELLS)]).collect()
    }

    /// The corners of the cells from `first` to before `end` in a row of them.
    fn corners(&self, row: usize, first: usize, end: usize) -> [(f64, f64); 2] {
        let edge = |(low, high): (f64, f64), cell: usize| low + (high - low) * cell as f64 / CELLS as f64;
        [(edge(self.x, first), edge(self.y, row)), (edge(self.x, end), edge(self.y, row + 1))]
    }
}

/// What a model says in an area, and the rows that are known there.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Plane {
    /// Names of the two columns.
    pub names: [String; 2],
    /// What is predicted.
    pub target: String,
    /// Where.
    pub area: Area,
    /// What the model says at the middle of each cell: numbers, or indices of classes.
    pub said: Vec<f64>,
    /// Rows: two inputs and their target each.
    pub points: Vec<(f64, f64, f64)>,
    /// Names of the classes; empty for numbers.
    pub classes: Vec<String>,
}

impl Plane {
    pub(super) fn draw(&self, canvas: &Canvas<'_>) -> Result<(), Box<dyn std::error::Error>> {
        let Area { x, y } = self.area;
        let mut chart = ChartBuilder::on(canvas)
            .caption(self.title(), (FONT, TITLE_PIXELS))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .build_cartesian_2d(x.0..x.1, y.0..y.1)?;
        let hues = self.hues();
        let cells = self.bands(&hues).into_iter().map(|(corners, color)| Rectangle::new(corners, color.filled()));
        chart.draw_series(cells)?;
        chart
            .configure_mesh()
            .disable_mesh()
            .x_label_formatter(&|&at| label(at, x))
            .y_label_formatter(&|&at| label(at, y))
            .x_desc(&*self.names[0])
            .y_desc(&*self.names[1])
            .label_style((FONT, LABEL_PIXELS))
            .draw()?;
        let step = self.points.len().div_ceil(POINTS_MAX).max(1);
        for &(x, y, target) in self.points.iter().step_by(step) {
            chart.draw_series([
                Circle::new((x, y), 3, hues.of(target).filled()),
                Circle::new((x, y), 3, BLACK.mix(0.6).stroke_width(1)),
            ])?;
        }
        for (class, name) in self.classes.iter().take(NAMES_MAX).enumerate() {
            let dot = color(class).filled();
            chart
                .draw_series(std::iter::empty::<Circle<(f64, f64), i32>>())?
                .label(name)
                .legend(move |place| Circle::new(place, 4, dot));
        }
        if !self.classes.is_empty() {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .background_style(WHITE.mix(0.85))
                .label_font((FONT, LABEL_PIXELS))
                .draw()?;
        }
        Ok(())
    }

    fn title(&self) -> String {
        if self.classes.is_empty() {
            let (low, high) = self.heights();
            return format!("{} from {low:.3} (dark) to {high:.3} (light)", self.target);
        }
        format!("{}: what the model says", self.target)
    }

    fn heights(&self) -> (f64, f64) {
        range(self.said.iter().copied().chain(self.points.iter().map(|point| point.2)))
    }

    fn hues(&self) -> Hues {
        if self.classes.is_empty() { Hues::Height(self.heights()) } else { Hues::Class }
    }

    /// Neighbours of the same colour in a row of cells are one rectangle.
    fn bands(&self, hues: &Hues) -> Vec<([(f64, f64); 2], RGBColor)> {
        let mut bands = Vec::new();
        for (row, said) in self.said.chunks(CELLS).enumerate() {
            let mut first = 0;
            for end in 1..=said.len() {
                if end == said.len() || hues.pale(said[end]) != hues.pale(said[first]) {
                    bands.push((self.area.corners(row, first, end), hues.pale(said[first])));
                    first = end;
                }
            }
        }
        bands
    }
}

/// A number on an axis, with as many decimals as tell its labels apart.
fn label(value: f64, (low, high): (f64, f64)) -> String {
    let decimals = (1.0 - (high - low).log10().floor()).clamp(0.0, 12.0) as i32;
    let unit = 10f64.powi(decimals);
    // Adding 0 makes a plain 0 of a negative one.
    format!("{:.*}", decimals as usize, (value * unit).round() / unit + 0.0)
}

/// How what is said becomes a colour.
enum Hues {
    /// Each class has one.
    Class,
    /// From the least height to the largest.
    Height((f64, f64)),
}

impl Hues {
    fn of(&self, value: f64) -> RGBColor {
        match *self {
            Self::Class => color(value as usize),
            Self::Height((low, high)) => {
                let band = ((value - low) / (high - low) * BANDS).floor().clamp(0.0, BANDS - 1.0);
                ViridisRGB::get_color((band + 0.5) / BANDS)
            }
        }
    }

    /// Of what lies below the rows.
    fn pale(&self, value: f64) -> RGBColor {
        let RGBColor(red, green, blue) = self.of(value);
        let mixed = |part: u8| (f64::from(part) * 0.35 + 255.0 * 0.65).round() as u8;
        match self {
            Self::Class => RGBColor(mixed(red), mixed(green), mixed(blue)),
            Self::Height(_) => RGBColor(red, green, blue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Losses, svg};
    use super::*;

    fn plane(classes: &[&str], said: impl Fn(f64, f64) -> f64) -> Plane {
        let rows = [0.0, 0.0, 1.0, 1.0];
        let area = Area::around(&rows);
        let said = area.middles().chunks(2).map(|at| said(at[0], at[1])).collect();
        let points = vec![(0.0, 0.0, 0.0), (1.0, 1.0, 1.0)];
        let classes = classes.iter().map(|&name| name.to_owned()).collect();
        Plane { names: ["a".into(), "b".into()], target: "t".into(), area, said, points, classes }
    }

    #[test]
    fn an_area_has_room_around_its_rows_and_a_middle_for_each_cell() {
        let area = Area::around(&[0.0, 10.0, 1.0, 20.0]);
        assert_eq!((area.x, area.y), ((-0.08, 1.08), (9.2, 20.8)));
        let middles = area.middles();
        assert_eq!(middles.len(), 2 * CELLS * CELLS);
        assert!(middles.chunks(2).all(|at| -0.08 < at[0] && at[0] < 1.08 && 9.2 < at[1] && at[1] < 20.8));
        assert!(middles[0] < middles[2] && middles[1] == middles[3] && middles[1] < middles[2 * CELLS + 1]);
    }

    #[test]
    fn labels_have_the_decimals_that_their_axis_needs() {
        assert_eq!(label(-1e-17, (-1.1, 1.1)), "0.0");
        assert_eq!(label(0.25, (0.0, 0.5)), "0.25");
        assert_eq!(label(1500.0, (0.0, 9000.0)), "1500");
    }

    #[test]
    fn one_boundary_makes_two_bands_a_row() {
        let plane = plane(&["no", "yes"], |a, _| f64::from(u8::from(a > 0.5)));
        let bands = plane.bands(&plane.hues());
        assert_eq!(bands.len(), 2 * CELLS);
        assert!(bands.iter().all(|([low, high], _)| low.0 < high.0 && low.1 < high.1));
        let picture = svg("title", &Losses::default(), Some(&plane)).unwrap();
        assert!(picture.contains("yes") && picture.contains("t: what the model says"), "{picture}");
    }

    #[test]
    fn a_number_is_shown_by_its_height() {
        let plane = plane(&[], |a, b| a + b);
        let hues = plane.hues();
        assert_ne!(hues.of(0.0), hues.of(1.0));
        assert!(plane.bands(&hues).len() < 16 * CELLS);
        assert!(svg("title", &Losses::default(), Some(&plane)).unwrap().contains("(light)"));
    }
}
