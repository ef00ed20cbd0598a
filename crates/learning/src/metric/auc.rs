//! The area under the ROC curve as the Mann-Whitney statistic: the share of pairs of one row of class 1 and one of class 0 in
//! which the former has the higher score, ties counting one half (Hanley and McNeil 1982, "The meaning and use of the area
//! under a receiver operating characteristic curve").

/// Bins of the histogram from which the pooled AUC is computed.
pub const SCORE_BINS: usize = 4096;

/// The bin of a score z, for the predicted probability p = 1 / (1 + exp(-z)).
///
/// Bins are equal parts of arcsin √p from 0 to π/2 (Anscombe 1948 uses this scale to make the variance of shares equal), which is
/// arctan exp(z/2). They are finer near 0 and 1 than equal parts of p, so rare outcomes keep their order.
pub(super) fn bin(score: f64) -> usize {
    let share = (score / 2.0).exp().atan() * std::f64::consts::FRAC_2_PI;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounds down; from 0 to SCORE_BINS")]
    let bin = (share * SCORE_BINS as f64) as usize;
    bin.min(SCORE_BINS - 1)
}

/// The AUC, and the share of it that ties contribute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub(super) value: f64,
    /// Half the share of tied pairs: if rows of a group are in truth in some order, the AUC differs by at most this.
    pub(super) ties: f64,
}

/// The AUC of groups of rows with equal scores, in ascending order of score: rows of class 0 and of class 1 in each.
/// `None` if a class has no row. Counts are whole, so the only rounding is the last division.
pub(super) fn area(groups: impl Iterator<Item = (u64, u64)>) -> Option<Area> {
    let (mut negatives, mut positives, mut twice_won, mut tied) = (0_u128, 0_u128, 0_u128, 0_u128);
    for (negative, positive) in groups {
        let (negative, positive) = (u128::from(negative), u128::from(positive));
        twice_won += positive * (2 * negatives + negative);
        tied += positive * negative;
        negatives += negative;
        positives += positive;
    }
    let twice_pairs = 2 * negatives * positives;
    let share = |count: u128| count as f64 / twice_pairs as f64;
    (twice_pairs > 0).then(|| Area { value: share(twice_won), ties: share(tied) })
}

/// Groups rows (score, whether of class 1) by equal scores.
pub(super) fn groups(mut rows: Vec<(f64, bool)>) -> Vec<(u64, u64)> {
    rows.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let equal = rows.chunk_by(|a, b| a.0 == b.0);
    equal
        .map(|group| {
            let positive = group.iter().filter(|(_, is_positive)| *is_positive).count();
            ((group.len() - positive) as u64, positive as u64)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn perfect_reversed_and_useless_orders() {
        assert_eq!(area([(3, 0), (0, 2)].into_iter()).unwrap().value, 1.0);
        assert_eq!(area([(0, 3), (2, 0)].into_iter()).unwrap().value, 0.0);
        assert_eq!(area([(3, 2)].into_iter()), Some(Area { value: 0.5, ties: 0.5 }));
        assert_eq!(area([(3, 0)].into_iter()), None);
    }

    #[test]
    fn bins_ascend_and_take_every_score() {
        assert_eq!((bin(f64::MIN), bin(f64::MAX)), (0, SCORE_BINS - 1));
        assert_eq!(bin(0.0), SCORE_BINS / 2, "an even chance is in the middle");
        let bins: Vec<usize> = (-4000..4000).map(|step| bin(f64::from(step) / 100.0)).collect();
        assert!(bins.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    proptest! {
        #[test]
        fn the_area_is_the_share_of_pairs_won(rows in proptest::collection::vec((-5_i8..5, any::<bool>()), 0..40)) {
            let rows: Vec<(f64, bool)> = rows.into_iter().map(|(score, is_positive)| (f64::from(score), is_positive)).collect();
            let (mut won, mut pairs) = (0.0, 0.0);
            for (high, _) in rows.iter().filter(|row| row.1) {
                for (low, _) in rows.iter().filter(|row| !row.1) {
                    pairs += 1.0;
                    won += if high > low { 1.0 } else if high == low { 0.5 } else { 0.0 };
                }
            }
            let area = area(groups(rows).into_iter());
            prop_assert_eq!(area.is_none(), pairs == 0.0);
            prop_assert!(area.is_none_or(|area| (area.value - won / pairs).abs() < 1e-12));
        }

        #[test]
        fn the_histogram_is_as_near_as_its_bound_says(rows in proptest::collection::vec((-9.0..9.0_f64, any::<bool>()), 2..300)) {
            let mut histogram = vec![(0, 0); SCORE_BINS];
            for (score, is_positive) in &rows {
                let bin = &mut histogram[bin(*score)];
                if *is_positive { bin.1 += 1 } else { bin.0 += 1 }
            }
            if let (Some(exact), Some(binned)) = (area(groups(rows).into_iter()), area(histogram.into_iter())) {
                prop_assert!((exact.value - binned.value).abs() <= binned.ties + 1e-12);
            }
        }
    }
}
