//! Folders of pictures, one folder for each class, as a table: a row for each picture.
//!
//! Columns: `pixel_0`, `pixel_1`, … (grey, 0 to 255, row by row from the top left) if all pictures have one size or a size is
//! declared; `label`, the class's position among the sorted folder names; `class`, its name; `width` and `height` of the file;
//! `mean` and `sd` of its grey values.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use protocol::{ColumnFace, ColumnKind};
use serde::{Deserialize, Serialize};

use crate::MAX_COLUMNS;
use crate::error::DataError;
use crate::files::{MAX_FILES, folders_in, is_picture, name, sorted_entries};
use crate::fingerprint::{FileFingerprint, Fingerprint};
use crate::picture::{MAX_THUMBNAILS, Picture, sheet};
use crate::scan::{Layout, Scan, go_on};
use crate::schema::Schema;
use crate::source::{Batches, Source, batch, rows_per_batch};
use crate::volume::steps::moments;

/// How the pictures of an `images` dataset are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageParameters {
    /// Width and height to which every picture is brought.
    #[serde(default)]
    pub size: Option<[usize; 2]>,
}

/// A picture's file and the position of its class.
#[derive(Debug, Clone)]
struct Item {
    path: PathBuf,
    class: usize,
}

/// The classes of a folder and their pictures, both in the order of their names.
#[derive(Debug)]
struct Items {
    classes: Vec<String>,
    items: Vec<Item>,
}

impl Items {
    fn find(folder: &Path) -> Result<Self, DataError> {
        let expected = "a folder for each class, with PNG or JPEG files in it";
        let mut found = Self { classes: Vec::new(), items: Vec::new() };
        for path in folders_in(folder)? {
            let class = found.classes.len();
            found.classes.push(name(&path));
            let pictures = sorted_entries(&path)?.into_iter().filter(|path| is_picture(path));
            found.items.extend(pictures.map(|path| Item { path, class }));
            if found.items.len() > MAX_FILES {
                return Err(DataError::TooManyFiles { path: folder.to_owned() });
            }
        }
        if found.items.is_empty() {
            let number = found.classes.len();
            return Err(DataError::Folder {
                path: folder.to_owned(),
                expected,
                found: format!("{number} folders and no picture in them"),
            });
        }
        Ok(found)
    }
}

/// The files of a dataset, in the order of its fingerprint.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    Ok(Items::find(folder)?.items.into_iter().map(|item| item.path).collect())
}

/// Reads and checks all pictures.
pub(crate) fn scan(folder: &Path, parameters: ImageParameters, stop: &AtomicBool) -> Result<Scan, DataError> {
    let Items { items, .. } = Items::find(folder)?;
    let mut fingerprints = Vec::with_capacity(items.len());
    let mut common = None;
    for item in &items {
        go_on(stop)?;
        fingerprints.push(FileFingerprint::of(&item.path, stop)?);
        let picture = Picture::read_file(&item.path)?;
        let size = [picture.width, picture.height];
        common = Some(if common.is_none_or(|common| common == Some(size)) { Some(size) } else { None });
    }
    if let Some(size) = parameters.size
        && !is_table(size)
    {
        let expected = "a declared size of at least 1 × 1 pixel and at most as many pixels as a dataset may have columns";
        return Err(DataError::Folder { path: folder.to_owned(), expected, found: format!("{size:?}") });
    }
    let size = parameters.size.or(common.flatten().filter(|size| is_table(*size)));
    let schema = schema(size)?;
    let missing = vec![0; schema.len()];
    let rows = items.len() as u64;
    Ok(Scan {
        layout: Layout::Images { size },
        schema,
        rows,
        missing,
        levels: std::collections::BTreeMap::new(),
        marks: Vec::new(),
        fingerprint: Fingerprint { files: fingerprints },
    })
}

const DERIVED: [(&str, ColumnKind); 6] = [
    ("label", ColumnKind::Integer),
    ("class", ColumnKind::Text),
    ("width", ColumnKind::Integer),
    ("height", ColumnKind::Integer),
    ("mean", ColumnKind::Real),
    ("sd", ColumnKind::Real),
];

/// Whether pictures of this size can be rows of a table.
fn is_table([width, height]: [usize; 2]) -> bool {
    width.checked_mul(height).is_some_and(|pixels| (1..=MAX_COLUMNS - DERIVED.len()).contains(&pixels))
}

