//! Direct key negotiation over real sockets: who may take part, and what strangers get.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use protocol::{ExperimentId, NodeId, Refusal, RefusalCode, ResearcherId, Timestamp};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use transport::address::Address;
use transport::identity::{Certificate, EnrolledIdentity, FederationCa, Fingerprint, NodeIdentity};
use transport::negotiation::{
    Identity, Notice, Office, OfficeError, Outcome, Part, Party, Peer, Pin, Place, Topic, Trouble,
};
use transport::{matrix, socket};

use crate::world::soon;

const DAY: Duration = Duration::from_hours(24);
const PATIENCE: Duration = Duration::from_mins(1);
/// Enough for what works to work, and short enough to wait for what does not.
const SHORT: Duration = Duration::from_secs(3);

/// A port that nobody listens on, kept from others until it is needed.
struct Reserved(TcpListener);

impl Reserved {
    async fn new() -> Self {
        Self(socket::listen(&matrix::NODE_FROM_PARTIES, ([127, 0, 0, 1], 0).into()).await.unwrap())
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }
}

/// What a party has, and what it has seen.
struct Member {
    party: Party,
    identity: Identity,
    pin: Pin,
    port: u16,
    office: Arc<Office>,
    notices: Arc<Mutex<Vec<Notice>>>,
    taken: Arc<Mutex<BTreeMap<Party, Vec<Bytes>>>>,
}

/// Three nodes and their researcher.
struct Federation {
    topic: Topic,
    members: Vec<Member>,
    authority: FederationCa,
    rng: StdRng,
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000)
}

fn enrolled(authority: &FederationCa, rng: &mut StdRng) -> EnrolledIdentity {
    let identity = NodeIdentity::create(NodeId::random(rng));
    let request = identity.signing_request().unwrap();
    let certificate = authority.issue_node(&request, identity.node(), now(), DAY, rng).unwrap();
    identity.enrolled(certificate, authority.certificate().clone()).unwrap()
}

