//! What a negotiation makes of a party's connection, and how long it waits, on the runtime's clock.

use protocol::{ExperimentId, NodeId, ResearcherId, Timestamp};
use rand::SeedableRng;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::address::Address;
use crate::identity::{FederationCa, NodeIdentity};
use crate::matrix;
use crate::negotiation::frame::{read_reply, write_message};
use crate::negotiation::{Identity, Pin, Purpose};

struct Table {
    negotiation: Arc<Negotiation>,
    party: Party,
    taken: Arc<Mutex<Vec<Bytes>>>,
    rng: StdRng,
}

impl Table {
    /// One node that negotiates with one other.
    fn new() -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let researcher = ResearcherId::random(&mut rng);
        let (now, day) = (Timestamp::from_millis(1_790_000_000_000), Duration::from_hours(24));
        let authority = FederationCa::create(&researcher, now, day, &mut rng).unwrap();
        let mut enrol = || {
            let identity = NodeIdentity::create(NodeId::random(&mut rng));
            let request = identity.signing_request().unwrap();
            let certificate = authority.issue_node(&request, identity.node(), now, day, &mut rng).unwrap();
            identity.enrolled(certificate, authority.certificate().clone()).unwrap()
        };
        let (own, other) = (enrol(), enrol());
        let party = Party::Node(other.node().clone());
        let pin = Pin::Key(other.certificate().key_fingerprint());
        let peer =
            Peer { party: party.clone(), pin, address: Address::parse("127.0.0.1:14000").unwrap(), told: Bytes::new() };
        let topic = Topic { researcher, experiment: ExperimentId::random(&mut rng), round: 3, attempt: 1, series: 0 };
        let taken: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        let kept = taken.clone();
        let negotiation = Negotiation {
            topic,
            own: Party::Node(own.node().clone()),
            accepting: Accepting::new(&Identity::of_node(&own), &[peer]).unwrap(),
            take: Arc::new(move |_, said| {
                kept.lock().unwrap().push(said);
                Box::pin(std::future::ready(Ok(())))
            }),
            heard: tokio::sync::Mutex::default(),
            confirmed: Mutex::default(),
            changed: Notify::new(),
            visitors: mpsc::unbounded_channel().0,
        };
        Self { negotiation: Arc::new(negotiation), party, taken, rng }
    }

    fn message(&self) -> Message {
        Message {
            topic: self.negotiation.topic.clone(),
            from: self.party.clone(),
            to: self.negotiation.own.clone(),
            purpose: Purpose::Keys,
            payload: Bytes::from_static(b"keys"),
        }
    }

    /// Lets the party talk; what came of it.
    async fn talk(&self, party: impl AsyncFnOnce(&mut DuplexStream)) -> Result<(), String> {
        let (mut near, mut far) = duplex(1 << 20);
        let heard = async {
            let heard = self.negotiation.converse(&self.party, &mut near).await;
            drop(near);
            heard
        };
        let talked = async {
            party(&mut far).await;
            drop(far);
        };
        tokio::join!(heard, talked).0
    }

    /// The party's message, and what it is replied.
    async fn say(&self, message: &Message) -> (Result<(), String>, Option<Result<(), Refusal>>) {
        let mut reply = None;
        let talked = self.talk(async |stream| {
            write_message(stream, message).await.unwrap();
            reply = read_reply(stream).await.ok();
        });
        (talked.await, reply)
    }
}

#[tokio::test]
async fn a_message_is_taken_once_and_the_same_one_again_is_no_other() {
    let table = Table::new();
    for _ in 0..2 {
        assert_eq!(table.say(&table.message()).await, (Ok(()), Some(Ok(()))));
        assert!(table.negotiation.has_confirmed(&table.party));
    }
    let other = Message { payload: Bytes::from_static(b"other keys"), ..table.message() };
    let (talked, reply) = table.say(&other).await;
    assert!(talked.unwrap_err().contains("something else before"));
    assert_eq!(reply.unwrap().unwrap_err().code, RefusalCode::RosterMismatch);
    assert_eq!(*table.taken.lock().unwrap(), [Bytes::from_static(b"keys")]);
    assert_eq!(table.negotiation.heard.lock().await[&table.party], "keys");
}

