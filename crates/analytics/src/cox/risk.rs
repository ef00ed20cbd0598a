//! The partial likelihood out of risk sets (Kalbfleisch and Prentice 2002, §4.2 and §4.3): Σ w, Σ w z and Σ w z zᵀ of who is at risk, with
//! w = exp(η), and the same of who has the event.

use protocol::statistic::Ties;

use crate::linear::Symmetric;
use crate::sum::Sum;

/// The log partial likelihood and its derivatives.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Likelihood {
    pub(super) log: f64,
    pub(super) score: Vec<f64>,
    pub(super) information: Symmetric,
    pub(super) fits: bool,
    /// The jump of the baseline's cumulative hazard in each bin, for pooled bins.
    pub(super) hazard: Vec<f64>,
}

/// The likelihood that is added up from event time to event time: log likelihood, score, information.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Totals {
    p: usize,
    pub(super) sums: Vec<Sum>,
}

impl Totals {
    pub(super) fn new(p: usize) -> Self {
        Self { p, sums: vec![Sum::default(); 1 + p + Symmetric::packed_len(p)] }
    }

    /// What the risk set of `events` tied events takes off, besides their own η and z. Returns the baseline hazard's jump.
    ///
    /// Efron's risk set loses the share l/d of those with the event for the l-th of d of them. All of them together need only
    /// five sums over l.
    pub(super) fn add_risk_set(&mut self, risk: &[f64], tied: &[f64], events: u64, ties: Ties) -> f64 {
        let p = self.p;
        let d = events as f64;
        // Σ 1/φ, Σ f/φ, Σ 1/φ², Σ f/φ², Σ f²/φ².
        let (mut a, mut b, mut c0, mut c1, mut c2) = (0.0, 0.0, 0.0, 0.0, 0.0);
        match ties {
            Ties::Breslow => {
                self.sums[0].add(-d * risk[0].ln());
                (a, c0) = (d / risk[0], d / (risk[0] * risk[0]));
            }
            Ties::Efron => {
                for l in 0..events {
                    let share = l as f64 / d;
                    let left = risk[0] - share * tied[0];
                    self.sums[0].add(-left.ln());
                    let inverse = 1.0 / left;
                    a += inverse;
                    b += share * inverse;
                    c0 += inverse * inverse;
                    c1 += share * inverse * inverse;
                    c2 += share * share * inverse * inverse;
                }
            }
        }
        let (score, information) = self.sums[1..].split_at_mut(p);
        let (s1, s2) = risk[1..].split_at(p);
        let none = vec![0.0; if ties == Ties::Breslow { risk.len() - 1 } else { 0 }];
        let (d1, d2) = if ties == Ties::Breslow { none.split_at(p) } else { tied[1..].split_at(p) };
        for j in 0..p {
            score[j].add(b * d1[j] - a * s1[j]);
        }
        let mut at = 0;
        for j in 0..p {
            for k in j..p {
                let outer = c0 * s1[j] * s1[k] - c1 * (s1[j] * d1[k] + d1[j] * s1[k]) + c2 * d1[j] * d1[k];
                information[at].add(a * s2[at] - b * d2[at] - outer);
                at += 1;
            }
        }
        a
    }
}

/// Adds a row of weight w to Σ w, Σ w z, Σ w z zᵀ.
pub(super) fn add_row(sums: &mut [f64], weight: f64, z: &[f64]) {
    let (first, rest) = sums.split_at_mut(1);
    first[0] += weight;
    let (s1, mut s2) = rest.split_at_mut(z.len());
    for (j, value) in z.iter().enumerate() {
        let weighted = weight * value;
        s1[j] += weighted;
        let (row, below) = s2.split_at_mut(z.len() - j);
        for (sum, other) in row.iter_mut().zip(&z[j..]) {
            *sum += weighted * other;
        }
        s2 = below;
    }
}

/// The likelihood out of pooled bins, whose rows are at risk up to their own: `bins` holds for each the sums of its rows and, for Efron, of
/// its events.
pub(super) fn pooled(events: &[f64], bins: &[f64], p: usize, ties: Ties) -> Likelihood {
    let len = 1 + p + Symmetric::packed_len(p);
    let bin_len = if ties == Ties::Efron { 2 * len } else { len };
    let mut totals = Totals::new(p);
    let mut risk = vec![0.0; len];
    let mut hazard = vec![0.0; events.len()];
    for (index, (events, bin)) in events.iter().zip(bins.chunks(bin_len)).enumerate().rev() {
        risk.iter_mut().zip(bin).for_each(|(risk, sum)| *risk += sum);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count that was decoded")]
        let events = events.max(0.0) as u64;
        if events > 0 {
            hazard[index] = totals.add_risk_set(&risk, &bin[len.min(bin.len())..], events, ties);
        }
    }
    let values: Vec<f64> = totals.sums.iter().map(|sum| sum.value()).collect();
    Likelihood {
        log: values[0],
        score: values[1..=p].to_vec(),
        information: Symmetric::from_packed(p, &values[1 + p..]),
        fits: values.iter().all(|value| value.is_finite()),
        hazard,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three at risk with z = 0, 1, 2 and η = 0, two of whom have the event: worked by hand.
    #[test]
    fn a_risk_set_with_ties_is_that_of_the_book() {
        let (mut risk, mut tied) = (vec![0.0; 3], vec![0.0; 3]);
        for z in [0.0, 1.0, 2.0] {
            add_row(&mut risk, 1.0, &[z]);
        }
        for z in [1.0, 2.0] {
            add_row(&mut tied, 1.0, &[z]);
        }
        assert_eq!((risk.as_slice(), tied.as_slice()), (&[3.0, 3.0, 5.0][..], &[2.0, 3.0, 5.0][..]));
        let check = |ties, expected: [f64; 3]| {
            let mut totals = Totals::new(1);
            totals.add_risk_set(&risk, &tied, 2, ties);
            for (sum, expected) in totals.sums.iter().zip(expected) {
                assert!((sum.value() - expected).abs() < 1e-12, "{ties:?}: {} is not {expected}", sum.value());
            }
        };
        check(Ties::Breslow, [-2.0 * 3_f64.ln(), -2.0, 2.0 * (5.0 / 3.0 - 1.0)]);
        // The second risk set has lost half of each: 2 in number, 1.5 in z, 2.5 in z².
        check(Ties::Efron, [-(3_f64.ln() + 2_f64.ln()), -1.0 - 0.75, 5.0 / 3.0 - 1.0 + 1.25 - 0.5625]);
    }
}
