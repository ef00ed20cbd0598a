//! Declared steps on a volume: pure functions, applied in the order in which the dataset file or the experiment names them.

use serde::{Deserialize, Serialize};

use super::{Volume, VolumeError, voxels};

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Turns and flips the indices so that they grow to the right, to the front and upwards; no value changes.
    Reorient,
    /// Reads the volume on a grid of this spacing that covers the same field of view.
    Resample {
        spacing_mm: [f64; 3],
        #[serde(default)]
        interpolation: Interpolation,
    },
    /// Cuts out a box.
    Crop { from: [usize; 3], size: [usize; 3] },
    /// Cuts away or fills up evenly on both sides (one more at the far side) until the size is reached.
    Fit {
        size: [usize; 3],
        #[serde(default)]
        fill: f32,
    },
    /// Shifts and scales the values.
    Normalise { to: Scale },
}

/// How a value between voxels is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Weighted from the eight neighbours.
    #[default]
    Linear,
    /// The nearest voxel's: for labels.
    Nearest,
}

/// What values are scaled to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum Scale {
    /// Mean 0 and standard deviation 1 over the finite values.
    ZScore,
    /// The smallest finite value to 0, the largest to 1.
    Range,
    /// These two percentiles (0 to 100) to 0 and 1; what lies outside is cut.
    Percentiles { low: f64, high: f64 },
    /// These two values to 0 and 1; what lies outside is cut. For Hounsfield units.
    Window { low: f32, high: f32 },
}

/// Why a step cannot be taken on a volume.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StepError {
    #[error("spacing: expected three positive numbers of millimetres, found {0:?}")]
    Spacing([f64; 3]),
    #[error("crop: expected a box inside {} × {} × {} voxels, found {size:?} from {from:?}", .inside[0], .inside[1], .inside[2])]
    Crop { from: [usize; 3], size: [usize; 3], inside: [usize; 3] },
    #[error("normalise: expected the low bound below the high one, found {low} and {high}")]
    Bounds { low: f64, high: f64 },
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

/// Takes the steps in their order.
pub fn apply(volume: Volume, steps: &[Step]) -> Result<Volume, StepError> {
    steps.iter().try_fold(volume, |volume, step| match *step {
        Step::Reorient => Ok(reorient(&volume)),
        Step::Resample { spacing_mm, interpolation } => resample(&volume, spacing_mm, interpolation),
        Step::Crop { from, size } => crop(&volume, from, size),
        Step::Fit { size, fill } => fit(&volume, size, fill),
        Step::Normalise { to } => normalise(volume, to),
    })
}

/// A volume of this size whose voxels `value` gives, the index 0 of which lies at `origin` of the old one's indices.
fn build(
    volume: &Volume,
    size: [usize; 3],
    columns: [[f64; 3]; 3],
    origin: [f64; 3],
    value: impl Fn([usize; 3]) -> f32,
) -> Result<Volume, VolumeError> {
    let mut values = Vec::with_capacity(voxels(size)?);
    for k in 0..size[2] {
        for j in 0..size[1] {
            values.extend((0..size[0]).map(|i| value([i, j, k])));
        }
    }
    let old = volume.affine();
    let affine = [0, 1, 2].map(|row| {
        let shift = (0..3).map(|axis| old[row][axis] * origin[axis]).sum::<f64>() + old[row][3];
        let turn = [0, 1, 2].map(|new| (0..3).map(|axis| old[row][axis] * columns[new][axis]).sum::<f64>());
        [turn[0], turn[1], turn[2], shift]
    });
    Volume::new(size, affine, values)
}

const UNITS: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

fn reorient(volume: &Volume) -> Volume {
    let axes = volume.axes();
    let old_size = volume.size();
    // For each new index (a direction of the body) the old index that follows it.
    let follows = [0, 1, 2].map(|body| {
        let axis = axes.iter().position(|(direction, _)| *direction == body).expect("each direction occurs once");
        (axis, axes[axis].1)
    });
    let size = follows.map(|(axis, _)| old_size[axis]);
    let mut origin = [0.0; 3];
    let mut columns = [[0.0; 3]; 3];
    for (new, (axis, is_forward)) in follows.into_iter().enumerate() {
        columns[new][axis] = if is_forward { 1.0 } else { -1.0 };
        origin[axis] = if is_forward { 0.0 } else { (old_size[axis] - 1) as f64 };
    }
    let value = |new: [usize; 3]| {
        let mut old = [0; 3];
        for (position, (axis, is_forward)) in follows.into_iter().enumerate() {
            old[axis] = if is_forward { new[position] } else { old_size[axis] - 1 - new[position] };
        }
        volume.value(old)
    };
    build(volume, size, columns, origin, value).expect("as many voxels as before, under a turned matrix")
}

