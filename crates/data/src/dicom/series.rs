//! Slices put together to a volume.

use std::path::{Path, PathBuf};

use super::{DicomError, Plane, Slice, read_file};
use crate::error::DataError;
use crate::files::{folders_below, is_dicom, sorted_entries};
use crate::volume::{Affine, Volume};

/// The most slices of a series.
const MAX_SLICES: usize = 4_096;
/// How much the distances between slices may differ, as a share.
const UNEVEN: f64 = 0.02;

/// One series.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub modality: String,
    pub volume: Volume,
}

/// The folders at or below this one that hold DICOM files, in the order of their names; each is one series.
pub fn find_series(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut series = Vec::new();
    for folder in folders_below(folder)? {
        if sorted_entries(&folder)?.iter().any(|path| is_dicom(path)) {
            series.push(folder);
        }
    }
    Ok(series)
}

/// Reads the series of a folder.
pub fn read_series(folder: &Path) -> Result<Series, DataError> {
    let wrong = |source| DataError::Dicom { path: folder.to_owned(), source };
    let paths: Vec<PathBuf> = sorted_entries(folder)?.into_iter().filter(|path| is_dicom(path)).collect();
    if paths.is_empty() {
        return Err(DataError::NotAFile { path: folder.to_owned(), expected: "files ending with .dcm", found: "none" });
    }
    if paths.len() > MAX_SLICES {
        return Err(wrong(DicomError::TooMany(MAX_SLICES)));
    }
    let mut slices = Vec::with_capacity(paths.len());
    for path in &paths {
        let slice = read_file(path)?;
        let before = slices.iter().map(|slice: &Slice| slice.values.len()).sum::<usize>();
        crate::volume::voxels([slice.values.len() + before, 1, 1]).map_err(|error| wrong(error.into()))?;
        slices.push(slice);
    }
    assemble(slices).map_err(wrong)
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn normal(plane: &Plane) -> [f64; 3] {
    let (a, b) = (plane.along_row, plane.along_column);
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// Sorts slices along their normal and checks that they are one series without gaps.
fn assemble(mut slices: Vec<Slice>) -> Result<Series, DicomError> {
    let first = slices[0].clone();
    for slice in &slices {
        let differ = if slice.series != first.series {
            "their series"
        } else if (slice.rows, slice.columns) != (first.rows, first.columns) {
            "size"
        } else if slice.spacing_mm != first.spacing_mm {
            "pixel spacing"
        } else if slice.modality != first.modality {
            "modality"
        } else if !same_orientation(slice.plane.as_ref(), first.plane.as_ref()) {
            "orientation"
        } else {
            continue;
        };
        return Err(DicomError::Differ(differ));
    }
    let depth_mm = if let Some(plane) = &first.plane {
        let normal = normal(plane);
        let height = |slice: &Slice| slice.plane.map_or(0.0, |plane| dot(plane.position, normal));
        slices.sort_by(|a, b| height(a).total_cmp(&height(b)));
        even_distance(&slices.iter().map(height).collect::<Vec<_>>())?
    } else {
        slices.sort_by_key(|slice| slice.instance);
        None
    };
    let depth_mm = depth_mm.or(first.depth_mm).unwrap_or(1.0);
    let affine = affine(&slices[0], depth_mm);
    let size = [first.columns, first.rows, slices.len()];
    let values = slices.into_iter().flat_map(|slice| slice.values).collect();
    Ok(Series { modality: first.modality, volume: Volume::new(size, affine, values)? })
}

fn same_orientation(a: Option<&Plane>, b: Option<&Plane>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            let near = |a: [f64; 3], b: [f64; 3]| (0..3).all(|at| (a[at] - b[at]).abs() < 1e-3);
            near(a.along_row, b.along_row) && near(a.along_column, b.along_column)
        }
        _ => false,
    }
}

/// The distance of neighbours, if there are any, and if it is even.
fn even_distance(heights: &[f64]) -> Result<Option<f64>, DicomError> {
    let distances = || heights.windows(2).map(|pair| pair[1] - pair[0]);
    let smallest = distances().fold(f64::INFINITY, f64::min);
    let largest = distances().fold(0.0, f64::max);
    if heights.len() < 2 {
        return Ok(None);
    }
    if smallest < 1e-3 {
        return Err(DicomError::SamePlace);
    }
    if largest > smallest * (1.0 + UNEVEN) {
        return Err(DicomError::Gap { smallest, largest });
    }
    let count = heights.len() - 1;
    Ok(Some((heights[count] - heights[0]) / count as f64))
}

/// DICOM counts towards the left and the back, volumes towards the right and the front.
fn affine(slice: &Slice, depth_mm: f64) -> Affine {
    let [between_rows, between_columns] = slice.spacing_mm;
    let Some(plane) = &slice.plane else {
        return [[between_columns, 0.0, 0.0, 0.0], [0.0, -between_rows, 0.0, 0.0], [0.0, 0.0, depth_mm, 0.0]];
    };
    let normal = normal(plane);
    let length = dot(normal, normal).sqrt();
    [0, 1, 2].map(|row| {
        let side = if row < 2 { -1.0 } else { 1.0 };
        [
            side * plane.along_row[row] * between_columns,
            side * plane.along_column[row] * between_rows,
            side * normal[row] / length * depth_mm,
            side * plane.position[row],
        ]
    })
}
