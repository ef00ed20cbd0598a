//! The published vectors of `testdata/`, which an independent reference wrote.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::channel::{Channels, Offer, Roster, Sealed, agree, public_of};
use crate::graph::{Graph, Layout, neighbourhood_colluders, neighbours, ring};
use crate::identity::{IdentityKey, IdentityPublic, Signature};
use crate::mask::{Masks, Modulus, Sign, VectorName, pair_seed, self_seed};
use crate::party::{Experiment, Parties, PartyId, Point};
use crate::problem::Problem;
use crate::session::{Context, SessionSpec, Terms};
use crate::shamir::{Interpolation, LIMBS_257, Polynomial, Prime257, read, write};
use crate::threshold::{default_colluders, least_survivors, threshold};
use crate::wire::{Blob, Fixed, Secret};

/// Runs the cases of one kind; a case has outputs or the word of a refusal.
fn each(file: &str, kind: &str, mut check: impl FnMut(&Value, &Value, Option<&str>)) {
    let text = match file {
        "channel.json" => include_str!("../testdata/channel.json"),
        "graph.json" => include_str!("../testdata/graph.json"),
        "identity.json" => include_str!("../testdata/identity.json"),
        "masks.json" => include_str!("../testdata/masks.json"),
        "shamir.json" => include_str!("../testdata/shamir.json"),
        "thresholds.json" => include_str!("../testdata/thresholds.json"),
        _ => panic!("{file} is not read here"),
    };
    let all: Value = serde_json::from_str(text).unwrap();
    let mut ran = 0;
    for case in all["cases"].as_array().unwrap().iter().filter(|case| case["kind"] == kind) {
        println!("{}", case["name"]);
        check(&case["inputs"], &case["outputs"], case["refusal"].as_str());
        ran += 1;
    }
    assert!(ran > 0, "{file} has cases of kind {kind}");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::from_value::<Blob>(value.clone()).unwrap().0
}

fn fixed(value: &Value) -> Fixed<32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn secret(value: &Value) -> Secret<32> {
    Secret::new(fixed(value).0)
}

fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

fn indices(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|index| number(index) as usize).collect()
}

fn party(value: &Value) -> PartyId {
    PartyId::new(text(value)).unwrap()
}

#[test]
fn masks_are_the_published_ones_whole_and_from_any_element() {
    each("masks.json", "mask", |inputs, outputs, _| {
        let terms = Terms(fixed(&inputs["terms"]));
        let masks = Masks::new(terms, vec![(secret(&inputs["seed"]), Sign::Plus)]);
        let vector =
            VectorName { index: number(&inputs["number"]), purpose: text(&inputs["purpose"]), name: text(&inputs["name"]) };
        let modulus = match number(&inputs["w"]) {
            32 => Modulus::Bits32,
            64 => Modulus::Bits64,
            _ => Modulus::Bits128,
        };
        let expected = bytes(&outputs["stream"]);
        let mut whole = vec![0; expected.len()];
        masks.apply(vector, modulus, 0, &mut whole).unwrap();
        assert_eq!(whole, expected);
        for first in 0..expected.len() / modulus.bytes() {
            let mut part = vec![0; expected.len() - first * modulus.bytes()];
            masks.apply(vector, modulus, first as u64, &mut part).unwrap();
            assert_eq!(part, expected[first * modulus.bytes()..]);
        }
    });
}

#[test]
fn seeds_of_masks_are_the_published_ones() {
    each("masks.json", "pair", |inputs, outputs, refused| {
        let (me, other) = (party(&inputs["me"]), party(&inputs["other"]));
        let seed =
            pair_seed(&fixed(&inputs["session"]), (&me, &secret(&inputs["secret"])), (&other, &fixed(&inputs["public"])));
        assert_eq!(refused, seed.is_none().then_some("low-order-key"));
        if let Some(seed) = seed {
            assert_eq!(*seed.expose(), fixed(&outputs["seed"]).0);
        }
    });
    each("masks.json", "self-mask", |inputs, outputs, _| {
        let seed = self_seed(&fixed(&inputs["session"]), &party(&inputs["party"]), &secret(&inputs["self_seed"]));
        assert_eq!(*seed.expose(), fixed(&outputs["seed"]).0);
    });
}