impl Federation {
    async fn new() -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let researcher = ResearcherId::random(&mut rng);
        let authority = FederationCa::create(&researcher, now(), DAY, &mut rng).unwrap();
        let topic = Topic {
            researcher: researcher.clone(),
            experiment: ExperimentId::random(&mut rng),
            round: 0,
            attempt: 0,
            series: 0,
        };
        let mut federation = Self { topic, members: Vec::new(), authority, rng };
        for _ in 0..3 {
            let identity = enrolled(&federation.authority, &mut federation.rng);
            let pin = Pin::Key(identity.certificate().key_fingerprint());
            federation.add(Party::Node(identity.node().clone()), Identity::of_node(&identity), pin).await;
        }
        let server = federation.authority.issue_server(now(), DAY, &mut federation.rng).unwrap();
        let pin = Pin::ServerOf(federation.authority.certificate().clone());
        federation.add(Party::Researcher(researcher), Identity::of_researcher(&server), pin).await;
        federation
    }

    async fn add(&mut self, party: Party, identity: Identity, pin: Pin) {
        let port = Reserved::new().await.port();
        let (incoming, outgoing) = match party {
            Party::Node(_) => (&matrix::NODE_FROM_PARTIES, &matrix::NODE_TO_PARTIES),
            Party::Researcher(_) => (&matrix::RESEARCHER_FROM_PARTIES, &matrix::RESEARCHER_TO_PARTIES),
        };
        let place = Place { host: "127.0.0.1".to_owned(), port, incoming, outgoing };
        let notices: Arc<Mutex<Vec<Notice>>> = Arc::default();
        let noted = notices.clone();
        let note = Arc::new(move |notice| noted.lock().unwrap().push(notice));
        let office = Arc::new(Office::new(place, note, StdRng::seed_from_u64(u64::from(port))));
        self.members.push(Member { party, identity, pin, port, office, notices, taken: Arc::default() });
    }

    /// What a member knows of the others.
    fn peers(&self, own: usize) -> Vec<Peer> {
        let others = self.members.iter().enumerate().filter(|(index, _)| *index != own);
        let peer = |member: &Member| Peer {
            party: member.party.clone(),
            pin: member.pin.clone(),
            address: Address::new("127.0.0.1", member.port).unwrap(),
            told: Bytes::from(format!("keys of {}", self.members[own].party)),
        };
        others.map(|(_, member)| peer(member)).collect()
    }

    fn part(&self, own: usize) -> Part {
        let member = &self.members[own];
        let taken = member.taken.clone();
        Part {
            topic: self.topic.clone(),
            own: member.party.clone(),
            identity: member.identity.clone(),
            peers: self.peers(own),
            take: Arc::new(move |party, bytes| {
                taken.lock().unwrap().entry(party).or_default().push(bytes);
                Box::pin(std::future::ready(Ok(())))
            }),
            patience: PATIENCE,
        }
    }

    fn begin(&self, own: usize, part: Part) -> JoinHandle<Result<Outcome, OfficeError>> {
        let office = self.members[own].office.clone();
        tokio::spawn(async move { office.negotiate(part).await })
    }

    async fn is_open(&self, own: usize) -> bool {
        socket::dial(&matrix::NODE_TO_PARTIES, "127.0.0.1", self.members[own].port).await.is_ok()
    }

    fn rejections(&self, own: usize) -> Vec<String> {
        let notices = self.members[own].notices.lock().unwrap();
        let reason = |notice: &Notice| match notice {
            Notice::Rejected { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        notices.iter().filter_map(reason).collect()
    }
}

async fn end(task: JoinHandle<Result<Outcome, OfficeError>>) -> Outcome {
    tokio::time::timeout(PATIENCE * 2, task).await.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn all_parties_hear_each_other_and_listen_only_meanwhile() {
    let federation = Federation::new().await;
    for own in 0..4 {
        assert!(!federation.is_open(own).await, "nobody listens before");
    }
    // One begins late: the others wait for it.
    let mut tasks: Vec<_> = (0..3).map(|own| federation.begin(own, federation.part(own))).collect();
    while !federation.is_open(0).await {
        tokio::task::yield_now().await;
    }
    tasks.push(federation.begin(3, federation.part(3)));
    for (own, task) in tasks.into_iter().enumerate() {
        let outcome = end(task).await;
        assert_eq!(outcome.troubles, BTreeMap::new());
        let expected = federation.peers(own).into_iter();
        let expected = expected.map(|peer| (peer.party.clone(), Bytes::from(format!("keys of {}", peer.party))));
        assert_eq!(outcome.heard, expected.collect());
        assert!(!federation.is_open(own).await, "it is closed when the negotiation has ended");
        let notices = federation.members[own].notices.lock().unwrap();
        assert!(
            matches!(notices.first(), Some(Notice::Opened { .. })) && matches!(notices.last(), Some(Notice::Closed { .. }))
        );
        assert!(federation.members[own].taken.lock().unwrap().values().all(|taken| taken.len() == 1));
    }
}

#[tokio::test]
async fn what_is_dropped_is_closed_at_once() {
    let federation = Federation::new().await;
    let task = federation.begin(0, federation.part(0));
    while !federation.is_open(0).await {
        tokio::task::yield_now().await;
    }
    task.abort();
    let _ = task.await;
    assert!(!federation.is_open(0).await);
}

#[tokio::test]
async fn two_negotiations_share_the_port_and_the_last_one_closes_it() {
    let federation = Federation::new().await;
    let other = Topic { attempt: 1, ..federation.topic.clone() };
    let first: Vec<_> = (0..4).map(|own| federation.begin(own, federation.part(own))).collect();
    let second: Vec<_> =
        (0..4).map(|own| federation.begin(own, Part { topic: other.clone(), ..federation.part(own) })).collect();
    for task in first.into_iter().chain(second) {
        assert_eq!(end(task).await.troubles, BTreeMap::new());
    }
    for own in 0..4 {
        assert!(!federation.is_open(own).await);
    }
}

#[tokio::test]
async fn a_party_that_is_somewhere_else_is_named_and_the_others_are_heard() {
    let federation = Federation::new().await;
    let (wrong, nobody) = (federation.members[2].party.clone(), Reserved::new().await.port());
    let tasks: Vec<_> = (0..4)
        .map(|own| {
            let mut part = Part { patience: SHORT, ..federation.part(own) };
            for peer in part.peers.iter_mut().filter(|peer| own == 0 && peer.party == wrong) {
                peer.address = Address::new("127.0.0.1", nobody).unwrap();
            }
            federation.begin(own, part)
        })
        .collect();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(end(task).await);
    }
    let troubles: Vec<_> = outcomes[0].troubles.iter().collect();
    assert!(matches!(troubles.as_slice(), [(party, Trouble::Unreached(_))] if **party == wrong), "{troubles:?}");
    assert_eq!(outcomes[0].heard.len(), 3, "it has heard that party all the same");
    assert_eq!(outcomes[1].troubles, BTreeMap::new());
    let troubles: Vec<_> = outcomes[2].troubles.iter().collect();
    assert_eq!(troubles, [(&federation.members[0].party, &Trouble::Silent)]);
}

#[tokio::test]
async fn another_key_than_the_registered_one_gets_nothing_on_either_side() {
    let mut federation = Federation::new().await;
    // Of the same federation and with the same id, but another key.
    let Party::Node(node) = federation.members[1].party.clone() else { unreachable!() };
    let identity = NodeIdentity::create(node);
    let request = identity.signing_request().unwrap();
    let certificate = federation.authority.issue_node(&request, identity.node(), now(), DAY, &mut federation.rng).unwrap();
    let thief = identity.enrolled(certificate, federation.authority.certificate().clone()).unwrap();
    let tasks = [
        federation.begin(0, Part { patience: SHORT, ..federation.part(0) }),
        federation.begin(1, Part { patience: SHORT, identity: Identity::of_node(&thief), ..federation.part(1) }),
    ];
    let [first, second] = tasks.map(end);
    let (first, second) = (first.await, second.await);
    let other = &federation.members[1].party;
    let Some(Trouble::Unreached(reason)) = first.troubles.get(other) else { panic!("{:?}", first.troubles) };
    assert!(reason.contains("another key"), "{reason}");
    assert!(!first.heard.contains_key(other) && second.heard.is_empty());
    assert!(federation.members[0].taken.lock().unwrap().is_empty());
    assert!(federation.rejections(0).contains(&"its certificate is not registered here".to_owned()));
}

#[tokio::test]
async fn a_node_does_not_pass_for_the_researcher() {
    let federation = Federation::new().await;
    let researcher = federation.members[3].party.clone();
    let Member { identity, .. } = &federation.members[1];
    // It shows its own certificate, which is of the same authority, where the researcher listens.
    let part = Part { identity: identity.clone(), own: researcher.clone(), patience: SHORT, ..federation.part(3) };
    let tasks = [federation.begin(0, Part { patience: SHORT, ..federation.part(0) }), federation.begin(3, part)];
    let [first, _] = tasks.map(end);
    let first = first.await;
    assert!(matches!(first.troubles.get(&researcher), Some(Trouble::Unreached(_))), "{:?}", first.troubles);
    assert!(!first.heard.contains_key(&researcher));
}

#[tokio::test]
async fn a_renewed_certificate_of_the_same_key_is_taken() {
    let mut federation = Federation::new().await;
    let identity = NodeIdentity::create(NodeId::random(&mut federation.rng));
    let request = identity.signing_request().unwrap();
    let mut issue = |at| federation.authority.issue_node(&request, identity.node(), at, DAY, &mut federation.rng).unwrap();
    let (old, new): (Certificate, Certificate) = (issue(now()), issue(now().saturating_add(DAY * 30)));
    let (party, authority) = (Party::Node(identity.node().clone()), federation.authority.certificate().clone());
    let renewed = Identity::of_node(&identity.enrolled(new, authority).unwrap());
    let registered: Fingerprint = old.key_fingerprint();
    federation.members.truncate(1);
    federation.add(party, renewed, Pin::Key(registered)).await;
    let tasks = [federation.begin(0, federation.part(0)), federation.begin(1, federation.part(1))];
    for task in tasks {
        assert_eq!(end(task).await.troubles, BTreeMap::new());
    }
}

#[tokio::test]
async fn what_is_refused_is_told_to_its_sender_and_not_kept() {
    let mut federation = Federation::new().await;
    federation.members.truncate(2);
    let refusal = Refusal::new(RefusalCode::SecureAggregationFailed, "the signature does not fit");
    let given = refusal.clone();
    let refusing =
        Part { take: Arc::new(move |_, _| Box::pin(std::future::ready(Err(given.clone())))), ..federation.part(0) };
    let tasks = [
        federation.begin(0, Part { patience: SHORT, ..refusing }),
        federation.begin(1, Part { patience: SHORT, ..federation.part(1) }),
    ];
    let [first, second] = tasks.map(end);
    let (first, second) = (first.await, second.await);
    assert_eq!(second.troubles.get(&federation.members[0].party), Some(&Trouble::Refused(refusal)));
    assert!(first.heard.is_empty());
    assert_eq!(first.troubles.get(&federation.members[1].party), Some(&Trouble::Silent));
}

#[tokio::test]
async fn strangers_get_nothing_and_do_not_disturb() {
    let federation = Federation::new().await;
    let first = federation.begin(0, federation.part(0));
    while !federation.is_open(0).await {
        tokio::task::yield_now().await;
    }
    let dial = || async { socket::dial(&matrix::NODE_TO_PARTIES, "127.0.0.1", federation.members[0].port).await.unwrap() };
    // Half-open ones, more than an address has places for, that say nothing or a part of a record and stay.
    let mut silent = Vec::new();
    for index in 0..40 {
        let mut stream = dial().await;
        if index % 2 == 0 {
            stream.write_all(&[22, 3, 1]).await.unwrap();
        }
        silent.push(stream);
    }
    for said in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0xff; 300], &[22, 3, 1, 0xff, 0xff], b""] {
        let mut stream = dial().await;
        stream.write_all(said).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
        // An alert of TLS is all that is said.
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    // One that speaks TLS, and has a certificate of another authority.
    let mut rng = StdRng::seed_from_u64(2);
    let other = FederationCa::create(&federation.topic.researcher, now(), DAY, &mut rng).unwrap();
    let stranger = enrolled(&other, &mut rng);
    let lone = Part {
        identity: Identity::of_node(&stranger),
        own: Party::Node(stranger.node().clone()),
        peers: federation.peers(1).into_iter().take(1).collect(),
        patience: SHORT,
        ..federation.part(1)
    };
    let outcome = end(federation.begin(1, lone)).await;
    assert!(outcome.heard.is_empty() && outcome.troubles.len() == 1);
    assert!(federation.members[0].taken.lock().unwrap().is_empty(), "nothing of all that was looked at");
    // All others come through.
    let tasks: Vec<_> = (1..4).map(|own| federation.begin(own, federation.part(own))).collect();
    for task in tasks.into_iter().chain([first]) {
        assert_eq!(end(task).await.troubles, BTreeMap::new());
    }
    let reasons = federation.rejections(0);
    for reason in ["it does not speak TLS", "its certificate is not registered here"] {
        assert!(reasons.iter().any(|told| told == reason), "{reasons:?}");
    }
}
