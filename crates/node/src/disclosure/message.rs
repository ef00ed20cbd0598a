//! What a node says besides contributions: how far a task is, which datasets it has.

use data::face;
use protocol::{DatasetFace, NodeMessage, Progress, RequestId, RowCount, TaskId};

use crate::config::RowCounts;
use crate::store::Dataset;

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
) -> ClearedMessage {
    let datasets = found.map(|dataset| public_face(dataset, row_counts)).collect();
    ClearedMessage(NodeMessage::Found { request, datasets })
}

/// What a researcher sees of a dataset.
fn public_face(dataset: &Dataset, row_counts: RowCounts) -> DatasetFace {
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
        let shown = |row_counts| match faces(request.clone(), [&dataset].into_iter(), row_counts).into_message() {
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