#[test]
fn sessions_have_the_published_names() {
    each("masks.json", "session-digest", |inputs, outputs, refused| {
        let parties: Vec<PartyId> = serde_json::from_value(inputs["parties"].clone()).unwrap();
        let listed = Parties::new(parties.clone());
        if let Some(word) = refused {
            assert_eq!(word, "unordered-parties");
            // A list in memory is put in order, or one is named twice: there is no other.
            return match listed {
                Ok(listed) => assert_ne!(listed.as_slice(), parties),
                Err(problem) => assert_eq!(problem, Problem::PartyTwice { party: parties[0].clone() }),
            };
        }
        let context = Context {
            experiment: Experiment::new(text(&inputs["experiment"])).unwrap(),
            round: number(&inputs["round"]),
            attempt: number(&inputs["attempt"]),
            phase: u16::try_from(number(&inputs["phase"])).unwrap(),
        };
        let (neighbours, seed) = (number(&inputs["k"]), fixed(&inputs["seed"]));
        let graph =
            if neighbours as usize == parties.len() - 1 { Graph::Complete } else { Graph::Sparse { neighbours, seed } };
        let [threshold, colluders, min_parties] = ["t", "c", "min_parties"].map(|name| number(&inputs[name]));
        let spec = SessionSpec { context, parties: listed.unwrap(), threshold, colluders, min_parties, graph };
        assert_eq!(spec.id(), fixed(&outputs["session"]));
    });
}

#[test]
fn numbers_of_neighbours_are_those_of_exact_fractions() {
    each("graph.json", "number-of-neighbours", |inputs, outputs, _| {
        let (n, c, d) = (number(&inputs["n"]), number(&inputs["c"]), number(&inputs["d"]));
        let k = neighbours(n, c, d).unwrap_or(n - 1);
        assert_eq!(k, number(&outputs["k"]));
        assert_eq!(threshold(k + 1, neighbourhood_colluders(n, c, k)), number(&outputs["share_threshold"]));
    });
}

#[test]
fn rings_and_neighbours_are_the_published_ones() {
    each("graph.json", "neighbours", |inputs, outputs, refused| {
        let n = inputs["parties"].as_array().unwrap().len();
        let k = number(&inputs["k"]);
        if refused.is_some() || k as usize == n - 1 {
            return;
        }
        let seed = fixed(&outputs["seed"]);
        assert_eq!(ring(n, &seed), indices(&outputs["ring"]));
        let graph = Graph::Sparse { neighbours: k, seed };
        let layout = Layout::new(&graph, u32::try_from(n).unwrap(), 1, 2);
        for (index, expected) in outputs["neighbours"].as_array().unwrap().iter().enumerate() {
            let expected = indices(expected);
            assert_eq!(layout.neighbours(index), expected);
            assert!((0..n).all(|other| layout.are_neighbours(index, other) == expected.contains(&other)));
        }
    });
}

#[test]
fn quorums_are_told_from_groups_that_could_be_parted() {
    each("graph.json", "quorum", |inputs, outputs, _| {
        let n = number(&inputs["n"]);
        let graph = Graph::Sparse { neighbours: number(&inputs["k"]), seed: fixed(&inputs["seed"]) };
        let colluders = number(&inputs["c"]);
        let layout = Layout::new(&graph, n, colluders, threshold(n, colluders));
        let mut survivors = vec![true; n as usize];
        for index in indices(&inputs["lost"]) {
            survivors[index] = false;
        }
        let mut signers = survivors.clone();
        for index in indices(&inputs["silent"]) {
            signers[index] = false;
        }
        assert_eq!(layout.share_threshold(), number(&outputs["share_threshold"]));
        assert_eq!(layout.is_quorum(&survivors, &survivors), outputs["survivors"] == true);
        assert_eq!(layout.is_quorum(&signers, &survivors), outputs["signers"] == true);
    });
}

/// A session of n parties with these numbers.
fn spec(n: u32, colluders: u32, threshold: u32, min_parties: u32) -> SessionSpec {
    let context = Context { experiment: Experiment::new("e").unwrap(), round: 0, attempt: 0, phase: 0 };
    let parties = Parties::new((0..n).map(|index| PartyId::new(format!("n{index:05}")).unwrap())).unwrap();
    SessionSpec { threshold, ..SessionSpec::new(context, parties, colluders, min_parties) }
}

/// What is wrong with numbers that a word refuses.
fn weak(word: &str, n: u32, c: u32, t: u32, inputs: &Value) -> Problem {
    match word {
        "low-threshold" | "high-threshold" => {
            Problem::Threshold { got: t, least: threshold(n, c), parties: n, colluders: c }
        }
        "too-many-colluders" => Problem::Colluders { got: c, most: n - 2 },
        "too-few-parties" if number(&inputs["min_parties"]) < 2 => {
            Problem::MinParties { got: number(&inputs["min_parties"]), least: 2 }
        }
        "too-few-parties" => Problem::TooFewParties { got: n, least: number(&inputs["min_parties"]) },
        other => panic!("{other}"),
    }
}

