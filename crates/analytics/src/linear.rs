//! Symmetric systems of a few dozen unknowns: the normal equations and information matrices of regressions.

/// A symmetric matrix, both halves stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Symmetric {
    n: usize,
    values: Vec<f64>,
}

/// A pivot below this share of its diagonal element is rounding: the column is a combination of earlier ones.
const PIVOT_TOLERANCE: f64 = 1e-11;

impl Symmetric {
    pub(crate) fn zeros(n: usize) -> Self {
        Self { n, values: vec![0.0; n * n] }
    }

    /// How many elements the upper half has, with the diagonal.
    pub(crate) const fn packed_len(n: usize) -> usize {
        n * (n + 1) / 2
    }

    /// Out of the upper half, row by row. The slice must be of [`packed_len`](Self::packed_len).
    pub(crate) fn from_packed(n: usize, packed: &[f64]) -> Self {
        debug_assert_eq!(packed.len(), Self::packed_len(n));
        let mut matrix = Self::zeros(n);
        let mut values = packed.iter();
        for i in 0..n {
            for j in i..n {
                matrix.set(i, j, values.next().copied().unwrap_or(f64::NAN));
            }
        }
        matrix
    }

    /// The upper half, row by row.
    pub(crate) fn packed(&self) -> Vec<f64> {
        (0..self.n).flat_map(|i| self.values[i * self.n + i..(i + 1) * self.n].iter().copied()).collect()
    }

    pub(crate) fn n(&self) -> usize {
        self.n
    }

    pub(crate) fn get(&self, i: usize, j: usize) -> f64 {
        self.values[i * self.n + j]
    }

    pub(crate) fn set(&mut self, i: usize, j: usize, value: f64) {
        self.values[i * self.n + j] = value;
        self.values[j * self.n + i] = value;
    }

    pub(crate) fn add(&mut self, i: usize, j: usize, value: f64) {
        self.set(i, j, self.get(i, j) + value);
    }

    /// Adds the outer product of a vector with itself.
    pub(crate) fn add_outer(&mut self, x: &[f64], weight: f64) {
        for i in 0..self.n {
            for j in i..self.n {
                self.add(i, j, weight * x[i] * x[j]);
            }
        }
    }

    /// A x.
    pub(crate) fn times(&self, x: &[f64]) -> Vec<f64> {
        (0..self.n).map(|i| dot(&self.values[i * self.n..(i + 1) * self.n], x)).collect()
    }

    /// A M A.
    pub(crate) fn sandwich(&self, meat: &Self) -> Self {
        let n = self.n;
        let columns: Vec<Vec<f64>> = (0..n).map(|j| meat.times(&self.values[j * n..(j + 1) * n])).collect();
        let mut result = Self::zeros(n);
        for i in 0..n {
            for (j, column) in columns.iter().enumerate().skip(i) {
                result.set(i, j, dot(&self.values[i * n..(i + 1) * n], column));
            }
        }
        result
    }

    /// T A Tᵀ for the rows of T.
    pub(crate) fn transformed(&self, rows: &[Vec<f64>]) -> Self {
        let right: Vec<Vec<f64>> = rows.iter().map(|row| self.times(row)).collect();
        let mut result = Self::zeros(rows.len());
        for (i, row) in rows.iter().enumerate() {
            for (j, column) in right.iter().enumerate().skip(i) {
                result.set(i, j, dot(row, column));
            }
        }
        result
    }

    /// The Cholesky factor over the columns that are free and no combination of free ones before them.
    pub(crate) fn factor(&self, free: &[bool]) -> Factor {
        let mut factor = Factor { n: self.n, kept: Vec::new(), aliased: Vec::new(), lower: Vec::new() };
        for j in (0..self.n).filter(|j| free[*j]) {
            let mut row = Vec::with_capacity(factor.kept.len() + 1);
            for (k, column) in factor.kept.iter().enumerate() {
                let known: f64 = dot(&row[..k], &factor.lower[k][..k]);
                row.push((self.get(j, *column) - known) / factor.lower[k][k]);
            }
            let pivot = self.get(j, j) - dot(&row, &row);
            // Written so that NaN is aliased too.
            if pivot > PIVOT_TOLERANCE * self.get(j, j) {
                row.push(pivot.sqrt());
                factor.lower.push(row);
                factor.kept.push(j);
            } else {
                factor.aliased.push(j);
            }
        }
        factor
    }
}

