//! The edge: artefacts become files. Each appears whole under its name or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use protocol::{Tensors, Timestamp};
use thiserror::Error;

use super::model_card::{ModelFile, model_card};
use super::{Record, Who, metrics, report, tensorboard};

const MODEL: &str = "model.safetensors";
const CARD: &str = "model_card.json";
const METRICS: &str = "metrics.csv";
const REPORT: &str = "report.html";
const TENSORBOARD: &str = "tensorboard";

/// Where the artefacts of an experiment lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// Absent, as its card, where the experiment has no model.
    pub model: Option<PathBuf>,
    pub model_card: Option<PathBuf>,
    pub metrics: PathBuf,
    pub report: PathBuf,
    /// The folder to give to `tensorboard --logdir`.
    pub tensorboard: PathBuf,
}

/// A file could not be written.
#[derive(Debug, Error)]
#[error("cannot write {path}")]
pub struct ArtifactError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Writes all artefacts into `dir`, which is made if it is not there; `date` goes on the model's card.
///
/// Files of an earlier call with the same record are replaced by the same bytes.
pub fn write_all(dir: &Path, record: &Record, model: Option<&Tensors>, date: Timestamp) -> Result<Artifacts, ArtifactError> {
    make_dir(dir)?;
    let file = model.map(|model| write_model(dir, model)).transpose()?;
    if let Some(file) = &file {
        replace(dir, CARD, |out| out.write_all(model_card(record, file, date).as_bytes()))?;
    }
    let metrics = replace(dir, METRICS, |out| {
        metrics::write_header(out)?;
        record.rounds.iter().try_for_each(|round| metrics::write_round(out, &record.sites, round))
    })?;
    let tensorboard = dir.join(TENSORBOARD);
    let runs = tensorboard::files(record);
    let of_sites = record.sites.iter().map(|site| (tensorboard::run_name(site), Who::Site(&site.node)));
    for (run, who) in of_sites.chain([(tensorboard::POOLED_RUN.to_owned(), Who::Pooled)]) {
        let dir = tensorboard.join(run);
        make_dir(&dir)?;
        replace(&dir, &tensorboard::file_name(record.experiment.started), |out| out.write_all(&runs[&who]))?;
    }
    let digest = file.as_ref().map(|file| file.digest);
    let report = replace(dir, REPORT, |out| out.write_all(report::html(record, digest).as_bytes()))?;
    let at = |name: &str| file.is_some().then(|| dir.join(name));
    Ok(Artifacts { model: at(MODEL), model_card: at(CARD), metrics, report, tensorboard })
}

fn write_model(dir: &Path, model: &Tensors) -> Result<ModelFile, ArtifactError> {
    let mut hasher = blake3::Hasher::new();
    let mut bytes = 0;
    replace(dir, MODEL, |out| {
        let mut tee = Tee { out, hasher: &mut hasher, bytes: &mut bytes };
        model.write_to(&mut tee)
    })?;
    let tensors = model.iter().map(|tensor| (tensor.name().to_owned(), tensor.shape().to_vec())).collect();
    Ok(ModelFile { name: MODEL.to_owned(), digest: hasher.finalize().into(), bytes, tensors })
}

/// Writes a file beside its place, to the disk, and moves it there.
fn replace(
    dir: &Path,
    name: &str,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<PathBuf, ArtifactError> {
    let (path, partial) = (dir.join(name), dir.join(format!(".{name}.partial")));
    let attempt = || {
        let mut out = BufWriter::new(File::create(&partial)?);
        write(&mut out)?;
        out.into_inner()?.sync_all()?;
        fs::rename(&partial, &path)?;
        File::open(dir)?.sync_all()
    };
    match attempt() {
        Ok(()) => Ok(path),
        Err(source) => {
            // What is left of the attempt is worth nothing; that it cannot be removed changes nothing about the error.
            let _ = fs::remove_file(&partial);
            Err(ArtifactError { path, source })
        }
    }
}

fn make_dir(dir: &Path) -> Result<(), ArtifactError> {
    fs::create_dir_all(dir).map_err(|source| ArtifactError { path: dir.to_owned(), source })
}

/// Writes on while hashing and counting.
struct Tee<'a, W> {
    out: &'a mut W,
    hasher: &'a mut blake3::Hasher,
    bytes: &'a mut u64,
}

impl<W: Write> Write for Tee<'_, W> {
    fn write(&mut self, block: &[u8]) -> io::Result<usize> {
        let written = self.out.write(block)?;
        self.hasher.update(&block[..written]);
        *self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Digest, Scalars, Tensor};

    use super::super::sample;
    use super::*;

    fn tensors() -> Tensors {
        Tensors::new(vec![Tensor::new("weight", vec![2], Scalars::F64(vec![0.5, -1.5])).unwrap()]).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn all_artefacts_are_written_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let record = sample::record(2, 2);
        let artifacts = write_all(dir.path(), &record, Some(&tensors()), record.experiment.ended).unwrap();
        assert_eq!(names(dir.path()), [METRICS, MODEL, CARD, REPORT, TENSORBOARD]);
        assert_eq!(names(&artifacts.tensorboard).len(), 3);
        let model = fs::read(artifacts.model.unwrap()).unwrap();
        assert_eq!(Tensors::from_bytes(&model).unwrap(), tensors());
        let card: serde_json::Value = serde_json::from_slice(&fs::read(artifacts.model_card.unwrap()).unwrap()).unwrap();
        assert_eq!(card["model"]["digest"], format!("blake3:{}", Digest::of(&model)));
        assert_eq!(card["model"]["bytes"], model.len());
    }

    #[test]
    fn writing_again_gives_the_same_files() {
        let dir = tempfile::tempdir().unwrap();
        let record = sample::record(2, 2);
        let first = write_all(dir.path(), &record, None, record.experiment.ended).unwrap();
        let before = fs::read(&first.report).unwrap();
        assert_eq!(write_all(dir.path(), &record, None, record.experiment.ended).unwrap(), first);
        assert_eq!(fs::read(&first.report).unwrap(), before);
        assert_eq!(names(dir.path()), [METRICS, REPORT, TENSORBOARD], "no model, no card, nothing partial");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_names_the_path() {
        let dir = tempfile::tempdir().unwrap();
        replace(dir.path(), "a", |out| out.write_all(b"old")).unwrap();
        let error = replace(dir.path(), "a", |out| {
            out.write_all(b"half of the n")?;
            Err(io::Error::other("disk full"))
        });
        assert_eq!(error.unwrap_err().path, dir.path().join("a"));
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["a"]);
    }
}
