//! How the sites' values were hidden from the researcher, over all rounds.

use protocol::Scheme;
use serde::Serialize;

use super::Record;

/// How sums were hidden while the model was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecureAggregation {
    pub scheme: Scheme,
    /// Rounds of training and validation whose sums were hidden.
    pub rounds: usize,
    /// The least over these rounds: sites that began, that had to take part in the end, that may help the researcher and learn nothing
    /// more, and that are in the sum.
    pub parties: u32,
    pub threshold: u32,
    pub colluders: u32,
    pub survivors: u32,
    /// Elements of model differences that were moved to the edge of their range, over all rounds and sites.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clipped: Option<u64>,
}

impl SecureAggregation {
    /// Sums up a record; none where nothing was hidden.
    pub fn of(record: &Record) -> Option<Self> {
        let hidden = || record.rounds.iter().filter_map(|round| round.hidden.as_ref());
        Some(Self {
            scheme: hidden().next()?.scheme,
            rounds: hidden().count(),
            parties: hidden().map(|hidden| hidden.parties).min()?,
            threshold: hidden().map(|hidden| hidden.threshold).min()?,
            colluders: hidden().map(|hidden| hidden.colluders).min()?,
            // A validation that too few revealed sums nobody.
            survivors: hidden().map(|hidden| hidden.survivors).filter(|survivors| *survivors > 0).min()?,
            clipped: hidden().filter_map(|hidden| hidden.clipped).reduce(u64::saturating_add),
        })
    }

    /// Says it in words for people.
    pub fn words(&self) -> String {
        let Self { scheme, rounds, parties, threshold, colluders, survivors, clipped } = self;
        let name = match scheme {
            Scheme::Lom => "low-overhead masking (lom)",
            Scheme::JoyeLibert => "Joye-Libert encryption (joye-libert)",
        };
        let clipped = match clipped {
            Some(count @ 1..) => format!("; {count} elements of updates were moved to the edge of their range"),
            Some(0) => "; no element of an update was outside its range".to_owned(),
            None => String::new(),
        };
        format!(
            "{name} in {rounds} rounds: at least {parties} sites began each and {survivors} are in each sum, {threshold} were needed; \
             up to {colluders} of them may help the researcher and learn no other site’s values{clipped}"
        )
    }
}