fn resample(volume: &Volume, spacing_mm: [f64; 3], interpolation: Interpolation) -> Result<Volume, StepError> {
    if spacing_mm.iter().any(|mm| !mm.is_finite() || *mm <= 0.0) {
        return Err(StepError::Spacing(spacing_mm));
    }
    let (old_size, old_mm) = (volume.size(), volume.spacing_mm());
    let ratio = [0, 1, 2].map(|axis| spacing_mm[axis] / old_mm[axis]);
    let size = [0, 1, 2].map(|axis| count(old_size[axis] as f64 / ratio[axis]));
    // The fields of view have the same centre.
    let origin = [0, 1, 2].map(|axis| ((old_size[axis] - 1) as f64 - ratio[axis] * (size[axis].max(1) - 1) as f64) / 2.0);
    let columns = [0, 1, 2].map(|axis| UNITS[axis].map(|unit| unit * ratio[axis]));
    let at = |new: [usize; 3]| [0, 1, 2].map(|axis| origin[axis] + ratio[axis] * new[axis] as f64);
    let built = match interpolation {
        Interpolation::Nearest => build(volume, size, columns, origin, |new| {
            let at = at(new);
            volume.value([0, 1, 2].map(|axis| index((at[axis] + 0.5).floor(), old_size[axis])))
        }),
        Interpolation::Linear => build(volume, size, columns, origin, |new| linear(volume, at(new))),
    };
    Ok(built?)
}

/// A positive number rounded to a count of at least 1; what is too large is refused as a size later.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and the cast saturates")]
fn count(number: f64) -> usize {
    (number.round() as usize).max(1)
}

/// The index nearest to a number, at the edge outside.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the indices first")]
fn index(number: f64, size: usize) -> usize {
    number.clamp(0.0, (size - 1) as f64) as usize
}

/// The value between eight voxels; outside the edge's.
#[expect(clippy::cast_possible_truncation, reason = "values are kept in single precision")]
fn linear(volume: &Volume, at: [f64; 3]) -> f32 {
    let size = volume.size();
    let low = [0, 1, 2].map(|axis| index(at[axis].floor(), size[axis]));
    let high = [0, 1, 2].map(|axis| (low[axis] + 1).min(size[axis] - 1));
    let part = [0, 1, 2].map(|axis| (at[axis] - low[axis] as f64).clamp(0.0, 1.0));
    let mut sum = 0.0;
    for corner in 0..8 {
        let is_high = [corner & 1 != 0, corner & 2 != 0, corner & 4 != 0];
        let weight: f64 = (0..3).map(|axis| if is_high[axis] { part[axis] } else { 1.0 - part[axis] }).product();
        // A neighbour without weight may be no number.
        if weight > 0.0 {
            sum +=
                weight * f64::from(volume.value([0, 1, 2].map(|axis| if is_high[axis] { high[axis] } else { low[axis] })));
        }
    }
    sum as f32
}

fn crop(volume: &Volume, from: [usize; 3], size: [usize; 3]) -> Result<Volume, StepError> {
    let inside = volume.size();
    let fits = |axis: usize| size[axis] > 0 && from[axis].checked_add(size[axis]).is_some_and(|end| end <= inside[axis]);
    if !(0..3).all(fits) {
        return Err(StepError::Crop { from, size, inside });
    }
    let value = |new: [usize; 3]| volume.value([0, 1, 2].map(|axis| from[axis] + new[axis]));
    Ok(build(volume, size, UNITS, from.map(|offset| offset as f64), value)?)
}

fn fit(volume: &Volume, size: [usize; 3], fill: f32) -> Result<Volume, StepError> {
    voxels(size)?;
    let old = volume.size();
    let cut = [0, 1, 2].map(|axis| old[axis].saturating_sub(size[axis]) / 2);
    let pad = [0, 1, 2].map(|axis| size[axis].saturating_sub(old[axis]) / 2);
    let value = |new: [usize; 3]| {
        let from = [0, 1, 2].map(|axis| (new[axis] + cut[axis]).checked_sub(pad[axis]).filter(|at| *at < old[axis]));
        match from {
            [Some(i), Some(j), Some(k)] => volume.value([i, j, k]),
            _ => fill,
        }
    };
    let origin = [0, 1, 2].map(|axis| cut[axis] as f64 - pad[axis] as f64);
    Ok(build(volume, size, UNITS, origin, value)?)
}

