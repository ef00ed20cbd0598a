//! `metrics.csv`: one line per number, so that any tool can filter and pivot it. UTF-8, lines end in CR LF (RFC 4180).
//!
//! | column | holds |
//! |---|---|
//! | `round` | rounds of training behind the parameters: 0 is the untrained model |
//! | `node` | the node's id, or `pooled` for all sites' rows together |
//! | `site` | the node's name; empty for `pooled` |
//! | `on` | `global` (the aggregate), `local` (a site's own parameters after its training) or `training` |
//! | `metric` | `loss` (with `training`), or a metric's name such as `auc` |
//! | `value` | the shortest decimal that reads back as the same float64 |
//!
//! What is undefined has no line. Each round is appended when it is over.

use std::collections::BTreeMap;
use std::io::{self, Write};

use protocol::NodeId;

use super::{RoundRecord, SiteFacts, Who};

/// The first line.
pub const HEADER: &str = "round,node,site,on,metric,value\r\n";

/// Writes the first line; once, before all rounds.
pub fn write_header(out: &mut impl Write) -> io::Result<()> {
    out.write_all(HEADER.as_bytes())
}

/// Appends the lines of one round.
pub fn write_round(out: &mut impl Write, sites: &[SiteFacts], round: &RoundRecord) -> io::Result<()> {
    let names: BTreeMap<&NodeId, String> = sites.iter().map(|site| (&site.node, cell(&site.name))).collect();
    for value in round.values() {
        let (node, site) = match value.who {
            Who::Pooled => ("pooled", ""),
            Who::Site(node) => (node.as_str(), names.get(node).map_or("", String::as_str)),
        };
        let (on, metric) = (value.quantity.on(), value.quantity.name());
        write!(out, "{},{node},{site},{on},{metric},{}\r\n", value.trained_rounds, value.value)?;
    }
    Ok(())
}

/// Quotes a text where RFC 4180 asks for it. A text that a spreadsheet would take for a formula gets an apostrophe in front:
/// names come from other people.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn csv(record: &super::super::Record) -> String {
        let mut out = Vec::new();
        write_header(&mut out).unwrap();
        record.rounds.iter().for_each(|round| write_round(&mut out, &record.sites, round).unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_number_has_a_line() {
        let record = sample::record(2, 1);
        let [first, second] = [0, 1].map(|site| record.sites[site].node.to_string());
        let expected = format!(
            "round,node,site,on,metric,value\r\n\
             1,{first},Cleveland,training,loss,0.5\r\n\
             0,{first},Cleveland,global,auc,0.5\r\n\
             0,{first},Cleveland,global,log_loss,0.6931471805599453\r\n\
             1,{second},Budapest,training,loss,0.5\r\n\
             0,{second},Budapest,global,auc,0.5\r\n\
             0,{second},Budapest,global,log_loss,0.6931471805599453\r\n\
             1,pooled,,training,loss,0.5\r\n\
             0,pooled,,global,auc,0.5\r\n\
             0,pooled,,global,log_loss,0.6931471805599453\r\n"
        );
        assert!(csv(&record).starts_with(&expected), "{}", csv(&record));
    }

    #[test]
    fn names_are_quoted_and_never_formulas() {
        assert_eq!(cell("Hôpital \"Nord\", aile B"), "\"Hôpital \"\"Nord\"\", aile B\"");
        assert_eq!(cell("=1+1"), "'=1+1");
        assert_eq!(cell("two\nlines"), "\"two\nlines\"");
        assert_eq!(cell("plain"), "plain");
    }

    #[test]
    fn undefined_values_have_no_line() {
        let mut record = sample::record(1, 1);
        record.rounds[0].loss = Some(f64::NAN);
        assert!(!csv(&record).contains("pooled,,training"));
    }
}
