//! After a power cut at any change of the disk everything that was acknowledged is there, and nothing is half there.

use super::reference::{Reference, Step, VERSIONS_KEPT};
use super::simulated::{Fault, Kind, Plan, Random, SimulatedDisk, State};
use super::*;

/// How many sequences of verbs there are; with EPOCHD_SEQUENCES more.
const SEQUENCES: u64 = 2;
const STEPS: usize = 24;
/// What a cut may leave is tried so often for each.
const SURVIVORS: u64 = 3;

pub(super) fn sequences() -> u64 {
    std::env::var("EPOCHD_SEQUENCES").ok().and_then(|count| count.parse().ok()).unwrap_or(SEQUENCES)
}

/// A folder that is not there yet, nor is the one above it.
pub(super) const FOLDER: &str = "/srv/epochd/data";

pub(super) fn open(disk: &SimulatedDisk) -> Result<Store, StoreError> {
    let store = Store::open_on(Arc::new(disk.clone()), Path::new(FOLDER))?;
    Ok(store.with_retention(Retention { versions_per_model: VERSIONS_KEPT, ..Retention::default() }))
}

pub(super) fn blob_count(disk: &SimulatedDisk) -> usize {
    disk.state().list(&Path::new(FOLDER).join(BLOBS_FOLDER)).unwrap().len()
}

/// What was the case from a change of the disk on: as before a verb, or as after it; the same once it was answered.
pub(super) struct Moment {
    change: usize,
    what: String,
    before: Reference,
    after: Reference,
    /// Whether checkpoints are known.
    is_settled: bool,
}

impl Moment {
    /// From the beginning on it is known what must be there.
    pub fn known(what: String, reference: &Reference) -> Self {
        Self { change: 0, what, before: reference.clone(), after: reference.clone(), is_settled: true }
    }
}

/// Cuts the power after each change from `start` on, and looks at what is left.
pub(super) fn check_cuts(start: State, disk: &SimulatedDisk, moments: &[Moment], random: &mut Random) -> usize {
    let (mut state, mut cuts) = (start, 0);
    for (index, change) in disk.journal().iter().enumerate() {
        let moment = moments.iter().rev().find(|moment| moment.change <= index).unwrap();
        for _ in 0..SURVIVORS {
            let seed = random.next();
            let left = SimulatedDisk::of_state(state.survivor(&mut Random::new(seed)));
            check_survivor(&left, moment, &format!("seed {seed}, before change {index}, {}", named(change)));
            cuts += 1;
        }
        state.apply(change).unwrap();
    }
    let last = moments.last().unwrap();
    for _ in 0..SURVIVORS {
        let left = SimulatedDisk::of_state(state.survivor(random));
        check_survivor(&left, last, "at the end");
    }
    cuts
}

pub(super) fn named(change: &impl std::fmt::Debug) -> String {
    format!("{change:?}").chars().take(300).collect()
}

