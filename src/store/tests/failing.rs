//! Each operation of the disk fails once, or from then on, under each verb: the verb is refused in words or happens, what is
//! stored goes on to be read, and the verb works again once the disk does, without a reopening.

use super::power_cut::{FOLDER, Moment, blob_count, check_cuts, check_survivor, is_of_the_disk, named, open};
use super::reference::{Reading, Reference, Step};
use super::simulated::{Fault, Kind, Plan, Random, SimulatedDisk};
use super::*;

/// What a fault at an operation leaves is drawn from this, and what a power cut leaves after it; with EPOCHD_FAULT_SEED other draws.
fn seed(from: usize) -> u64 {
    let base = std::env::var("EPOCHD_FAULT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    (from as u64) << 32 | base
}

/// How often each fault of a compaction is drawn.
const DRAWS: u64 = 8;
/// How often a power cut is drawn after the start that follows a fault and a kill.
const DRAWS_KILLED: u64 = 2;

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
        let (mut cases, mut refused) = (0, 0);
        for step in &self.steps {
            let mut from = 0;
            while let Some(is_refused) = self.check_step(step, trouble, from) {
                refused += usize::from(is_refused);
                from += 1;
            }
            assert!(from > 1, "{from} operations in {}", named(step));
            cases += from;
        }
        println!("{:?}, lasting: {}: {cases} cases, {refused} refused", trouble.fault, trouble.is_lasting);
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
        disk.plan(Plan { fault, kinds, from, is_lasting, percent: 100 }, seed(from));
        let answer = step.run(&store);
        if is_read_meanwhile {
            self.check_seen(&store, &after, &format!("meanwhile, {told}"));
        }
        let faults = disk.lift();
        if faults == 0 {
            assert_eq!(answer.unwrap(), expected);
            return None;
        }
        // Before anything is read: what is read may open the record file again.
        self.check_killed(&disk.fork(), &after, &told, seed(from));
        let seen = self.check_seen(&store, &after, &told);
        match &answer {
            Ok(answer) => assert!(*answer == expected && seen == after, "{told}: {answer}"),
            Err(error) => assert!(is_of_the_disk(error), "{told}: {error:?}"),
        }
        let last = self.check_again(&store, step, seen, &after, &told);
        // What was acknowledged after the fault is as durable as ever: after a sync that failed, above all.
        let left = disk.cut(seed(from));
        check_survivor(&left, &Moment::known(told.clone(), &last), "a power cut after the trouble");
        drop(store);
        let store = open(&disk).unwrap();
        let seen = Reference::seen(&store).unwrap();
        assert_eq!(blob_count(&disk), seen.blob_count(), "{told}");
        Some(answer.is_err())
    }

    /// The process is killed after the trouble and the machine goes on, so what no sync made durable may be seen. The next process finds
    /// what happened, and what it acknowledges outlives a power cut.
    fn check_killed(&self, disk: &SimulatedDisk, after: &Reference, told: &str, seed: u64) {
        let told = format!("a process after it, {told}");
        let store = open(disk).unwrap_or_else(|error| panic!("{told}: {error}"));
        let mut seen = self.check_seen(&store, after, &told);
        let another = Step::create("another");
        seen.apply(&another);
        another.run(&store).unwrap_or_else(|error| panic!("{told}: {error}"));
        for draw in 0..DRAWS_KILLED {
            check_survivor(
                &disk.cut(seed ^ draw),
                &Moment::known(told.clone(), &seen),
                "a power cut after the next start",
            );
        }
    }

    fn check_seen(&self, store: &Store, after: &Reference, told: &str) -> Reference {
        let seen = Reference::seen(store).unwrap_or_else(|error| panic!("{told}: {error}"));
        let is_either = seen.is_either(&self.reference, after);
        assert!(is_either, "{told}\n{}\n{}", seen.difference(&self.reference), seen.difference(after));
        seen
    }

    /// Once the disk works, so does the store: the same verb, where it did not happen, and another one. What is there at the end.
    fn check_again(&self, store: &Store, step: &Step, mut seen: Reference, after: &Reference, told: &str) -> Reference {
        if seen != *after {
            step.run(store).unwrap_or_else(|error| panic!("again, {told}: {error}"));
            seen = Reference::seen(store).unwrap();
            assert!(seen == *after, "again, {told}\n{}", seen.difference(after));
        }
        let another = Step::create("another");
        seen.apply(&another);
        another.run(store).unwrap_or_else(|error| panic!("another, {told}: {error}"));
        assert!(Reference::seen(store).unwrap() == seen, "another, {told}");
        seen
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
        println!("reads, {fault:?}: {from} cases");
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

/// As a disk with bad sectors: it takes bytes, and cannot say that they are beyond a power cut.
#[test]
fn a_disk_that_cannot_sync_is_read_and_is_written_again_when_it_can() {
    let kinds: fn(Kind) -> bool = |kind| matches!(kind, Kind::Sync | Kind::SyncFolder);
    let scene = scene();
    for fault in [Fault::Refused, Fault::Done] {
        let trouble = Trouble { fault, kinds, is_lasting: true, is_read_meanwhile: true };
        assert!(scene.check(&trouble) >= scene.steps.len());
    }
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
            println!("openings, {fault:?}: {from} cases");
            assert!(from > 10, "{from}");
        }
    }
}

