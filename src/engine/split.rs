//! Which rows are held out: seeded, and in proportion for each class.

pub use super::random::Purpose;
use super::random::Stream;

/// Draws `held_out` of `rows` rows. Returns the indices that are kept and those that are held out, each in rising order:
/// which rows they are is random, their order is the data's, so that a training without shuffling visits the rows as they
/// were sent.
///
/// With `strata`, the class of each row, every class gives its share by largest remainder, and one of two rows or more keeps
/// at least one (as long as `held_out` allows it: exactly that many are held out in any case).
///
/// # Panics
/// Where there are 2³² rows or more, or where more are to be held out than there are: a bug of ours.
pub fn split(
    rows: usize,
    held_out: usize,
    strata: Option<&[u32]>,
    seed: u64,
    purpose: Purpose,
) -> (Vec<u32>, Vec<u32>) {
    assert!(held_out <= rows, "{held_out} of {rows} rows held out");
    #[expect(clippy::expect_used, reason = "a message has less than 2³² bytes, and a row more than one")]
    let rows = u32::try_from(rows).expect("fewer rows than 2³²");
    let mut order: Vec<u32> = (0..rows).collect();
    Stream::new(seed, purpose, 0, 0).shuffle(&mut order);

    let Some(strata) = strata else {
        let kept = order.split_off(held_out);
        return (sorted(kept), sorted(order));
    };
    let mut quotas = class_quotas(strata, held_out);
    let (mut kept, mut held) = (Vec::with_capacity(order.len() - held_out), Vec::with_capacity(held_out));
    for row in order {
        let quota = &mut quotas[strata[row as usize] as usize];
        let part = if *quota > 0 { &mut held } else { &mut kept };
        *quota = quota.saturating_sub(1);
        part.push(row);
    }
    (sorted(kept), sorted(held))
}

fn sorted(mut rows: Vec<u32>) -> Vec<u32> {
    rows.sort_unstable();
    rows
}

/// How many rows of each class are held out, `held_out` together. Largest remainder: first each class's share rounded down,
/// then one row more for those whose share lost most by that; ties go to the lower class.
fn class_quotas(strata: &[u32], held_out: usize) -> Vec<usize> {
    let classes = strata.iter().max().map_or(0, |&class| class as usize + 1);
    let mut counts = vec![0; classes];
    strata.iter().for_each(|&class| counts[class as usize] += 1);

    let share = |count: usize| count as u128 * held_out as u128;
    let rows = strata.len().max(1) as u128;
    let mut quotas: Vec<usize> = counts.iter().map(|&count| (share(count) / rows) as usize).collect();
    let mut by_remainder: Vec<usize> = (0..classes).collect();
    by_remainder.sort_by_key(|&class| std::cmp::Reverse(share(counts[class]) % rows));

    // The last row of a class is taken only when nothing else is left to take.
    let keep_one = |count: usize| count.saturating_sub(1);
    quotas.iter_mut().zip(&counts).for_each(|(quota, &count)| *quota = (*quota).min(keep_one(count)));
    let mut missing = held_out - quotas.iter().sum::<usize>();
    let single = |count: usize| if count == 1 { 1 } else { keep_one(count) };
    let limits: [&dyn Fn(usize) -> usize; 3] = [&keep_one, &single, &|count| count];
    for limit in limits {
        let mut is_moving = true;
        while missing > 0 && is_moving {
            is_moving = false;
            for &class in &by_remainder {
                if missing > 0 && quotas[class] < limit(counts[class]) {
                    quotas[class] += 1;
                    missing -= 1;
                    is_moving = true;
                }
            }
        }
    }
    quotas
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(rows: &[u32], strata: &[u32], class: u32) -> usize {
        rows.iter().filter(|&&row| strata[row as usize] == class).count()
    }

    #[test]
    fn classes_keep_their_proportions() {
        let strata: Vec<u32> = (0..150).map(|row| row / 50).collect();
        let (kept, held) = split(150, 30, Some(&strata), 7, Purpose::Validation);
        for class in 0..3 {
            assert_eq!((count(&kept, &strata, class), count(&held, &strata, class)), (40, 10));
        }
    }

    #[test]
    fn largest_remainders_get_the_rows_that_are_left() {
        // Shares of 3 in 10: 1.5, 0.9, 0.6.
        assert_eq!(class_quotas(&[0, 0, 0, 0, 0, 1, 1, 1, 2, 2], 3), [1, 1, 1]);
        // Shares of 2 in 10: 1.8, 0.2; one class has a single row, which is kept.
        assert_eq!(class_quotas(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 2), [2, 0]);
        // Two classes of two rows: each keeps one as long as it can.
        assert_eq!(class_quotas(&[0, 0, 1, 1], 2), [1, 1]);
        assert_eq!(class_quotas(&[0, 0, 1, 1], 3), [2, 1]);
    }

    #[test]
    fn a_seed_decides_which_rows() {
        let draw = |seed, purpose| split(40, 10, None, seed, purpose);
        assert_eq!(draw(1, Purpose::Validation), draw(1, Purpose::Validation));
        assert_ne!(draw(1, Purpose::Validation), draw(2, Purpose::Validation));
        assert_ne!(draw(1, Purpose::Validation), draw(1, Purpose::Test));
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_part_and_no_class_is_lost(
            strata in prop::collection::vec(0_u32..5, 2..60),
            fraction in 0.0_f64..1.0,
            seed: u64,
        ) {
            let rows = strata.len();
            let held_out = (rows as f64 * fraction) as usize;
            let (kept, held) = split(rows, held_out, Some(&strata), seed, Purpose::Test);
            prop_assert_eq!(held.len(), held_out);
            prop_assert_eq!(kept.len(), rows - held_out);
            let mut all: Vec<u32> = kept.iter().chain(&held).copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..rows as u32).collect::<Vec<_>>());

            let sizes: Vec<usize> = (0..5).map(|class| strata.iter().filter(|&&it| it == class).count()).collect();
            let classes_of_several = sizes.iter().filter(|&&size| size >= 2).count();
            if held_out <= rows - classes_of_several {
                for class in (0..5).filter(|&class| sizes[class as usize] >= 2) {
                    prop_assert!(count(&kept, &strata, class) >= 1);
                }
            }
        }
    }
}
