//! Tokens, certificates, and who is let in.

use std::sync::Arc;

use protocol::{NodeId, RefusalCode};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::io::AsyncReadExt;
use transport::clock::ManualClock;
use transport::grpc::client::{GrpcLink, enrol};
use transport::grpc::proxy::ProxyConfig;
use transport::grpc::server::serve;
use transport::identity::{Certificate, FederationCa, NodeIdentity, ServerIdentity};
use transport::link::{Link, LinkError};
use transport::tls::ServerTls;

use crate::raw;
use crate::relay::proxy;
use crate::world::{DAY, Way, World, hello, listener, soon};

fn identity(seed: u64) -> NodeIdentity {
    NodeIdentity::create(NodeId::random(&mut StdRng::seed_from_u64(seed)))
}

fn identity_error(result: Result<impl Sized, LinkError>) -> String {
    match result.err().unwrap() {
        LinkError::Identity(sentence) => sentence,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_is_good_once() {
    let world = World::start().await;
    let token = world.host.token(world.address.clone());
    let first = identity(1);
    let enrolment = soon(world.enrol(&first, &token)).await.unwrap();
    assert_eq!(enrolment.researcher, world.host.researcher);
    assert_eq!(enrolment.authority, *world.host.ca.certificate());
    assert_eq!(enrolment.certificate.node(), Some(first.node()));
    assert_eq!(enrolment.task_key.as_point(), world.host.task_key.public_point());
    let refused = soon(world.enrol(&identity(2), &token)).await.err().unwrap();
    assert!(matches!(&refused, LinkError::Refused(refusal) if refusal.code == RefusalCode::TokenInvalid), "{refused}");
}

#[tokio::test]
async fn a_token_with_another_fingerprint_is_not_sent() {
    let world = World::start().await;
    let other = World::start().await;
    let token = other.host.token(world.address.clone());
    let sentence = identity_error(soon(world.enrol(&identity(1), &token)).await);
    assert!(sentence.contains("identity changed"), "{sentence}");
    assert!(world.host.state.lock().unwrap().tokens.is_empty());
}

#[tokio::test]
async fn a_researcher_of_another_authority_is_refused_loudly() {
    let world = World::start().await;
    let changed = World::start().await;
    let (_, link) = world.node_at(1, &changed.address).await;
    let sentence = identity_error(soon(link.connect(hello())).await);
    assert!(sentence.contains("the researcher's identity changed"), "{sentence}");
    assert!(changed.host.rejections().iter().all(|reason| reason.contains("another authority")));
}

#[tokio::test]
async fn a_node_of_another_authority_is_refused() {
    let world = World::start().await;
    let foreign = World::start().await;
    let node = identity(1);
    let enrolment = foreign.enrol(&node, &foreign.host.token(foreign.address.clone())).await.unwrap();
    // Our own link would not present it; a hostile one does.
    let own = (enrolment.certificate.as_der().clone(), raw::key(&node));
    let mut stream = raw::tls(&world, Some(own)).await;
    soon(stream.read_to_end(&mut Vec::new())).await.unwrap_err();
    assert_eq!(world.host.rejections(), ["its certificate is from another authority"]);
    let sentence = node.enrolled(enrolment.certificate, world.host.ca.certificate().clone()).err().unwrap().to_string();
    assert_eq!(sentence, "the certificate was not issued by this authority");
}

#[tokio::test]
async fn an_expired_node_certificate_is_refused_and_a_new_token_helps() {
    let mut world = World::start().await;
    let node = identity(1);
    let key = node.key_pem();
    let enrolment = world.enrol(&node, &world.host.token(world.address.clone())).await.unwrap();
    let id = node.node().clone();
    let link = world.link(node, enrolment, &world.address);
    world.meet(&link).await;
    drop(link);
    world.host.clock.advance(31 * DAY);
    let again = NodeIdentity::from_pem(id.clone(), &key).unwrap();
    let token = world.host.token(world.address.clone());
    let late = world.enrol(&NodeIdentity::from_pem(id.clone(), &key).unwrap(), &token).await.unwrap();
    world.host.clock.advance(31 * DAY);
    let link = world.link(NodeIdentity::from_pem(id.clone(), &key).unwrap(), late, &world.address);
    let sentence = identity_error(soon(link.connect(hello())).await);
    assert!(sentence.contains("this node's certificate has expired: enrol again"), "{sentence}");
    assert_eq!(world.host.rejections(), ["its certificate has expired"]);
    let enrolment = world.enrol(&again, &world.host.token(world.address.clone())).await.unwrap();
    let link = world.link(again, enrolment, &world.address);
    let (_session, host) = world.meet(&link).await;
    assert_eq!(host.node, id);
}

#[tokio::test]
async fn an_expired_researcher_is_refused() {
    let world = World::start().await;
    let (_, link) = world.node(1).await;
    world.host.clock.advance(400 * DAY);
    let sentence = identity_error(soon(link.connect(hello())).await);
    assert!(sentence.contains("out of date"), "{sentence}");
}

#[tokio::test]
async fn a_certificate_renews_itself_while_it_is_good() {
    let mut world = World::start().await;
    let node = identity(1);
    let key = node.key_pem();
    let enrolment = world.enrol(&node, &world.host.token(world.address.clone())).await.unwrap();
    let (id, authority, first) = (node.node().clone(), enrolment.authority.clone(), enrolment.certificate.clone());
    let request = node.signing_request().unwrap();
    let link = world.link(node, enrolment, &world.address);
    assert!(first.is_due(protocol::Timestamp::from_millis(first.not_before().as_millis() - 1)), "a clock once ran ahead");
    world.host.clock.advance(21 * DAY);
    let now = transport::clock::Clock::now(&*world.host.clock);
    assert!(first.is_due(now) && !first.is_expired(now));
    let renewed = soon(link.renew(request)).await.unwrap();
    assert!(!renewed.is_due(now));
    world.host.clock.advance(20 * DAY);
    let identity = NodeIdentity::from_pem(id, &key).unwrap().enrolled(renewed, authority).unwrap();
    let link = GrpcLink::new(world.address.clone(), &identity, ProxyConfig::default(), world.host.clock.clone()).unwrap();
    world.meet(&link).await;
}

#[tokio::test]
async fn a_node_certificate_does_not_serve_as_a_researcher() {
    let world = World::start().await;
    // A node that would like to be the researcher has a certificate of the right authority, and key.
    let node = identity(1);
    let key = node.key_pem();
    let enrolment = world.enrol(&node, &world.host.token(world.address.clone())).await.unwrap();
    let pem = enrolment.certificate.to_pem();
    let disguised = ServerIdentity::from_pem(&pem, &enrolment.authority, &key).unwrap();
    let tls = ServerTls::new(&disguised, world.host.clock.clone()).unwrap();
    let (listener, address) = listener().await;
    tokio::spawn(serve(world.host.clone(), tls, listener, std::future::pending()));
    let (_, link) = world.node_at(2, &address).await;
    let sentence = identity_error(soon(link.connect(hello())).await);
    assert!(sentence.contains("not the researcher") || sentence.contains("identity changed"), "{sentence}");
    let token = world.host.token(address);
    identity_error(soon(world.enrol(&identity(3), &token)).await);
    assert_eq!(world.host.state.lock().unwrap().tokens.len(), 1, "the token was not sent");
}

#[tokio::test]
async fn a_proxy_with_a_password_is_a_way() {
    let mut world = World::start().await;
    // "user:secret" in base64.
    let proxy = proxy("Basic dXNlcjpzZWNyZXQ=").await;
    let node = identity(1);
    let token = world.host.token(world.address.clone());
    let with = |url: String| ProxyConfig::new(Some(&url), None).unwrap();
    let clock: Arc<ManualClock> = world.host.clock.clone();
    let refused = enrol(&token, &node, "North", &with(format!("http://{proxy}")), clock.clone()).await.err().unwrap();
    assert!(
        matches!(&refused, LinkError::Unreachable(sentence) if sentence.contains("user name and password")),
        "{refused}"
    );
    let way = || with(format!("http://user:secret@{proxy}"));
    let enrolment = enrol(&token, &node, "North", &way(), clock.clone()).await.unwrap();
    let identity = node.enrolled(enrolment.certificate, enrolment.authority).unwrap();
    let link = GrpcLink::new(world.address.clone(), &identity, way(), clock).unwrap();
    world.meet(&link).await;
}

#[tokio::test]
async fn identities_survive_being_written_to_files() {
    let world = World::start().await;
    let ca = FederationCa::from_pem(&world.host.ca.certificate().to_pem(), &world.host.ca.key_pem()).unwrap();
    assert_eq!(ca.certificate(), world.host.ca.certificate());
    let server =
        ca.issue_server(transport::clock::Clock::now(&*world.host.clock), DAY, &mut StdRng::seed_from_u64(1)).unwrap();
    let pem = server.certificate().to_pem();
    let read = ServerIdentity::from_pem(&pem, ca.certificate(), &server.key_pem()).unwrap();
    assert_eq!(read.certificate(), &Certificate::from_pem(&pem).unwrap());
    assert!(FederationCa::from_pem(&pem, &world.host.ca.key_pem()).is_err(), "the key is another's");
    let other = World::start().await;
    assert!(ServerIdentity::from_pem(&pem, other.host.ca.certificate(), &server.key_pem()).is_err(), "another authority");
}
