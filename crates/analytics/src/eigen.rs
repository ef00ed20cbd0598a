//! Eigenvalues and eigenvectors of symmetric matrices.

/// An eigenvalue, and its vector of length 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Eigen {
    pub(crate) value: f64,
    pub(crate) vector: Vec<f64>,
}

/// Sweeps until nothing is left beside the diagonal; six or seven are usual.
const MAX_SWEEPS: usize = 60;

/// The eigenvalues of a symmetric matrix, largest first, by the rotations of Jacobi 1846 in the order of rows (Golub and Van Loan,
/// "Matrix Computations", 4th ed., §8.5). The largest element of each vector is positive.
pub(crate) fn symmetric(mut matrix: Vec<Vec<f64>>) -> Vec<Eigen> {
    let n = matrix.len();
    // The rows become the eigenvectors.
    let mut vectors: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| if i == j { 1.0 } else { 0.0 }).collect()).collect();
    for _ in 0..MAX_SWEEPS {
        let mut has_rotated = false;
        for p in 0..n {
            for q in p + 1..n {
                // Too small to change either diagonal element.
                let size = (matrix[p][p].abs() * matrix[q][q].abs()).sqrt();
                if matrix[p][q].abs() <= f64::MIN_POSITIVE.max(size * f64::EPSILON * 0.25) {
                    continue;
                }
                has_rotated = true;
                rotate(&mut matrix, &mut vectors, p, q);
            }
        }
        if !has_rotated {
            break;
        }
    }
    let mut found: Vec<Eigen> =
        vectors.into_iter().enumerate().map(|(i, vector)| Eigen { value: matrix[i][i], vector }).collect();
    found.sort_by(|a, b| b.value.total_cmp(&a.value));
    for eigen in &mut found {
        let largest =
            eigen.vector.iter().fold(0.0_f64, |largest, value| if value.abs() > largest.abs() { *value } else { largest });
        if largest < 0.0 {
            eigen.vector.iter_mut().for_each(|value| *value = -*value);
        }
    }
    found
}

/// Makes the element (p, q) 0.
fn rotate(matrix: &mut [Vec<f64>], vectors: &mut [Vec<f64>], p: usize, q: usize) {
    let theta = (matrix[q][q] - matrix[p][p]) / (2.0 * matrix[p][q]);
    // The smaller of the two angles.
    let tangent = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    let sine = tangent * cosine;
    let off = matrix[p][q];
    matrix[p][p] -= tangent * off;
    matrix[q][q] += tangent * off;
    (matrix[p][q], matrix[q][p]) = (0.0, 0.0);
    for k in (0..matrix.len()).filter(|k| *k != p && *k != q) {
        let (a, b) = (matrix[k][p], matrix[k][q]);
        let (turned_a, turned_b) = (cosine * a - sine * b, sine * a + cosine * b);
        (matrix[k][p], matrix[p][k]) = (turned_a, turned_a);
        (matrix[k][q], matrix[q][k]) = (turned_b, turned_b);
    }
    let (head, tail) = vectors.split_at_mut(q);
    for (a, b) in head[p].iter_mut().zip(&mut tail[0]) {
        (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_matrix_of_two_is_decomposed() {
        // (2 1; 1 2) has 3 with (1, 1) and 1 with (1, -1).
        let found = symmetric(vec![vec![2.0, 1.0], vec![1.0, 2.0]]);
        assert!((found[0].value - 3.0).abs() < 1e-15 && (found[1].value - 1.0).abs() < 1e-15);
        let half = 0.5_f64.sqrt();
        assert!(found[0].vector.iter().all(|value| (value - half).abs() < 1e-15));
        assert!((found[1].vector[0] + found[1].vector[1]).abs() < 1e-15);
    }

    #[test]
    fn a_matrix_of_zeros_has_eigenvalues_0() {
        assert!(symmetric(vec![vec![0.0; 3]; 3]).iter().all(|eigen| eigen.value == 0.0));
    }

    proptest! {
        #[test]
        fn vectors_are_orthogonal_and_give_the_matrix_back(n in 1_usize..9, values in proptest::collection::vec(-5.0_f64..5.0, 81)) {
            let at = |i: usize, j: usize| values[i.min(j) * 9 + i.max(j)];
            let matrix: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| at(i, j)).collect()).collect();
            let found = symmetric(matrix);
            prop_assert!(found.windows(2).all(|pair| pair[0].value >= pair[1].value));
            for i in 0..n {
                for j in 0..n {
                    let product: f64 = found[i].vector.iter().zip(&found[j].vector).map(|(a, b)| a * b).sum();
                    let expected = if i == j { 1.0 } else { 0.0 };
                    prop_assert!((product - expected).abs() < 1e-12);
                    let again: f64 = found.iter().map(|eigen| eigen.value * eigen.vector[i] * eigen.vector[j]).sum();
                    prop_assert!((again - at(i, j)).abs() < 1e-11);
                }
            }
        }
    }
}
