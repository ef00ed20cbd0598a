//! Enrolling over the network, and the daemon's connection.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use component::folder::ComponentFolder;
use node::command::{CommandError, Reply, Request, Status, TokenText, run};
use node::daemon;
use node::handle::NodeHandle;
use protocol::{
    BlobRef, Hello, NodeId, NodeMessage, ProtocolVersion, Refusal, RefusalCode, ResearcherId, ResearcherMessage, Timestamp,
    UploadHeader, Welcome,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot};
use transport::address::Address;
use transport::blob::CompleteFile;
use transport::clock::{Clock, SystemClock};
use transport::grpc::server::serve;
use transport::host::{EnrolRequest, Enrolled, Host, HostSession, Reception};
use transport::identity::{FederationCa, SecretKey};
use transport::tls::ServerTls;
use transport::token::EnrolmentToken;
use transport::{matrix, socket};

use crate::world::{World, heart_dataset};

const DAY: Duration = Duration::from_hours(24);

/// A researcher that enrols everybody and gives no work.
struct Enroller {
    authority: FederationCa,
    researcher: ResearcherId,
    task_key: SecretKey,
    sessions: Mutex<Vec<(mpsc::Sender<ResearcherMessage>, mpsc::Receiver<NodeMessage>)>>,
    /// How far its clock is behind the node's.
    behind: Duration,
}

/// What a clock says that is behind.
fn now(behind: Duration) -> Timestamp {
    let behind = u64::try_from(behind.as_millis()).unwrap();
    Timestamp::from_millis(SystemClock.now().as_millis() - behind)
}

fn unwanted<T>() -> Result<T, Refusal> {
    Err(Refusal::new(RefusalCode::TaskUnknown, "no work is given here"))
}

impl Host for Enroller {
    async fn enrol(&self, request: EnrolRequest, _peer: &str) -> Result<Enrolled, Refusal> {
        Ok(Enrolled {
            certificate: self.renew(&request.node, request.csr).await?,
            researcher: self.researcher.clone(),
            task_key: self.task_key.public_point().to_vec(),
        })
    }

    async fn renew(&self, node: &NodeId, csr: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        let mut rng = StdRng::seed_from_u64(3);
        Ok(self.authority.issue_node(&csr, node, now(self.behind), 30 * DAY, &mut rng).unwrap().as_der().to_vec())
    }

    fn admit(&self, _node: &NodeId, _key_fingerprint: &[u8; 32]) -> Result<(), Refusal> {
        Ok(())
    }

    async fn connect(&self, _node: &NodeId, _hello: Hello) -> Result<HostSession, Refusal> {
        let ((outbox, to_node), (from_node, inbox)) = (mpsc::channel(8), mpsc::channel(8));
        self.sessions.lock().unwrap().push((outbox, inbox));
        let welcome = Welcome {
            protocol: ProtocolVersion::CURRENT,
            software: "test".into(),
            capabilities: Vec::new(),
            researcher: self.researcher.clone(),
        };
        Ok(HostSession { welcome, outbox: to_node, inbox: from_node })
    }

    async fn blob(&self, _node: &NodeId, _blob: BlobRef) -> Result<PathBuf, Refusal> {
        unwanted()
    }

    async fn receive(&self, _node: &NodeId, _header: &UploadHeader) -> Result<Reception, Refusal> {
        unwanted()
    }

    async fn received(&self, _node: &NodeId, _header: UploadHeader, _file: CompleteFile) -> Result<(), Refusal> {
        unwanted()
    }

    fn rejected(&self, _peer: &str, _reason: &str) {}
}

/// A researcher on a port that the system chose.
struct Served {
    host: Arc<Enroller>,
    address: Address,
    _end: oneshot::Sender<()>,
}

async fn researcher(id: u64) -> Served {
    researcher_behind(id, Duration::ZERO).await
}

