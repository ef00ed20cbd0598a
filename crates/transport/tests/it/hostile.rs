//! What strangers and broken peers may try.

use std::sync::Arc;

use protocol::{NodeId, NodeMessage, TaskId};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use transport::blob::{CHUNK_BYTES, Chunk};
use transport::identity::NodeIdentity;
use transport::link::Link;
use transport::{matrix, socket};

use crate::raw::{self, wire};
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
    let told = world.host.rejections();
    assert!(told.iter().any(|reason| reason == "it does not speak TLS"), "{:?}", told.first());
}

#[tokio::test]
async fn a_stranger_who_does_not_speak_tls_is_told_to_the_log() {
    let world = World::start().await;
    let mut stream = socket::dial(&matrix::NODE_TO_RESEARCHER, world.address.host(), world.address.port()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n").await.unwrap();
    // Its end is that the researcher closes.
    let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    assert_eq!(world.host.rejections(), ["it does not speak TLS"]);
}

/// An enrolled node that says what it likes.
async fn liar(world: &World) -> raw::Calls {
    let identity = NodeIdentity::create(NodeId::random(&mut StdRng::seed_from_u64(666)));
    raw::calls(raw::tls(world, Some(raw::enrolled(&world.host, &identity))).await).await
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
    // Each refusal ends the connection.
    let client = async || raw::client(raw::calls(raw::tls(&world, None).await).await);
    let control = client().await.control(tokio_stream::once(greeting())).await.unwrap_err();
    let upload = client().await.upload(tokio_stream::pending()).await.unwrap_err();
    let download = client().await.download(wire::DownloadRequest::default()).await.map(drop).unwrap_err();
    let renew = client().await.renew(wire::RenewRequest::default()).await.unwrap_err();
    for status in [control, upload, download, renew] {
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    }
    assert_eq!(world.host.rejections(), ["a node's certificate is needed: enrol first"; 4]);
    assert_eq!(client().await.enrol(wire::EnrolRequest::default()).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_third_refused_enrolment_costs_the_connection() {
    let world = World::start().await;
    let identity = NodeIdentity::create(NodeId::random(&mut StdRng::seed_from_u64(5)));
    let request = wire::EnrolRequest {
        secret: "guessed".to_owned(),
        node: identity.node().to_string(),
        name: "Guesser".to_owned(),
        csr: identity.signing_request().unwrap().into(),
    };
    let mut client = raw::client(raw::calls(raw::tls(&world, None).await).await);
    for _ in 0..3 {
        assert_eq!(client.enrol(request.clone()).await.unwrap_err().code(), Code::Unauthenticated);
    }
    let mut tries = 0;
    while client.enrol(request.clone()).await.unwrap_err().code() == Code::Unauthenticated {
        tries += 1;
        assert!(tries < 1000);
        tokio::task::yield_now().await;
    }
}

/// What a liar says after its greeting costs it its connection; others go on.
async fn check_said_by_a_liar(said: wire::NodeEnvelope, expected: &str) {
    let mut world = World::start().await;
    let (_, link) = world.node(1).await;
    let (session, mut host) = world.meet(&link).await;
    let mut client = raw::client(liar(&world).await);
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
async fn bytes_that_are_no_message_cost_the_connection() {
    let world = World::start().await;
    let calls = liar(&world).await;
    // A chunk begins with a number where an envelope has a message.
    let chunk = wire::Chunk { offset: 7, ..wire::Chunk::default() };
    let mut calls = tonic::client::Grpc::with_origin(calls, raw::origin());
    calls.ready().await.unwrap();
    let codec = ProstCodec::<wire::Chunk, wire::ResearcherEnvelope>::default();
    let path = PathAndQuery::from_static("/fedbiomed.v1.Federation/Control");
    let status = calls.streaming(tonic::Request::new(tokio_stream::once(chunk)), path, codec).await.err().unwrap();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(world.host.rejections(), ["the message is malformed"]);
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
        digest: {
            let good = bytes::Bytes::copy_from_slice(&bytes[..bytes.len().min(CHUNK_BYTES)]);
            Chunk::new(offset as u64, good).digest.as_bytes().to_vec().into()
        },
        bytes: bytes.to_vec().into(),
    };
    let first = chunk(0, &bytes[..CHUNK_BYTES]);
    let damaged = wire::Chunk { digest: vec![0; 32].into(), ..chunk(CHUNK_BYTES, &bytes[CHUNK_BYTES..2 * CHUNK_BYTES]) };
    let short = chunk(CHUNK_BYTES, &bytes[CHUNK_BYTES..2 * CHUNK_BYTES - 1]);
    let large = chunk(CHUNK_BYTES, &bytes[CHUNK_BYTES..=2 * CHUNK_BYTES]);
    for wrong in [damaged, first.clone(), short, large] {
        let blob = wire::BlobRef { digest: header.digest.as_bytes().to_vec().into(), bytes: header.bytes };
        let head = wire::UploadHeader { task: header.task.to_string(), blob: Some(blob), report_json: bytes::Bytes::new() };
        let mut client = raw::client(liar(&world).await);
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

#[tokio::test]
async fn the_credits_of_the_dead_come_back() {
    let world = Arc::new(World::start().await);
    let (_, link) = world.node(1).await;
    // Where the others live, until all of it is killed.
    let dead = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (credits, mut given) = mpsc::unbounded_channel();
    for seed in 0..8 {
        let world = world.clone();
        let task = TaskId::random(&mut StdRng::seed_from_u64(seed)).to_string();
        let blob = wire::BlobRef { digest: vec![0; 32].into(), bytes: 100 << 20 };
        let head = wire::UploadHeader { task, blob: Some(blob), ..wire::UploadHeader::default() };
        let credits = credits.clone();
        dead.spawn(async move {
            let head = wire::UploadUp { message: Some(wire::upload_up::Message::Header(head)) };
            // Says nothing after that.
            let steps = tokio_stream::once(head).chain(tokio_stream::pending());
            let mut hears = raw::client(liar(&world).await).upload(steps).await.unwrap().into_inner();
            while let Ok(Some(answer)) = hears.message().await {
                if let Some(wire::upload_down::Message::Credit(bytes)) = answer.message {
                    credits.send(bytes).unwrap();
                }
            }
        });
    }
    // All of the budget goes to nodes that send nothing.
    let mut total = 0;
    while total < 32 << 20 {
        total += soon(given.recv()).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let (header, path, _) = contribution(folder.path(), 99, 2 * CHUNK_BYTES);
    let upload = link.upload(&header, &path);
    tokio::pin!(upload);
    let waits = tokio::select! {
        done = &mut upload => panic!("there was no credit, yet {done:?}"),
        () = async { while world.host.state.lock().unwrap().resumed_at.len() < 9 { tokio::task::yield_now().await } } => upload,
    };
    dead.shutdown_background();
    soon(waits).await.unwrap();
}
