//! The one gate out: whether what was computed may leave. It writes the audit log, and the contribution's file itself: bytes
//! that it did not write do not leave.
//!
//! Only this module makes a [`Cleared`], and the agent uploads only that. What is said of work under way ([`progress`]) and of
//! datasets ([`faces`]) is made here as well; it is asked for again and again, and not written down each time.

mod encode;
mod message;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use analytics::analysis::{Cell, CellKind};
use analytics::moments::COUNTS;
use analytics::survey;
use protocol::{
    BlobRef, Plan, Purpose, Refusal, RefusalCode, Report, ResearcherId, Rounding, Scalars, SecureMessage, Task, TaskId,
    VectorSpec, Work, layout_byte_len,
};
use serde_json::json;
use transport::blob::ChunkDigests;

use crate::cohort::Cohort;
use crate::config::DisclosureRules;
use crate::handle::NodeHandle;
use crate::participant::Held;
use crate::policy::{Permit, Policy, work_name};
use crate::secure::{self, DeskError, Masks};
use crate::spool::{INLINE_BYTES, SpoolWriter, digest_of};
use crate::store::{OwnNumbers, OwnResult};
use encode::{Hiding, Written, encode};

pub(crate) use message::{faces, progress};

/// The most remarks of a report, and the most characters of each.
const MOST_REMARKS: usize = 64;
const LONGEST_REMARK: usize = 512;

/// The elements of a computed vector.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    Reals(Vec<f64>),
    /// (trained - global) · weight, element by element, without a third copy of a large model.
    Differences {
        trained: Arc<Scalars>,
        global: Arc<Scalars>,
        weight: f64,
    },
}

/// One vector as the executor made it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Computed {
    pub purpose: Purpose,
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Values,
}

/// All that a task's work made.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Outcome {
    pub vectors: Vec<Computed>,
    pub report: Report,
    /// The numbers of rows that the values were computed on, where they differ: each column's, each round's.
    pub samples: Vec<u64>,
    /// Counts in a question's pass that say something about few people if they are small.
    pub cells: Vec<Cell>,
    /// Which rows a question is about.
    pub cohort: Option<Cohort>,
}

/// A contribution that may leave: it is on disk, whole, and has passed the gate.
#[derive(Debug)]
pub(crate) struct Cleared {
    held: Held,
    path: PathBuf,
    /// The bytes, where they are few enough to lie in the journal as well.
    content: Option<Vec<u8>>,
    /// As the bytes were written.
    digests: Mutex<ChunkDigests>,
}

impl Cleared {
    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn content(&self) -> Option<&[u8]> {
        self.content.as_deref()
    }

    /// The digests of the chunks, once: if the first try does not succeed, the file itself is asked.
    pub(crate) fn take_digests(&self) -> ChunkDigests {
        std::mem::take(&mut *self.digests.lock().expect("nobody panics with the lock held"))
    }
}

/// What the gate says.
#[derive(Debug)]
pub(crate) enum Disclosure {
    Cleared(Cleared),
    /// Values do not fit the round's scales; these exponents fit, one for each vector of the layout.
    OutOfRange {
        exponents: Vec<i16>,
    },
    /// What the desk of secure aggregation says; it has written that down.
    Answered(SecureMessage),
    Withheld(Refusal),
    /// The disk failed. Nothing is decided; the work is to be tried again.
    Hindered(io::Error),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Reals(values) => values.len(),
            Self::Differences { trained, .. } => trained.len(),
        }
    }

    fn is_whole(&self) -> bool {
        match self {
            Self::Reals(_) => true,
            Self::Differences { trained, global, .. } => match (&**trained, &**global) {
                (Scalars::F32(a), Scalars::F32(b)) => a.len() == b.len(),
                (Scalars::F64(a), Scalars::F64(b)) => a.len() == b.len(),
                _ => false,
            },
        }
    }
}

/// Whether a vector is exactly the one that was asked for.
fn fits(spec: &VectorSpec, vector: &Computed) -> bool {
    spec.purpose == vector.purpose
        && spec.name == vector.name
        && spec.shape == vector.shape
        && spec.elements() == Some(vector.values.len())
        && spec.encoding.is_valid()
        && vector.values.is_whole()
}

fn internal(sentence: &str) -> Refusal {
    Refusal::new(RefusalCode::Internal, sentence)
}

