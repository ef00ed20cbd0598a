use protocol::{
    Digest, ExperimentId, ExperimentSpec, NodeId, Patience, Plan, RawExperimentSpec, RefusalCode, Requester, Selection,
    StatisticPlan, Tags, Timestamp,
};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::command::{Ended, ExperimentState, InvitationState, RoundKind, RoundRecord};
use crate::experiment::{Event, Experiment};

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn invitation(id: &str, name: &str) -> Invitation {
    Invitation {
        id: id.into(),
        name: name.into(),
        secret_hash: Digest::of(id.as_bytes()),
        created: at(1_000),
        expires: at(5_000),
    }
}

fn enrolment(node: &NodeId, key: u8) -> Enrolment {
    Enrolment { node: node.clone(), key_fingerprint: [key; 32], certificate_expires: at(9_000) }
}

fn node(seed: u64) -> NodeId {
    NodeId::random(&mut StdRng::seed_from_u64(seed))
}

fn check_refused(store: &mut Store, id: &str, enrolment: &Enrolment, now: u64, expected: RefusalCode) {
    let before = store.nodes().unwrap();
    let refusal = store.enrol(Digest::of(id.as_bytes()), enrolment, at(now)).unwrap().unwrap_err();
    assert_eq!(refusal.code, expected);
    assert_eq!(store.nodes().unwrap(), before, "nothing changed");
}

#[test]
fn a_token_is_good_once_in_time_and_until_revoked() {
    let mut store = Store::in_memory().unwrap();
    for id in ["used", "late", "revoked"] {
        store.invite(&invitation(id, "North")).unwrap();
    }
    let enrolled = store.enrol(Digest::of(b"used"), &enrolment(&node(1), 1), at(2_000)).unwrap().unwrap();
    assert_eq!((enrolled.name.as_str(), enrolled.key_fingerprint), ("North", [1; 32]));
    check_refused(&mut store, "used", &enrolment(&node(2), 2), 2_001, RefusalCode::TokenUsed);
    check_refused(&mut store, "late", &enrolment(&node(2), 2), 5_000, RefusalCode::TokenExpired);
    assert!(store.revoke_invitation("revoked", at(3_000)).unwrap());
    assert!(!store.revoke_invitation("revoked", at(3_000)).unwrap());
    check_refused(&mut store, "revoked", &enrolment(&node(2), 2), 3_001, RefusalCode::TokenRevoked);
    check_refused(&mut store, "forged", &enrolment(&node(2), 2), 3_001, RefusalCode::TokenInvalid);
    let states: Vec<(String, InvitationState)> =
        store.invitations(at(6_000)).unwrap().into_iter().map(|row| (row.id, row.state)).collect();
    let expected =
        [("late", InvitationState::Expired), ("revoked", InvitationState::Revoked), ("used", InvitationState::Used)];
    assert_eq!(states, expected.map(|(id, state)| (id.to_owned(), state)));
}

#[test]
fn a_node_that_enrols_again_keeps_its_id_and_nobody_else_can_take_it() {
    let mut store = Store::in_memory().unwrap();
    for (id, name) in [("first", "North"), ("again", "North"), ("other", "South")] {
        store.invite(&invitation(id, name)).unwrap();
    }
    store.enrol(Digest::of(b"first"), &enrolment(&node(1), 1), at(2_000)).unwrap().unwrap();
    check_refused(&mut store, "other", &enrolment(&node(1), 9), 2_000, RefusalCode::TokenInvalid);
    let again = store.enrol(Digest::of(b"again"), &enrolment(&node(1), 2), at(3_000)).unwrap().unwrap();
    assert_eq!((again.id, again.key_fingerprint), (node(1), [2; 32]));
    assert_eq!(store.nodes().unwrap().len(), 1);
}

#[test]
fn a_revoked_node_stays_out() {
    let mut store = Store::in_memory().unwrap();
    store.invite(&invitation("first", "North")).unwrap();
    store.invite(&invitation("again", "North")).unwrap();
    store.enrol(Digest::of(b"first"), &enrolment(&node(1), 1), at(2_000)).unwrap().unwrap();
    assert_eq!(store.revoke_node("North", at(2_500)).unwrap().id, node(1));
    assert_eq!(store.nodes().unwrap()[0].revoked, Some(at(2_500)));
    check_refused(&mut store, "again", &enrolment(&node(1), 1), 3_000, RefusalCode::NodeRevoked);
    assert!(matches!(store.revoke_node("West", at(0)), Err(StoreError::NoNode(_))));
}

fn experiment(seed: u64) -> Experiment {
    let plan = Plan::Statistic(StatisticPlan::Moments { columns: vec!["a".into()] });
    let selection = Selection::Tags(Tags::new(["t"]).unwrap());
    let (name, patience) = ("e".to_owned(), Patience::default());
    let raw = RawExperimentSpec {
        name,
        selection,
        nodes: None,
        plan,
        rounds: 1,
        patience,
        secure: protocol::SecureSpec::default(),
    };
    let id = ExperimentId::random(&mut StdRng::seed_from_u64(seed));
    Experiment::new(id, ExperimentSpec::new(raw).unwrap(), Requester { user: "ada".into() }, at(seed))
}