#[tokio::test]
async fn what_is_meant_for_another_negotiation_or_party_changes_nothing() {
    let mut table = Table::new();
    let (experiment, researcher) = (ExperimentId::random(&mut table.rng), ResearcherId::random(&mut table.rng));
    let stranger = Party::Node(NodeId::random(&mut table.rng));
    let topic = table.negotiation.topic.clone();
    let wrong = [
        Message { topic: Topic { experiment, ..topic.clone() }, ..table.message() },
        Message { topic: Topic { researcher: researcher.clone(), ..topic.clone() }, ..table.message() },
        // Recorded in an earlier round or attempt.
        Message { topic: Topic { round: 2, ..topic.clone() }, ..table.message() },
        Message { topic: Topic { attempt: 0, ..topic.clone() }, ..table.message() },
        Message { topic: Topic { series: 1, ..topic }, ..table.message() },
        Message { from: stranger.clone(), ..table.message() },
        Message { from: Party::Researcher(researcher), ..table.message() },
        Message { to: stranger, ..table.message() },
        Message { to: table.party.clone(), ..table.message() },
        Message { purpose: Purpose::Parties, ..table.message() },
        Message { purpose: Purpose::Shares, ..table.message() },
    ];
    for message in &wrong {
        let (talked, reply) = table.say(message).await;
        assert!(talked.is_err() && reply.unwrap().is_err(), "{message:?}");
    }
    assert!(table.taken.lock().unwrap().is_empty() && table.negotiation.heard.lock().await.is_empty());
    assert!(table.negotiation.confirmed().is_empty());
}

#[tokio::test]
async fn what_is_no_message_gets_no_reply() {
    let table = Table::new();
    let whole = {
        let (mut near, mut far) = duplex(1 << 20);
        write_message(&mut near, &table.message()).await.unwrap();
        drop(near);
        let mut bytes = Vec::new();
        far.read_to_end(&mut bytes).await.unwrap();
        bytes
    };
    let oversize = [&u32::MAX.to_be_bytes(), vec![0; 100].as_slice()].concat();
    let just_oversize = [&(256_u32 << 10).to_be_bytes(), vec![0; 256 << 10].as_slice()].concat();
    let garbage = [&8_u32.to_be_bytes(), [0xff; 8].as_slice()].concat();
    let cut = whole[..whole.len() - 1].to_vec();
    for bytes in [vec![], oversize, just_oversize, garbage, cut, 0_u32.to_be_bytes().to_vec()] {
        let mut answer = Vec::new();
        let talked = table.talk(async |stream| {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut answer).await;
        });
        assert!(talked.await.is_err() && answer.is_empty(), "{} bytes", bytes.len());
    }
    assert!(table.taken.lock().unwrap().is_empty() && table.negotiation.heard.lock().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_says_its_message_byte_by_byte_is_given_up() {
    let table = Table::new();
    let talked = table.talk(async |stream| {
        stream.write_all(&1000_u32.to_be_bytes()).await.unwrap();
        // None of the waits is long.
        while stream.write_all(&[0]).await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    });
    assert_eq!(talked.await.unwrap_err(), "its message took too long");
    assert!(table.taken.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_see_that_it_was_heard_is_not_counted_as_told() {
    let table = Table::new();
    let message = table.message();
    let talked = table.talk(async |stream| {
        write_message(stream, &message).await.unwrap();
        let _ = read_reply(stream).await;
        sleep(GOODBYE * 2).await;
    });
    assert_eq!(talked.await, Ok(()));
    assert!(!table.negotiation.has_confirmed(&table.party));
    assert_eq!(table.negotiation.heard.lock().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_is_given_up() {
    let place = Place {
        host: "127.0.0.1".to_owned(),
        port: 0,
        incoming: &matrix::NODE_FROM_PARTIES,
        outgoing: &matrix::NODE_TO_PARTIES,
    };
    let office = Arc::new(Office::new(place, Arc::new(|_| {}), StdRng::seed_from_u64(1)));
    let listening = office.listen().await.unwrap();
    let address = listening.listener.local_addr().unwrap();
    let (near, silent) =
        tokio::join!(listening.listener.accept(), socket::dial(&matrix::NODE_TO_PARTIES, "127.0.0.1", address.port()));
    let seat = office.strangers.take(address.ip()).unwrap();
    let rejection = office.clone().arrive(near.unwrap().0, address, seat).await.unwrap();
    assert_eq!(rejection.reason, "its TLS handshake took too long");
    drop(silent);
}