/// Whether the words and numbers beside the contribution may leave.
fn check_report(report: &Report) -> Result<(), Refusal> {
    let mut numbers = report.loss.into_iter().chain(report.measured.iter().map(|measured| measured.value));
    if !numbers.all(f64::is_finite) {
        return Err(internal("a number of the report is not finite"));
    }
    let is_fine = |remark: &String| remark.chars().count() <= LONGEST_REMARK && !remark.chars().any(char::is_control);
    if report.remarks.len() > MOST_REMARKS || !report.remarks.iter().all(is_fine) {
        return Err(internal("the report has too many or too long remarks"));
    }
    Ok(())
}

/// Whether everything was computed on as many rows as the hospital wants, or on none.
fn check_rows(policy: &Policy, outcome: &Outcome) -> Result<(), Refusal> {
    let too_few = || Refusal::new(RefusalCode::TooFewSamples, "it was computed on fewer rows than the hospital allows");
    let Report { train_rows, test_rows, measured, .. } = &outcome.report;
    let mut rows = outcome.samples.iter().chain([train_rows, test_rows]);
    if !rows.all(|rows| policy.allows_rows(*rows)) || (*test_rows == 0 && !measured.is_empty()) {
        return Err(too_few());
    }
    for vector in &outcome.vectors {
        // The numbers of rows that leave are checked themselves, wherever they came from.
        let is_count = vector.purpose == Purpose::Statistic && vector.name == COUNTS;
        let Values::Reals(values) = &vector.values else { continue };
        let least = policy.minimum_samples() as f64;
        let is_enough = |value: &f64| *value >= least || (is_count && *value == 0.0);
        if (is_count || vector.purpose == Purpose::Weight) && !values.iter().all(is_enough) {
            return Err(too_few());
        }
    }
    Ok(())
}

/// Whether a question's counts are none, or as large as the hospital wants: each of its own where the researcher sees it; where it sees
/// the sum, this node's rows, for the sum's own counts are held to the question's minimum.
fn check_cells(policy: &Policy, task: &Task, outcome: &Outcome) -> Result<(), Refusal> {
    let rules = policy.disclosure();
    if !matches!(task.work, Work::Pass { .. }) {
        return Ok(());
    }
    let rows = outcome.report.train_rows;
    if task.masking.is_some() {
        if rows == 0 || rows >= rules.minimum_rows {
            return Ok(());
        }
        if rules.small_inside_sum {
            return check_totals(rules, task);
        }
        let sentence = format!("fewer than the {} rows that the hospital tells of are asked about", rules.minimum_rows);
        return Err(Refusal::new(RefusalCode::TooFewSamples, sentence));
    }
    for cell in &outcome.cells {
        let (least, what) = match cell.kind {
            CellKind::Rows => (rules.minimum_rows, "rows"),
            CellKind::Events => (rules.minimum_events, "events"),
        };
        if cell.count > 0 && cell.count < least {
            let sentence = format!("{} has fewer {what} than the {least} that the hospital tells of", cell.of);
            return Err(Refusal::new(RefusalCode::TooFewSamples, sentence));
        }
    }
    Ok(())
}

/// Whether a question's rows are those of no earlier one but for a few, and writes them down: the difference of the answers would be
/// that of the few.
fn check_cohort(node: &NodeHandle, permit: &Permit, outcome: &Outcome) -> Result<(), Refusal> {
    let (Some(cohort), Some(dataset)) = (&outcome.cohort, permit.dataset()) else { return Ok(()) };
    let least = node.policy().disclosure().minimum_rows;
    if least == 0 {
        return Ok(());
    }
    let unreadable = |error: crate::store::StoreError| {
        tracing::error!(%error, "the database failed");
        Refusal::new(RefusalCode::Unavailable, "the node cannot read its database")
    };
    let files = &dataset.scan.fingerprint.files;
    let version: Vec<u8> = files.iter().flat_map(|file| *file.digest.as_bytes()).collect();
    let asked = (permit.researcher(), &dataset.id, version.as_slice());
    let mut is_known = false;
    for earlier in node.store().cohorts(asked).map_err(unreadable)? {
        match cohort.difference(&Cohort::from_bytes(earlier)) {
            Some(0) => is_known = true,
            Some(rows) if rows < least => {
                let sentence = format!(
                    "the question is about almost the same rows as an earlier one: fewer than {least} are in one and not in the other"
                );
                return Err(Refusal::new(RefusalCode::DisclosureNotAllowed, sentence));
            }
            _ => {}
        }
    }
    if is_known { Ok(()) } else { node.store().add_cohort(asked, cohort.as_bytes(), node.now()).map_err(unreadable) }
}

