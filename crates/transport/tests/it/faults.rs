//! Faults in memory, on a paused clock: the same seed gives the same run, and everything arrives in the end.

use std::time::Duration;

use protocol::{NodeMessage, ResearcherMessage, TaskId};
use rand::SeedableRng;
use rand::rngs::StdRng;
use transport::blob::{CHUNK_BYTES, PartialBlob};
use transport::link::{Link, LinkError};
use transport::memory::Faults;
use transport::retry::Backoff;

use crate::world::{MemoryWorld, Way, contribution, hello, noise};

fn faults() -> Faults {
    Faults {
        delay_ms: Some(1..=50),
        cut_after: Some(1..=8),
        silent_ms: Some(0..=200),
        damaged_per_mille: 100,
        unreachable_per_mille: 200,
    }
}

/// Moves a blob down and a contribution up over a bad way; gives what went wrong, and how long it took.
async fn run(seed: u64) -> (Vec<String>, Duration) {
    let mut world = MemoryWorld::start().await;
    let (_, link) = world.faulty(seed, faults());
    let mut rng = StdRng::seed_from_u64(seed);
    let mut backoff = Backoff::transfer();
    let mut log = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "the clock is paused: it shows what the run itself waited for")]
    let start = tokio::time::Instant::now();
    let bytes = noise(seed, 5 * CHUNK_BYTES);
    let mut partial = PartialBlob::new(world.host().add_blob(&bytes));
    while let Err(error) = link.download(&mut partial).await {
        log.push(format!("down at {}: {error}", partial.have()));
        tokio::time::sleep(backoff.wait(&mut rng)).await;
    }
    assert!(partial.finish().unwrap() == bytes);
    let folder = tempfile::tempdir().unwrap();
    let (header, path, bytes) = contribution(folder.path(), seed, 5 * CHUNK_BYTES + 1);
    while let Err(error) = link.upload(&header, &path).await {
        log.push(format!("up: {error}"));
        tokio::time::sleep(backoff.wait(&mut rng)).await;
    }
    assert!(world.host().state.lock().unwrap().received[0].2 == bytes);
    assert_eq!(world.host().state.lock().unwrap().received.len(), 1);
    let mut met = loop {
        match link.connect(hello()).await {
            Ok(session) => break (session, world.sessions().recv().await.unwrap()),
            Err(error) => log.push(error.to_string()),
        }
        while world.sessions().try_recv().is_ok() {}
    };
    let task = TaskId::random(&mut rng);
    while met.0.outbox.send(NodeMessage::Accepted { task: task.clone() }).await.is_ok() {
        let Some(_) = met.1.inbox.recv().await else { break };
        log.push("heard".to_owned());
    }
    (log, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run_and_all_arrives() {
    let mut logs = Vec::new();
    for seed in 0..20 {
        let first = run(seed).await;
        assert_eq!(first, run(seed).await, "seed {seed}");
        logs.push(first);
    }
    let said = format!("{logs:?}");
    for fault in ["nobody answers", "cut", "damaged"] {
        assert!(said.contains(fault), "{fault} never happened");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_researcher_is_unreachable_until_it_is_back() {
    let mut world = MemoryWorld::start().await;
    let (_, link) = world.node(1).await;
    let (mut session, mut host) = world.meet(&link).await;
    let running = world.host().clone();
    world.server.stop();
    assert!(matches!(session.inbox.recv().await, Some(Err(LinkError::Broken(_)))));
    assert!(host.inbox.recv().await.is_none());
    assert!(matches!(link.connect(hello()).await, Err(LinkError::Unreachable(_))));
    world.server.start(running);
    let (mut session, host) = world.meet(&link).await;
    let settled = ResearcherMessage::Settled { task: TaskId::random(&mut StdRng::seed_from_u64(1)) };
    host.outbox.send(settled.clone()).await.unwrap();
    assert_eq!(session.inbox.recv().await.unwrap().unwrap(), settled);
}
