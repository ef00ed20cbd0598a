//! What columns the sites have: a table of columns and sites, out of the datasets' public faces. No pass over any rows.

use std::collections::BTreeMap;

use protocol::statistic::Level;
use protocol::{ColumnFace, ColumnKind};
use serde::Serialize;

/// What a site shows of its dataset.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    pub name: &'a str,
    pub columns: &'a [ColumnFace],
    /// The different values of columns that have few.
    pub levels: &'a BTreeMap<String, Vec<Level>>,
}

/// A column at all sites.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SchemaColumn {
    pub column: String,
    /// What it holds at each site; `null` where there is no such column.
    pub sites: BTreeMap<String, Option<ColumnKind>>,
    /// The levels that sites show, put together.
    pub levels: Vec<Level>,
    /// What differs between sites.
    pub remark: Option<String>,
}

/// Puts what the sites show side by side; columns in the order in which they first occur.
pub fn schema(sites: &[Site<'_>]) -> Vec<SchemaColumn> {
    let mut columns: Vec<SchemaColumn> = Vec::new();
    // Positions by name, so that a wide table does not take the square of its width.
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    for site in sites {
        for face in site.columns {
            let position = *known.entry(&face.name).or_insert(columns.len());
            if position == columns.len() {
                let nowhere = sites.iter().map(|site| (site.name.to_owned(), None)).collect();
                columns.push(SchemaColumn { column: face.name.clone(), sites: nowhere, levels: Vec::new(), remark: None });
            }
            let column = &mut columns[position];
            column.sites.insert(site.name.to_owned(), Some(face.kind));
            for level in site.levels.get(&face.name).into_iter().flatten() {
                if !column.levels.contains(level) {
                    column.levels.push(level.clone());
                }
            }
        }
    }
    for column in &mut columns {
        column.remark = remark(&column.sites);
    }
    columns
}

fn remark(sites: &BTreeMap<String, Option<ColumnKind>>) -> Option<String> {
    let lacking: Vec<&str> = sites.iter().filter(|(_, kind)| kind.is_none()).map(|(site, _)| site.as_str()).collect();
    if !lacking.is_empty() {
        return Some(format!("not at {}", lacking.join(", ")));
    }
    let holds = |kind: ColumnKind| sites.values().flatten().any(|other| *other == kind);
    let (integers, reals) = (holds(ColumnKind::Integer), holds(ColumnKind::Real));
    if holds(ColumnKind::Text) && (integers || reals) {
        return Some("texts at some sites, numbers at others".to_owned());
    }
    (integers && reals).then(|| "whole numbers at some sites, reals at others".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faces(columns: &[(&str, ColumnKind)]) -> Vec<ColumnFace> {
        columns.iter().map(|(name, kind)| ColumnFace { name: (*name).to_owned(), kind: *kind }).collect()
    }

    #[test]
    fn columns_that_differ_or_lack_are_shown_by_site() {
        use ColumnKind::{Integer, Real, Text};
        let a = faces(&[("age", Integer), ("chol", Integer), ("sex", Integer)]);
        let b = faces(&[("chol", Real), ("age", Integer), ("ca", Text), ("sex", Text)]);
        let levels = |levels: &[f64]| {
            BTreeMap::from([("age".to_owned(), levels.iter().map(|level| Level::Number(*level)).collect::<Vec<_>>())])
        };
        let (at_a, at_b) = (levels(&[1.0, 2.0]), levels(&[2.0, 3.0]));
        let sites = [Site { name: "a", columns: &a, levels: &at_a }, Site { name: "b", columns: &b, levels: &at_b }];
        let found = schema(&sites);
        let remarks: Vec<(&str, Option<&str>)> =
            found.iter().map(|column| (column.column.as_str(), column.remark.as_deref())).collect();
        let expected = [
            ("age", None),
            ("chol", Some("whole numbers at some sites, reals at others")),
            ("sex", Some("texts at some sites, numbers at others")),
            ("ca", Some("not at a")),
        ];
        assert_eq!(remarks, expected);
        assert_eq!(found[0].levels, [1.0, 2.0, 3.0].map(Level::Number));
        assert_eq!(found[3].sites["a"], None);
        assert_eq!(found[1].sites["b"], Some(Real));
        assert!(schema(&[]).is_empty());
    }
}