/// Whether the sum has as many rows as the hospital wants, where its own may be fewer. The survey counts them first; what comes
/// after names its result.
fn check_totals(rules: DisclosureRules, task: &Task) -> Result<(), Refusal> {
    let Work::Pass { pass } = &task.work else { return Ok(()) };
    let total = pass.get(survey::TOTAL).and_then(|total| total.first().copied());
    if pass.step == survey::STEP || total.is_some_and(|total| total >= rules.minimum_rows as f64) {
        return Ok(());
    }
    Err(Refusal::new(RefusalCode::TooFewSamples, "the nodes together have fewer rows than the hospital tells of"))
}

/// Whether the outcome is what was asked for, no more and no less.
fn check(layout: &[VectorSpec], outcome: &Outcome) -> Result<u64, Refusal> {
    let same_number = layout.len() == outcome.vectors.len();
    if !same_number || !layout.iter().zip(&outcome.vectors).all(|(spec, vector)| fits(spec, vector)) {
        return Err(internal("what was computed is not exactly what the task asked for"));
    }
    check_report(&outcome.report)?;
    layout_byte_len(layout).ok_or_else(|| internal("the contribution is too large"))
}

/// Whether the hospital still offers the dataset to the researcher, as it was when the task was admitted.
fn check_dataset(node: &NodeHandle, permit: &Permit) -> Result<(), Refusal> {
    let admitted = permit.dataset().map(|dataset| node.store().dataset(&dataset.id));
    match admitted.transpose().map(Option::flatten) {
        Ok(Some(dataset)) if dataset.is_visible_to(permit.researcher()) => Ok(()),
        Ok(_) => Err(Refusal::new(RefusalCode::DatasetUnknown, "the node does not offer the dataset any more")),
        Err(error) => {
            tracing::error!(%error, "the database failed");
            Err(Refusal::new(RefusalCode::Unavailable, "the node cannot read its database"))
        }
    }
}

/// Says whether the outcome of a permitted task may leave, and writes that down. If it may, it is on disk when this returns,
/// under `masks` if it is to be hidden.
pub(crate) fn release(node: &NodeHandle, permit: Permit, outcome: &Outcome, masks: Option<&Masks>) -> Disclosure {
    let (researcher, task) = (permit.researcher().clone(), permit.task().clone());
    let checked = check_dataset(node, &permit);
    let checked = checked.and_then(|()| check_rows(node.policy(), outcome));
    let checked =
        checked.and_then(|()| check_cells(node.policy(), &task, outcome)).and_then(|()| check(&task.layout, outcome));
    let checked = checked.and_then(|bytes| check_masks(&task, masks).map(|()| bytes));
    let checked = checked.and_then(|bytes| match masks {
        Some(masks) => masks.byte_len(&task.layout).ok_or_else(|| internal("the hidden contribution is too large")),
        None => Ok(bytes),
    });
    let checked = checked.and_then(|bytes| check_cohort(node, &permit, outcome).map(|()| bytes));
    let bytes = checked.as_ref().ok().copied();
    let mut clipped = None;
    let disclosure = match checked {
        Ok(bytes) => write_out(node, &permit, outcome, bytes, masks, &mut clipped).unwrap_or_else(Disclosure::Hindered),
        Err(refusal) => Disclosure::Withheld(refusal),
    };
    let (event, decision) = match &disclosure {
        Disclosure::Cleared(_) => ("contribution.released", "released".to_owned()),
        Disclosure::OutOfRange { .. } => ("contribution.withheld", "out_of_range".to_owned()),
        Disclosure::Withheld(refusal) => ("contribution.withheld", refusal.code.name()),
        Disclosure::Answered(_) | Disclosure::Hindered(_) => return disclosure,
    };
    let digest = if let Disclosure::Cleared(cleared) = &disclosure { Some(cleared.held.digest) } else { None };
    let facts = json!({
        "researcher": researcher, "requester": task.requester.user, "task": task.id, "dataset": task.dataset,
        "decision": decision, "digest": digest, "bytes": bytes,
        "session": masks.map(Masks::session),
    });
    if let Err(refusal) = node.audit(event, facts) {
        return Disclosure::Withheld(refusal);
    }
    if let Disclosure::Cleared(_) = &disclosure {
        keep_numbers(node, &permit, outcome, clipped);
        permit.into_reservation().commit();
    } else {
        if let Some(Err(error)) = masks.map(|masks| secure::give_back(node, &permit, masks)) {
            tracing::warn!(?error, "the masks of a contribution that does not leave serve no other one");
        }
        permit.into_reservation().release();
    }
    disclosure
}