async fn researcher_behind(id: u64, behind: Duration) -> Served {
    let mut rng = StdRng::seed_from_u64(id);
    let researcher = ResearcherId::random(&mut rng);
    let authority = FederationCa::create(&researcher, now(behind), 365 * DAY, &mut rng).unwrap();
    let server = authority.issue_server(now(behind), 30 * DAY, &mut rng).unwrap();
    let host = Enroller { authority, researcher, task_key: SecretKey::generate(), sessions: Mutex::default(), behind };
    let host = Arc::new(host);
    let any_port: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listener = socket::listen(&matrix::RESEARCHER_FROM_NODE, any_port).await.unwrap();
    let address = Address::new("127.0.0.1", listener.local_addr().unwrap().port()).unwrap();
    let tls = ServerTls::new(&server, Arc::new(SystemClock)).unwrap();
    let (end, ended) = oneshot::channel::<()>();
    let served = host.clone();
    tokio::spawn(async move {
        serve(served, tls, listener, async {
            let _ = ended.await;
        })
        .await;
    });
    Served { host, address, _end: end }
}

impl Served {
    fn token(&self) -> TokenText {
        let authority = self.host.authority.certificate().key_fingerprint();
        let token = EnrolmentToken::new(self.address.clone(), authority, &mut StdRng::seed_from_u64(9));
        TokenText(token.to_text().expose().to_owned())
    }
}

async fn status(folder: &ComponentFolder) -> Status {
    let Reply::Status { status } = run(folder, Request::Status).await.unwrap() else { panic!() };
    *status
}

