//! What a node keeps, and for how long.

use std::path::Path;
use std::time::Duration;

use component::database::Durability;
use node::participant::{Event, Held, Participant, State};
use node::store::{NewTask, Store};
use protocol::{Digest, Refusal, RefusalCode, Report, Timestamp};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::world::{World, heart_dataset, plan};

#[test]
fn the_journal_gives_back_what_was_written() {
    let mut world = World::new();
    let node = world.node();
    let id = node.add_dataset(&heart_dataset(&world.heart("cleveland.csv"), &["heart"]), &crate::GO_ON).unwrap().row.id;
    let store = Store::open_in_memory().unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let (task, _) = world.training_task(&id, &plan());
    let mut participant = Participant::new(task.id.clone(), Timestamp::from_millis(5));
    participant.apply(Event::Admitted, Timestamp::from_millis(6), &mut rng);
    let new = NewTask { researcher: &world.researcher, task: &task, signature: b"signed" };
    store.add_task(&new, &participant, Durability::Durable).unwrap();
    assert!(store.add_task(&new, &participant, Durability::Durable).is_err(), "a task is in the journal once");
    participant.apply(Event::TurnCame, Timestamp::from_millis(7), &mut rng);
    store.update_task(&world.researcher, &participant, None, Durability::Durable).unwrap();
    let record = store.task(&world.researcher, &task.id).unwrap().unwrap();
    assert_eq!(record.task, task);
    assert_eq!(
        (record.state, record.signature.as_slice()),
        (State::Accepted, &b"signed"[..]),
        "running work is accepted work"
    );
    let refusal = Refusal::new(RefusalCode::OneClass, "one class");
    participant.apply(Event::Failed(refusal.clone()), Timestamp::from_millis(8), &mut rng);
    store.update_task(&world.researcher, &participant, None, Durability::Durable).unwrap();
    let record = store.open_tasks(&world.researcher).unwrap().remove(0);
    assert_eq!(record.state, State::Refused(refusal));
    assert_eq!((record.task.key, record.task.layout.len()), (task.key, 0), "what was asked for in detail is forgotten");
    participant.apply(Event::Settled, Timestamp::from_millis(9), &mut rng);
    store.update_task(&world.researcher, &participant, None, Durability::Lazy).unwrap();
    assert!(store.open_tasks(&world.researcher).unwrap().is_empty());
    assert_eq!(store.forget_settled_tasks(Timestamp::from_millis(9)).unwrap(), 0);
    assert_eq!(store.forget_settled_tasks(Timestamp::from_millis(10)).unwrap(), 1);
}

#[test]
fn the_state_of_an_experiment_stays_while_its_tasks_do() {
    let mut world = World::new();
    let node = world.node();
    let id = node.add_dataset(&heart_dataset(&world.heart("cleveland.csv"), &["heart"]), &crate::GO_ON).unwrap().row.id;
    let (task, _) = world.training_task(&id, &plan());
    let store = node.store();
    let start = node.now();
    let participant = Participant::new(task.id.clone(), start);
    store
        .add_task(&NewTask { researcher: &world.researcher, task: &task, signature: &[] }, &participant, Durability::Durable)
        .unwrap();
    store.save_experiment_state(&world.researcher, &world.experiment, "data", b"digest", start).unwrap();
    let later = start.saturating_add(Duration::from_hours(1));
    assert_eq!(store.forget_experiments(later).unwrap(), 0, "a task is open");
    let mut settled = participant;
    settled.apply(Event::Denied(Refusal::new(RefusalCode::Late, "late")), start, &mut StdRng::seed_from_u64(1));
    settled.apply(Event::Settled, start, &mut StdRng::seed_from_u64(1));
    store.update_task(&world.researcher, &settled, None, Durability::Lazy).unwrap();
    assert_eq!(store.forget_experiments(later).unwrap(), 1);
    assert_eq!(store.experiment_state(&world.researcher, &world.experiment, "data").unwrap(), None);
}

#[test]
fn what_the_hospital_read_anew_stands_against_an_older_look() {
    let world = World::new();
    let node = world.node();
    let path = world.heart("cleveland.csv");
    let id = node.add_dataset(&heart_dataset(&path, &["heart"]), &crate::GO_ON).unwrap().row.id;
    let admitted = node.store().dataset(&id).unwrap().unwrap().scan;
    let text = std::fs::read_to_string(&path).unwrap();
    let shorter: String = text.lines().take(201).flat_map(|line| [line, "\n"]).collect();
    std::fs::write(&path, shorter).unwrap();
    node.refresh_dataset(&id, &crate::GO_ON).unwrap();
    let refreshed = node.store().dataset(&id).unwrap().unwrap().scan;
    assert!(!node.store().touch_dataset(&id, &admitted, &admitted).unwrap());
    assert_eq!(node.store().dataset(&id).unwrap().unwrap().scan, refreshed);
    let mut touched = refreshed.clone();
    touched.rows = 7;
    assert!(node.store().touch_dataset(&id, &refreshed, &touched).unwrap(), "a scan that was not replaced is");
    assert_eq!(node.store().dataset(&id).unwrap().unwrap().scan, touched);
}

