//! Each operation of the disk fails once, or from then on, under each verb: the verb is refused in words or happens, what is
//! stored goes on to be read, and the verb works again once the disk does, without a reopening.

use super::power_cut::{blob_count, is_of_the_disk, named, open};
use super::reference::{Reference, Step};
use super::simulated::{Fault, Kind, Plan, SimulatedDisk};
use super::*;

/// A store with some of everything, and verbs that each find something to do in it.
pub(super) struct Scene {
    pub disk: SimulatedDisk,
    pub reference: Reference,
    steps: Vec<Step>,
}

pub(super) fn scene() -> Scene {
    let disk = SimulatedDisk::default();
    let store = open(&disk).unwrap();
    let mut reference = Reference::default();
    let mut run = |step: Step| {
        let expected = reference.apply(&step);
        assert_eq!(step.run(&store).unwrap(), expected);
    };
    let (kept, other) = (model("kept"), model("other"));
    let [done, running, ending, queued] = ["done", "", "ending", "queued"].map(|request| job(&kept, request));
    run(Step::Create(Box::new(kept.clone()), 1.0));
    run(Step::Create(Box::new(other.clone()), 2.0));
    for job in [&done, &running, &ending, &queued] {
        run(Step::Accept(Box::new(job.clone())));
    }
    run(Step::Report(done.job_id, 0, 3));
    run(Step::Finish(Box::new(finished(&Job { report_count: 3, ..done })), Some(3.0)));
    run(Step::Commit(other.uid, 4.0));
    for job in [&running, &ending] {
        run(Step::Start(job.job_id));
        run(Step::Report(job.job_id, 0, 2));
    }
    run(Step::Checkpoint(running.job_id, 1, 5));
    run(Step::MarkStop);
    let ended = finished(&Job { attempt: 1, report_count: 2, ..ending });
    let steps = vec![
        Step::create("new"),
        Step::Commit(kept.uid, 6.0),
        Step::Serve(kept.uid, Some(1)),
        Step::Delete(Box::new(kept.model_id.clone())),
        Step::Accept(Box::new(job(&other, "accepted"))),
        Step::Start(queued.job_id),
        Step::Report(running.job_id, 1, 40),
        Step::Checkpoint(running.job_id, 1, 7),
        Step::Checkpoint(ended.job_id, 1, 8),
        Step::Finish(Box::new(ended.clone()), Some(9.0)),
        Step::Finish(Box::new(ended), None),
        Step::TakeStop,
    ];
    drop(store);
    Scene { disk, reference, steps }
}

/// What fails, and whether what is stored can be read meanwhile.
struct Trouble {
    fault: Fault,
    kinds: fn(Kind) -> bool,
    is_lasting: bool,
    is_read_meanwhile: bool,
}

impl Scene {
    /// Every step, with a trouble that begins at every operation; how many of the steps were refused.
    fn check(&self, trouble: &Trouble) -> usize {
        let mut refused = 0;
        for step in &self.steps {
            let mut from = 0;
            while let Some(is_refused) = self.check_step(step, trouble, from) {
                refused += usize::from(is_refused);
                from += 1;
            }
            assert!(from > 4, "{from} operations in {}", named(step));
        }
        refused
    }

    /// Whether it was refused; `None` where nothing failed.
    fn check_step(&self, step: &Step, trouble: &Trouble, from: usize) -> Option<bool> {
        let Trouble { fault, kinds, is_lasting, is_read_meanwhile } = *trouble;
        let told = format!("{fault:?} from {from} on, lasting: {is_lasting}, {}", named(step));
        let disk = self.disk.fork();
        let store = open(&disk).unwrap();
        let mut after = self.reference.clone();
        let expected = after.apply(step);
        disk.plan(Plan { fault, kinds, from, is_lasting, percent: 100 }, from as u64);
        let answer = step.run(&store);
        if is_read_meanwhile {
            self.check_seen(&store, &after, &format!("meanwhile, {told}"));
        }
        let faults = disk.lift();
        if faults == 0 {
            assert_eq!(answer.unwrap(), expected);
            return None;
        }
        let seen = self.check_seen(&store, &after, &told);
        match &answer {
            Ok(answer) => assert!(*answer == expected && seen == after, "{told}: {answer}"),
            Err(error) => assert!(is_of_the_disk(error), "{told}: {error:?}"),
        }
        self.check_again(&store, step, seen, &after, &told);
        drop(store);
        let store = open(&disk).unwrap();
        let seen = Reference::seen(&store).unwrap();
        assert_eq!(blob_count(&disk), seen.blob_count(), "{told}");
        Some(answer.is_err())
    }

    fn check_seen(&self, store: &Store, after: &Reference, told: &str) -> Reference {
        let seen = Reference::seen(store).unwrap_or_else(|error| panic!("{told}: {error}"));
        let is_either = seen.is_either(&self.reference, after);
        assert!(is_either, "{told}\n{}\n{}", seen.difference(&self.reference), seen.difference(after));
        seen
    }

