//! Tail probabilities and quantiles of the normal, chi-square, t and F distributions.
//!
//! Tails are computed themselves, never as one minus the rest, so that a p-value of 1e-180 has as many digits as one of 0.1. Own
//! functions: the library that exists stops its continued fractions after 140 terms, too few for the degrees of freedom of
//! a million rows.

use std::f64::consts::PI;

/// 0.5 ln 2π.
const HALF_LN_TWO_PI: f64 = 0.918_938_533_204_672_8;
/// From here on the series of Stirling gives 16 digits.
const LARGE: f64 = 10.0;
/// What replaces a denominator of 0 in a continued fraction (Lentz 1976).
const TINY: f64 = 1e-300;
/// Terms of a series or fraction; degrees of freedom of 10^10 need some 10^5.
const MAX_TERMS: u32 = 10_000_000;

/// The logarithm of the gamma function, for x > 0.
pub fn ln_gamma(x: f64) -> f64 {
    if x >= LARGE {
        return (x - 0.5) * x.ln() - x + HALF_LN_TWO_PI + stirling(x);
    }
    // Γ(x) = Γ(x + n) / (x (x + 1) … (x + n - 1)).
    let (mut product, mut shifted) = (1.0, x);
    while shifted < LARGE {
        product *= shifted;
        shifted += 1.0;
    }
    ln_gamma(shifted) - product.ln()
}

/// What Stirling's approximation lacks: Σ B₂ₖ / (2k (2k - 1) x²ᵏ⁻¹) (Abramowitz and Stegun 6.1.41).
fn stirling(x: f64) -> f64 {
    const TERMS: [f64; 8] = [
        1.0 / 12.0,
        -1.0 / 360.0,
        1.0 / 1260.0,
        -1.0 / 1680.0,
        1.0 / 1188.0,
        -691.0 / 360_360.0,
        1.0 / 156.0,
        -3617.0 / 122_400.0,
    ];
    let square = 1.0 / (x * x);
    TERMS.iter().rev().fold(0.0, |sum, term| sum * square + term) / x
}

/// The logarithm of the beta function, without the cancellation of three large logarithms (as Didonato and Morris 1992,
/// "Algorithm 708", BCORR).
fn ln_beta(a: f64, b: f64) -> f64 {
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    if large < LARGE {
        return ln_gamma(small) + ln_gamma(large) - ln_gamma(small + large);
    }
    let sum = small + large;
    let between = stirling(large) - stirling(sum) - (large - 0.5) * (small / large).ln_1p();
    if small < LARGE {
        // ln Γ(large) - ln Γ(sum) by Stirling, whose main terms are subtracted before they are rounded.
        return ln_gamma(small) + between - small * sum.ln() + small;
    }
    // The same with Stirling for the small one: its main terms cancel against those of the sum.
    (small - 0.5) * (small / sum).ln() - 0.5 * sum.ln() + HALF_LN_TWO_PI + stirling(small) + between
}

/// The upper tail of the gamma distribution of shape `a` and scale 1: Q(a, x) (Abramowitz and Stegun 6.5.3).
fn gamma_upper(a: f64, x: f64) -> f64 {
    if x.is_nan() {
        return f64::NAN;
    }
    if x <= 0.0 {
        return 1.0;
    }
    if x.is_infinite() {
        return 0.0;
    }
    if x < a + 1.0 { 1.0 - gamma_prefactor(a, x) * gamma_series(a, x) } else { gamma_prefactor(a, x) * gamma_fraction(a, x) }
}

/// xᵃ e⁻ˣ / Γ(a).
fn gamma_prefactor(a: f64, x: f64) -> f64 {
    if a < LARGE {
        return (a * x.ln() - x - ln_gamma(a)).exp();
    }
    // Γ(a) by Stirling: x^a e^-x / (a^a e^-a) = exp(-a (μ - ln(1 + μ))) with μ = x / a - 1.
    let excess = (x - a) / a;
    (a / (2.0 * PI)).sqrt() * (-a * (excess - excess.ln_1p()) - stirling(a)).exp()
}

/// Σ xⁿ / (a (a + 1) … (a + n)) (Abramowitz and Stegun 6.5.29).
fn gamma_series(a: f64, x: f64) -> f64 {
    let (mut term, mut sum) = (1.0 / a, 1.0 / a);
    for n in 1..MAX_TERMS {
        term *= x / (a + f64::from(n));
        sum += term;
        if term < sum * f64::EPSILON * 0.25 {
            break;
        }
    }
    sum
}

