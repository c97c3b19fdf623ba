//! Tables as they stand in the docs.

/// Prints a row; the first column is of text.
pub fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

/// Prints the titles, after an empty line.
pub fn head(titles: &[&str]) {
    println!("\n| {} |", titles.join(" | "));
    println!("|---|{}", "---:|".repeat(titles.len() - 1));
}

/// Whether a number is where it must be.
pub fn verdict(is_met: bool) -> String {
    if is_met { "must" } else { "below" }.to_owned()
}
