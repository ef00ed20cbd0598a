//! How many nodes must agree, and how many may be lost (specification §7).

/// Gives the smallest t with 2t > n + c: any two groups of t among n parties then share an honest one, so that of two lists of
/// survivors at most one can gather t signatures (Bonawitz et al. 2017, §6.2 and Theorem 6.5).
pub fn threshold(parties: u32, colluders: u32) -> u32 {
    parties.saturating_add(colluders) / 2 + 1
}

/// Gives the largest c up to ⌊(n − 1)/3⌋ that still lets one node drop, or 0.
pub fn default_colluders(parties: u32) -> u32 {
    let most = parties.saturating_sub(1) / 3;
    (0..=most).rev().find(|colluders| threshold(parties, *colluders) < parties).unwrap_or(0)
}

/// Gives how many survivors a session needs: max(t, `min_parties`).
pub fn least_survivors(threshold: u32, min_parties: u32) -> u32 {
    threshold.max(min_parties)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_quorums_share_more_parties_than_collude() {
        for parties in 2..200 {
            for colluders in 0..parties {
                let t = threshold(parties, colluders);
                assert!(2 * t > parties + colluders);
                assert!(2 * (t - 1) <= parties + colluders, "the smallest");
            }
        }
    }

    /// The table of the docs, worked out by hand from the two formulas.
    #[test]
    fn defaults_for_two_to_ten_nodes() {
        let rows: Vec<(u32, u32, u32)> = (2..=10)
            .map(|n| {
                let c = default_colluders(n);
                let t = threshold(n, c);
                (c, t, n.saturating_sub(least_survivors(t, 3)))
            })
            .collect();
        assert_eq!(
            rows,
            [(0, 2, 0), (0, 2, 0), (1, 3, 1), (1, 4, 1), (1, 4, 2), (2, 5, 2), (2, 6, 2), (2, 6, 3), (3, 7, 3)]
        );
    }
}