#[test]
fn thresholds_are_the_published_ones() {
    each("thresholds.json", "thresholds", |inputs, outputs, refused| {
        let n = number(&inputs["n"]);
        let c = inputs["c"].as_u64().map_or_else(|| default_colluders(n), |_| number(&inputs["c"]));
        let t = inputs["t"].as_u64().map_or_else(|| threshold(n, c), |_| number(&inputs["t"]));
        if let Some(word) = refused {
            return assert_eq!(spec(n, c, t, number(&inputs["min_parties"])).check(), Err(weak(word, n, c, t, inputs)));
        }
        assert_eq!((c, t), (number(&outputs["c"]), number(&outputs["t"])));
        assert_eq!(least_survivors(t, number(&inputs["min_parties"])), number(&outputs["survivors"]));
    });
}

#[test]
fn signatures_are_the_published_ones_and_wrong_ones_are_refused() {
    each("identity.json", "sign", |inputs, outputs, _| {
        let key = IdentityKey::from_scalar(&fixed(&inputs["secret"]).0).unwrap();
        assert_eq!(key.public().as_bytes().to_vec(), bytes(&outputs["public"]));
        assert_eq!(key.sign(&bytes(&inputs["message"])).0.0.to_vec(), bytes(&outputs["signature"]));
    });
    each("identity.json", "verify", |inputs, _, refused| {
        let signature = Fixed::from_slice("signature", &bytes(&inputs["signature"])).map(Signature);
        let verifies = IdentityPublic::from_bytes(&bytes(&inputs["public"]))
            .and_then(|public| Ok(public.verifies(&bytes(&inputs["message"]), &signature?)));
        let short = Problem::Length { what: "signature", expected: 64, got: 63 };
        match refused {
            None => assert_eq!(verifies, Ok(true)),
            Some("bad-key") => assert_eq!(verifies, Err(Problem::Malformed { what: "identity key" })),
            Some("bad-signature" | "high-s") => assert!(verifies == Ok(false) || verifies == Err(short), "{verifies:?}"),
            Some(other) => panic!("{other}"),
        }
    });
}

#[test]
fn offers_with_wrong_signatures_are_refused() {
    each("channel.json", "check-offer", |inputs, _, refused| {
        let offer: Offer = serde_json::from_value(serde_json::json!({
            "public": inputs["public"], "commitment": inputs["commitment"], "signature": inputs["signature"],
        }))
        .unwrap();
        let identity = IdentityPublic::from_bytes(&bytes(&inputs["identity_public"])).unwrap();
        let experiment = Experiment::new(text(&inputs["experiment"])).unwrap();
        let party = party(&inputs["party"]);
        let problem = match refused {
            None => Ok(()),
            Some("bad-signature") => Err(Problem::Signature { what: "offer", party: party.clone() }),
            Some(other) => panic!("{other}"),
        };
        assert_eq!(offer.check(&experiment, &party, &identity), problem);
    });
}

/// Builds a node's end of one channel from its secret and the other's public key.
fn channel(inputs: &Value) -> Channels {
    try_channel(inputs).unwrap()
}

fn try_channel(inputs: &Value) -> Result<Channels, Problem> {
    let (me, other) = (party(&inputs["me"]), party(&inputs["other"]));
    let experiment = Experiment::new(text(&inputs["experiment"])).unwrap();
    let secret = text(&inputs["secret"]);
    let mut channels: Channels = serde_json::from_value(serde_json::json!({
        "experiment": experiment, "party": me, "secret": secret, "seed": secret, "peers": {},
    }))
    .unwrap();
    // The other's offer, signed by a key of this test.
    let identity = IdentityKey::from_scalar(&[5; 32]).unwrap();
    let public = fixed(&inputs["other_public"]);
    let commitment = Fixed([0; 32]);
    let signed = crate::channel::signed(&experiment, &other, &public, &commitment);
    let offer = Offer { public, commitment, signature: identity.sign(signed.as_ref()) };
    let roster = Roster::from([(other.clone(), identity.public())]);
    channels.agree(&roster, &[(other, offer)].into())?;
    Ok(channels)
}

