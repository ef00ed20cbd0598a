//! The one gate out: whether what was computed may leave. It writes the audit log, and the contribution's file itself: bytes
//! that it did not write do not leave.
//!
//! Only this module makes a [`Cleared`], and the agent uploads only that. What is said of work under way ([`progress`]) and of
//! datasets ([`faces`]) is made here as well; it is asked for again and again, and not written down each time.

mod message;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use analytics::moments::COUNTS;
use protocol::{
    BlobRef, EncodingError, Purpose, Refusal, RefusalCode, Report, ResearcherId, Scalars, TaskId, VectorSpec,
    layout_byte_len,
};
use serde_json::json;
use transport::blob::ChunkDigests;

use crate::handle::NodeHandle;
use crate::participant::Held;
use crate::policy::{Permit, Policy};
use crate::spool::{INLINE_BYTES, SpoolWriter, digest_of};

pub(crate) use message::{faces, progress};

/// Elements that are encoded at a time: few enough to stay near the processor.
const BLOCK: usize = 1 << 13;
/// Bytes that are written at a time, at least, before the end.
const WRITE_BYTES: usize = 256 << 10;
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

    /// Copies elements as reals.
    fn block(&self, range: std::ops::Range<usize>, out: &mut Vec<f64>) {
        out.clear();
        let (trained, global, weight) = match self {
            Self::Reals(values) => return out.extend_from_slice(&values[range]),
            Self::Differences { trained, global, weight } => (&**trained, &**global, weight),
        };
        match (trained, global) {
            (Scalars::F32(trained), Scalars::F32(global)) => {
                let pairs = trained[range.clone()].iter().zip(&global[range]);
                out.extend(pairs.map(|(trained, global)| (f64::from(*trained) - f64::from(*global)) * weight));
            }
            (Scalars::F64(trained), Scalars::F64(global)) => {
                let pairs = trained[range.clone()].iter().zip(&global[range]);
                out.extend(pairs.map(|(trained, global)| (trained - global) * weight));
            }
            _ => unreachable!("`fits` compared the types"),
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

/// Whether the outcome is what was asked for, no more and no less.
fn check(layout: &[VectorSpec], outcome: &Outcome) -> Result<u64, Refusal> {
    let same_number = layout.len() == outcome.vectors.len();
    if !same_number || !layout.iter().zip(&outcome.vectors).all(|(spec, vector)| fits(spec, vector)) {
        return Err(internal("what was computed is not exactly what the task asked for"));
    }
    check_report(&outcome.report)?;
    layout_byte_len(layout).ok_or_else(|| internal("the contribution is too large"))
}

/// What encoding a whole contribution came to.
enum Written {
    All,
    OutOfRange(Vec<i16>),
    NotFinite,
}

/// Encodes all vectors in the layout's order; `write` is not called any more once a value is out of range.
fn encode(layout: &[VectorSpec], outcome: &Outcome, mut write: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<Written> {
    let mut exponents: Vec<i16> = layout.iter().map(|spec| spec.encoding.exponent).collect();
    let mut all_fit = true;
    let (mut reals, mut bytes) = (Vec::new(), Vec::new());
    for ((spec, vector), exponent) in layout.iter().zip(&outcome.vectors).zip(&mut exponents) {
        let len = vector.values.len();
        for start in (0..len).step_by(BLOCK) {
            vector.values.block(start..len.min(start + BLOCK), &mut reals);
            match spec.encoding.encode(reals.iter().copied(), &mut bytes) {
                Ok(()) if bytes.len() < WRITE_BYTES => {}
                Ok(()) => {
                    if all_fit {
                        write(&bytes)?;
                    }
                    bytes.clear();
                }
                Err(EncodingError::OutOfRange { exponent: fitting }) => {
                    all_fit = false;
                    *exponent = fitting.min(*exponent);
                }
                Err(EncodingError::NotFinite) => return Ok(Written::NotFinite),
            }
        }
    }
    if !all_fit {
        return Ok(Written::OutOfRange(exponents));
    }
    write(&bytes)?;
    Ok(Written::All)
}

/// Whether the hospital still offers the dataset to the researcher, as it was when the task was admitted.
fn check_dataset(node: &NodeHandle, permit: &Permit) -> Result<(), Refusal> {
    match node.store().dataset(&permit.dataset().id) {
        Ok(Some(dataset)) if dataset.is_visible_to(permit.researcher()) => Ok(()),
        Ok(_) => Err(Refusal::new(RefusalCode::DatasetUnknown, "the node does not offer the dataset any more")),
        Err(error) => {
            tracing::error!(%error, "the database failed");
            Err(Refusal::new(RefusalCode::Unavailable, "the node cannot read its database"))
        }
    }
}

/// Says whether the outcome of a permitted task may leave, and writes that down. If it may, it is on disk when this returns.
pub(crate) fn release(node: &NodeHandle, permit: Permit, outcome: &Outcome) -> Disclosure {
    let (researcher, task) = (permit.researcher().clone(), permit.task().clone());
    let checked = check_dataset(node, &permit);
    let checked = checked.and_then(|()| check_rows(node.policy(), outcome)).and_then(|()| check(&task.layout, outcome));
    let disclosure = match checked {
        Ok(bytes) => write_out(node, &permit, outcome, bytes).unwrap_or_else(Disclosure::Hindered),
        Err(refusal) => Disclosure::Withheld(refusal),
    };
    let (event, decision) = match &disclosure {
        Disclosure::Cleared(_) => ("contribution.released", "released".to_owned()),
        Disclosure::OutOfRange { .. } => ("contribution.withheld", "out_of_range".to_owned()),
        Disclosure::Withheld(refusal) => ("contribution.withheld", refusal.code.name()),
        Disclosure::Hindered(_) => return disclosure,
    };
    let digest = if let Disclosure::Cleared(cleared) = &disclosure { Some(cleared.held.digest) } else { None };
    let facts = json!({
        "researcher": researcher, "requester": task.requester.user, "task": task.id, "dataset": task.dataset,
        "decision": decision, "digest": digest, "bytes": layout_byte_len(&task.layout),
    });
    if let Err(refusal) = node.audit(event, facts) {
        return Disclosure::Withheld(refusal);
    }
    match &disclosure {
        Disclosure::Cleared(_) => permit.into_reservation().commit(),
        _ => permit.into_reservation().release(),
    }
    disclosure
}

fn write_out(node: &NodeHandle, permit: &Permit, outcome: &Outcome, bytes: u64) -> io::Result<Disclosure> {
    let task = permit.task();
    let is_inline = bytes <= INLINE_BYTES;
    if !is_inline && !node.has_room_for(bytes)? {
        let sentence = "the node's disk quota does not allow the contribution";
        return Ok(Disclosure::Withheld(Refusal::new(RefusalCode::QuotaExceeded, sentence)));
    }
    let mut writer: SpoolWriter = node.spool().create(permit.researcher(), &task.id)?;
    let mut content = is_inline.then(Vec::new);
    let written = encode(&task.layout, outcome, |bytes| {
        if let Some(content) = &mut content {
            content.extend_from_slice(bytes);
        }
        writer.write(bytes)
    })?;
    Ok(match written {
        Written::All => {
            let (path, BlobRef { digest, bytes }, digests) = writer.finish(is_inline)?;
            let held = Held { digest, bytes, report: outcome.report.clone() };
            Disclosure::Cleared(Cleared { held, path, content, digests: Mutex::new(digests) })
        }
        Written::OutOfRange(exponents) => Disclosure::OutOfRange { exponents },
        Written::NotFinite => Disclosure::Withheld(Refusal::new(
            RefusalCode::TrainingDiverged,
            "a value of the contribution is not a finite number; a smaller learning rate or standardised features may help",
        )),
    })
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
        }
    }

    const FINE: Encoding = Encoding { width: Width::Bits32, exponent: 20 };

    fn written(outcome: &Outcome) -> (Written, Vec<u8>) {
        let mut bytes = Vec::new();
        let written = encode(&layout(FINE), outcome, |block| {
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
        assert!(matches!(written, Written::All));
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
        assert!(matches!(written(&outcome(&[1.0, f32::NAN, 1.0])).0, Written::NotFinite));
    }

    proptest! {
        #[test]
        fn the_exponents_that_are_named_fit(values in proptest::collection::vec(-1e9_f32..1e9, 3)) {
            let outcome = outcome(&values);
            if let Written::OutOfRange(exponents) = written(&outcome).0 {
                prop_assert_eq!(exponents[0], 0);
                let encoding = Encoding { exponent: exponents[1], ..FINE };
                let again = encode(&layout(encoding), &outcome, |_| Ok(())).unwrap();
                prop_assert!(matches!(again, Written::All));
            }
        }
    }
}
