//! TensorBoard event files, written from scratch: `Event` messages in `TFRecord` framing.
//!
//! Each site and the pooled values are a run, a folder with one event file, so that TensorBoard draws them into one chart.
//! Tags are `training/loss`, `global/<metric>` and `local/<metric>`, and where sums were hidden `lom/parties` and the like in the run of all; the step is the number of training rounds behind the
//! parameters. Only the fields that scalars need are declared (`tensorflow/core/util/event.proto` and
//! `tensorflow/core/framework/summary.proto`).

use std::collections::BTreeMap;

use prost::Message;
use protocol::Timestamp;

use super::{Record, RoundRecord, SiteFacts, Who};
use crate::command::Hidden;

/// What the first record of an event file says.
const FILE_VERSION: &str = "brain.Event:2";

/// The name of the run for all sites together.
pub const POOLED_RUN: &str = "pooled";

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    /// Declared as a member of a oneof there, hence optional: a zero is written too.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// The name of an event file. TensorBoard looks for `tfevents` in it and sorts by the time.
pub fn file_name(started: Timestamp) -> String {
    format!("events.out.tfevents.{:010}.fedbiomed", started.as_millis() / 1000)
}

/// The name of a run's folder: what of the site's name can stand in a path, and its id so that no two are the same.
pub fn run_name(site: &SiteFacts) -> String {
    let plain = |letter: char| if letter.is_alphanumeric() { letter } else { '-' };
    let name: String = site.name.chars().take(40).map(plain).collect();
    format!("{}-{}", name.trim_matches('-'), site.node.short()).trim_start_matches('-').to_owned()
}

/// What an event file begins with.
pub fn header(started: Timestamp) -> Vec<u8> {
    framed(&event(started, 0, What::FileVersion(FILE_VERSION.to_owned())))
}

/// What a round appends to each event file. Whoever gave no numbers is not there.
pub fn round_events(round: &RoundRecord) -> BTreeMap<Who<'_>, Vec<u8>> {
    let mut steps: BTreeMap<(Who<'_>, u32), Vec<SummaryValue>> = BTreeMap::new();
    for value in round.values() {
        let tag = format!("{}/{}", value.quantity.on(), value.quantity.name());
        let entry = SummaryValue { tag, simple_value: Some(to_f32(value.value)) };
        steps.entry((value.who, value.trained_rounds)).or_default().push(entry);
    }
    // A round that only validates stands at the step of the last training.
    if let Some(hidden) = round.hidden.as_ref().filter(|_| round.loss.is_some()) {
        let Hidden { scheme, parties, threshold, colluders, survivors, clipped } = hidden;
        let numbers = [("parties", parties), ("threshold", threshold), ("colluders", colluders), ("survivors", survivors)];
        let numbers = numbers.map(|(name, number)| (name, f64::from(*number))).into_iter();
        let clipped = clipped.map(|count| ("clipped", count as f64));
        let entries = numbers
            .chain(clipped)
            .map(|(name, number)| SummaryValue { tag: format!("{scheme}/{name}"), simple_value: Some(to_f32(number)) });
        steps.entry((Who::Pooled, round.round)).or_default().extend(entries);
    }
    let mut files: BTreeMap<Who<'_>, Vec<u8>> = BTreeMap::new();
    for ((who, step), value) in steps {
        files.entry(who).or_default().extend(framed(&event(round.ended, step, What::Summary(Summary { value }))));
    }
    files
}

/// The whole event files: one for all sites together, and one for each site.
pub fn files(record: &Record) -> BTreeMap<Who<'_>, Vec<u8>> {
    let everyone = record.sites.iter().map(|site| Who::Site(&site.node)).chain([Who::Pooled]);
    let mut files: BTreeMap<Who<'_>, Vec<u8>> = everyone.map(|who| (who, header(record.experiment.started))).collect();
    for (who, events) in record.rounds.iter().flat_map(round_events) {
        if let Some(file) = files.get_mut(&who) {
            file.extend(events);
        }
    }
    files
}

fn event(at: Timestamp, step: u32, what: What) -> Event {
    Event { wall_time: at.as_millis() as f64 / 1000.0, step: i64::from(step), what: Some(what) }
}

#[expect(clippy::cast_possible_truncation, reason = "the format holds float32; rounds to nearest, too large is infinite")]
fn to_f32(value: f64) -> f32 {
    value as f32
}

/// Frames a message: length, masked checksum of the length, the message, masked checksum of the message
/// (`tensorflow/core/lib/io/record_writer.h`).
fn framed(message: &Event) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = (message.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(message.len() + 16);
    bytes.extend(length);
    bytes.extend(masked_checksum(&length).to_le_bytes());
    bytes.extend(&message);
    bytes.extend(masked_checksum(&message).to_le_bytes());
    bytes
}