#[test]
fn sealed_messages_are_the_published_ones_and_wrong_ones_are_refused() {
    each("channel.json", "seal", |inputs, outputs, _| {
        let mut channels = channel(inputs);
        let (other, subject) = (party(&inputs["other"]), bytes(&inputs["subject"]));
        let mut state = serde_json::to_value(&channels).unwrap();
        state["peers"][other.as_str()]["sent"] = (inputs["counter"].as_u64().unwrap() - 1).into();
        channels = serde_json::from_value(state).unwrap();
        let sealed = channels.seal(&other, &subject, &bytes(&inputs["plaintext"])).unwrap();
        assert_eq!(sealed.0.0, bytes(&outputs["message"]));
    });
    each("channel.json", "open", |inputs, outputs, refused| {
        let mut channels = channel(inputs);
        let (other, subject) = (party(&inputs["other"]), bytes(&inputs["subject"]));
        channels.took(&other, inputs["received"].as_u64().unwrap());
        let before = serde_json::to_string(&channels).unwrap();
        match channels.open(&other, &subject, &Sealed(Blob(bytes(&inputs["message"])))) {
            Ok(plaintext) => assert!(refused.is_none() && *plaintext == bytes(&outputs["plaintext"])),
            Err(problem) => {
                let last = inputs["received"].as_u64().unwrap();
                let got = u64::from_be_bytes(*bytes(&inputs["message"]).first_chunk().unwrap());
                let expected = match refused {
                    Some("replayed") => Problem::Replayed { party: other, got, last },
                    // Cut off, it is not told from what was altered.
                    Some("not-authentic" | "truncated") => Problem::Sealed { party: other },
                    word => panic!("{word:?}"),
                };
                assert_eq!(problem, expected);
                assert_eq!(serde_json::to_string(&channels).unwrap(), before, "the state is as it was");
            }
        }
    });
    each("channel.json", "channel-keys", |inputs, outputs, refused| {
        if refused.is_none() {
            assert!(agree(&secret(&inputs["secret"]), &fixed(&inputs["other_public"])).is_some());
            return assert_eq!(public_of(&secret(&inputs["secret"])), fixed(&outputs["public"]));
        }
        assert_eq!(refused, Some("low-order-key"));
        let other = party(&inputs["other"]);
        let agreed = try_channel(inputs).map(drop);
        assert_eq!(agreed, Err(Problem::PublicKey { what: "offer", party: other }));
    });
}

#[test]
fn shares_are_the_published_ones() {
    each("shamir.json", "share", |inputs, outputs, _| {
        let mut rng = Replay(bytes(&inputs["draws"]));
        let secret = bytes(&inputs["secret"]);
        let polynomial = Polynomial::<Prime257, LIMBS_257>::draw(&secret, number(&inputs["threshold"]), &mut rng).unwrap();
        assert!(rng.0.is_empty(), "all draws are used");
        for (point, share) in outputs["shares"].as_object().unwrap() {
            let point = Point::of_index(point.parse::<usize>().unwrap() - 1);
            assert_eq!(*polynomial.share(point), bytes(share));
        }
    });
    each("shamir.json", "reconstruct", |inputs, outputs, refused| {
        let given = inputs["shares"].as_array().unwrap();
        let threshold = number(&inputs["threshold"]) as usize;
        let points: Vec<u32> = given.iter().map(|share| number(&share[0])).collect();
        let values: Result<Vec<_>, _> = given.iter().map(|share| read::<Prime257, LIMBS_257>(&bytes(&share[1]))).collect();
        let values = match refused {
            Some("share-range") => return assert_eq!(values, Err(Problem::Malformed { what: "share" })),
            Some("share-length") => {
                return assert_eq!(values, Err(Problem::Length { what: "share", expected: 33, got: 32 }));
            }
            _ => values.unwrap(),
        };
        let distinct: BTreeSet<u32> = points.iter().copied().collect();
        match refused {
            // Whoever rebuilds a secret has the shares by party: no point twice, and a party's point is its index plus one.
            Some("repeated-point") => return assert!(distinct.len() < points.len()),
            Some("point-range") => return assert!(points.contains(&0) && Point::of_index(0).get() == 1),
            // `TooFewShares` of the researcher: the case of a whole session in `tests/it/refusals.rs`.
            Some("below-threshold") => return assert!(points.len() < threshold),
            _ => assert!(distinct.len() == points.len() && points.len() >= threshold),
        }
        let points: Vec<_> = points.iter().map(|point| Point::of_index(*point as usize - 1)).collect();
        let value = write(&Interpolation::new(&points[..threshold], 0).value(&values[..threshold]));
        let agree = (threshold..points.len())
            .all(|at| Interpolation::new(&points[..threshold], points[at].get()).value(&values[..threshold]) == values[at]);
        match refused {
            None => assert!(agree && value[0] == 0 && value[1..] == bytes(&outputs["secret"])),
            Some("secret-range") => assert!(agree && value[0] != 0),
            Some("shares-disagree") => assert!(!agree && value[0] == 0),
            Some(other) => panic!("{other}"),
        }
    });
}

/// Gives the bytes that a vector says were drawn.
struct Replay(Vec<u8>);

impl rand_core::TryRng for Replay {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), Self::Error> {
        let drawn: Vec<u8> = self.0.drain(..destination.len()).collect();
        destination.copy_from_slice(&drawn);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Replay {}
