//! Experiments from the command to the artefacts.

use std::sync::Arc;
use std::time::Duration;

use component::database::CommitWatch;
use protocol::{Digest, OnFailure, Patience, Refusal, RefusalCode, Task, UploadHeader, layout_byte_len};
use researcher::command::{Ended, ExperimentState, NodeProgress, Reply, RoundRecord};
use researcher::{CommandError, DriverError};
use tokio::sync::{mpsc, oneshot};
use transport::host::Host;
use transport::link::LinkError;

use crate::world::{Answer, World, ada, follow, spec};

fn rounds(replies: &[Reply]) -> Vec<&RoundRecord> {
    let records = replies.iter().filter_map(|reply| match reply {
        Reply::RoundEnded { record } => Some(&**record),
        _ => None,
    });
    records.collect()
}

fn ended(replies: &[Reply]) -> &Ended {
    match replies.last() {
        Some(Reply::Ended { ended }) => ended,
        other => panic!("the last line is {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_streams_every_round_and_ends_with_its_artefacts() {
    let mut world = World::new();
    let researcher = world.start().await;
    for number in 0..3 {
        let node = world.node(&researcher, number).await;
        let session = node.connect(vec![]).await.unwrap();
        tokio::spawn(async move { node.live(session, |_| Answer::Contribute).await });
    }
    let id = researcher.run(spec(3, Patience { min_nodes: 3, ..Patience::default() }), ada()).await.unwrap();
    let replies = follow(&researcher, &id).await;
    assert!(matches!(&replies[0], Reply::Started { experiment_id, .. } if *experiment_id == id));
    let numbers: Vec<u32> = rounds(&replies).iter().map(|record| record.round).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    let last = rounds(&replies)[4];
    assert_eq!(last.nodes.iter().map(|node| (node.train_rows, node.loss)).collect::<Vec<_>>(), [(Some(10), Some(0.5)); 3]);
    let end = ended(&replies);
    assert_eq!((end.state, end.rounds), (ExperimentState::Finished, 3), "{:?}", end.reason);
    for file in [&end.model, &end.card, &end.metrics_csv, &end.report, &end.tensorboard] {
        assert!(file.as_ref().unwrap().exists());
    }
    let model = protocol::Tensors::from_bytes(&std::fs::read(end.model.as_ref().unwrap()).unwrap()).unwrap();
    let names: Vec<&str> = model.iter().map(protocol::Tensor::name).collect();
    assert_eq!(names, ["weight", "bias", "standardise.mean", "standardise.scale"]);
    // Whoever looks later sees the same.
    let later = follow(&researcher, &id).await;
    assert_eq!(rounds(&later), rounds(&replies));
    assert_eq!(ended(&later), end);
    assert_eq!(std::fs::read_dir(world.dir.path().join("spool")).unwrap().count(), 0);
    assert_eq!((world.audited("experiment.started"), world.audited("experiment.ended")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn searches_and_lists_are_answered_while_a_node_works() {
    let mut world = World::new();
    let researcher = world.start().await;
    let (busy, deaf) = (world.node(&researcher, 1).await, world.node(&researcher, 2).await);
    let session = busy.connect(vec![]).await.unwrap();
    tokio::spawn(async move { busy.live(session, |_| Answer::Keep).await });
    let id = researcher.run(spec(1, Patience::default()), ada()).await.unwrap();
    let mut follower = researcher.follow(&id).await.unwrap();
    loop {
        let reply = follower.next().await.unwrap().unwrap();
        let Reply::Snapshot { snapshot } = reply else { continue };
        if snapshot.nodes.iter().any(|node| node.state == NodeProgress::Working) {
            break;
        }
    }
    let _silent = deaf.connect(vec![]).await.unwrap();
    let (rows, silent) = researcher.datasets(None).await;
    assert_eq!(rows.iter().map(|row| row.node.as_str()).collect::<Vec<_>>(), ["hospital 1"]);
    assert_eq!(silent, ["hospital 2"]);
    assert_eq!(researcher.experiments().await.unwrap()[0].state, ExperimentState::Running);
    researcher.cancel(&researcher.find(id.short()).await.unwrap(), "ada").await.unwrap();
    assert_eq!(ended(&follow(&researcher, &id).await).reason.as_deref(), Some("cancelled by ada"));
}

#[tokio::test(start_paused = true)]
async fn a_late_contribution_is_refused_and_logged() {
    let mut world = World::new();
    let researcher = world.start().await;
    let (quick, slow) = (world.node(&researcher, 1).await, Arc::new(world.node(&researcher, 2).await));
    let session = quick.connect(vec![]).await.unwrap();
    tokio::spawn(async move { quick.live(session, |_| Answer::Contribute).await });
    let (sender, mut tasks) = mpsc::unbounded_channel::<Task>();
    let session = slow.connect(vec![]).await.unwrap();
    let living = slow.clone();
    tokio::spawn(async move {
        let keep = |task: &Task| {
            sender.send(task.clone()).unwrap();
            Answer::Keep
        };
        living.live(session, keep).await;
    });
    let patience = Patience { round_timeout_ms: Some(2_000), ..Patience::default() };
    let id = researcher.run(spec(1, patience), ada()).await.unwrap();
    let replies = follow(&researcher, &id).await;
    assert_eq!(ended(&replies).state, ExperimentState::Finished);
    assert!(rounds(&replies).iter().all(|record| record.nodes.iter().any(|node| node.state == NodeProgress::Late)));
    let task = tasks.recv().await.unwrap();
    let refused = slow.contribute(&task).await.unwrap_err();
    assert!(matches!(&refused, LinkError::Refused(refusal) if refusal.code == RefusalCode::Late), "{refused}");
    assert_eq!(world.audited("contribution.late"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_reaches_the_requester_in_the_nodes_words() {
    let mut world = World::new();
    let researcher = world.start().await;
    let node = world.node(&researcher, 1).await;
    let session = node.connect(vec![]).await.unwrap();
    let refusal = Refusal::new(RefusalCode::MissingValues, "2 rows have blank cells");
    tokio::spawn(async move { node.live(session, |_| Answer::Refuse(refusal.clone())).await });
    let patience = Patience { on_failure: OnFailure::Fail, ..Patience::default() };
    let id = researcher.run(spec(1, patience), ada()).await.unwrap();
    let replies = follow(&researcher, &id).await;
    assert_eq!(ended(&replies).state, ExperimentState::Failed);
    let expected = "hospital 1, while standardising: 2 rows have blank cells (missing_values)";
    assert_eq!(ended(&replies).reason.as_deref(), Some(expected));
    assert_eq!(world.audited("task.refused"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_killed_researcher_goes_on_with_the_round_from_what_it_had() {
    let mut expected = None;
    for kill in [false, true] {
        let mut world = World::new();
        let mut researcher = world.start().await;
        let nodes = [world.node(&researcher, 1).await, world.node(&researcher, 2).await];
        let nodes = nodes.map(Arc::new);
        let (killer, killed) = oneshot::channel();
        let mut killer = Some(killer).filter(|_| kill);
        let mut lives = Vec::new();
        for node in &nodes {
            let session = node.connect(vec![]).await.unwrap();
            let (node, mut killer) = (node.clone(), if node.number == 2 { killer.take() } else { None });
            // The second node answers nothing in round 2 before the researcher dies.
            let answer = move |task: &Task| match killer.take_if(|_| task.key.round == 2) {
                Some(killer) => {
                    killer.send(()).unwrap();
                    Answer::Keep
                }
                None => Answer::Contribute,
            };
            lives.push(tokio::spawn(async move { node.live(session, answer).await }));
        }
        let id = researcher.run(spec(2, Patience { min_nodes: 2, ..Patience::default() }), ada()).await.unwrap();
        if kill {
            killed.await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            world.server.stop();
            researcher.kill();
            for life in lives.drain(..) {
                life.await.unwrap();
            }
            researcher = world.start().await;
            for node in &nodes {
                let session = node.connect(vec![]).await.unwrap();
                let node = node.clone();
                lives.push(tokio::spawn(async move { node.live(session, |_| Answer::Contribute).await }));
            }
        }
        let replies = follow(&researcher, &id).await;
        let end = ended(&replies);
        assert_eq!(end.state, ExperimentState::Finished, "{:?}", end.reason);
        assert_eq!(rounds(&replies).len(), 4);
        let model = std::fs::read(end.model.as_ref().unwrap()).unwrap();
        assert_eq!(&model, expected.get_or_insert_with(|| model.clone()), "the same bits");
    }
}

#[tokio::test(start_paused = true)]
async fn two_uploads_at_once_do_not_overshoot_the_quota() {
    let mut world = World::new();
    let researcher = world.start().await;
    let (sender, mut asked) = mpsc::unbounded_channel();
    for number in [1, 2] {
        let node = world.node(&researcher, number).await;
        let (session, sender) = (node.connect(vec![]).await.unwrap(), sender.clone());
        let keep = move |id: protocol::NodeId, task: &Task| {
            let bytes = layout_byte_len(&task.layout).unwrap();
            sender.send((id, UploadHeader { task: task.id.clone(), digest: Digest::of(b""), bytes, report: None })).unwrap();
            Answer::Keep
        };
        tokio::spawn(async move { node.live(session, |task| keep(node.id.clone(), task)).await });
    }
    let id = researcher.run(spec(1, Patience { min_nodes: 2, ..Patience::default() }), ada()).await.unwrap();
    let [(one, first), (other, second)] = [asked.recv().await.unwrap(), asked.recv().await.unwrap()];
    researcher.kill();
    world.quota = first.bytes * 3 / 2;
    let researcher = world.start().await;
    let service = researcher.service();
    let (arriving, refused) = tokio::join!(service.receive(&one, &first), service.receive(&other, &second));
    assert_eq!(refused.unwrap_err().code, RefusalCode::QuotaExceeded);
    let mut follower = researcher.follow(&id).await.unwrap();
    let snapshot = loop {
        if let Some(Reply::Snapshot { snapshot }) = follower.next().await.unwrap() {
            break snapshot;
        }
    };
    assert!(snapshot.remark.unwrap().contains("experiments.spool_quota_mb"), "the requester sees why it waits");
    let again = service.receive(&one, &first).await.unwrap();
    drop(arriving.unwrap());
    assert!(service.receive(&other, &second).await.is_err(), "the node is back before its old upload was missed");
    drop(again);
    service.receive(&other, &second).await.expect("the first one broke off");
}

#[tokio::test(start_paused = true)]
async fn contributions_that_the_spool_can_never_hold_fail_the_experiment_with_the_settings_name() {
    for (quota, min_nodes, contributions) in [(47, 1, "a contribution"), (95, 2, "the contributions of 2 nodes")] {
        let mut world = World::new();
        world.quota = quota;
        let researcher = world.start().await;
        for number in [1, 2] {
            let node = world.node(&researcher, number).await;
            let session = node.connect(vec![]).await.unwrap();
            tokio::spawn(async move { node.live(session, |_| panic!("nobody is asked")).await });
        }
        let id = researcher.run(spec(1, Patience { min_nodes, ..Patience::default() }), ada()).await.unwrap();
        let replies = follow(&researcher, &id).await;
        let end = ended(&replies);
        let reason = end.reason.as_deref().unwrap();
        assert_eq!(end.state, ExperimentState::Failed);
        assert!(reason.starts_with(contributions) && reason.contains("`experiments.spool_quota_mb`"), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_larger_than_the_spool_is_refused_for_good() {
    let mut world = World::new();
    let researcher = world.start().await;
    let node = world.node(&researcher, 1).await;
    let (session, id) = (node.connect(vec![]).await.unwrap(), node.id.clone());
    let (sender, mut asked) = mpsc::unbounded_channel();
    let keep = move |task: &Task| {
        sender.send((task.id.clone(), layout_byte_len(&task.layout).unwrap())).unwrap();
        Answer::Keep
    };
    tokio::spawn(async move { node.live(session, keep).await });
    researcher.run(spec(1, Patience::default()), ada()).await.unwrap();
    let (task, bytes) = asked.recv().await.unwrap();
    researcher.kill();
    world.quota = bytes - 1;
    let researcher = world.start().await;
    let header = UploadHeader { task, digest: Digest::of(b""), bytes, report: None };
    assert_eq!(researcher.service().receive(&id, &header).await.unwrap_err().code, RefusalCode::TooLarge);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_good_ends_the_researcher_with_its_words() {
    let mut world = World::new();
    let researcher = world.start().await;
    let database = rusqlite::Connection::open(world.dir.path().join("store.sqlite")).unwrap();
    database.execute_batch("DROP TABLE models; DROP TABLE records; DROP TABLE experiments").unwrap();
    let answer = researcher.run(spec(1, Patience::default()), ada()).await;
    assert!(matches!(answer, Err(CommandError::Ending)), "{answer:?}");
    researcher.ended().await;
    let end = researcher.stop().await.unwrap_err();
    assert!(matches!(&end, DriverError::Store(_)) && end.to_string().contains("no such table"), "{end}");
    assert!(researcher.stop().await.is_ok(), "it is over already");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_waited_for_and_a_panic_is_seen() {
    let mut world = World::new();
    let commits = std::sync::atomic::AtomicUsize::new(0);
    world.watch = Some(CommitWatch::new(move |_| match commits.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0..3 => false,
        3..5 => true,
        _ => panic!("a mistake"),
    }));
    let researcher = world.start().await;
    let id = researcher.run(spec(1, Patience::default()), ada()).await.unwrap();
    assert!(researcher.cancel(&id, "ada").await.is_err());
    researcher.ended().await;
    assert!(matches!(researcher.stop().await, Err(DriverError::Panicked)));
}
