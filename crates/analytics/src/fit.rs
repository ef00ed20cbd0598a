//! Whether a node's sums fit the scale of their pass.

/// The values if all are finite and below two to the power; otherwise as many zeros, and false: the researcher is told by a count that
/// sums did not fit, and takes a shorter step.
pub(crate) fn fitting(values: Vec<f64>, bits: i32) -> (Vec<f64>, bool) {
    let limit = f64::from(bits).exp2();
    // Written so that NaN does not fit.
    if values.iter().all(|value| value.abs() < limit) { (values, true) } else { (vec![0.0; values.len()], false) }
}