fn record(experiment: &Experiment, round: u32) -> RoundRecord {
    RoundRecord {
        experiment_id: experiment.id().clone(),
        round,
        attempt: 0,
        kind: RoundKind::Sums,
        training_round: None,
        started: at(0),
        ended: at(1),
        seconds: 0.001,
        train_rows: 3,
        loss: Some(0.1),
        metrics: vec![],
        confusion: None,
        remarks: vec![],
        nodes: vec![],
        hidden: None,
    }
}

fn ended(experiment: &Experiment) -> Ended {
    Ended {
        experiment_id: experiment.id().clone(),
        name: "e".into(),
        state: ExperimentState::Cancelled,
        reason: None,
        rounds: 0,
        seconds: 1.0,
        folder: "/f".into(),
        model: None,
        card: None,
        metrics_csv: None,
        report: None,
        tensorboard: None,
        metrics: vec![],
        moments: vec![],
        answer: None,
    }
}

#[test]
fn what_was_saved_is_there_after_the_store_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    let (mut running, mut over) = (experiment(1), experiment(2));
    {
        let mut store = Store::open(&path).unwrap();
        store.save(&[Saved::new(&running, vec![], None), Saved::new(&over, vec![], None)], Durability::Lazy).unwrap();
        let mut rng = StdRng::seed_from_u64(3);
        running.apply(Event::Connected { node: node(1), name: "North".into() }, at(5), &mut rng);
        over.apply(Event::Cancelled { by: "ada".into() }, at(5), &mut rng);
        let records = vec![record(&running, 0), record(&running, 1)];
        store.save(&[Saved::new(&running, records, None), Saved::new(&over, vec![], None)], Durability::Durable).unwrap();
    }
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.unfinished().unwrap(), [running.clone()]);
    assert_eq!(store.experiments().unwrap(), [over.clone(), running.clone()], "newest first");
    assert_eq!(store.record_count(running.id()).unwrap(), 2);
    assert_eq!(store.records(running.id(), 1).unwrap(), [record(&running, 1)]);
    assert_eq!(store.over_without_end().unwrap(), [over.clone()]);
    store.set_ended(&ended(&over)).unwrap();
    assert_eq!(store.ended(over.id()).unwrap(), Some(ended(&over)));
    assert!(store.over_without_end().unwrap().is_empty());
    // It is resumed: how it had ended is history.
    over.apply(Event::Resumed { connected: std::collections::BTreeMap::new() }, at(6), &mut StdRng::seed_from_u64(4));
    store.save(&[Saved::new(&over, vec![], None)], Durability::Durable).unwrap();
    assert_eq!(store.ended(over.id()).unwrap(), None);
}

#[test]
fn an_experiment_is_found_by_as_many_digits_as_it_takes() {
    let mut store = Store::in_memory().unwrap();
    let experiments = [experiment(1), experiment(2)];
    store.save(&experiments.each_ref().map(|experiment| Saved::new(experiment, vec![], None)), Durability::Durable).unwrap();
    let id = experiments[0].id();
    for text in [id.as_str(), id.short(), &id.short()[..4]] {
        assert_eq!(store.find_experiment(text).unwrap(), *id);
    }
    for text in ["", ExperimentId::PREFIX, &id.short()[..3]] {
        assert!(matches!(store.find_experiment(text), Err(StoreError::ShortExperiment(_))), "{text}");
    }
    assert!(matches!(store.find_experiment("%"), Err(StoreError::NoExperiment(_))));
}

#[test]
fn the_state_of_a_newer_version_is_refused() {
    let mut store = Store::in_memory().unwrap();
    store.save(&[Saved::new(&experiment(1), vec![], None)], Durability::Durable).unwrap();
    store.connection().execute("UPDATE experiments SET schema = 99", []).unwrap();
    assert!(matches!(store.unfinished(), Err(StoreError::Newer { found: 99, .. })));
}

#[test]
fn a_folder_of_the_first_schema_migrates_when_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    let first = include_str!("../../tests/fixtures/store-1.sql");
    Connection::open(&path).unwrap().execute_batch(first).unwrap();
    let mut store = Store::open(&path).unwrap();
    let (running, over) = (experiment(1), experiment(2));
    assert_eq!(store.unfinished().unwrap(), std::slice::from_ref(&running));
    assert_eq!(store.records(running.id(), 0).unwrap(), [record(&running, 0), record(&running, 1)]);
    assert_eq!(store.small_model(running.id()).unwrap().unwrap().bytes, b"model");
    assert_eq!(store.ended(over.id()).unwrap(), Some(ended(&over)));
    let nodes = store.nodes().unwrap();
    assert_eq!((nodes.len(), nodes[0].id.clone(), nodes[0].name.as_str()), (1, node(1), "North"));
    assert_eq!(store.invitations(at(1_500)).unwrap().len(), 2);
    // It goes on as any other.
    store.save(&[Saved::new(&running, vec![record(&running, 2)], None)], Durability::Durable).unwrap();
    assert_eq!(store.record_count(running.id()).unwrap(), 3);
    let version: i64 = store.connection().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(usize::try_from(version).unwrap(), MIGRATIONS.len());
}