fn normalise(volume: Volume, to: Scale) -> Result<Volume, StepError> {
    let bounds = |low: f64, high: f64| {
        if low < high { Ok((low, high)) } else { Err(StepError::Bounds { low, high }) }
    };
    let finite = || volume.values.iter().filter(|value| value.is_finite()).map(|value| f64::from(*value));
    let (shift, scale, is_cut) = match to {
        Scale::ZScore => {
            let (mean, deviation) = moments(finite);
            (mean, deviation, false)
        }
        Scale::Range => {
            let (low, high) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
            (low, high - low, false)
        }
        Scale::Percentiles { low, high } => {
            bounds(low, high)?;
            if low < 0.0 || high > 100.0 {
                return Err(StepError::Bounds { low, high });
            }
            let mut sorted: Vec<f32> = volume.values.iter().copied().filter(|value| value.is_finite()).collect();
            sorted.sort_unstable_by(f32::total_cmp);
            let (low, high) = (percentile(&sorted, low), percentile(&sorted, high));
            (low, high - low, true)
        }
        Scale::Window { low, high } => {
            let (low, high) = bounds(f64::from(low), f64::from(high))?;
            (low, high - low, true)
        }
    };
    // A volume of one value has nothing to scale: all its voxels become 0.
    let scale = if scale.is_finite() && scale > 0.0 { scale } else { f64::INFINITY };
    let Volume { size, affine, mut values } = volume;
    for value in &mut values {
        let scaled = if value.is_finite() { (f64::from(*value) - shift) / scale } else { f64::NAN };
        #[expect(clippy::cast_possible_truncation, reason = "values are kept in single precision")]
        let narrow = (if is_cut { scaled.clamp(0.0, 1.0) } else { scaled }) as f32;
        *value = narrow;
    }
    Ok(Volume { size, affine, values })
}

/// Mean and standard deviation (of the sample) in two passes.
pub(crate) fn moments<I: Iterator<Item = f64>>(values: impl Fn() -> I) -> (f64, f64) {
    let (count, sum) = values().fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    let mean = sum / count;
    let squares: f64 = values().map(|value| (value - mean) * (value - mean)).sum();
    (mean, (squares / (count - 1.0)).sqrt())
}

/// The percentile of sorted values, linear between neighbours (type 7 of Hyndman and Fan 1996).
fn percentile(sorted: &[f32], percent: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = percent / 100.0 * last as f64;
    let low = index(at.floor(), sorted.len());
    let (below, above) = (f64::from(sorted[low]), f64::from(sorted[(low + 1).min(last)]));
    below + (at - low as f64) * (above - below)
}

#[cfg(test)]
mod tests {
    use super::super::tests::IDENTITY;
    use super::*;

    fn ramp(size: [usize; 3]) -> Volume {
        let mut values = Vec::new();
        for k in 0..size[2] {
            for j in 0..size[1] {
                values.extend((0..size[0]).map(|i| (i + 10 * j + 100 * k) as f32));
            }
        }
        Volume::new(size, IDENTITY, values).unwrap()
    }

    /// Where a voxel lies.
    fn place(volume: &Volume, [i, j, k]: [usize; 3]) -> [f64; 3] {
        let at = [i as f64, j as f64, k as f64, 1.0];
        [0, 1, 2].map(|row| (0..4).map(|axis| volume.affine()[row][axis] * at[axis]).sum())
    }

    #[test]
    fn reorienting_moves_no_value_in_the_body() {
        let turned = [[0.0, 0.0, -2.0, 3.0], [-1.0, 0.0, 0.0, 1.0], [0.0, 3.0, 0.0, 0.0]];
        let volume = Volume::new([2, 3, 4], turned, ramp([2, 3, 4]).values().to_vec()).unwrap();
        let upright = apply(volume.clone(), &[Step::Reorient]).unwrap();
        assert_eq!(upright.orientation(), "RAS");
        assert_eq!((upright.size(), upright.spacing_mm()), ([4, 2, 3], [2.0, 1.0, 3.0]));
        assert_eq!(upright.value([0, 0, 0]), volume.value([1, 0, 3]));
        assert_eq!(place(&upright, [0, 0, 0]), place(&volume, [1, 0, 3]));
        assert_eq!(place(&upright, [3, 1, 2]), place(&volume, [0, 2, 0]));
    }