fn schema(size: Option<[usize; 2]>) -> Result<Schema, DataError> {
    let pixels = size.map_or(0, |[width, height]| width * height);
    let pixels = (0..pixels).map(|pixel| ColumnFace { name: format!("pixel_{pixel}"), kind: ColumnKind::Integer });
    let derived = DERIVED.map(|(name, kind)| ColumnFace { name: name.to_owned(), kind });
    Schema::new(pixels.chain(derived).collect())
}

/// A folder of pictures whose scan is known.
#[derive(Debug)]
pub(crate) struct ImageSource {
    pub(crate) folder: PathBuf,
    pub(crate) size: Option<[usize; 2]>,
    pub(crate) schema: Schema,
    pub(crate) rows: u64,
}

impl Source for ImageSource {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn batches(&self, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        let positions = self.schema.positions(columns)?;
        let found = Items::find(&self.folder)?;
        if found.items.len() as u64 != self.rows {
            return Err(DataError::Changed { path: self.folder.clone() });
        }
        let at_once = rows_per_batch(self.schema.len());
        let starts = (0..found.items.len()).step_by(at_once);
        let read = move |start: usize| {
            let end = (start + at_once).min(found.items.len());
            self.read(&found.classes, &found.items[start..end], &positions)
        };
        Ok(Box::new(starts.map(read).scan(false, end_after_error)))
    }
}

/// Ends a stream behind its first error.
pub(crate) fn end_after_error<T>(ended: &mut bool, item: Result<T, DataError>) -> Option<Result<T, DataError>> {
    if *ended {
        return None;
    }
    *ended = item.is_err();
    Some(item)
}

impl ImageSource {
    fn read(&self, classes: &[String], items: &[Item], positions: &[usize]) -> Result<RecordBatch, DataError> {
        let pixels = self.schema.len() - DERIVED.len();
        let needs_files = positions.iter().any(|position| *position < pixels || *position >= pixels + 2);
        let mut rows = Vec::new();
        for item in items.iter().filter(|_| needs_files) {
            let grey = Picture::read_file(&item.path)?.grey();
            let (mean, sd) = moments(|| grey.samples.iter().map(|sample| f64::from(*sample)));
            let samples = match self.size {
                Some([width, height]) => grey.resized(width, height).samples,
                None => Vec::new(),
            };
            rows.push(Row { samples, size: [grey.width, grey.height], mean, sd });
        }
        let column = |position: &usize| -> ArrayRef {
            let integers =
                |value: &dyn Fn(&Row) -> i64| -> ArrayRef { Arc::new(rows.iter().map(value).collect::<Int64Array>()) };
            let size = |side: usize| integers(&|row| i64::try_from(row.size[side]).expect("at most 2^14"));
            let reals =
                |value: &dyn Fn(&Row) -> f64| -> ArrayRef { Arc::new(rows.iter().map(value).collect::<Float64Array>()) };
            let Some(derived) = position.checked_sub(pixels) else {
                return integers(&|row| i64::from(row.samples[*position]));
            };
            match derived {
                0 => {
                    let label = |item: &Item| i64::try_from(item.class).expect("at most 2^20 folders");
                    Arc::new(items.iter().map(label).collect::<Int64Array>())
                }
                1 => Arc::new(items.iter().map(|item| Some(classes[item.class].as_str())).collect::<StringArray>()),
                2 => size(0),
                3 => size(1),
                4 => reals(&|row| row.mean),
                _ => reals(&|row| row.sd),
            }
        };
        let arrays = positions.iter().map(column).collect();
        Ok(batch(&self.schema.arrow(positions), arrays, items.len()))
    }
}

/// What is read of one picture.
struct Row {
    samples: Vec<u8>,
    size: [usize; 2],
    mean: f64,
    sd: f64,
}

/// A sheet of small pictures, taken evenly from all classes, as a PNG file.
pub(crate) fn thumbnails(folder: &Path) -> Result<Vec<u8>, DataError> {
    let Items { items, .. } = Items::find(folder)?;
    let step = items.len().div_ceil(MAX_THUMBNAILS);
    let pictures: Result<Vec<Picture>, DataError> = items
        .iter()
        .step_by(step)
        .map(|item| {
            let picture = Picture::read_file(&item.path)?;
            // Only as much as a thumbnail shows is kept in memory.
            let thin = (picture.width.max(picture.height) / 256).max(1);
            Ok(picture.resized(picture.width.div_ceil(thin), picture.height.div_ceil(thin)))
        })
        .collect();
    Ok(sheet(&pictures?).to_png())
}
