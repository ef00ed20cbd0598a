//! What a node keeps, and for how long.

use std::time::Duration;

use node::participant::{Event, Participant, State};
use node::store::{Durability, NewTask, Store};
use protocol::{Refusal, RefusalCode, Timestamp};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::world::{World, heart_dataset, plan};

#[test]
fn the_journal_gives_back_what_was_written() {
    let mut world = World::new();
    let node = world.node();
    let id = node.add_dataset(&heart_dataset(&world.heart("cleveland.csv"), &["heart"])).unwrap().row.id;
    let store = Store::open_in_memory().unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let (task, _) = world.training_task(&id, &plan());
    let mut participant = Participant::new(task.id.clone(), Timestamp::from_millis(5));
    participant.apply(Event::Admitted, Timestamp::from_millis(6), &mut rng);
    let new = NewTask { researcher: &world.researcher, task: &task, signature: b"signed" };
    store.add_task(&new, &participant).unwrap();
    assert!(store.add_task(&new, &participant).is_err(), "a task is in the journal once");
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
    let id = node.add_dataset(&heart_dataset(&world.heart("cleveland.csv"), &["heart"])).unwrap().row.id;
    let (task, _) = world.training_task(&id, &plan());
    let store = node.store();
    let start = node.now();
    let participant = Participant::new(task.id.clone(), start);
    store.add_task(&NewTask { researcher: &world.researcher, task: &task, signature: &[] }, &participant).unwrap();
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
    let id = node.add_dataset(&heart_dataset(&path, &["heart"])).unwrap().row.id;
    let admitted = node.store().dataset(&id).unwrap().unwrap().scan;
    let text = std::fs::read_to_string(&path).unwrap();
    let shorter: String = text.lines().take(201).flat_map(|line| [line, "\n"]).collect();
    std::fs::write(&path, shorter).unwrap();
    node.refresh_dataset(&id).unwrap();
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
    let id = node.add_dataset(&heart_dataset(&world.heart("cleveland.csv"), &["heart"])).unwrap().row.id;
    let (task, _) = world.training_task(&id, &plan());
    let (store, researcher) = (node.store(), &world.researcher);
    let participant = Participant::new(task.id.clone(), node.now());
    store.add_task(&NewTask { researcher, task: &task, signature: &[] }, &participant).unwrap();
    assert_eq!([(); 2].map(|()| store.begin_task(researcher, &task.id).unwrap()), [1, 2]);
    store.forgive_starts(researcher, &task.id).unwrap();
    assert_eq!(store.begin_task(researcher, &task.id).unwrap(), 1);
    store.forgive_all_starts().unwrap();
    assert_eq!(store.begin_task(researcher, &task.id).unwrap(), 1);
}
