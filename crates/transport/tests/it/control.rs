//! The control stream.

use std::time::Duration;

use protocol::{
    ColumnFace, ColumnKind, DataType, DatasetFace, DatasetId, NodeMessage, Progress, ProtocolVersion, Refusal, RefusalCode,
    RequestId, ResearcherMessage, RowCount, Tags, TaskId,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use transport::link::{Link, LinkError};

use crate::relay::relay;
use crate::world::{Way, World, hello, soon};

on_both_links!(
    messages_travel_both_ways,
    a_dropped_session_is_seen_by_the_host_and_the_node_may_come_again,
    a_session_that_the_host_ends_ends_in_good_order_after_its_last_message,
    a_node_of_another_version_is_told_what_to_do,
    a_revoked_node_is_cut_at_once_and_not_let_in_again,
    a_message_that_is_too_large_is_left_out_and_the_others_go_on,
    a_dataset_too_wide_for_a_message_is_left_out_and_the_others_are_found,
);

async fn messages_travel_both_ways(mut world: impl Way) {
    let (node, link) = world.node(1).await;
    let (mut session, mut host) = world.meet(&link).await;
    assert_eq!(host.node, node, "as its certificate says");
    assert_eq!(host.hello, hello());
    let mut rng = StdRng::seed_from_u64(9);
    let task = TaskId::random(&mut rng);
    let said = [
        NodeMessage::Accepted { task: task.clone() },
        NodeMessage::Progress { task: task.clone(), progress: Progress { done: 1, total: 2, loss: Some(0.1 + 0.2) } },
        NodeMessage::Refused {
            task: task.clone(),
            refusal: Refusal::new(RefusalCode::OneClass, "the target has one class"),
        },
        NodeMessage::OutOfRange { task: task.clone(), exponents: vec![-1000, 0, 62] },
        NodeMessage::Found { request: RequestId::random(&mut rng), datasets: Vec::new() },
    ];
    for message in said {
        session.outbox.send(message.clone()).await.unwrap();
        assert_eq!(soon(host.inbox.recv()).await.unwrap(), message);
    }
    let said = [
        ResearcherMessage::Cancel {
            task: task.clone(),
            refusal: Refusal::new(RefusalCode::Cancelled, "not wanted any more"),
        },
        ResearcherMessage::Settled { task },
        ResearcherMessage::Search { request: RequestId::random(&mut rng), tags: None },
        ResearcherMessage::Search { request: RequestId::random(&mut rng), tags: Some(Tags::new(["heart", "uci"]).unwrap()) },
    ];
    for message in said {
        host.outbox.send(message.clone()).await.unwrap();
        assert_eq!(soon(session.inbox.recv()).await.unwrap().unwrap(), message);
    }
}

async fn a_dropped_session_is_seen_by_the_host_and_the_node_may_come_again(mut world: impl Way) {
    let (_, link) = world.node(1).await;
    let (session, mut host) = world.meet(&link).await;
    drop(session);
    assert!(soon(host.inbox.recv()).await.is_none());
    world.meet(&link).await;
}

async fn a_session_that_the_host_ends_ends_in_good_order_after_its_last_message(mut world: impl Way) {
    let (_, link) = world.node(1).await;
    let (mut session, host) = world.meet(&link).await;
    let last = ResearcherMessage::Settled { task: TaskId::random(&mut StdRng::seed_from_u64(9)) };
    host.outbox.send(last.clone()).await.unwrap();
    drop(host);
    assert_eq!(soon(session.inbox.recv()).await.unwrap().unwrap(), last);
    assert!(soon(session.inbox.recv()).await.is_none());
    soon(session.outbox.closed()).await;
    world.meet(&link).await;
}

async fn a_node_of_another_version_is_told_what_to_do(world: impl Way) {
    let (_, link) = world.node(1).await;
    let old = protocol::Hello { protocol: ProtocolVersion { major: 0, minor: 9 }, ..hello() };
    let refused = soon(link.connect(old)).await.err().unwrap();
    let LinkError::Refused(refusal) = refused else { panic!("{refused}") };
    assert_eq!(refusal.code, RefusalCode::Incompatible);
    assert!(refusal.sentence.contains("update the node's software"), "{refusal}");
}

async fn a_revoked_node_is_cut_at_once_and_not_let_in_again(mut world: impl Way) {
    let (node, link) = world.node(1).await;
    let (mut session, host) = world.meet(&link).await;
    world.host().state.lock().unwrap().revoked.insert(node);
    drop(host);
    assert!(soon(session.inbox.recv()).await.is_none());
    let refused = soon(link.connect(hello())).await.err().unwrap();
    assert!(matches!(&refused, LinkError::Refused(refusal) if refusal.code == RefusalCode::NodeRevoked), "{refused}");
    assert!(world.host().rejections().iter().any(|reason| reason.contains("revoked")));
}

async fn a_message_that_is_too_large_is_left_out_and_the_others_go_on(mut world: impl Way) {
    let (_, link) = world.node(1).await;
    let (session, mut host) = world.meet(&link).await;
    let task = TaskId::random(&mut StdRng::seed_from_u64(9));
    let large = NodeMessage::OutOfRange { task: task.clone(), exponents: vec![i16::MIN; 5 << 20] };
    session.outbox.send(large).await.unwrap();
    let small = NodeMessage::Accepted { task };
    session.outbox.send(small.clone()).await.unwrap();
    assert_eq!(soon(host.inbox.recv()).await.unwrap(), small);
}

async fn a_dataset_too_wide_for_a_message_is_left_out_and_the_others_are_found(mut world: impl Way) {
    let (_, link) = world.node(1).await;
    let (session, mut host) = world.meet(&link).await;
    let mut rng = StdRng::seed_from_u64(9);
    let mut face = |name: &str, columns: usize| DatasetFace {
        id: DatasetId::random(&mut rng),
        name: name.to_owned(),
        data_type: DataType::Csv,
        tags: Tags::new([name]).unwrap(),
        description: String::new(),
        rows: RowCount::rounded(303),
        columns: (0..columns)
            .map(|column| ColumnFace { name: format!("{column:0>200}"), kind: ColumnKind::Integer })
            .collect(),
        levels: std::collections::BTreeMap::new(),
    };
    let (first, wide, last) = (face("first", 1), face("wide", 20_000), face("last", 1));
    let request = RequestId::random(&mut StdRng::seed_from_u64(10));
    let found = |datasets| NodeMessage::Found { request: request.clone(), datasets };
    session.outbox.send(found(vec![first.clone(), wide, last.clone()])).await.unwrap();
    assert_eq!(soon(host.inbox.recv()).await.unwrap(), found(vec![first, last]));
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let world = World::start().await;
    let (listener, address) = crate::world::listener().await;
    let (_, link) = world.node_at(1, &address).await;
    drop(listener);
    let error = tokio::time::timeout(Duration::from_secs(20), link.connect(hello())).await.unwrap().err().unwrap();
    assert!(matches!(error, LinkError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn a_peer_that_fell_silent_is_noticed_within_20_s_on_both_sides() {
    let mut world = World::start().await;
    let (way, up, down) = relay(world.address.clone()).await;
    let (_, link) = world.node_at(1, &way).await;
    let (mut session, mut host) = world.meet(&link).await;
    up.stall();
    down.stall();
    // From here on the clock jumps to the next timer whenever nothing else is to be done.
    tokio::time::pause();
    let silent = async {
        let last = session.inbox.recv().await;
        assert!(matches!(last, Some(Err(LinkError::Broken(_)))), "{last:?}");
        assert!(host.inbox.recv().await.is_none());
    };
    tokio::time::timeout(Duration::from_secs(20), silent).await.unwrap();
}