#[test]
fn starts_of_a_task_are_counted_until_it_comes_to_something() {
    let mut world = World::new();
    let node = world.node();
    let id = node.add_dataset(&heart_dataset(&world.heart("cleveland.csv"), &["heart"]), &crate::GO_ON).unwrap().row.id;
    let (task, _) = world.training_task(&id, &plan());
    let (store, researcher) = (node.store(), &world.researcher);
    let participant = Participant::new(task.id.clone(), node.now());
    store.add_task(&NewTask { researcher, task: &task, signature: &[] }, &participant, Durability::Durable).unwrap();
    assert_eq!([(); 2].map(|()| store.begin_task(researcher, &task.id).unwrap()), [1, 2]);
    store.forgive_starts(researcher, &task.id).unwrap();
    assert_eq!(store.begin_task(researcher, &task.id).unwrap(), 1);
    store.forgive_all_starts().unwrap();
    assert_eq!(store.begin_task(researcher, &task.id).unwrap(), 1);
}

#[test]
fn a_clock_that_is_set_far_forward_ends_no_open_task() {
    let mut world = World::new();
    let node = world.node();
    let id = node.add_dataset(&heart_dataset(&world.heart("cleveland.csv"), &["heart"]), &crate::GO_ON).unwrap().row.id;
    let (task, _) = world.training_task(&id, &plan());
    let (store, start, mut rng) = (node.store(), node.now(), StdRng::seed_from_u64(1));
    let mut participant = Participant::new(task.id.clone(), start);
    store
        .add_task(&NewTask { researcher: &world.researcher, task: &task, signature: &[] }, &participant, Durability::Durable)
        .unwrap();
    participant.apply(Event::Admitted, start, &mut rng);
    participant.apply(Event::TurnCame, start, &mut rng);
    let held = Held { digest: Digest::of(b"given"), bytes: 5, report: Some(Report::default()) };
    participant.apply(Event::Computed(held.clone()), start, &mut rng);
    store.update_task(&world.researcher, &participant, Some(b"given"), Durability::Durable).unwrap();
    store.save_experiment_state(&world.researcher, &world.experiment, "data", b"digest", start).unwrap();
    world.clock.advance(Duration::from_hours(24 * 365 * 10));
    node.tidy().unwrap();
    let record = store.task(&world.researcher, &task.id).unwrap().unwrap();
    assert_eq!(record.state, State::Computed(held));
    assert_eq!(record.task, task, "what was asked for is there still");
    assert_eq!(store.task_content(&world.researcher, &task.id).unwrap().as_deref(), Some(&b"given"[..]));
    assert!(store.experiment_state(&world.researcher, &world.experiment, "data").unwrap().is_some());
}

#[test]
fn a_folder_of_the_first_schema_migrates_when_it_is_opened() {
    let world = World::new();
    let first = include_str!("../fixtures/store-1.sql");
    rusqlite::Connection::open(world.folder.database_file()).unwrap().execute_batch(first).unwrap();
    let node = world.node();
    let store = node.store();
    let enrolment = store.enrolments().unwrap().remove(0);
    assert_eq!((&enrolment.researcher, enrolment.allowed), (&world.researcher, true));
    let dataset = store.datasets().unwrap().remove(0);
    assert_eq!((dataset.description.path.as_path(), dataset.scan.rows), (Path::new("/data/cleveland.csv"), 303));
    assert_eq!(store.experiment_state(&world.researcher, &world.experiment, "data").unwrap().unwrap(), b"digest");
    assert!(store.has_mark("paused").unwrap());
    let tasks = store.open_tasks(&world.researcher).unwrap();
    assert_eq!(tasks.iter().map(|record| record.state.name()).collect::<Vec<_>>(), ["accepted", "computed"]);
    let [accepted, computed] = [0, 1].map(|index: usize| &tasks[index].task);
    assert_eq!(store.task_content(&world.researcher, &computed.id).unwrap().unwrap(), b"given");
    assert_eq!(computed.dataset, dataset.id);
    assert_ne!(accepted.node, *node.id(), "nobody knows whom it asked");
    // It goes on as any other.
    assert_eq!(store.begin_task(&world.researcher, &accepted.id).unwrap(), 1);
    drop(node);
    assert_eq!(world.node().store().tasks(false).unwrap().len(), 2);
}
