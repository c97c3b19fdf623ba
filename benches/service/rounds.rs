//! Rounds of what is compared, and their medians. The machine is shared: what is measured minutes apart is no pair.

/// Both, one after the other; in every second round the other way about, so that a minute that turns slow does not always meet the same.
pub fn in_turn<A, B>(
    round: usize,
    first: impl FnOnce() -> anyhow::Result<A>,
    second: impl FnOnce() -> anyhow::Result<B>,
) -> anyhow::Result<(A, B)> {
    if round.is_multiple_of(2) {
        let first = first()?;
        return Ok((first, second()?));
    }
    let second = second()?;
    Ok((first()?, second))
}

/// The middle one; of an even number the mean of both.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values = Vec::from_iter(values);
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
