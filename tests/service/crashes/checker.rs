//! The judge: compares what a server shows after a start with what clients were told before. It knows the promises alone, makes no
//! call, and shares nothing with the server.
//!
//! Both ways: nothing acknowledged is missing, and nothing is there that nobody asked for. Of a call without an answer either all
//! or nothing is there; which of the two is written into the ledger.

use std::collections::{BTreeMap, BTreeSet};

use epochd::rpc::pb;
use epochd::rpc::pb::{JobState, StopReason, VersionSource};

use super::ledger::{Call, KnownJob, KnownModel, Ledger};
use super::reference::{REPORT_EVERY, REPORTS};
use super::victim::{JOBS, JOBS_PER_MODEL, KEPT_REPORTS, VERSIONS};

/// Starts in a row without a checkpoint after which a job is set aside.
const STARTS: i32 = 3;

/// What is wrong.
pub type Fault = String;

/// Everything that lists show.
#[derive(Default)]
pub struct Seen {
    /// Models with their versions.
    pub models: Vec<(pb::Model, Vec<pb::Version>)>,
    /// Newest first.
    pub jobs: Vec<pb::Job>,
}

fn fault<T>(what: impl Into<String>) -> Result<T, Fault> {
    Err(what.into())
}

fn demand(holds: bool, what: impl FnOnce() -> Fault) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Compares everything, and settles what was in doubt.
pub fn judge(seen: &Seen, ledgers: &mut [Ledger]) -> Result<(), Fault> {
    let names: Vec<&str> = seen.models.iter().map(|(model, _)| model.model_id.as_str()).collect();
    demand(names.is_sorted_by(|one, next| one < next), || format!("models are out of order: {names:?}"))?;
    let ids: Vec<&str> = seen.jobs.iter().map(|job| job.job_id.as_str()).collect();
    demand(ids.is_sorted_by(|one, next| one > next), || format!("jobs are out of order: {ids:?}"))?;
    if let Some(name) = names.iter().find(|name| ledgers.iter().all(|ledger| ledger.name != **name)) {
        return fault(format!("nobody asked for the model {name}"));
    }
    let found = |name: &str| seen.models.iter().find(|(model, _)| model.model_id == name);
    for ledger in ledgers.iter_mut() {
        settle_model(ledger, found(&ledger.name).map(|(model, _)| model))?;
        settle_training(ledger, &seen.jobs);
    }
    if let Some(job) = seen.jobs.iter().find(|job| !ledgers.iter().any(|ledger| is_known(ledger, &job.job_id))) {
        return fault(format!("nobody asked for the job {job:?}"));
    }
    let may_be_gone = may_be_gone(ledgers, &seen.jobs);
    for ledger in ledgers.iter_mut() {
        settle_jobs(ledger, &seen.jobs, &may_be_gone)?;
        if let Some((model, versions)) = found(&ledger.name) {
            settle_versions(ledger, model, versions)?;
        }
    }
    let finished = seen.jobs.iter().filter(|job| is_finished(job)).count();
    demand(finished <= 3 * JOBS, || format!("{finished} finished jobs are kept"))
}

fn is_known(ledger: &Ledger, job_id: &str) -> bool {
    ledger.jobs.iter().any(|job| job.job_id == job_id && !job.is_given_back)
}

fn is_finished(job: &pb::Job) -> bool {
    !matches!(job.state(), JobState::Queued | JobState::Running)
}

/// Whether the model is there, as the same one.
fn settle_model(ledger: &mut Ledger, found: Option<&pb::Model>) -> Result<(), Fault> {
    let name = ledger.name.clone();
    match (ledger.model.is_some(), found) {
        (false, None) if ledger.doubt == Some(Call::Create) => ledger.is_settled(false),
        (false, None) => {}
        (false, Some(model)) => {
            demand(ledger.doubt == Some(Call::Create), || format!("{name} came back: {model:?}"))?;
            demand(!ledger.deleted.contains(&model.uid), || format!("{name} was deleted as this one: {model:?}"))?;
            ledger.model = Some(KnownModel::new(model.clone()));
            ledger.is_settled(true);
        }
        (true, None) => {
            demand(ledger.doubt == Some(Call::Delete), || format!("{name} is missing"))?;
            ledger.model = None;
            ledger.is_settled(true);
        }
        (true, Some(model)) => {
            if ledger.doubt == Some(Call::Delete) {
                ledger.is_settled(false);
            }
            settle_choices(ledger, model)?;
        }
    }
    Ok(())
}

/// A model without what calls change.
fn unchanged(model: &pb::Model) -> pb::Model {
    pb::Model {
        latest_version: 0,
        update_time: None,
        active_job_id: String::new(),
        serving_version: None,
        pinned_versions: Vec::new(),
        ..model.clone()
    }
}