pub(super) fn check_survivor(disk: &SimulatedDisk, moment: &Moment, when: &str) {
    let told = || format!("{when}; {}", moment.what);
    let store = open(disk).unwrap_or_else(|error| panic!("{error}: {}", told()));
    let mut seen = Reference::seen(&store).unwrap_or_else(|error| panic!("{error}: {}", told()));
    assert_eq!(blob_count(disk), seen.blob_count(), "{}", told());
    if !moment.is_settled {
        seen = seen.with_checkpoints_of(&moment.before);
    }
    if !seen.is_either(&moment.before, &moment.after) {
        let (before, after) = (seen.difference(&moment.before), seen.difference(&moment.after));
        panic!("{}\nit is not as before: {before}\nnor as after: {after}", told());
    }
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_at_any_change_and_nothing_is_half_there() {
    for sequence in 0..sequences() {
        let mut random = Random::new(sequence);
        let disk = SimulatedDisk::default();
        let start = disk.state();
        let mut reference = Reference::default();
        let moment = |change, what: &Step, before: &Reference, after: &Reference| Moment {
            change,
            what: format!("sequence {sequence}, {}", named(what)),
            before: before.clone(),
            after: after.clone(),
            is_settled: true,
        };
        let mut moments = vec![moment(0, &Step::TakeStop, &reference, &reference)];
        let mut store = open(&disk).unwrap();
        for number in 0..STEPS {
            if random.below(8) == 0 {
                drop(store);
                store = open(&disk).unwrap();
            }
            let step = Step::random(&reference, number, &mut random);
            let mut after = reference.clone();
            let expected = after.apply(&step);
            moments.push(moment(disk.changes(), &step, &reference, &after));
            assert_eq!(step.run(&store).unwrap(), expected, "sequence {sequence}, {}", named(&step));
            moments.push(moment(disk.changes(), &step, &after, &after));
            reference = after;
            let seen = Reference::seen(&store).unwrap();
            assert!(seen == reference, "{}", seen.difference(&reference));
        }
        drop(store);
        let cuts = check_cuts(start, &disk, &moments, &mut random);
        assert!(cuts > STEPS * 10, "{cuts}");
        println!("sequence {sequence}: {STEPS} verbs, {cuts} power cuts");
    }
}

#[test]
fn a_disk_that_fails_at_random_costs_no_more_than_calls() {
    for sequence in 0..4 * sequences() {
        let mut random = Random::new(sequence ^ 0xfa17);
        let disk = SimulatedDisk::default();
        let mut store = open(&disk).unwrap();
        let mut reference = Reference::default();
        let (mut refused, mut is_settled) = (0, true);
        for number in 0..STEPS {
            let step = Step::random(&reference, number, &mut random);
            let mut after = reference.clone();
            let expected = after.apply(&step);
            let fault = [Fault::Refused, Fault::NoSpace, Fault::Done, Fault::Short][random.below(4)];
            let kinds = [Kind::any, Kind::needs_room, Kind::changes][random.below(3)];
            disk.plan(Plan { fault, kinds, from: 0, is_lasting: true, percent: 6 }, random.next());
            let answer = step.run(&store);
            let faults = disk.lift();
            let told = named(&(&answer, &step));
            let told = format!("sequence {sequence}, step {number}, {faults} of {fault:?}: {told}");
            match &answer {
                Ok(answer) => assert_eq!(*answer, expected, "{told}"),
                Err(error) => {
                    assert!(faults > 0 && is_of_the_disk(error), "{told}");
                    refused += 1;
                }
            }
            // Whatever is read once is there for good, but for a checkpoint that was refused: until a blob is written it may be one
            // before it again.
            if step.writes_blobs() {
                is_settled = answer.is_ok() || is_settled && !matches!(step, Step::Checkpoint(..));
            }
            let seen = Reference::seen(&store).unwrap_or_else(|error| panic!("{error}: {told}"));
            let is_either = seen.is_either(&reference, &after);
            assert!(is_either, "{told}\n{}\n{}", seen.difference(&reference), seen.difference(&after));
            assert!(answer.is_err() || seen == after, "{told}");
            let moment = Moment { is_settled, ..Moment::known(told, &seen) };
            check_survivor(&disk.cut(random.next()), &moment, "after an answer");
            if random.below(8) == 0 {
                drop(store);
                store = open(&disk).unwrap();
            }
            reference = seen;
        }
        assert!(refused > 0, "sequence {sequence}");
        println!("sequence {sequence}: {STEPS} verbs on a failing disk, {refused} refused, {STEPS} power cuts");
    }
}

pub(super) fn is_of_the_disk(error: &StoreError) -> bool {
    let words = error.to_string();
    let is_told = words.contains("input/output error") || words.contains("no space left") || words.contains("I/O");
    matches!(error, StoreError::Io { .. } | StoreError::Unavailable { .. }) && is_told
}
