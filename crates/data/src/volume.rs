//! A picture in three dimensions, and where it lies in the body.

use thiserror::Error;

pub mod steps;

/// The most voxels of a volume: 1 GiB of memory, a head at 0.4 mm or a chest of 1,024 slices.
pub const MAX_VOXELS: usize = 1 << 28;

/// Why numbers are no volume.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VolumeError {
    #[error("expected 1 to {MAX_VOXELS} voxels, found {} × {} × {}", .size[0], .size[1], .size[2])]
    Size { size: [usize; 3] },
    #[error("expected {expected} values, found {found}")]
    Values { expected: usize, found: usize },
    #[error("the matrix from voxels to millimetres is not finite or flattens the volume")]
    Affine,
}

/// Millimetres of the body (right, anterior and superior positive) from voxel indices: a row for each, the shift last.
pub type Affine = [[f64; 4]; 3];

/// Values of a grid of voxels.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    size: [usize; 3],
    affine: Affine,
    values: Vec<f32>,
}

impl Volume {
    /// Takes values in the order of the first index, then the second, then the third.
    pub fn new(size: [usize; 3], affine: Affine, values: Vec<f32>) -> Result<Self, VolumeError> {
        let expected = voxels(size)?;
        if values.len() != expected {
            return Err(VolumeError::Values { expected, found: values.len() });
        }
        let determinant = determinant(&affine);
        if affine.iter().flatten().any(|number| !number.is_finite()) || !determinant.is_finite() || determinant == 0.0 {
            return Err(VolumeError::Affine);
        }
        Ok(Self { size, affine, values })
    }

    /// Voxels along each index.
    pub fn size(&self) -> [usize; 3] {
        self.size
    }

    pub fn affine(&self) -> &Affine {
        &self.affine
    }

    /// All values, the first index running fastest.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The value at an index inside the volume.
    pub fn value(&self, [i, j, k]: [usize; 3]) -> f32 {
        self.values[i + self.size[0] * (j + self.size[1] * k)]
    }

    /// The distance of neighbours along each index, in millimetres.
    pub fn spacing_mm(&self) -> [f64; 3] {
        [0, 1, 2].map(|axis| self.affine.iter().map(|row| row[axis] * row[axis]).sum::<f64>().sqrt())
    }

    /// Where each index points: three of `RLAPSI`, each letter the direction of the body that is nearest.
    pub fn orientation(&self) -> String {
        let axes = self.axes();
        let letter = |(axis, is_positive): (usize, bool)| match (axis, is_positive) {
            (0, true) => 'R',
            (0, false) => 'L',
            (1, true) => 'A',
            (1, false) => 'P',
            (_, true) => 'S',
            (_, false) => 'I',
        };
        axes.map(letter).iter().collect()
    }

    /// For each index the direction of the body that it mostly follows, and whether it grows with it; each direction once.
    fn axes(&self) -> [(usize, bool); 3] {
        let spacing = self.spacing_mm();
        let cosine = |row: usize, axis: usize| self.affine[row][axis] / spacing[axis];
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let fit = |order: &[usize; 3]| (0..3).map(|axis| cosine(order[axis], axis).abs()).sum::<f64>();
        let best = orders.iter().max_by(|a, b| fit(a).total_cmp(&fit(b))).expect("there are six orders");
        [0, 1, 2].map(|axis| (best[axis], cosine(best[axis], axis) > 0.0))
    }
}

/// The number of voxels, if it is possible.
pub(crate) fn voxels(size: [usize; 3]) -> Result<usize, VolumeError> {
    let product = size[0].checked_mul(size[1]).and_then(|area| area.checked_mul(size[2]));
    product.filter(|voxels| (1..=MAX_VOXELS).contains(voxels)).ok_or(VolumeError::Size { size })
}

fn determinant(affine: &Affine) -> f64 {
    let [a, b, c] = affine;
    a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const IDENTITY: Affine = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]];

    #[test]
    fn orientation_follows_the_matrix() {
        let tilted = [[0.1, -2.0, 0.0, 5.0], [0.2, 0.0, 3.0, 0.0], [-1.5, 0.1, 0.0, 0.0]];
        let volume = Volume::new([1, 1, 1], tilted, vec![0.0]).unwrap();
        assert_eq!(volume.orientation(), "ILA");
        assert_eq!(Volume::new([1, 1, 1], IDENTITY, vec![0.0]).unwrap().orientation(), "RAS");
    }

    #[test]
    fn impossible_volumes_are_refused() {
        let flat = [[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]];
        assert_eq!(Volume::new([1, 1, 1], flat, vec![0.0]), Err(VolumeError::Affine));
        assert!(matches!(Volume::new([2, 1, 1], IDENTITY, vec![0.0]), Err(VolumeError::Values { expected: 2, found: 1 })));
        for size in [[0, 1, 1], [usize::MAX, 2, 2], [1 << 20, 1 << 20, 1]] {
            assert!(matches!(Volume::new(size, IDENTITY, vec![]), Err(VolumeError::Size { .. })));
        }
    }
}