/// Its record, what it serves, and what is pinned.
fn settle_choices(ledger: &mut Ledger, found: &pb::Model) -> Result<(), Fault> {
    let (name, doubt) = (ledger.name.clone(), ledger.doubt.clone());
    let Some(known) = &mut ledger.model else { return Ok(()) };
    demand(unchanged(&known.told) == unchanged(found), || {
        format!("{name} is another model than {}: {}", known.told.uid, found.uid)
    })?;
    let mut happened = false;
    if let Some(Call::Serve(version)) = doubt
        && found.serving_version == version
    {
        happened = known.serving != version;
        known.serve(version);
    }
    let pins: BTreeSet<i32> = found.pinned_versions.iter().copied().collect();
    if let Some(Call::Pin(version, is_pinned)) = doubt
        && pins.contains(&version) == is_pinned
    {
        happened = known.pinned.contains(&version) != is_pinned;
        known.pin(version, is_pinned);
    }
    demand(known.serving == found.serving_version, || {
        format!("{name} serves {:?}, not {:?}", found.serving_version, known.serving)
    })?;
    demand(known.pinned == pins, || format!("{name} has pinned {pins:?}, not {:?}", known.pinned))?;
    if matches!(doubt, Some(Call::Serve(_) | Call::Pin(..))) {
        ledger.is_settled(happened);
    }
    Ok(())
}

/// Whether the training in doubt was accepted.
fn settle_training(ledger: &mut Ledger, jobs: &[pb::Job]) {
    let Some(Call::Train(request_id)) = ledger.doubt.clone() else { return };
    let job = jobs.iter().find(|job| job.request_id == request_id);
    if let Some(job) = job {
        ledger.accepts(&job.job_id, &request_id);
    }
    ledger.is_settled(job.is_some());
}

/// The jobs that the bounds allow to be given back, when all that may have ended later did.
fn may_be_gone(ledgers: &[Ledger], seen: &[pb::Job]) -> BTreeSet<String> {
    let reports_of: BTreeMap<&str, usize> = (seen.iter().filter(|job| is_finished(job)))
        .map(|job| (job.job_id.as_str(), job.last_report.as_ref().map_or(0, |last| last.epoch / REPORT_EVERY) as usize))
        .collect();
    let reports = |job: &KnownJob| reports_of.get(job.job_id.as_str()).copied().unwrap_or(REPORTS);
    let jobs: Vec<&KnownJob> = ledgers.iter().flat_map(|ledger| &ledger.jobs).collect();
    let may_be_gone = |job: &&&KnownJob| {
        let later = || jobs.iter().filter(|other| other.job_id != job.job_id && job.may_end_before(other));
        let of_model = later().filter(|other| other.model_uid == job.model_uid).count();
        let (others, kept) = (later().count(), later().map(|other| reports(other)).sum::<usize>() + reports(job));
        of_model >= JOBS_PER_MODEL || others >= JOBS || (others > 0 && kept > KEPT_REPORTS)
    };
    jobs.iter().filter(|job| !job.is_given_back).filter(may_be_gone).map(|job| job.job_id.clone()).collect()
}

fn settle_jobs(ledger: &mut Ledger, seen: &[pb::Job], may_be_gone: &BTreeSet<String>) -> Result<(), Fault> {
    let deleted = ledger.deleted.clone();
    for job in ledger.jobs.iter_mut().filter(|job| !job.is_given_back) {
        match seen.iter().find(|found| found.job_id == job.job_id) {
            Some(found) => compare_job(job, found, deleted.contains(&found.model_uid))?,
            None => {
                let is_permitted = !job.is_unfinished() && may_be_gone.contains(&job.job_id);
                demand(is_permitted, || format!("a job is missing: {job:?}"))?;
                (job.is_given_back, job.record) = (true, None);
            }
        }
    }
    if let Some(Call::Cancel(job_id, _)) = ledger.doubt.clone() {
        let state = ledger.job_mut(&job_id).and_then(|job| job.end).map(|(state, _)| state);
        ledger.is_settled(state == Some(JobState::Cancelled));
    }
    Ok(())
}

fn compare_job(known: &mut KnownJob, found: &pb::Job, is_deleted: bool) -> Result<(), Fault> {
    let is_same = known.request_id == found.request_id && known.model_uid == found.model_uid;
    demand(is_same, || format!("another job than {known:?}: {found:?}"))?;
    if let Some(record) = &known.record {
        return demand(record == found, || format!("a job ended as {record:?}, and is {found:?}"));
    }
    known.has_crashed = true;
    if !is_finished(found) {
        demand(known.is_unfinished(), || format!("a job ended as {:?}, and goes on: {found:?}", known.end))?;
        return demand(found.version == 0 && found.end_time.is_none(), || format!("half ended: {found:?}"));
    }
    let end = (found.state(), found.version);
    demand(*known.end.get_or_insert(end) == end, || format!("a job ended as {:?}, and is {found:?}", known.end))?;
    check_end(known, found, is_deleted)?;
    known.ended_as(found.clone());
    Ok(())
}

