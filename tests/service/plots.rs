//! Pictures that `epochd train` draws.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::support::*;

const IRIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/iris.csv");

/// A file of two columns and a target.
fn two_columns(folder: &Path, name: &str, target: impl Fn(f64, f64) -> String) -> String {
    let mut text = "east,north,target\n".to_owned();
    for row in 0..120 {
        let (x, y) = (f64::from(row % 12) / 11.0, f64::from(row / 12) / 9.0);
        writeln!(text, "{x},{y},{}", target(x, y)).unwrap();
    }
    let file = folder.join(name);
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_plot_shows_the_losses_and_for_two_inputs_what_the_model_says_around_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let is_right = |x: f64, _: f64| if x > 0.5 { "right" } else { "left" }.to_owned();
    let cases = [
        (two_columns(folder.path(), "classes.csv", is_right), "target", "target: what the model says"),
        (two_columns(folder.path(), "numbers.csv", |x, y| (x * y).to_string()), "target", "(light)"),
        (IRIS.to_owned(), "species", "iris: loss by epoch"),
    ];
    for (file, target, told) in cases {
        let picture = folder.path().join("picture.svg");
        let arguments = ["train", &file, "--target", target, "--epochs", "30", "--plot", picture.to_str().unwrap()];
        let output = run(folder.path(), &arguments);
        assert!(output.status.success(), "{output:?}");
        let picture = fs::read_to_string(&picture).unwrap();
        assert!(picture.starts_with("<svg ") && picture.contains("validation loss"), "{file}");
        assert!(picture.contains(told), "{file}");
        assert_eq!(picture.contains("north"), target == "target", "{file}: only two inputs make a plane");
    }
}

#[test]
fn a_plot_that_cannot_be_written_is_refused_before_the_training() {
    let folder = tempfile::tempdir().unwrap();
    for (plot, told) in [("loss.png", ".svg"), ("nowhere/loss.svg", "no folder nowhere")] {
        let output = run(folder.path(), &["train", IRIS, "--target", "species", "--plot", plot]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let told_of_it = String::from_utf8(output.stderr).unwrap();
        assert!(told_of_it.contains(told), "{told_of_it}");
    }
    assert!(!folder.path().join("epochd-data").exists());
}
