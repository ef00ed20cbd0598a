//! The two types of arithmetic, and the few vector operations that the engines are made of.
//!
//! `pulp` chooses the vector instructions when the program runs. On one machine the choice, and so every bit, is always the
//! same; another kind of processor may round differently.

#![expect(
    clippy::inline_always,
    reason = "vector instructions are used only where everything is inlined into their dispatch"
)]

use protocol::{Precision, Scalars};
use pulp::Simd;

/// A type that models are trained in: `f32` or `f64`.
pub(crate) trait Scalar:
    ndarray::LinalgScalar
    + PartialOrd
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::MulAssign
    + std::ops::SubAssign
    + std::fmt::Debug
    + Send
    + Sync
{
    const PRECISION: Precision;

    /// Rounds to the nearest value of this type, ties to even.
    fn from_f64(value: f64) -> Self;
    /// Converts exactly.
    fn to_f64(self) -> f64;
    #[must_use]
    fn exp(self) -> Self;
    #[must_use]
    fn tanh(self) -> Self;
    #[must_use]
    fn sqrt(self) -> Self;
    #[must_use]
    fn abs(self) -> Self;
    fn is_finite(self) -> bool;

    /// Puts elements into the precision-free form.
    fn wrap(values: Vec<Self>) -> Scalars;
    /// Takes elements of this type out of the precision-free form; `None` for the other type.
    fn unwrap(scalars: &Scalars) -> Option<&[Self]>;

    /// Σ aᵢbᵢ. The slices have the same length.
    fn dot<S: Simd>(simd: S, a: &[Self], b: &[Self]) -> Self;
    /// Σ aᵢcᵢ and Σ bᵢcᵢ in one reading of `c`. The slices have the same length.
    fn two_dots<S: Simd>(simd: S, a: &[Self], b: &[Self], c: &[Self]) -> (Self, Self);
    /// y ← shrink·y + factor·x. The slices have the same length.
    fn shrink_and_add<S: Simd>(simd: S, shrink: Self, y: &mut [Self], factor: Self, x: &[Self]);
}

macro_rules! scalar {
    (
        $scalar:ident, $precision:ident, $wrap:ident, $round:expr, $widen:expr, $as_simd:ident, $as_mut_simd:ident,
        $splat:ident, $mul:ident, $mul_add:ident, $add:ident, $reduce:ident, $load:ident, $store:ident
    ) => {
        impl Scalar for $scalar {
            const PRECISION: Precision = Precision::$precision;

            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                $round(value)
            }

            #[inline(always)]
            fn to_f64(self) -> f64 {
                $widen(self)
            }

            #[inline(always)]
            fn exp(self) -> Self {
                $scalar::exp(self)
            }

            #[inline(always)]
            fn tanh(self) -> Self {
                $scalar::tanh(self)
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                $scalar::sqrt(self)
            }

            #[inline(always)]
            fn abs(self) -> Self {
                $scalar::abs(self)
            }

            #[inline(always)]
            fn is_finite(self) -> bool {
                $scalar::is_finite(self)
            }

            fn wrap(values: Vec<Self>) -> Scalars {
                Scalars::$wrap(values)
            }

            fn unwrap(scalars: &Scalars) -> Option<&[Self]> {
                match scalars {
                    Scalars::$wrap(values) => Some(values),
                    _ => None,
                }
            }

            #[inline(always)]
            fn dot<S: Simd>(simd: S, a: &[Self], b: &[Self]) -> Self {
                let (a, a_tail) = S::$as_simd(a);
                let (b, b_tail) = S::$as_simd(b);
                let mut sum = simd.$mul(simd.$load(a_tail), simd.$load(b_tail));
                let mut other = simd.$splat(0.0);
                let (a_pairs, a_last) = a.as_chunks::<2>();
                let (b_pairs, b_last) = b.as_chunks::<2>();
                for (a, b) in a_pairs.iter().zip(b_pairs) {
                    sum = simd.$mul_add(a[0], b[0], sum);
                    other = simd.$mul_add(a[1], b[1], other);
                }
                for (a, b) in a_last.iter().zip(b_last) {
                    other = simd.$mul_add(*a, *b, other);
                }
                simd.$reduce(simd.$add(sum, other))
            }

            #[inline(always)]
            fn two_dots<S: Simd>(simd: S, a: &[Self], b: &[Self], c: &[Self]) -> (Self, Self) {
                let (a, a_tail) = S::$as_simd(a);
                let (b, b_tail) = S::$as_simd(b);
                let (c, c_tail) = S::$as_simd(c);
                let c_rest = simd.$load(c_tail);
                let mut a_sum = simd.$mul(simd.$load(a_tail), c_rest);
                let mut b_sum = simd.$mul(simd.$load(b_tail), c_rest);
                for ((a, b), c) in a.iter().zip(b).zip(c) {
                    a_sum = simd.$mul_add(*a, *c, a_sum);
                    b_sum = simd.$mul_add(*b, *c, b_sum);
                }
                (simd.$reduce(a_sum), simd.$reduce(b_sum))
            }

            #[inline(always)]
            fn shrink_and_add<S: Simd>(simd: S, shrink: Self, y: &mut [Self], factor: Self, x: &[Self]) {
                let (shrink, factor) = (simd.$splat(shrink), simd.$splat(factor));
                let (y, y_tail) = S::$as_mut_simd(y);
                let (x, x_tail) = S::$as_simd(x);
                for (y, x) in y.iter_mut().zip(x) {
                    *y = simd.$mul_add(factor, *x, simd.$mul(shrink, *y));
                }
                let tail = simd.$mul_add(factor, simd.$load(x_tail), simd.$mul(shrink, simd.$load(y_tail)));
                simd.$store(y_tail, tail);
            }
        }
    };
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest f32 is what the conversion means")]
#[inline(always)]
fn round_f32(value: f64) -> f32 {
    value as f32
}