#[tokio::test]
async fn enrolling_again_keeps_id_and_datasets_and_takes_a_new_key() {
    let world = World::new();
    let researcher = researcher(1).await;
    let node = NodeHandle::open(&world.folder).unwrap();
    node.add_dataset(&heart_dataset(&world.heart("va.csv"), &["heart"]), &crate::GO_ON).unwrap();
    let first = node.enrol(&researcher.token()).await.unwrap();
    let second = node.enrol(&researcher.token()).await.unwrap();
    assert_eq!(first.certificate.node(), second.certificate.node());
    assert_ne!(first.certificate.key_fingerprint(), second.certificate.key_fingerprint());
    assert_eq!(node.store().enrolments().unwrap().len(), 1);
    assert_eq!(node.dataset_rows(&crate::GO_ON).unwrap().len(), 1);
    assert_eq!(std::fs::read_dir(world.folder.keys()).unwrap().count(), 1, "the old key is gone");
    node.identity(&second).unwrap();
    node.forget(&second.researcher).unwrap();
    assert_eq!(std::fs::read_dir(world.folder.keys()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_certificate_is_renewed_for_the_same_key() {
    let world = World::new();
    let researcher = researcher(2).await;
    let node = NodeHandle::open(&world.folder).unwrap();
    let enrolment = node.enrol(&researcher.token()).await.unwrap();
    let link = node.grpc_link(&enrolment).unwrap();
    let renewed = node.renew(&enrolment, &link).await.unwrap();
    assert_eq!(renewed.certificate.key_fingerprint(), enrolment.certificate.key_fingerprint());
    assert_eq!(node.store().enrolment(&enrolment.researcher).unwrap().unwrap(), renewed);
    node.identity(&renewed).unwrap();
}

/// With each renewal the certificate would be due again at once, and each one ends the connection.
#[tokio::test]
async fn a_node_whose_clock_is_ahead_renews_once_and_stays_connected() {
    let world = World::new();
    let researcher = researcher_behind(10, 25 * DAY).await;
    run(&world.folder, Request::Enrol { token: researcher.token() }).await.unwrap();
    let folder = world.folder.clone();
    let running = tokio::spawn(async move { daemon::run(&folder, std::future::pending()).await });
    let renewals = async || {
        let Reply::Audit { rows } = run(&world.folder, Request::AuditTail { lines: 1000 }).await.unwrap() else { panic!() };
        rows.iter().filter(|row| row.event == "certificate.renewed").count()
    };
    while renewals().await == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        assert_eq!(renewals().await, 1);
    }
    assert_eq!(researcher.host.sessions.lock().unwrap().len(), 1);
    run(&world.folder, Request::Stop).await.unwrap();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn another_authority_with_the_same_id_is_refused_loudly() {
    let world = World::new();
    let (first, mut second) = (researcher(3).await, researcher(4).await);
    let node = NodeHandle::open(&world.folder).unwrap();
    let enrolment = node.enrol(&first.token()).await.unwrap();
    // The second one says that it is the first.
    let impostor = Enroller {
        authority: FederationCa::create(&first.host.researcher, SystemClock.now(), DAY, &mut StdRng::seed_from_u64(5))
            .unwrap(),
        researcher: first.host.researcher.clone(),
        task_key: SecretKey::generate(),
        sessions: Mutex::default(),
        behind: Duration::ZERO,
    };
    let server = impostor.authority.issue_server(SystemClock.now(), DAY, &mut StdRng::seed_from_u64(6)).unwrap();
    let listener = socket::listen(&matrix::RESEARCHER_FROM_NODE, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    second.address = Address::new("127.0.0.1", listener.local_addr().unwrap().port()).unwrap();
    second.host = Arc::new(impostor);
    let tls = ServerTls::new(&server, Arc::new(SystemClock)).unwrap();
    tokio::spawn(serve(second.host.clone(), tls, listener, std::future::pending()));
    let refused = node.enrol(&second.token()).await.unwrap_err();
    assert!(refused.to_string().starts_with("SOMEBODY ELSE ANSWERS"), "{refused}");
    assert_eq!(node.store().enrolments().unwrap(), [enrolment], "nothing changed");
    // A token that does not fit who answers is refused before the secret is told.
    let wrong = EnrolmentToken::new(
        first.address.clone(),
        second.host.authority.certificate().key_fingerprint(),
        &mut StdRng::seed_from_u64(7),
    );
    assert!(node.enrol(&TokenText(wrong.to_text().expose().to_owned())).await.is_err());
    assert!(node.enrol(&TokenText("fbm1_nonsense".into())).await.is_err());
}

#[tokio::test]
async fn a_daemon_connects_when_it_starts_and_when_it_is_enrolled() {
    let world = World::new();
    let (first, second) = (researcher(8).await, researcher(9).await);
    let sentence = match run(&world.folder, Request::Enrol { token: first.token() }).await.unwrap() {
        Reply::Done { sentence } => sentence,
        other => panic!("{other:?}"),
    };
    assert!(sentence.contains(first.host.researcher.as_str()), "{sentence}");
    let folder = world.folder.clone();
    let running = tokio::spawn(async move { daemon::run(&folder, std::future::pending()).await });
    let connected = |count: usize| {
        let folder = world.folder.clone();
        async move {
            while status(&folder).await.researchers.iter().filter(|row| row.state == "connected").count() < count {
                tokio::task::yield_now().await;
            }
        }
    };
    connected(1).await;
    run(&world.folder, Request::Enrol { token: second.token() }).await.unwrap();
    connected(2).await;
    run(&world.folder, Request::Allow { researcher: first.host.researcher.clone(), allowed: false }).await.unwrap();
    let rows = status(&world.folder).await.researchers;
    assert_eq!(rows.iter().map(|row| row.state.as_str()).collect::<Vec<_>>(), ["forbidden", "connected"]);
    run(&world.folder, Request::Forget { researcher: first.host.researcher.clone() }).await.unwrap();
    assert_eq!(status(&world.folder).await.researchers.len(), 1);
    let refused = run(&world.folder, Request::Forget { researcher: first.host.researcher.clone() }).await.unwrap_err();
    assert!(matches!(refused, CommandError::Failed(_)), "{refused}");
    run(&world.folder, Request::Stop).await.unwrap();
    running.await.unwrap().unwrap();
}