    #[test]
    fn resampling_a_ramp_keeps_its_values_in_place() {
        let steps = |interpolation| [Step::Resample { spacing_mm: [0.5, 1.0, 2.0], interpolation }];
        let linear = apply(ramp([4, 3, 4]), &steps(Interpolation::Linear)).unwrap();
        assert_eq!((linear.size(), linear.spacing_mm()), ([8, 3, 2], [0.5, 1.0, 2.0]));
        for index in [[2, 1, 0], [5, 2, 1]] {
            let [x, y, z] = place(&linear, index);
            assert!((f64::from(linear.value(index)) - (x + 10.0 * y + 100.0 * z)).abs() < 1e-4);
        }
        let nearest = apply(ramp([4, 3, 4]), &steps(Interpolation::Nearest)).unwrap();
        assert!(nearest.values().iter().all(|value| value.fract() == 0.0));
    }

    #[test]
    fn cropping_and_fitting_keep_the_place_of_voxels() {
        let cropped = apply(ramp([4, 4, 4]), &[Step::Crop { from: [1, 0, 2], size: [2, 4, 1] }]).unwrap();
        assert_eq!((cropped.value([0, 0, 0]), place(&cropped, [0, 0, 0])), (201.0, [1.0, 0.0, 2.0]));
        let fitted = apply(ramp([4, 4, 4]), &[Step::Fit { size: [6, 2, 4], fill: -1.0 }]).unwrap();
        assert_eq!(fitted.size(), [6, 2, 4]);
        assert_eq!((fitted.value([0, 0, 0]), fitted.value([1, 0, 0])), (-1.0, 10.0));
        assert_eq!(place(&fitted, [1, 0, 0]), [0.0, 1.0, 0.0]);
        let outside = apply(ramp([4, 4, 4]), &[Step::Crop { from: [3, 0, 0], size: [2, 1, 1] }]).unwrap_err();
        assert_eq!(outside.to_string(), "crop: expected a box inside 4 × 4 × 4 voxels, found [2, 1, 1] from [3, 0, 0]");
    }

    #[test]
    fn values_are_scaled_as_declared() {
        let scaled = |to| apply(ramp([5, 1, 1]), &[Step::Normalise { to }]).unwrap().values().to_vec();
        assert_eq!(scaled(Scale::Range), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(scaled(Scale::Window { low: 1.0, high: 3.0 }), [0.0, 0.0, 0.5, 1.0, 1.0]);
        assert_eq!(scaled(Scale::Percentiles { low: 25.0, high: 75.0 }), [0.0, 0.0, 0.5, 1.0, 1.0]);
        let z = scaled(Scale::ZScore);
        assert!((f64::from(z[4]) - 2.0 / 2.5_f64.sqrt()).abs() < 1e-6 && z[2] == 0.0);
        let one = Volume::new([2, 1, 1], IDENTITY, vec![7.0, 7.0]).unwrap();
        assert_eq!(apply(one, &[Step::Normalise { to: Scale::ZScore }]).unwrap().values(), [0.0, 0.0]);
    }

    #[test]
    fn impossible_steps_are_refused() {
        let refused = |step| apply(ramp([2, 2, 2]), &[step]).unwrap_err();
        assert!(matches!(refused(Step::Fit { size: [1 << 20; 3], fill: 0.0 }), StepError::Volume(_)));
        let (interpolation, high) = (Interpolation::Linear, 10.0);
        for mm in [0.0, -1.0, f64::NAN] {
            assert!(matches!(refused(Step::Resample { spacing_mm: [1.0, 1.0, mm], interpolation }), StepError::Spacing(_)));
        }
        assert!(matches!(refused(Step::Resample { spacing_mm: [1e-12; 3], interpolation }), StepError::Volume(_)));
        let to = Scale::Percentiles { low: 20.0, high };
        assert!(matches!(refused(Step::Normalise { to }), StepError::Bounds { .. }));
    }

    #[test]
    fn steps_read_from_a_dataset_file() {
        let step: Step = toml::from_str("step = \"resample\"\nspacing_mm = [1, 1, 1.0]").unwrap();
        assert!(matches!(step, Step::Resample { interpolation: Interpolation::Linear, .. }));
        let step: Step = toml::from_str("step = \"normalise\"\nto = { method = \"z_score\" }").unwrap();
        assert_eq!(step, Step::Normalise { to: Scale::ZScore });
        assert!(toml::from_str::<Step>("step = \"crop\"\nfrom = [0,0,0]\nsize = [1,1,1]\nsice = 3").is_err());
    }
}
