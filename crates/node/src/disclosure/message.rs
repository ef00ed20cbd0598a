//! What a node says besides contributions: how far a task is, which datasets it has.

use std::collections::BTreeMap;

use data::{LevelCount, face};
use protocol::{DatasetFace, Level, NodeMessage, Progress, RequestId, RowCount, TaskId};

use crate::config::RowCounts;
use crate::store::Dataset;

/// The most levels of a column that is shown as a category, and the fewest rows for each.
const MOST_LEVELS: usize = 32;
const LEAST_ROWS_PER_LEVEL: u64 = 4;

/// A message that may leave.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClearedMessage(NodeMessage);

impl ClearedMessage {
    pub(crate) fn into_message(self) -> NodeMessage {
        self.0
    }
}

/// Says how far a task is. A loss that is not a finite number stays here, and any loss where the sum of losses is hidden.
pub(crate) fn progress(task: TaskId, progress: Progress, is_hidden: bool) -> ClearedMessage {
    let loss = progress.loss.filter(|loss| loss.is_finite() && !is_hidden);
    ClearedMessage(NodeMessage::Progress { task, progress: Progress { loss, ..progress } })
}

/// Answers a search: of each dataset its public face, with its rows as the hospital shows them.
pub(crate) fn faces<'a>(
    request: RequestId,
    found: impl Iterator<Item = &'a Dataset>,
    row_counts: RowCounts,
    least: u64,
) -> ClearedMessage {
    let datasets = found.map(|dataset| public_face(dataset, row_counts, least)).collect();
    ClearedMessage(NodeMessage::Found { request, datasets })
}

/// The levels of columns that categories are made of, which at least so many rows have. A column with nearly as many values as rows
/// names people, as an id does.
fn levels(dataset: &Dataset, least: u64) -> BTreeMap<String, Vec<Level>> {
    let is_category = |levels: &Vec<LevelCount>| {
        levels.len() <= MOST_LEVELS && dataset.scan.rows >= LEAST_ROWS_PER_LEVEL * levels.len() as u64
    };
    let shown = |levels: &Vec<LevelCount>| {
        levels.iter().filter(|counted| counted.rows >= least).map(|counted| counted.level.clone()).collect()
    };
    let columns = dataset.scan.levels.iter().filter(|(_, levels)| is_category(levels));
    columns.map(|(column, levels)| (column.clone(), shown(levels))).collect()
}

/// What a researcher sees of a dataset.
fn public_face(dataset: &Dataset, row_counts: RowCounts, least: u64) -> DatasetFace {
    let rows = dataset.scan.rows;
    DatasetFace {
        id: dataset.id.clone(),
        name: dataset.description.name.clone(),
        data_type: dataset.description.data_type(),
        tags: dataset.description.tags.clone(),
        description: dataset.description.description.clone(),
        rows: match row_counts {
            RowCounts::Exact => RowCount::Exact(rows),
            RowCounts::Rounded => RowCount::rounded(rows),
            RowCounts::Hidden => RowCount::Hidden,
        },
        columns: face(&dataset.scan.schema),
        levels: levels(dataset, least),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use data::{Description, Place, scan};
    use protocol::{DatasetId, Timestamp};
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use serde_json::json;

    use super::*;

    #[test]
    fn progress_leaves_with_finite_numbers_only() {
        let task = TaskId::random(&mut StdRng::seed_from_u64(1));
        let said = |loss| match progress(task.clone(), Progress { done: 3, total: 9, loss }, false).into_message() {
            NodeMessage::Progress { progress, .. } => progress,
            other => panic!("{other:?}"),
        };
        let hidden = progress(task.clone(), Progress { done: 3, total: 9, loss: Some(0.5) }, true).into_message();
        assert_eq!(
            hidden,
            NodeMessage::Progress { task: task.clone(), progress: Progress { done: 3, total: 9, loss: None } }
        );
        assert_eq!(said(Some(0.5)), Progress { done: 3, total: 9, loss: Some(0.5) });
        for loss in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(said(Some(loss)), Progress { done: 3, total: 9, loss: None });
        }
    }

    #[test]
    fn faces_show_rows_as_the_hospital_wants_and_no_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret-place.csv");
        std::fs::write(&path, format!("a,b\n{}", "1,2\n".repeat(303))).unwrap();
        let file = json!({ "name": "Heart", "data_type": "csv", "path": path, "tags": ["heart"], "description": "UCI" });
        let place = Place { root: dir.path(), lookup: &|_| None };
        let description = Description::from_json(file.to_string().as_bytes(), place).unwrap();
        let scan = scan(&description, None, &std::sync::atomic::AtomicBool::default()).unwrap();
        let mut rng = StdRng::seed_from_u64(2);
        let dataset = Dataset {
            id: DatasetId::random(&mut rng),
            visible_to: BTreeSet::new(),
            description,
            scan,
            registered: Timestamp::from_millis(0),
        };
        let request = RequestId::random(&mut rng);
        let shown = |row_counts| match faces(request.clone(), [&dataset].into_iter(), row_counts, 5).into_message() {
            NodeMessage::Found { datasets, .. } => {
                let text = serde_json::to_string(&datasets).unwrap();
                assert!(!text.contains("secret-place"), "{text}");
                datasets[0].rows
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(shown(RowCounts::Exact), RowCount::Exact(303));
        assert_eq!(shown(RowCounts::Rounded), RowCount::Rounded(300));
        assert_eq!(shown(RowCounts::Hidden), RowCount::Hidden);
    }
}