/// A job ends in one of four ways, each with its reason.
pub fn check_end(known: &KnownJob, found: &pb::Job, is_deleted: bool) -> Result<(), Fault> {
    let reports = found.last_report.as_ref().map_or(0, |last| (last.epoch / REPORT_EVERY) as usize);
    let holds = match found.state() {
        JobState::Succeeded => found.stop_reason() == StopReason::EpochsDone && found.version > 1 && reports == REPORTS,
        JobState::Cancelled => {
            let may_commit = known.committed || found.version == 0;
            found.stop_reason() == StopReason::Cancelled && (known.cancelled || is_deleted) && may_commit
        }
        JobState::Failed => found.stop_reason() == StopReason::Interrupted && found.attempt >= STARTS,
        _ => false,
    };
    demand(holds && known.may_have(reports) && found.end_time.is_some(), || format!("{known:?} ended as {found:?}"))
}

/// Every version has one who made it, and no other number was given; those that must be kept are there, and no others.
fn settle_versions(ledger: &mut Ledger, found: &pb::Model, versions: &[pb::Version]) -> Result<(), Fault> {
    let (name, latest) = (ledger.name.clone(), found.latest_version);
    let of_model = ledger.jobs.iter().filter(|job| job.model_uid == found.uid);
    let made = of_model.filter_map(|job| Some((job.end?.1, job.job_id.clone())).filter(|(version, _)| *version > 0));
    let commits: BTreeMap<i32, String> = made.collect();
    let doubt = ledger.doubt.clone();
    let Some(known) = &mut ledger.model else { return Ok(()) };
    let is_made = |known: &KnownModel, version: &i32| {
        usize::from(*version == 1)
            + usize::from(known.sets.contains(version))
            + usize::from(commits.contains_key(version))
    };
    let says_set = |number: &i32| {
        versions.iter().any(|version| version.version == *number && version.source() == VersionSource::Set)
    };
    let hole = (1..=latest).find(|version| is_made(known, version) == 0).filter(says_set);
    if let (Some(version), Some(Call::SetWeights(bits))) = (hole, &doubt) {
        known.set(version, bits.clone());
    }
    for version in 1..=latest {
        demand(is_made(known, &version) == 1, || {
            format!("{name} has {} makers of {version}", is_made(known, &version))
        })?;
    }
    let last = known.sets.iter().chain(commits.keys()).max().copied().unwrap_or(1);
    demand(last == latest, || format!("{name} has made version {last}, but its latest is {latest}"))?;
    check_kept(&name, known, latest, versions)?;
    for version in versions {
        let (source, job_id) = match commits.get(&version.version) {
            Some(job_id) => (VersionSource::Trained, job_id.as_str()),
            None if version.version == 1 => (VersionSource::Initial, ""),
            None => (VersionSource::Set, ""),
        };
        let is_so = version.source() == source && version.job_id == job_id;
        demand(is_so, || format!("{name}: made by {source:?} {job_id}, but says {version:?}"))?;
    }
    if matches!(doubt, Some(Call::SetWeights(_))) {
        ledger.is_settled(hole.is_some());
    }
    Ok(())
}

/// Whether a version may not be given back yet, whatever is committed next.
pub fn is_protected(model: &KnownModel, version: i32) -> bool {
    version == 1 || model.serving == Some(version) || model.pinned.contains(&version)
}

fn check_kept(name: &str, known: &mut KnownModel, latest: i32, versions: &[pb::Version]) -> Result<(), Fault> {
    let kept: Vec<i32> = versions.iter().map(|version| version.version).collect();
    demand(kept.is_sorted_by(|one, next| one < next), || format!("{name}: versions are out of order: {kept:?}"))?;
    let must: BTreeSet<i32> =
        (1..=latest).filter(|&version| version > latest - VERSIONS || is_protected(known, version)).collect();
    let kept: BTreeSet<i32> = kept.into_iter().collect();
    demand(kept.is_superset(&must), || format!("{name} at {latest} must keep {must:?}, and has {kept:?}"))?;
    let besides: BTreeSet<i32> = kept.difference(&must).copied().collect();
    let (latest_before, besides_before) = &known.looked_at;
    let may = |version: &i32| {
        known.protected_since.contains(version) || (*latest_before == latest && besides_before.contains(version))
    };
    demand(besides.iter().all(may), || {
        format!("{name} at {latest} has {kept:?} for {must:?}, before {:?}", known.looked_at)
    })?;
    known.versions.retain(|version, _| kept.contains(version));
    known.looked_at = (latest, besides);
    known.protected_since.clear();
    Ok(())
}
