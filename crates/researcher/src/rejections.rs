//! Who was not let in, as the audit log shows it: a line for each address and reason at most once a minute, with how often it
//! happened since the last one, so that a stranger cannot fill the disk.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use protocol::Timestamp;

/// How long a line stands for what follows.
const PAUSE: Duration = Duration::from_mins(1);
/// Addresses and reasons that are told apart; what comes beyond counts as one.
const MAX_KINDS: usize = 256;
/// What those beyond are called.
const OTHERS: &str = "many addresses";

/// What was written lately.
#[derive(Debug, Default)]
pub(crate) struct Rejections {
    /// When the last line was written, and what was left out since.
    kinds: BTreeMap<(String, String), (Timestamp, u64)>,
}

impl Rejections {
    /// Counts a rejection; says the address and how many to write down, if it is time for a line.
    pub(crate) fn count(&mut self, peer: &str, reason: &str, now: Timestamp) -> Option<(String, u64)> {
        let address = peer.parse::<SocketAddr>().map_or_else(|_| peer.to_owned(), |address| address.ip().to_string());
        let is_over = |written: Timestamp| now >= written.saturating_add(PAUSE);
        if !self.kinds.contains_key(&(address.clone(), reason.to_owned())) && self.kinds.len() >= MAX_KINDS {
            self.kinds.retain(|_, (written, left_out)| !is_over(*written) || *left_out > 0);
        }
        let is_known = self.kinds.contains_key(&(address.clone(), reason.to_owned()));
        let key = if is_known || self.kinds.len() < MAX_KINDS {
            (address, reason.to_owned())
        } else {
            (OTHERS.to_owned(), String::new())
        };
        let Some((written, left_out)) = self.kinds.get_mut(&key) else {
            let shown = key.0.clone();
            self.kinds.insert(key, (now, 0));
            return Some((shown, 1));
        };
        *left_out += 1;
        if !is_over(*written) {
            return None;
        }
        *written = now;
        Some((key.0, std::mem::take(left_out)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_counts_what_it_stands_for() {
        let mut rejections = Rejections::default();
        let at = |seconds: u64| Timestamp::from_millis(1_000_000 + seconds * 1000);
        let line = |count| Some(("10.0.0.1".to_owned(), count));
        assert_eq!(rejections.count("10.0.0.1:4000", "no", at(0)), line(1));
        assert_eq!(rejections.count("10.0.0.1:4001", "no", at(1)), None, "another port is no other address");
        assert_eq!(rejections.count("10.0.0.1:4001", "why", at(1)), line(1));
        assert_eq!(rejections.count("10.0.0.1:4002", "no", at(59)), None);
        assert_eq!(rejections.count("10.0.0.1:4003", "no", at(60)), line(3));
        assert_eq!(rejections.count("10.0.0.1:4004", "no", at(61)), None);
    }

    #[test]
    fn any_number_of_addresses_gives_a_bounded_number_of_lines() {
        let mut rejections = Rejections::default();
        let now = Timestamp::from_millis(1_000_000);
        let lines = (0..5_000).filter(|index| rejections.count(&format!("host-{index}"), "no", now).is_some()).count();
        assert_eq!((lines, rejections.kinds.len()), (MAX_KINDS + 1, MAX_KINDS + 1));
    }
}
