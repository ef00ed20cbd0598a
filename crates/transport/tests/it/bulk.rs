//! Downloads and uploads.

use protocol::{BlobRef, Digest, RefusalCode};
use transport::blob::{CHUNK_BYTES, PartialBlob};
use transport::link::{Link, LinkError};

use crate::relay::relay;
use crate::world::{Way, World, contribution, noise, soon};

on_both_links!(
    a_blob_comes_whole_and_only_if_a_task_refers_to_it,
    a_contribution_arrives_whole_and_a_second_time_nothing_moves,
    many_nodes_share_the_credits,
    a_file_that_does_not_fit_its_header_is_refused,
);

async fn a_blob_comes_whole_and_only_if_a_task_refers_to_it(world: impl Way) {
    let (_, link) = world.node(1).await;
    for len in [0, 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 17] {
        let bytes = noise(len as u64, len);
        let mut partial = PartialBlob::new(world.host().add_blob(&bytes));
        soon(link.download(&mut partial)).await.unwrap();
        assert_eq!(partial.finish().unwrap(), bytes);
    }
    let mut unknown = PartialBlob::new(BlobRef { digest: Digest::of(b"?"), bytes: 1 });
    let refused = soon(link.download(&mut unknown)).await.unwrap_err();
    assert!(matches!(&refused, LinkError::Refused(refusal) if refusal.code == RefusalCode::TaskUnknown), "{refused}");
}

async fn a_contribution_arrives_whole_and_a_second_time_nothing_moves(world: impl Way) {
    let (node, link) = world.node(1).await;
    for len in [0, 1, CHUNK_BYTES, 11 * CHUNK_BYTES + 17] {
        let folder = tempfile::tempdir().unwrap();
        let (header, path, bytes) = contribution(folder.path(), len as u64, len);
        soon(link.upload(&header, &path)).await.unwrap();
        soon(link.upload(&header, &path)).await.unwrap();
        let received = world.host().state.lock().unwrap().received.pop().unwrap();
        assert!(received == (node.clone(), header, bytes));
        assert!(world.host().state.lock().unwrap().received.is_empty());
    }
}

#[tokio::test]
async fn an_upload_goes_on_from_the_last_good_chunk_after_a_cut() {
    let world = World::start().await;
    let (way, up, _) = relay(world.address.clone()).await;
    let (_, link) = world.node_at(1, &way).await;
    let folder = tempfile::tempdir().unwrap();
    let (header, path, bytes) = contribution(folder.path(), 5, 12 * CHUNK_BYTES + 5);
    up.set(6 * CHUNK_BYTES as u64);
    let broken = soon(link.upload(&header, &path)).await.unwrap_err();
    assert!(matches!(broken, LinkError::Broken(_)), "{broken}");
    up.set(u64::MAX);
    soon(link.upload(&header, &path)).await.unwrap();
    let state = world.host.state.lock().unwrap();
    assert!(state.received[0].2 == bytes);
    assert_eq!(state.resumed_at[0], 0);
    assert!(
        state.resumed_at[1] >= CHUNK_BYTES as u64 && state.resumed_at[1] % CHUNK_BYTES as u64 == 0,
        "{:?}",
        state.resumed_at
    );
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke() {
    let world = World::start().await;
    let (way, _, down) = relay(world.address.clone()).await;
    let (_, link) = world.node_at(1, &way).await;
    let bytes = noise(8, 12 * CHUNK_BYTES);
    let mut partial = PartialBlob::new(world.host.add_blob(&bytes));
    down.set(6 * CHUNK_BYTES as u64);
    let broken = soon(link.download(&mut partial)).await.unwrap_err();
    assert!(matches!(broken, LinkError::Broken(_)), "{broken}");
    assert!(partial.have() >= CHUNK_BYTES as u64);
    down.set(u64::MAX);
    soon(link.download(&mut partial)).await.unwrap();
    assert!(partial.finish().unwrap() == bytes);
}

async fn many_nodes_share_the_credits(world: impl Way) {
    let mut uploads = tokio::task::JoinSet::new();
    for seed in 0..12 {
        let (_, link) = world.node(seed).await;
        uploads.spawn(async move {
            let folder = tempfile::tempdir().unwrap();
            let (header, path, _) = contribution(folder.path(), seed, 9 * CHUNK_BYTES);
            link.upload(&header, &path).await
        });
    }
    while let Some(done) = soon(uploads.join_next()).await {
        done.unwrap().unwrap();
    }
    assert_eq!(world.host().state.lock().unwrap().received.len(), 12);
}

async fn a_file_that_does_not_fit_its_header_is_refused(world: impl Way) {
    let (_, link) = world.node(1).await;
    let folder = tempfile::tempdir().unwrap();
    let (mut header, path, _) = contribution(folder.path(), 4, 3 * CHUNK_BYTES);
    header.digest = Digest::of(b"something else");
    let refused = soon(link.upload(&header, &path)).await.unwrap_err();
    assert!(matches!(&refused, LinkError::Refused(refusal) if refusal.code == RefusalCode::Damaged), "{refused}");
    header.bytes += 1;
    let refused = soon(link.upload(&header, &path)).await.unwrap_err();
    assert!(matches!(refused, LinkError::Spool(_)), "{refused}");
    assert!(world.host().state.lock().unwrap().received.is_empty());
}
