//! What columns the sites have: a table of columns and sites, out of the datasets' public faces. No pass over any rows.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{ColumnFace, DatasetFace};
use serde::Serialize;

/// The columns of all sites, in the order in which they first occur.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Schema {
    pub columns: Vec<SchemaColumn>,
}

/// A column at all sites.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SchemaColumn {
    pub name: String,
    /// Whether every site has it, and all say the same of it.
    pub agrees: bool,
    /// What each site says of it; `null` where it has no such column.
    pub sites: BTreeMap<String, Option<ColumnFace>>,
}

/// Puts the faces of the sites' datasets side by side.
pub fn schema(faces: &[(String, DatasetFace)]) -> Schema {
    let (mut names, mut seen) = (Vec::new(), BTreeSet::new());
    let mut cells: BTreeMap<(&str, &str), &ColumnFace> = BTreeMap::new();
    for (site, face) in faces {
        for column in &face.columns {
            cells.insert((&column.name, site), column);
            if seen.insert(column.name.as_str()) {
                names.push(column.name.as_str());
            }
        }
    }
    let columns = names.into_iter().map(|name| {
        let at = |site: &String| cells.get(&(name, site.as_str())).map(|face| (*face).clone());
        let sites: BTreeMap<String, Option<ColumnFace>> = faces.iter().map(|(site, _)| (site.clone(), at(site))).collect();
        let mut values = sites.values();
        let first = values.next().cloned().flatten();
        let agrees = first.is_some() && values.all(|face| *face == first);
        SchemaColumn { name: name.to_owned(), agrees, sites }
    });
    Schema { columns: columns.collect() }
}

#[cfg(test)]
mod tests {
    use protocol::{ColumnKind, RowCount};

    use super::*;

    fn face(columns: &[(&str, ColumnKind)]) -> DatasetFace {
        let columns = columns.iter().map(|(name, kind)| serde_json::json!({"name": name, "kind": kind}));
        serde_json::from_value(serde_json::json!({
            "id": "dataset_00000000-0000-4000-8000-000000000001",
            "name": "heart",
            "data_type": "csv",
            "tags": ["heart"],
            "description": "",
            "rows": RowCount::Hidden,
            "columns": columns.collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    #[test]
    fn columns_that_differ_or_lack_are_shown_by_site() {
        let faces = [
            ("a".to_owned(), face(&[("age", ColumnKind::Integer), ("chol", ColumnKind::Integer)])),
            ("b".to_owned(), face(&[("chol", ColumnKind::Real), ("age", ColumnKind::Integer), ("ca", ColumnKind::Text)])),
        ];
        let found = schema(&faces);
        let columns: Vec<(&str, bool)> = found.columns.iter().map(|column| (column.name.as_str(), column.agrees)).collect();
        assert_eq!(columns, [("age", true), ("chol", false), ("ca", false)]);
        assert_eq!(found.columns[2].sites["a"], None);
        assert_eq!(found.columns[1].sites["b"].as_ref().map(|face| face.kind), Some(ColumnKind::Real));
        assert!(schema(&[]).columns.is_empty());
    }
}