/// A disk on which the record file has free pages before pages in use, and what it holds.
fn with_free_pages() -> (SimulatedDisk, Reference) {
    let Scene { disk, mut reference, .. } = scene();
    let store = open(&disk).unwrap();
    let job_id = store.unfinished_jobs().unwrap()[0].job_id;
    for step in [Step::Report(job_id, 0, 1_000), Step::create("behind"), Step::Report(job_id, 0, 2)] {
        let expected = reference.apply(&step);
        assert_eq!(step.run(&store).unwrap(), expected);
    }
    drop(store);
    (disk, reference)
}

fn record_bytes(disk: &SimulatedDisk) -> usize {
    let state = disk.state();
    state.bytes(state.file(&Path::new(FOLDER).join(RECORDS_FILE)).unwrap()).len()
}

/// It moves what is stored: at no instant may any of it be neither here nor there.
#[test]
fn a_compaction_that_is_cut_short_or_fails_costs_nothing() {
    let (disk, reference) = with_free_pages();
    let compacted = disk.fork();
    let store = open(&compacted).unwrap();
    store.records().compact_for_test().unwrap();
    drop(store);
    assert!(record_bytes(&compacted) < record_bytes(&disk), "{} bytes", record_bytes(&compacted));
    let moments = [Moment::known("a compaction".to_owned(), &reference)];
    let cuts = check_cuts(disk.state(), &compacted, &moments, &mut Random::new(3));
    let mut cases = 0;
    for fault in [Fault::Refused, Fault::Done, Fault::NoSpace] {
        for draw in 0..DRAWS {
            cases += check_compaction_with(fault, draw, &disk, &reference);
        }
    }
    println!("a compaction: {cuts} power cuts, {cases} faults");
    assert!(cuts > 20 && cases > 20, "{cuts} cuts, {cases} faults");
}

/// A compaction that fails at any of its operations, and a power cut after the next answer; how many there were.
fn check_compaction_with(fault: Fault, draw: u64, disk: &SimulatedDisk, reference: &Reference) -> usize {
    let mut from = 0;
    loop {
        let told = format!("{fault:?} at {from}, draw {draw}");
        let disk = disk.fork();
        let store = open(&disk).unwrap();
        let seed = seed(from) + (draw << 16);
        disk.plan(Plan { fault, kinds: Kind::any, from, is_lasting: false, percent: 100 }, seed);
        let answer = store.records().compact_for_test();
        if disk.lift() == 0 {
            answer.unwrap();
            return from;
        }
        assert!(answer.as_ref().err().is_none_or(is_of_the_disk), "{told}: {answer:?}");
        let killed = disk.fork();
        check_after_compaction(&killed, &open(&killed).unwrap(), reference, &format!("{told}, killed"), seed);
        check_after_compaction(&disk, &store, reference, &told, seed);
        from += 1;
    }
}

fn check_after_compaction(disk: &SimulatedDisk, store: &Store, reference: &Reference, told: &str, seed: u64) {
    let mut after = reference.clone();
    assert!(Reference::seen(store).unwrap() == after, "{told}");
    let step = Step::create("another");
    after.apply(&step);
    step.run(store).unwrap_or_else(|error| panic!("{told}: {error}"));
    check_survivor(&disk.cut(seed), &Moment::known(told.to_owned(), &after), "a power cut after the trouble");
}

/// As where the disk that holds them is not mounted: none of them is taken for lost.
#[test]
fn a_folder_of_blobs_that_is_away_is_a_fault_of_the_disk_and_nothing_is_taken_for_lost() {
    let scene = scene();
    let store = open(&scene.disk).unwrap();
    let readings = || scene.reference.readings(&store).into_iter().map(|(_, reading)| reading);
    let names = scene.disk.unmount(&Path::new(FOLDER).join(BLOBS_FOLDER));
    let is_told = |reading: &Reading| matches!(reading, Reading::Wrong(words) if words.contains("cannot read blobs/"));
    assert!(readings().all(|reading| reading == Reading::Same || is_told(&reading)));
    assert_eq!(readings().filter(is_told).count(), scene.reference.blob_count());
    for step in scene.steps.iter().filter(|step| matches!(step, Step::Create(..) | Step::Finish(_, Some(_)))) {
        assert!(matches!(step.run(&store), Err(StoreError::Io { .. })), "{}", named(step));
    }
    scene.disk.mount(names);
    assert!(readings().all(|reading| reading == Reading::Same));
    Step::create("after").run(&store).unwrap();
}