    /// Once the disk works, so does the store: the same verb, where it did not happen, and another one.
    fn check_again(&self, store: &Store, step: &Step, mut seen: Reference, after: &Reference, told: &str) {
        if seen != *after {
            step.run(store).unwrap_or_else(|error| panic!("again, {told}: {error}"));
            seen = Reference::seen(store).unwrap();
            assert!(seen == *after, "again, {told}\n{}", seen.difference(after));
        }
        let another = Step::create("another");
        seen.apply(&another);
        another.run(store).unwrap_or_else(|error| panic!("another, {told}: {error}"));
        assert!(Reference::seen(store).unwrap() == seen, "another, {told}");
    }
}

#[test]
fn any_operation_that_fails_once_costs_one_call_at_most() {
    let scene = scene();
    for fault in [Fault::Refused, Fault::Done, Fault::NoSpace] {
        let trouble = Trouble { fault, kinds: Kind::any, is_lasting: false, is_read_meanwhile: false };
        assert!(scene.check(&trouble) > scene.steps.len() * 4);
    }
}

#[test]
fn any_read_that_fails_once_is_told_and_the_next_one_reads() {
    let scene = scene();
    for fault in [Fault::Refused, Fault::NoSpace] {
        let mut from = 0;
        loop {
            let disk = scene.disk.fork();
            let store = open(&disk).unwrap();
            disk.plan(Plan { fault, kinds: Kind::any, from, is_lasting: false, percent: 100 }, 0);
            let read = Reference::seen(&store);
            if disk.lift() == 0 {
                assert!(read.unwrap() == scene.reference);
                break;
            }
            assert!(read.as_ref().err().is_none_or(is_of_the_disk), "{fault:?} at {from}: {read:?}");
            assert!(Reference::seen(&store).unwrap() == scene.reference, "{fault:?} at {from}");
            from += 1;
        }
        assert!(from > 10, "{from}");
    }
}

#[test]
fn a_write_that_is_short_is_gone_on_with() {
    let trouble = Trouble { fault: Fault::Short, kinds: Kind::is_write, is_lasting: true, is_read_meanwhile: true };
    let scene = scene();
    let blob_steps = scene.steps.iter().filter(|step| matches!(step, Step::Create(..) | Step::Checkpoint(..)));
    for step in blob_steps {
        assert_eq!(scene.check_step(step, &trouble, 0), Some(false));
    }
}

#[test]
fn a_disk_without_room_is_read_and_is_written_again_when_there_is_some() {
    let trouble = Trouble { fault: Fault::NoSpace, kinds: Kind::needs_room, is_lasting: true, is_read_meanwhile: true };
    scene().check(&trouble);
}

#[test]
fn a_disk_that_can_only_be_read_is_read_and_is_written_again_when_it_can_be() {
    let trouble = Trouble { fault: Fault::Refused, kinds: Kind::changes, is_lasting: true, is_read_meanwhile: true };
    scene().check(&trouble);
}

#[test]
fn a_disk_that_is_away_is_used_again_when_it_is_back() {
    let trouble = Trouble { fault: Fault::Refused, kinds: Kind::any, is_lasting: true, is_read_meanwhile: false };
    scene().check(&trouble);
}

/// What a blob that could not be written leaves is not left by each attempt anew.
#[test]
fn attempts_on_a_failing_disk_leave_no_copies() {
    let scene = scene();
    let is_kind: [fn(Kind) -> bool; 3] =
        [|kind| kind == Kind::Sync, |kind| kind == Kind::Rename, |kind| kind == Kind::SyncFolder];
    for kinds in is_kind {
        let disk = scene.disk.fork();
        let store = open(&disk).unwrap();
        let before = blob_count(&disk);
        disk.plan(Plan { fault: Fault::Refused, kinds, from: 0, is_lasting: true, percent: 100 }, 0);
        for step in scene.steps.iter().filter(|step| matches!(step, Step::Commit(..) | Step::Finish(_, Some(_)))) {
            for _ in 0..3 {
                step.run(&store).unwrap_err();
            }
        }
        assert_eq!(blob_count(&disk), before);
    }
}

/// A start on a disk that fails ends with words, and costs nothing: the next one finds everything.
#[test]
fn an_opening_fails_in_words_at_any_operation_and_the_next_one_goes_through() {
    let scene = scene();
    for (disk, reference) in [(SimulatedDisk::default(), Reference::default()), (scene.disk, scene.reference)] {
        for fault in [Fault::Refused, Fault::Done, Fault::NoSpace] {
            let mut from = 0;
            loop {
                let disk = disk.fork();
                disk.plan(Plan { fault, kinds: Kind::any, from, is_lasting: false, percent: 100 }, from as u64);
                let opened = open(&disk).map(drop);
                if disk.lift() == 0 {
                    opened.unwrap();
                    break;
                }
                let told = format!("{fault:?} at {from}: {opened:?}");
                assert!(opened.as_ref().err().is_none_or(is_of_the_disk), "{told}");
                let store = open(&disk).unwrap_or_else(|error| panic!("{told}, then {error}"));
                assert!(Reference::seen(&store).unwrap() == reference, "{told}");
                assert_eq!(blob_count(&disk), reference.blob_count(), "{told}");
                from += 1;
            }
            assert!(from > 10, "{from}");
        }
    }
}