/// Whether what is to be hidden will be, and nothing else.
fn check_masks(task: &Task, masks: Option<&Masks>) -> Result<(), Refusal> {
    if task.masking.is_some() == masks.is_some() { Ok(()) } else { Err(internal("a contribution lacks its masks")) }
}

/// Keeps the node's own numbers for its own people.
fn keep_numbers(node: &NodeHandle, permit: &Permit, outcome: &Outcome, clipped: Option<u64>) {
    let task = permit.task();
    let training_round = if let Work::Train { training_round } = task.work { Some(training_round) } else { None };
    let numbers = OwnNumbers {
        key: task.key.clone(),
        work: work_name(&task.work).to_owned(),
        training_round,
        dataset: task.dataset.clone(),
        is_hidden: task.masking.is_some(),
        clipped,
        report: outcome.report.clone(),
    };
    let (researcher, task) = (permit.researcher().clone(), task.id.clone());
    if let Err(error) = node.store().save_result(&OwnResult { researcher, task, numbers, created: node.now() }) {
        tracing::warn!(%error, "the own numbers of a round are not kept");
    }
}

/// The chance with which model differences are rounded; none where nothing is trained.
fn rounding(node: &NodeHandle, task: &Task) -> Option<Rounding> {
    match (&task.plan, &task.work) {
        (Plan::Training(plan), Work::Train { training_round }) => {
            Some(Rounding::new(plan.arguments().seed, *training_round, node.id()))
        }
        _ => None,
    }
}

fn write_out(
    node: &NodeHandle,
    permit: &Permit,
    outcome: &Outcome,
    bytes: u64,
    masks: Option<&Masks>,
    clipped: &mut Option<u64>,
) -> io::Result<Disclosure> {
    let task = permit.task();
    let is_inline = bytes <= INLINE_BYTES;
    if !is_inline && !node.has_room_for(bytes)? {
        let sentence = "the node's disk quota does not allow the contribution";
        return Ok(Disclosure::Withheld(Refusal::new(RefusalCode::QuotaExceeded, sentence)));
    }
    let mut writer: SpoolWriter = node.spool().create(permit.researcher(), &task.id)?;
    let mut content = is_inline.then(Vec::new);
    let mut write = |bytes: &[u8]| {
        if let Some(content) = &mut content {
            content.extend_from_slice(bytes);
        }
        writer.write(bytes)
    };
    let hiding = |masks| task.masking.as_ref().map(|masking| Hiding { masks, clipping: &masking.clipping });
    let rounding = rounding(node, task);
    let written = match masks {
        None => encode(&task.layout, outcome, None, rounding, write)?,
        Some(Masks::Lom(masks)) => encode(&task.layout, outcome, hiding(Some(masks)), rounding, write)?,
        Some(Masks::JoyeLibert(cipher)) => {
            let mut elements = Vec::new();
            let written = encode(&task.layout, outcome, hiding(None), rounding, |bytes| {
                elements.extend_from_slice(bytes);
                Ok(())
            })?;
            if matches!(written, Written::All { .. }) {
                match cipher.encrypt(node, permit, &elements) {
                    Ok(encrypted) => write(&encrypted)?,
                    Err(DeskError::Refused(refusal)) => return Ok(Disclosure::Withheld(refusal)),
                    Err(DeskError::Hindered(error)) => return Err(error),
                }
            }
            written
        }
    };
    let is_hidden = masks.is_some();
    Ok(match written {
        Written::All { clipped: count } => {
            *clipped = task.layout.iter().any(|spec| spec.purpose == Purpose::Clipped).then_some(count);
            let (path, BlobRef { digest, bytes }, digests) = writer.finish(is_inline)?;
            let report = (!is_hidden).then(|| outcome.report.clone());
            let held = Held { digest, bytes, report };
            Disclosure::Cleared(Cleared { held, path, content, digests: Mutex::new(digests) })
        }
        Written::OutOfRange(exponents) if is_hidden => hidden_overflow(&task.layout, &exponents),
        Written::OutOfRange(exponents) => Disclosure::OutOfRange { exponents },
        Written::NotFinite(name) => Disclosure::Withheld(Refusal::new(
            RefusalCode::TrainingDiverged,
            format!("a value of {name:?} is not a finite number; a smaller learning rate or standardised features may help"),
        )),
    })
}

