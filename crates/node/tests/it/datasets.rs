//! Registering, changing and showing datasets.

use node::command::{DatasetChanges, NewDataset};
use node::datasets::DatasetError;
use protocol::ColumnKind;

use crate::world::{World, heart_dataset};

#[test]
fn a_dataset_is_read_whole() {
    let world = World::new();
    let node = world.node();
    let detail = node.add_dataset(&heart_dataset(&world.heart("cleveland.csv"), &["heart", "uci"]), &crate::GO_ON).unwrap();
    assert_eq!((detail.row.rows, detail.row.state.as_str()), (303, "ready"));
    assert!(detail.columns.iter().any(|column| column.name == "oldpeak" && column.kind == ColumnKind::Real));
}

#[test]
fn tags_may_not_contain_each_other_at_adding_and_at_updating() {
    let world = World::new();
    let node = world.node();
    let path = world.heart("cleveland.csv");
    let first = node.add_dataset(&heart_dataset(&path, &["heart", "uci"]), &crate::GO_ON).unwrap();
    for tags in [&["heart"][..], &["heart", "uci"], &["heart", "uci", "more"]] {
        let refused = node.add_dataset(&heart_dataset(&path, tags), &crate::GO_ON).unwrap_err();
        assert!(matches!(refused, DatasetError::TagConflict { .. }), "{refused}");
    }
    let second = node.add_dataset(&heart_dataset(&path, &["heart", "north"]), &crate::GO_ON).unwrap();
    let tags = |words: &[&str]| DatasetChanges {
        tags: Some(words.iter().map(|tag| (*tag).to_owned()).collect()),
        ..DatasetChanges::default()
    };
    assert!(matches!(
        node.update_dataset(&second.row.id, &tags(&["uci"]), &crate::GO_ON),
        Err(DatasetError::TagConflict { .. })
    ));
    let kept = node.update_dataset(&first.row.id, &tags(&["uci", "heart", "cleveland"]), &crate::GO_ON).unwrap();
    assert_eq!(kept.row.name, "Heart");
    assert!(matches!(node.update_dataset(&first.row.id, &tags(&[]), &crate::GO_ON), Err(DatasetError::Tags(_))));
}

#[test]
fn what_cannot_be_read_or_is_too_small_is_not_registered() {
    let mut world = World::new();
    let bad = world.folder.root().join("data/bad.csv");
    for content in ["", "a,b\n1\n", "a,a\n1,2\n"] {
        std::fs::write(&bad, content).unwrap();
        assert!(world.node().add_dataset(&heart_dataset(&bad, &["bad"]), &crate::GO_ON).is_err(), "{content:?}");
    }
    let missing = world.folder.root().join("data/none.csv");
    assert!(world.node().add_dataset(&heart_dataset(&missing, &["none"]), &crate::GO_ON).is_err());
    world.env.push(("FBM_SECURITY_MINIMUM_SAMPLES".into(), "304".into()));
    let refused =
        world.node().add_dataset(&heart_dataset(&world.heart("cleveland.csv"), &["small"]), &crate::GO_ON).unwrap_err();
    assert!(matches!(refused, DatasetError::TooFewRows { found: 303, minimum: 304 }), "{refused}");
    assert!(world.node().dataset_rows(&crate::GO_ON).unwrap().is_empty());
}

#[test]
fn a_changed_file_shows_until_it_is_refreshed() {
    let world = World::new();
    let node = world.node();
    let path = world.heart("cleveland.csv");
    let id = node.add_dataset(&heart_dataset(&path, &["heart"]), &crate::GO_ON).unwrap().row.id;
    let text = std::fs::read_to_string(&path).unwrap();
    let shorter: String = text.lines().take(201).flat_map(|line| [line, "\n"]).collect();
    std::fs::write(&path, shorter).unwrap();
    assert_eq!(node.dataset_detail(&id, &crate::GO_ON).unwrap().row.state, "changed");
    let refreshed = node.refresh_dataset(&id, &crate::GO_ON).unwrap();
    assert_eq!((refreshed.row.rows, refreshed.row.state.as_str()), (200, "ready"));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(node.dataset_detail(&id, &crate::GO_ON).unwrap().row.state, "missing");
    node.delete_dataset(&id).unwrap();
    assert!(matches!(node.dataset_detail(&id, &crate::GO_ON), Err(DatasetError::Unknown(_))));
}

#[test]
fn a_dataset_file_of_fed_biomed_becomes_a_dataset() {
    let world = World::new();
    world.heart("cleveland.csv");
    let file = r##"{"path": "$DATA/cleveland.csv", "data_type": "csv", "description": "UCI", "tags": "#heart, #uci", "name": "Heart"}"##;
    let lookup = |name: &str| (name == "DATA").then(|| "data".to_owned());
    let new = NewDataset::from_file(file.as_bytes(), world.folder.root(), &lookup).unwrap();
    assert_eq!(new.tags, ["#heart", "#uci"]);
    assert_eq!(world.node().add_dataset(&new, &crate::GO_ON).unwrap().row.rows, 303);
}
