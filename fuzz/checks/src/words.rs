//! Words that stand for something: ids, digests, times, addresses, tags, durations, proxies.

use std::fmt::Display;
use std::str::FromStr;

use component::config::parse_duration;
use protocol::{DatasetId, Digest, ExperimentId, NodeId, RequestId, ResearcherId, Tags, TaskId, Timestamp};
use transport::address::Address;
use transport::grpc::proxy::ProxyConfig;
use transport::identity::Fingerprint;

/// Reads a text as each of them; what was read is written and read as the same.
pub fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    check_word::<NodeId>(text);
    check_word::<ResearcherId>(text);
    check_word::<ExperimentId>(text);
    check_word::<DatasetId>(text);
    check_word::<TaskId>(text);
    check_word::<RequestId>(text);
    check_word::<Digest>(text);
    check_word::<Timestamp>(text);
    check_word::<Fingerprint>(text);
    match Address::parse(text) {
        Ok(address) => {
            assert_eq!(Address::parse(&address.to_string()).as_ref(), Ok(&address));
            assert!(address.port() > 0 && (1..=253).contains(&address.host().len()));
        }
        Err(error) => assert!(error.to_string().len() < 2_000, "a complaint is short"),
    }
    if let Ok(tags) = Tags::new(text.split(',')) {
        assert_eq!(Tags::new(tags.to_string().split(',')).as_ref(), Ok(&tags));
        assert!(tags.answer(&tags) && tags.conflicts_with(&tags));
    }
    let _ = parse_duration(text);
    let (proxy, exceptions) = text.split_once('\n').unwrap_or((text, ""));
    drop(ProxyConfig::new(Some(proxy), Some(exceptions)));
}

fn check_word<T: FromStr + Display + PartialEq>(text: &str) {
    let Ok(word) = text.parse::<T>() else { return };
    let written = word.to_string();
    assert!(written.parse::<T>().is_ok_and(|read| read == word), "{written} reads back as it was");
}