/// CRC-32C, rotated and shifted so that checksums of data with checksums in it stay sound (`tensorflow/tsl/lib/hash/crc32c.h`).
fn masked_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sample;
    use super::*;

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c::crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c::crc32c(&(0..32).rev().collect::<Vec<u8>>()), 0x113f_db5c);
    }

    #[test]
    fn bytes_are_those_of_tensorboards_own_writer() {
        // Printed by tensorboard 2.21: RecordWriter on the same two events.
        let expected = "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c\
             200000000000000029eda95009000000000000044010032a130a110a0a676c6f62616c2f617563150000003f8288d6b5";
        let mut bytes = header(Timestamp::from_millis(1500));
        let value = vec![SummaryValue { tag: "global/auc".to_owned(), simple_value: Some(0.5) }];
        bytes.extend(framed(&event(Timestamp::from_millis(2500), 3, What::Summary(Summary { value }))));
        let expected =
            expected.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap());
        assert_eq!(bytes, expected.collect::<Vec<u8>>());
    }

    /// Reads what was written, checking every checksum.
    fn read(mut bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
            let (length_sum, rest) = rest.split_first_chunk::<4>().unwrap();
            assert_eq!(u32::from_le_bytes(*length_sum), masked_checksum(length));
            let (message, rest) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
            let (sum, rest) = rest.split_first_chunk::<4>().unwrap();
            assert_eq!(u32::from_le_bytes(*sum), masked_checksum(message));
            events.push(Event::decode(message).unwrap());
            bytes = rest;
        }
        assert!(bytes.is_empty());
        events
    }

    #[test]
    fn every_round_becomes_one_event_per_step() {
        let record = sample::record(2, 3);
        let events = read(&files(&record)[&Who::Pooled]);
        assert_eq!(events[0].what, Some(What::FileVersion(FILE_VERSION.to_owned())));
        // Round 1 measures the untrained model (step 0) and its own training loss (step 1), and so on; the last validates only.
        let steps: Vec<i64> = events[1..].iter().map(|event| event.step).collect();
        assert_eq!(steps, [0, 1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn how_sums_were_hidden_is_a_curve_of_all_sites() {
        let mut record = sample::record(2, 3);
        let scheme = protocol::Scheme::Lom;
        for round in &mut record.rounds {
            round.hidden = Some(Hidden { scheme, parties: 4, threshold: 3, colluders: 1, survivors: 4, clipped: Some(7) });
        }
        let files = files(&record);
        let values = |who: &Who<'_>| -> Vec<(i64, String, f32)> {
            let summaries = read(&files[who]).into_iter().filter_map(|event| match event.what {
                Some(What::Summary(summary)) => Some((event.step, summary.value)),
                _ => None,
            });
            let named = |(step, values): (i64, Vec<SummaryValue>)| {
                values.into_iter().map(move |value| (step, value.tag, value.simple_value.unwrap()))
            };
            summaries.flat_map(named).filter(|(_, tag, _)| tag.starts_with("lom/")).collect()
        };
        let pooled = values(&Who::Pooled);
        let steps: Vec<i64> = pooled.iter().filter(|(_, tag, _)| tag == "lom/clipped").map(|(step, ..)| *step).collect();
        assert_eq!(steps, [1, 2, 3]);
        assert!(
            pooled.contains(&(2, "lom/threshold".to_owned(), 3.0)) && pooled.contains(&(2, "lom/clipped".to_owned(), 7.0))
        );
        assert!(values(&Who::Site(&record.sites[0].node)).is_empty());
    }

    #[test]
    fn names_of_files_and_runs_are_plain() {
        assert_eq!(file_name(Timestamp::from_millis(1_764_000_000_123)), "events.out.tfevents.1764000000.fedbiomed");
        let mut site = sample::record(1, 1).sites.remove(0);
        site.name = "../../etc/<script> Nord".to_owned();
        assert_eq!(run_name(&site), format!("etc--script--Nord-{}", site.node.short()));
        site.name = "///".to_owned();
        assert_eq!(run_name(&site), site.node.short());
    }

    proptest! {
        #[test]
        fn every_value_is_written_in_a_sound_frame(value in any::<f64>(), round in any::<u32>()) {
            let mut record = sample::record(1, 1);
            record.rounds[0].round = round;
            record.rounds[0].loss = Some(value);
            let _ = read(&files(&record)[&Who::Pooled]);
        }
    }
}
