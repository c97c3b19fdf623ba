//! The README's first command, on the data in `examples/data`, over many seeds.

use std::path::Path;

use crate::support::run;

/// The held-out accuracy that `epochd train` prints.
fn held_out_accuracy(folder: &Path, file: &str, target: &str, seed: u32) -> f64 {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(file);
    let file = file.to_str().unwrap();
    let output = run(folder, &["train", file, "--target", target, "--seed", &seed.to_string()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let line = said.lines().find_map(|line| line.strip_prefix("Held-out accuracy: ")).unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

fn accuracies(file: &str, target: &str, seeds: u32) -> (f64, f64) {
    let folder = tempfile::tempdir().unwrap();
    let all: Vec<f64> = (1..=seeds).map(|seed| held_out_accuracy(folder.path(), file, target, seed)).collect();
    let mean = all.iter().sum::<f64>() / f64::from(seeds);
    let lowest = all.iter().copied().fold(f64::INFINITY, f64::min);
    println!("{file}: mean {mean:.4}, lowest {lowest:.3} of {seeds} seeds");
    (mean, lowest)
}

#[test]
fn iris_is_classified_right_94_times_of_100_over_fifty_seeds_and_never_below_80() {
    let (mean, lowest) = accuracies("iris.csv", "species", 50);
    assert!(mean >= 0.94, "{mean}");
    assert!(lowest >= 0.80, "{lowest}");
}

#[test]
fn digits_are_classified_right_965_times_of_1000_over_five_seeds() {
    let (mean, _) = accuracies("digits.csv", "digit", 5);
    assert!(mean >= 0.965, "{mean}");
}