/// How much coarser the scale of a hidden sum is made, whatever the values are.
const HIDDEN_STEP: i16 = 32;

/// Answers values that do not fit without telling how large they are: all 128-bit vectors get a scale that is coarser by a fixed
/// step. Vectors of the model have fewer bits and cannot overflow, since they are clipped to a range that their scale has room for, nor
/// can counts; where they do, the scale was wrong from the start.
fn hidden_overflow(layout: &[VectorSpec], exponents: &[i16]) -> Disclosure {
    let wide = |spec: &VectorSpec| spec.encoding.width == protocol::Width::Bits128;
    let overflows = |(spec, exponent): (&VectorSpec, &i16)| *exponent != spec.encoding.exponent && !wide(spec);
    if layout.iter().zip(exponents).any(overflows) {
        let sentence = "the range of the model's vectors times this node's weight does not fit the scale of the hidden sum";
        return Disclosure::Withheld(Refusal::new(RefusalCode::SecureAggregationFailed, sentence));
    }
    let coarser = |spec: &VectorSpec| spec.encoding.exponent - if wide(spec) { HIDDEN_STEP } else { 0 };
    Disclosure::OutOfRange { exponents: layout.iter().map(coarser).collect() }
}

/// Takes up a contribution that passed the gate before the daemon ended. Fails if the disk does not have those very bytes
/// any more.
pub(crate) fn restore(node: &NodeHandle, researcher: &ResearcherId, task: &TaskId, held: &Held) -> Result<Cleared, Refusal> {
    let lost = |error: &dyn std::fmt::Display| {
        tracing::error!(%task, %error, "a contribution is lost");
        internal("the contribution was lost on the node's disk")
    };
    let path = node.spool().path(researcher, task);
    let content = node.store().task_content(researcher, task).map_err(|error| lost(&error))?;
    if digest_of(&path).ok() != Some(held.digest) {
        // The file was written without waiting for the disk; the journal has the bytes.
        let content = content.as_deref().ok_or_else(|| lost(&"its file is missing or damaged"))?;
        let mut writer = node.spool().create(researcher, task).map_err(|error| lost(&error))?;
        writer.write(content).map_err(|error| lost(&error))?;
        let (_, blob, _) = writer.finish(true).map_err(|error| lost(&error))?;
        if blob.digest != held.digest {
            return Err(lost(&"its bytes in the journal are damaged"));
        }
    }
    Ok(Cleared { held: held.clone(), path, content, digests: Mutex::default() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::{Encoding, Integers, Width};

    use super::*;

    fn layout(encoding: Encoding) -> Vec<VectorSpec> {
        let spec = |purpose, name: &str, shape: &[usize], encoding| VectorSpec {
            purpose,
            name: name.into(),
            shape: shape.into(),
            encoding,
        };
        vec![spec(Purpose::Weight, "rows", &[1], Encoding::COUNT), spec(Purpose::Model, "weight", &[3], encoding)]
    }

    fn outcome(trained: &[f32]) -> Outcome {
        let vector =
            |purpose, name: &str, values: Values| Computed { purpose, name: name.into(), shape: vec![values.len()], values };
        let (trained, global) = (Scalars::F32(trained.to_vec()).into(), Scalars::F32(vec![1.0; trained.len()]).into());
        Outcome {
            vectors: vec![
                vector(Purpose::Weight, "rows", Values::Reals(vec![10.0])),
                vector(Purpose::Model, "weight", Values::Differences { trained, global, weight: 10.0 }),
            ],
            report: Report::default(),
            samples: vec![10],
            cells: Vec::new(),
            cohort: None,
        }
    }

    const FINE: Encoding = Encoding { width: Width::Bits32, exponent: 20 };

    fn written(outcome: &Outcome) -> (Written, Vec<u8>) {
        let mut bytes = Vec::new();
        let written = encode(&layout(FINE), outcome, None, None, |block| {
            bytes.extend_from_slice(block);
            Ok(())
        });
        (written.unwrap(), bytes)
    }

    #[test]
    fn differences_are_weighted_and_encoded_in_the_layouts_order() {
        let outcome = outcome(&[1.5, 1.0, 0.0]);
        assert_eq!(check(&layout(FINE), &outcome), Ok(8 + 12));
        let (written, bytes) = written(&outcome);
        assert!(matches!(written, Written::All { clipped: 0 }));
        let mut sums = Integers::zeros(Width::Bits32, 3);
        assert!(sums.add(Width::Bits32, &bytes[8..]));
        let values: Vec<f64> = sums.sums().map(|sum| FINE.decode(sum)).collect();
        assert_eq!(values, [5.0, 0.0, -10.0]);
    }

    #[test]
    fn anything_else_than_what_was_asked_for_is_withheld() {
        let good = outcome(&[1.0, 2.0, 3.0]);
        let changed = |change: &dyn Fn(&mut Outcome)| {
            let mut outcome = good.clone();
            change(&mut outcome);
            check(&layout(FINE), &outcome).is_err()
        };
        assert!(changed(&|it| it.vectors.truncate(1)));
        assert!(changed(&|it| it.vectors.push(it.vectors[0].clone())));
        assert!(changed(&|it| it.vectors.swap(0, 1)));
        assert!(changed(&|it| it.vectors[1].name = "bias".into()));
        assert!(changed(&|it| it.vectors[1].shape = vec![3, 1]));
        assert!(changed(&|it| it.vectors[1].purpose = Purpose::Statistic));
        assert!(changed(&|it| it.vectors[0].values = Values::Reals(vec![1.0, 2.0])));
        let other_type = Values::Differences {
            trained: Scalars::F32(vec![0.0; 3]).into(),
            global: Scalars::F64(vec![0.0; 3]).into(),
            weight: 1.0,
        };
        assert!(changed(&|it| it.vectors[1].values = other_type.clone()));
        assert!(changed(&|it| it.report.loss = Some(f64::NAN)));
        assert!(changed(&|it| it.report.remarks = vec!["line\nline".into()]));
        assert!(changed(&|it| it.report.remarks = vec!["x".repeat(600)]));
    }

    #[test]
    fn what_few_rows_gave_does_not_leave() {
        let file = "[default]\nid = \"NODE_00000000-0000-4000-8000-000000000001\"\nname = \"North\"\n";
        let env = |name: &str| (name == "FBM_SECURITY_MINIMUM_SAMPLES").then(|| "10".to_owned());
        let policy = Policy::of(&crate::config::NodeConfig::load(file, env).unwrap());
        let mut good = outcome(&[1.0, 2.0, 3.0]);
        good.report = Report { train_rows: 10, test_rows: 0, ..Report::default() };
        assert_eq!(check_rows(&policy, &good), Ok(()));
        let code = |change: &dyn Fn(&mut Outcome)| {
            let mut outcome = good.clone();
            change(&mut outcome);
            check_rows(&policy, &outcome).err().map(|refusal| refusal.code)
        };
        let few = Some(RefusalCode::TooFewSamples);
        assert_eq!(code(&|it| it.samples = vec![10, 9]), few);
        assert_eq!(code(&|it| it.report.train_rows = 9), few);
        assert_eq!(code(&|it| it.report.test_rows = 1), few);
        assert_eq!(code(&|it| it.vectors[0].values = Values::Reals(vec![9.0])), few);
        assert_eq!(code(&|it| it.vectors[0].values = Values::Reals(vec![0.0])), few, "a training has rows");
        let counts = |values: &[f64]| Computed {
            purpose: Purpose::Statistic,
            name: COUNTS.into(),
            shape: vec![values.len()],
            values: Values::Reals(values.to_vec()),
        };
        assert_eq!(code(&|it| it.vectors = vec![counts(&[0.0, 12.0])]), None);
        assert_eq!(code(&|it| it.vectors = vec![counts(&[12.0, 1.0])]), few);
    }

    #[test]
    fn not_a_number_does_not_leave() {
        assert!(matches!(written(&outcome(&[1.0, f32::NAN, 1.0])).0, Written::NotFinite(name) if name == "weight"));
    }

    proptest! {
        #[test]
        fn the_exponents_that_are_named_fit(values in proptest::collection::vec(-1e9_f32..1e9, 3)) {
            let outcome = outcome(&values);
            if let Written::OutOfRange(exponents) = written(&outcome).0 {
                prop_assert_eq!(exponents[0], 0);
                let encoding = Encoding { exponent: exponents[1], ..FINE };
                let again = encode(&layout(encoding), &outcome, None, None, |_| Ok(())).unwrap();
                let all_fit = matches!(again, Written::All { .. });
                prop_assert!(all_fit);
            }
        }
    }
}