/// A Cholesky factor L of the kept rows and columns: A = L Lᵀ.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Factor {
    n: usize,
    pub(crate) kept: Vec<usize>,
    /// Free columns that are combinations of kept ones before them.
    pub(crate) aliased: Vec<usize>,
    lower: Vec<Vec<f64>>,
}

impl Factor {
    /// The solution of A x = b, 0 for what is not kept.
    pub(crate) fn solve(&self, b: &[f64]) -> Vec<f64> {
        let k = self.kept.len();
        let mut y = Vec::with_capacity(k);
        for i in 0..k {
            let known = dot(&self.lower[i][..i], &y);
            y.push((b[self.kept[i]] - known) / self.lower[i][i]);
        }
        for i in (0..k).rev() {
            let known: f64 = (i + 1..k).map(|j| self.lower[j][i] * y[j]).sum();
            y[i] = (y[i] - known) / self.lower[i][i];
        }
        let mut x = vec![0.0; self.n];
        for (i, column) in self.kept.iter().enumerate() {
            x[*column] = y[i];
        }
        x
    }

    /// A⁻¹ over the kept rows and columns, 0 elsewhere.
    pub(crate) fn inverse(&self) -> Symmetric {
        let mut inverse = Symmetric::zeros(self.n);
        for column in &self.kept {
            let mut unit = vec![0.0; self.n];
            unit[*column] = 1.0;
            for (i, value) in self.solve(&unit).into_iter().enumerate().filter(|(i, _)| i <= column) {
                inverse.set(i, *column, value);
            }
        }
        inverse
    }
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Σ wᵢ aᵢ bᵢ in eight lanes.
pub(crate) fn dot3(w: &[f64], a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0_f64; 8];
    let ((ws, w), (xs, a), (ys, b)) = (w.as_chunks::<8>(), a.as_chunks::<8>(), b.as_chunks::<8>());
    for ((w, a), b) in ws.iter().zip(xs).zip(ys) {
        for lane in 0..8 {
            lanes[lane] += w[lane] * a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f64>() + w.iter().zip(a).zip(b).map(|((w, a), b)| w * a * b).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_solved_and_inverted() {
        // The inverse of this matrix is known: Hilbert's of order 3.
        let matrix = Symmetric::from_packed(3, &[1.0, 1.0 / 2.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 4.0, 1.0 / 5.0]);
        let factor = matrix.factor(&[true; 3]);
        assert_eq!(factor.kept, [0, 1, 2]);
        let expected = [9.0, -36.0, 30.0, 192.0, -180.0, 180.0];
        for (found, expected) in factor.inverse().packed().iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
        }
        let x = factor.solve(&matrix.times(&[1.0, -2.0, 3.0]));
        for (found, expected) in x.iter().zip([1.0, -2.0, 3.0]) {
            assert!((found - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn a_combination_of_earlier_columns_is_found_and_left_out() {
        // Columns a, b, a + b, c of four rows.
        let rows = [[1.0, 2.0, 3.0, 1.0], [4.0, 1.0, 5.0, 0.0], [0.3, 0.1, 0.4, 2.0], [2.0, 7.0, 9.0, 5.0]];
        let mut matrix = Symmetric::zeros(4);
        for row in rows {
            matrix.add_outer(&row, 1.0);
        }
        let factor = matrix.factor(&[true; 4]);
        assert_eq!((factor.kept.as_slice(), factor.aliased.as_slice()), (&[0, 1, 3][..], &[2][..]));
        assert_eq!(factor.solve(&[1.0; 4])[2], 0.0);
        // A column that is not free is none that others are measured against.
        assert_eq!(matrix.factor(&[true, false, true, true]).kept, [0, 2, 3]);
    }

    #[test]
    fn a_sandwich_is_a_product_of_three() {
        let bread = Symmetric::from_packed(2, &[2.0, 1.0, 3.0]);
        let meat = Symmetric::from_packed(2, &[1.0, -1.0, 4.0]);
        // [2 1; 1 3] [1 -1; -1 4] [2 1; 1 3].
        assert_eq!(bread.sandwich(&meat).packed(), [4.0, 7.0, 31.0]);
        assert_eq!(meat.transformed(&[vec![2.0, 1.0], vec![1.0, 3.0]]).packed(), [4.0, 7.0, 31.0]);
    }
}
