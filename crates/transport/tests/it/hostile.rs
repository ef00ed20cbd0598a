//! What strangers and broken peers may try.

use protocol::{NodeId, NodeMessage, TaskId};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use transport::blob::CHUNK_BYTES;
use transport::identity::NodeIdentity;
use transport::link::Link;
use transport::{matrix, socket};

use crate::raw::{self, Client, wire};
use crate::world::{Way, World, contribution, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_random_strings_do_not_disturb_a_connected_node() {
    let mut world = World::start().await;
    let (_, link) = world.node(1).await;
    let (session, mut host) = world.meet(&link).await;
    let mut strangers = tokio::task::JoinSet::new();
    for stranger in 0..20 {
        let address = world.address.clone();
        strangers.spawn(async move {
            let mut rng = StdRng::seed_from_u64(stranger);
            for _ in 0..500 {
                let mut bytes = vec![0; rng.random_range(1..200)];
                rng.fill_bytes(&mut bytes);
                // Every other one begins as a TLS handshake record does.
                if rng.random() {
                    bytes.splice(0..0, [22, 3, 1, 0, 100]);
                }
                let mut stream = socket::dial(&matrix::NODE_TO_RESEARCHER, address.host(), address.port()).await.unwrap();
                // The other side may have closed already.
                if stream.write_all(&bytes).await.is_ok() && stream.shutdown().await.is_ok() {
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                }
            }
        });
    }
    let task = TaskId::random(&mut StdRng::seed_from_u64(9));
    while let Some(done) = strangers.join_next().await {
        done.unwrap();
        session.outbox.send(NodeMessage::Accepted { task: task.clone() }).await.unwrap();
        assert!(soon(host.inbox.recv()).await.is_some());
    }
}

/// An enrolled node that says what it likes.
async fn liar(world: &World) -> Client {
    let identity = NodeIdentity::create(NodeId::random(&mut StdRng::seed_from_u64(666)));
    raw::client(raw::tls(world, Some(raw::enrolled(&world.host, &identity))).await).await
}

fn greeting() -> wire::NodeEnvelope {
    let hello = wire::Hello {
        protocol: Some(wire::Version { major: 1, minor: 0 }),
        software: "0.1.0".to_owned(),
        name: "Liar".to_owned(),
        ..wire::Hello::default()
    };
    wire::NodeEnvelope { message: Some(wire::node_envelope::Message::Hello(hello)) }
}

#[tokio::test]
async fn without_a_certificate_only_enrolment_is_answered() {
    let world = World::start().await;
    let mut client = raw::client(raw::tls(&world, None).await).await;
    let control = client.control(tokio_stream::once(greeting())).await.unwrap_err();
    let upload = client.upload(tokio_stream::pending()).await.unwrap_err();
    let download = client.download(wire::DownloadRequest::default()).await.map(drop).unwrap_err();
    let renew = client.renew(wire::RenewRequest::default()).await.unwrap_err();
    for status in [control, upload, download, renew] {
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    }
    assert_eq!(world.host.rejections(), ["a node's certificate is needed: enrol first"; 4]);
    assert_eq!(client.enrol(wire::EnrolRequest::default()).await.unwrap_err().code(), Code::InvalidArgument);
}

/// What a liar says after its greeting costs it its connection; others go on.
async fn check_said_by_a_liar(said: wire::NodeEnvelope, expected: &str) {
    let mut world = World::start().await;
    let (_, link) = world.node(1).await;
    let (session, mut host) = world.meet(&link).await;
    let mut client = liar(&world).await;
    let (says, messages) = mpsc::channel(4);
    says.send(greeting()).await.unwrap();
    let mut hears = soon(client.control(ReceiverStream::new(messages))).await.unwrap().into_inner();
    hears.message().await.unwrap().unwrap();
    says.send(said).await.unwrap();
    let status: Status = soon(hears.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    soon(says.closed()).await;
    assert!(world.host.rejections()[0].contains(expected), "{:?}", world.host.rejections());
    // The connection is closed: nothing else can be asked on it.
    let mut tries = 0;
    while client.enrol(wire::EnrolRequest::default()).await.unwrap_err().code() == Code::InvalidArgument {
        tries += 1;
        assert!(tries < 1000);
        tokio::task::yield_now().await;
    }
    let task = TaskId::random(&mut StdRng::seed_from_u64(9));
    session.outbox.send(NodeMessage::Accepted { task }).await.unwrap();
    assert!(soon(host.inbox.recv()).await.is_some());
}

#[tokio::test]
async fn an_unknown_message_costs_the_connection() {
    check_said_by_a_liar(wire::NodeEnvelope { message: None }, "does not know").await;
}

#[tokio::test]
async fn a_second_greeting_costs_the_connection() {
    check_said_by_a_liar(greeting(), "does not know").await;
}

#[tokio::test]
async fn a_malformed_id_costs_the_connection() {
    let accepted = wire::TaskAccepted { task: "task_../../etc/passwd".to_owned() };
    let message = Some(wire::node_envelope::Message::Accepted(accepted));
    check_said_by_a_liar(wire::NodeEnvelope { message }, "`task` is malformed").await;
}

#[tokio::test]
async fn an_oversize_message_costs_the_connection() {
    let accepted = wire::TaskAccepted { task: "t".repeat(5 << 20) };
    let message = Some(wire::node_envelope::Message::Accepted(accepted));
    check_said_by_a_liar(wire::NodeEnvelope { message }, "too large").await;
}

#[tokio::test]
async fn chunks_without_credit_damaged_short_or_replayed_are_refused_and_what_came_before_stays() {
    let world = World::start().await;
    let (_, link) = world.node(1).await;
    let folder = tempfile::tempdir().unwrap();
    let (header, path, bytes) = contribution(folder.path(), 3, 4 * CHUNK_BYTES);
    let chunk = |offset: usize, bytes: &[u8]| wire::Chunk {
        offset: offset as u64,
        digest: blake3::hash(bytes).as_bytes().to_vec().into(),
        bytes: bytes.to_vec().into(),
    };
    let first = chunk(0, &bytes[..CHUNK_BYTES]);
    let damaged = wire::Chunk { digest: vec![0; 32].into(), ..chunk(CHUNK_BYTES, &bytes[CHUNK_BYTES..2 * CHUNK_BYTES]) };
    let short = chunk(CHUNK_BYTES, &bytes[CHUNK_BYTES..2 * CHUNK_BYTES - 1]);
    let large = chunk(CHUNK_BYTES, &bytes[CHUNK_BYTES..=2 * CHUNK_BYTES]);
    for wrong in [damaged, first.clone(), short, large] {
        let blob = wire::BlobRef { digest: header.digest.as_bytes().to_vec().into(), bytes: header.bytes };
        let head = wire::UploadHeader { task: header.task.to_string(), blob: Some(blob), report_json: bytes::Bytes::new() };
        let mut client = liar(&world).await;
        let (says, steps) = mpsc::channel(8);
        let up = |message| wire::UploadUp { message: Some(message) };
        says.send(up(wire::upload_up::Message::Header(head))).await.unwrap();
        let mut hears = client.upload(ReceiverStream::new(steps)).await.unwrap().into_inner();
        let resume = hears.message().await.unwrap().unwrap().message;
        if resume == Some(wire::upload_down::Message::Resume(0)) {
            says.send(up(wire::upload_up::Message::Chunk(first.clone()))).await.unwrap();
        }
        says.send(up(wire::upload_up::Message::Chunk(wrong))).await.unwrap();
        let status = loop {
            match soon(hears.message()).await {
                Ok(answer) => assert!(matches!(answer.unwrap().message, Some(wire::upload_down::Message::Credit(_)))),
                Err(status) => break status,
            }
        };
        assert!(matches!(status.code(), Code::DataLoss | Code::InvalidArgument), "{status}");
        assert!(std::fs::read(world.host.spool(&header.task)).unwrap() == bytes[..CHUNK_BYTES]);
    }
    link.upload(&header, &path).await.unwrap();
    assert!(world.host.state.lock().unwrap().received[0].2 == bytes);
    assert_eq!(world.host.state.lock().unwrap().resumed_at.last(), Some(&(CHUNK_BYTES as u64)));
}