/// 1 / (x + 1 - a - 1 (1 - a) / (x + 3 - a - …)) (Abramowitz and Stegun 6.5.31, its even part), by Lentz's method.
#[expect(clippy::many_single_char_names, reason = "the names that the source uses")]
fn gamma_fraction(a: f64, x: f64) -> f64 {
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / b;
    let mut product = d;
    for n in 1..MAX_TERMS {
        let n = f64::from(n);
        let numerator = -n * (n - a);
        b += 2.0;
        d = 1.0 / away_from_zero(numerator * d + b);
        c = away_from_zero(b + numerator / c);
        let factor = c * d;
        product *= factor;
        if (factor - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    product
}

fn away_from_zero(value: f64) -> f64 {
    if value.abs() < TINY { TINY } else { value }
}

/// The lower tail of the beta distribution, I(x; a, b), given also y = 1 - x, which may be too small to be left of it
/// (Abramowitz and Stegun 26.5.8).
fn beta_lower(a: f64, b: f64, x: f64, y: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if y <= 0.0 {
        return 1.0;
    }
    let ln_x = if x > 0.5 { (-y).ln_1p() } else { x.ln() };
    let ln_y = if y > 0.5 { (-x).ln_1p() } else { y.ln() };
    let prefactor = (a * ln_x + b * ln_y - ln_beta(a, b)).exp();
    if (a + b) * y > b { prefactor * beta_fraction(a, b, x, y) } else { 1.0 - prefactor * beta_fraction(b, a, y, x) }
}

/// The fraction that gives I(x; a, b) when multiplied with xᵃ yᵇ / B(a, b) (Didonato and Morris 1992, "Algorithm 708", BFRAC). It takes
/// 1 - x as `y`, on whose digits the result hangs where x is close to 1.
#[expect(clippy::many_single_char_names, reason = "the names that the source uses")]
fn beta_fraction(a: f64, b: f64, x: f64, y: f64) -> f64 {
    let c = 1.0 + ((a + b) * y - b);
    let (ratio, inverse) = (b / a, 1.0 + 1.0 / a);
    // Two neighbouring convergents: numerators and denominators, scaled so that the last denominator is 1.
    let (mut before, mut last) = ((0.0, 1.0), (1.0, c / inverse));
    let (mut result, mut p, mut s) = (inverse / c, 1.0, a + 1.0);
    for n in 1..MAX_TERMS {
        let n = f64::from(n);
        let t = n / a;
        let w = n * (b - n) * x;
        let e = a / s;
        let alpha = (p * (p + ratio) * e * e) * (w * x);
        let e = (1.0 + t) / (inverse + t + t);
        let beta = n + w / s + e * (c + n * (1.0 + y));
        p = 1.0 + t;
        s += 2.0;
        let next = (alpha * before.0 + beta * last.0, alpha * before.1 + beta * last.1);
        let found = next.0 / next.1;
        if (found - result).abs() <= f64::EPSILON * found {
            return found;
        }
        result = found;
        before = (last.0 / next.1, last.1 / next.1);
        last = (found, 1.0);
    }
    result
}

/// P(Z > z) of the standard normal distribution.
pub fn normal_upper(z: f64) -> f64 {
    let tail = 0.5 * gamma_upper(0.5, 0.5 * z * z);
    if z < 0.0 { 1.0 - tail } else { tail }
}

/// P(|Z| > |z|): the p-value of a Wald test.
pub fn normal_two_sided(z: f64) -> f64 {
    gamma_upper(0.5, 0.5 * z * z)
}

/// The z with P(Z ≤ z) = p, for 0 < p < 1.
pub fn normal_quantile(p: f64) -> f64 {
    if p == 0.5 {
        return 0.0;
    }
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    -root(|z| normal_upper(z) - p)
}

/// P(X > x) of the chi-square distribution.
pub fn chi_square_upper(x: f64, df: f64) -> f64 {
    gamma_upper(0.5 * df, 0.5 * x)
}

/// P(|T| > |t|) of Student's distribution.
pub fn student_two_sided(t: f64, df: f64) -> f64 {
    let square = t * t;
    if square.is_infinite() {
        return 0.0;
    }
    if square.is_nan() {
        return f64::NAN;
    }
    beta_lower(0.5 * df, 0.5, df / (df + square), square / (df + square))
}

/// The t with P(T ≤ t) = p, for 0 < p < 1.
pub fn student_quantile(p: f64, df: f64) -> f64 {
    if p < 0.5 {
        return -student_quantile(1.0 - p, df);
    }
    root(|t| 0.5 * student_two_sided(t, df) - (1.0 - p))
}

/// P(X > x) of the F distribution with `df1` and `df2` degrees of freedom.
pub fn f_upper(x: f64, df1: f64, df2: f64) -> f64 {
    if x.is_nan() {
        return f64::NAN;
    }
    if x <= 0.0 {
        return 1.0;
    }
    if x.is_infinite() {
        return 0.0;
    }
    let all = df1.mul_add(x, df2);
    beta_lower(0.5 * df2, 0.5 * df1, df2 / all, df1 * x / all)
}

/// Where a falling function that is positive at 0 becomes 0, to the last digit: doubling, then halving.
fn root(f: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    while f(high) > 0.0 && high < 1e300 {
        low = high;
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if f(middle) > 0.0 { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests;
