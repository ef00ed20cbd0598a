//! The known word that somebody probably meant.

/// Words of the field and of Fed-BioMed's Python interface whose names here differ by more than a slip.
const SYNONYMS: [(&str, &str); 9] = [
    ("lr", "learning_rate"),
    ("round_limit", "rounds"),
    ("num_rounds", "rounds"),
    ("training_args", "training"),
    ("model_args", "model"),
    ("optimizer_args", "optimizer"),
    ("weight_decay", "l2"),
    ("test_on_global_updates", "on_global"),
    ("test_on_local_updates", "on_local"),
];

/// Finds the word in `known` that `found` most resembles, if any does.
pub(super) fn nearest<'k>(found: &str, known: &[&'k str]) -> Option<&'k str> {
    let written = found.to_lowercase().replace('-', "_");
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == written).map(|(_, ours)| *ours);
    if let Some(ours) = synonym.and_then(|ours| known.iter().find(|word| **word == ours)) {
        return Some(ours);
    }
    // A third of the letters may be wrong: more would suggest words that nobody meant.
    let allowed = (written.chars().count().min(64) / 3).max(1);
    let near = known.iter().map(|word| (distance(&written, word), *word)).min();
    near.filter(|(distance, _)| *distance <= allowed).map(|(_, word)| word)
}

/// Counts insertions, deletions, replacements and swaps of neighbours that turn one word into the other (optimal string
/// alignment; Boytsov 2011, §2.2.1).
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(64).collect();
    let right: Vec<char> = right.chars().take(64).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for row in 1..=left.len() {
        let mut next = vec![row; right.len() + 1];
        for column in 1..=right.len() {
            let changed = usize::from(left[row - 1] != right[column - 1]);
            next[column] = (last[column] + 1).min(next[column - 1] + 1).min(last[column - 1] + changed);
            let swapped = row > 1 && column > 1 && left[row - 1] == right[column - 2] && left[row - 2] == right[column - 1];
            if swapped {
                next[column] = next[column].min(before[column - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, next);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_literature() {
        // kitten/sitting is the textbook pair; ca/abc is 3 under optimal string alignment (2 under full Damerau).
        let expected =
            [("kitten", "sitting", 3), ("ca", "abc", 3), ("abcd", "abdc", 1), ("", "abc", 3), ("same", "same", 0)];
        for (left, right, steps) in expected {
            assert_eq!(distance(left, right), steps, "{left} {right}");
            assert_eq!(distance(right, left), steps, "{right} {left}");
        }
    }

    #[test]
    fn slips_and_synonyms_are_recognised_and_other_words_are_not() {
        let known = ["rounds", "momentum", "learning_rate", "standardise", "on_failure"];
        let expected = [
            ("momentun", Some("momentum")),
            ("lr", Some("learning_rate")),
            ("round", Some("rounds")),
            ("standardize", Some("standardise")),
            ("On-Failure", Some("on_failure")),
            ("colour", None),
            ("x", None),
            ("", None),
        ];
        for (found, near) in expected {
            assert_eq!(nearest(found, &known), near, "{found}");
        }
    }
}