scalar!(
    f32,
    Float32,
    F32,
    round_f32,
    f64::from,
    as_simd_f32s,
    as_mut_simd_f32s,
    splat_f32s,
    mul_f32s,
    mul_add_e_f32s,
    add_f32s,
    reduce_sum_f32s,
    partial_load_f32s,
    partial_store_f32s
);
scalar!(
    f64,
    Float64,
    F64,
    std::convert::identity,
    std::convert::identity,
    as_simd_f64s,
    as_mut_simd_f64s,
    splat_f64s,
    mul_f64s,
    mul_add_e_f64s,
    add_f64s,
    reduce_sum_f64s,
    partial_load_f64s,
    partial_store_f64s
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use pulp::{Arch, WithSimd};

    use super::*;

    struct Operations<'a, T>(&'a [T], &'a [T], &'a [T]);

    impl<T: Scalar> WithSimd for Operations<'_, T> {
        type Output = (T, (T, T), Vec<T>);

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            let mut sum = self.0.to_vec();
            T::shrink_and_add(simd, T::from_f64(0.5), &mut sum, T::from_f64(-2.0), self.1);
            (T::dot(simd, self.0, self.1), T::two_dots(simd, self.0, self.1, self.2), sum)
        }
    }

    fn check_operations<T: Scalar>(values: &[(i8, i8, i8)]) {
        let column = |pick: fn(&(i8, i8, i8)) -> i8| -> Vec<T> {
            values.iter().map(|row| T::from_f64(f64::from(pick(row)))).collect()
        };
        let (a, b, c) = (column(|row| row.0), column(|row| row.1), column(|row| row.2));
        let (dot, (ac, bc), sum) = Arch::new().dispatch(Operations(&a, &b, &c));
        let exact = |pick: fn(&(i8, i8, i8)) -> i32| -> f64 { values.iter().map(|row| f64::from(pick(row))).sum() };
        assert_eq!(dot.to_f64(), exact(|row| i32::from(row.0) * i32::from(row.1)));
        assert_eq!(ac.to_f64(), exact(|row| i32::from(row.0) * i32::from(row.2)));
        assert_eq!(bc.to_f64(), exact(|row| i32::from(row.1) * i32::from(row.2)));
        for (sum, row) in sum.iter().zip(values) {
            assert_eq!(sum.to_f64(), 0.5 * f64::from(row.0) - 2.0 * f64::from(row.1));
        }
    }

    proptest! {
        #[test]
        fn vector_operations_equal_whole_number_arithmetic(values in proptest::collection::vec(any::<(i8, i8, i8)>(), 0..80)) {
            check_operations::<f32>(&values);
            check_operations::<f64>(&values);
        }
    }
}
