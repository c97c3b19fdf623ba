//! Tables as they stand in the docs, and medians.

/// Prints a row; the first column is of text.
pub fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

/// Prints the titles, after an empty line.
pub fn head(titles: &[&str]) {
    println!("\n| {} |", titles.join(" | "));
    println!("|---|{}", "---:|".repeat(titles.len() - 1));
}

/// The middle one; of an even number the mean of both.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Whether a number is where it must be.
pub fn verdict(is_met: bool) -> String {
    if is_met { "must" } else { "below" }.to_owned()
}
