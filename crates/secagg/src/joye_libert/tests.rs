//! The whole scheme between roles, what each party sees, and the published vectors.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, Rng, SeedableRng};

use super::keys::{KEY_BYTES, Prime4241};
use super::*;
use crate::channel::{Channels, Sealed};
use crate::identity::IdentityKey;
use crate::party::{Experiment, Parties};
use crate::problem::Problem as Common;
use crate::session::{Context, Rules, Terms};
use crate::shamir::{self, Interpolation, Polynomial};
use crate::threshold::threshold;
use crate::wire::{Fixed, Secret};

const RULES: Rules = Rules { min_parties: 2, max_colluders: Some(0) };
const TERMS: Terms = Terms(Fixed([5; 32]));
const NAME: VectorName<'_> = VectorName { index: 0, purpose: "update", name: "w" };

fn id(party: usize) -> PartyId {
    PartyId::new(format!("node-{party:02}")).unwrap()
}

fn context(round: u32, attempt: u32) -> Context {
    Context { experiment: Experiment::new("e").unwrap(), round, attempt, phase: 0 }
}

/// A federation of n nodes with agreed channels.
struct World {
    group: Group,
    parties: Parties,
    channels: Vec<Channels>,
    nodes: Vec<Node>,
    researcher: Researcher,
    rng: ChaCha20Rng,
}

impl World {
    fn new(parties: usize) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(11);
        let experiment = Experiment::new("e").unwrap();
        let identities: Vec<_> =
            (0..parties).map(|at| IdentityKey::from_scalar(&[u8::try_from(at).unwrap() + 1; 32]).unwrap()).collect();
        let roster: BTreeMap<_, _> = identities.iter().enumerate().map(|(at, key)| (id(at), key.public())).collect();
        let mut channels: Vec<_> = (0..parties).map(|at| Channels::new(experiment.clone(), id(at), &mut rng)).collect();
        let offers: BTreeMap<_, _> =
            channels.iter().zip(&identities).enumerate().map(|(at, (own, key))| (id(at), own.offer(key))).collect();
        for own in &mut channels {
            own.agree(&roster, &offers).unwrap();
        }
        Self {
            group: Group::rsa_2048(),
            parties: Parties::new((0..parties).map(id)).unwrap(),
            channels,
            nodes: vec![Node::new(); parties],
            researcher: Researcher::new(experiment),
            rng,
        }
    }

    fn spec(&self, generation: u32) -> KeySpec {
        let experiment = Experiment::new("e").unwrap();
        let threshold = threshold(self.parties.count(), 0);
        KeySpec { experiment, generation, parties: self.parties.clone(), threshold, colluders: 0 }
    }

    fn share(&mut self, at: usize, spec: &KeySpec) -> Result<KeyShares, Problem> {
        self.nodes[at].share_keys(&mut self.channels[at], &self.group, spec, &RULES, &mut self.rng)
    }

    fn take(&mut self, at: usize, generation: u32, inbound: &[(PartyId, Sealed)]) -> Result<SumShare, Problem> {
        self.nodes[at].take_shares(&mut self.channels[at], generation, inbound)
    }

    /// Shares among all and gives what is relayed to each.
    fn share_all(&mut self, spec: &KeySpec) -> Vec<Vec<(PartyId, Sealed)>> {
        self.researcher.begin(&self.group, spec).unwrap();
        for at in 0..spec.parties.len() {
            let shares = self.share(at, spec).unwrap();
            self.researcher.accept_shares(spec.generation, &id(at), shares).unwrap();
        }
        (0..spec.parties.len()).map(|at| self.researcher.inbound(spec.generation, &id(at)).unwrap()).collect()
    }

    fn negotiate(&mut self, spec: &KeySpec) -> ServerKey {
        let relayed = self.share_all(spec);
        for (at, inbound) in relayed.iter().enumerate() {
            let sum = self.take(at, spec.generation, inbound).unwrap();
            self.researcher.accept_sum(spec.generation, &id(at), sum).unwrap();
        }
        self.researcher.server_key(spec.generation).unwrap()
    }

    fn masks(&self, at: usize, generation: u32, context: &Context, count: usize) -> Masks {
        let masker = self.nodes[at].masker(&self.group, generation).unwrap();
        let label = self.nodes[at].label(generation, context, TERMS, NAME).unwrap();
        let mut masks = masker.begin(&label);
        masker.extend(&label, &mut masks, count, NonZeroUsize::MIN, &|| true).unwrap();
        masks
    }

    fn encrypt(&mut self, at: usize, context: &Context, elements: &[u8], masks: &Masks) -> Result<Vec<u8>, Problem> {
        let vector = Vector { name: NAME, modulus: Modulus::Bits32, elements };
        let generation = self.nodes[at].last_generation().unwrap();
        self.nodes[at].encrypt(&self.group, generation, context, TERMS, vector, masks)
    }
}

fn key_of(node: &Node, generation: u32) -> Vec<u8> {
    node.exposed(generation).0.to_vec()
}

/// Adds big-endian numbers of any length.
fn add(a: &[u8], b: &[u8]) -> Vec<u8> {
    let length = a.len().max(b.len()) + 1;
    let digit = |bytes: &[u8], place: usize| bytes.iter().rev().nth(place).copied().unwrap_or(0);
    let mut carry = 0_u16;
    let mut sum: Vec<u8> = (0..length)
        .map(|place| {
            carry = u16::from(digit(a, place)) + u16::from(digit(b, place)) + (carry >> 8);
            carry.to_le_bytes()[0]
        })
        .collect();
    sum.reverse();
    sum
}

#[test]
fn a_round_gives_the_exact_sum_and_the_same_bytes_again() {
    for parties in [2_usize, 3, 5] {
        let mut world = World::new(parties);
        let key = world.negotiate(&world.spec(0));
        let vectors: Vec<Vec<u8>> = (0..parties).map(|at| vec![u8::try_from(at * 60).unwrap(); 8]).collect();
        let mut fold = Fold::new(&world.group, &key, &context(1, 0), TERMS, NAME, Modulus::Bits32, 2).unwrap();
        for (at, vector) in vectors.iter().enumerate() {
            let masks = world.masks(at, 0, &context(1, 0), fold.ciphertexts());
            let ciphertexts = world.encrypt(at, &context(1, 0), vector, &masks).unwrap();
            let stored = serde_json::to_string(&world.nodes[at]).unwrap();
            world.nodes[at] = serde_json::from_str(&stored).unwrap();
            assert_eq!(world.encrypt(at, &context(1, 0), vector, &masks).unwrap(), ciphertexts);
            fold.add(&id(at), &ciphertexts).unwrap();
            assert_eq!(fold.add(&id(at), &ciphertexts), Err(Problem::Duplicate { party: id(at) }));
        }
        let masker = key.masker(&world.group).unwrap();
        let mut masks = masker.begin(fold.label());
        masker.extend(fold.label(), &mut masks, fold.ciphertexts(), NonZeroUsize::MIN, &|| true).unwrap();
        let sum =
            vectors.iter().fold(0_u32, |sum, vector| sum.wrapping_add(u32::from_le_bytes(vector[..4].try_into().unwrap())));
        assert_eq!(fold.finish(&masks).unwrap(), [sum.to_le_bytes(), sum.to_le_bytes()].concat());
    }
}

#[test]
fn a_missing_node_is_named_and_there_is_no_sum() {
    let mut world = World::new(3);
    let key = world.negotiate(&world.spec(0));
    let mut fold = Fold::new(&world.group, &key, &context(1, 0), TERMS, NAME, Modulus::Bits32, 1).unwrap();
    let masks = world.masks(0, 0, &context(1, 0), 1);
    let ciphertexts = world.encrypt(0, &context(1, 0), &[1; 4], &masks).unwrap();
    fold.add(&id(0), &ciphertexts).unwrap();
    let refused = fold.finish(&masks).unwrap_err();
    assert_eq!(refused.to_string(), "ciphertexts are missing from: node-01, node-02; this scheme survives no loss");
    assert_eq!(fold.add(&id(7), &ciphertexts), Err(Common::NotAParty { party: id(7) }.into()));
    let expected = Problem::Ciphertexts { party: id(1), expected: 1 };
    assert_eq!(fold.add(&id(1), &ciphertexts[1..]), Err(expected));
    assert_eq!(fold.finish(&masks), Err(refused), "what was refused changed nothing");
}

#[test]
fn the_server_key_is_the_sum_of_all_keys_from_any_threshold_of_sums() {
    let mut world = World::new(5);
    let spec = world.spec(0);
    let relayed = world.share_all(&spec);
    let sums: Vec<SumShare> = (0..5).map(|at| world.take(at, 0, &relayed[at]).unwrap()).collect();
    let expected = (0..5).fold(vec![0], |sum, at| add(&sum, &key_of(&world.nodes[at], 0)));
    for left_out in 0..5 {
        let mut researcher = world.researcher.clone();
        for at in (0..5).filter(|at| *at != left_out) {
            researcher.accept_sum(0, &id(at), sums[at].clone()).unwrap();
        }
        let key = researcher.server_key(0).unwrap();
        assert!(expected.ends_with(&key.sum.expose()[1..]));
    }
    assert_eq!(world.researcher.server_key(0).err(), Some(Problem::TooFewSums { got: 0, least: 3 }));
}

#[test]
fn a_wrong_sum_of_shares_is_found_and_named_when_two_more_than_needed_are_there() {
    let mut world = World::new(5);
    let relayed = world.share_all(&world.spec(0));
    for (at, inbound) in relayed.iter().enumerate() {
        let mut sum = world.take(at, 0, inbound).unwrap();
        if at == 2 {
            let mut bytes = *sum.share.expose();
            bytes[530] ^= 1;
            sum.share = Secret::new(bytes);
        }
        world.researcher.accept_sum(0, &id(at), sum).unwrap();
        if at == 3 {
            assert_eq!(world.researcher.server_key(0).err(), Some(Problem::WrongSums { party: None }));
        }
    }
    assert_eq!(world.researcher.server_key(0).err(), Some(Problem::WrongSums { party: Some(id(2)) }));
}

/// What t − 1 parties hold of another's key fits every key: for any secret there is a polynomial through their shares.
#[test]
fn fewer_than_the_threshold_of_shares_fit_any_key() {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let mut key = [0; KEY_BYTES];
    rng.fill_bytes(&mut key);
    let points: Vec<_> = (0..4).map(crate::party::Point::of_index).collect();
    let polynomial = Polynomial::<Prime4241, _>::draw(&key, 3, &mut rng).unwrap();
    let known: Vec<_> = points[..2].iter().map(|point| shamir::read(&polynomial.share(*point)).unwrap()).collect();
    let mut second = [1; 531];
    second[0] = 0;
    for other in [[0; 531], second] {
        let other = shamir::read::<Prime4241, _>(&other).unwrap();
        // The third share that would make it this key: f(0) = Σ wᵢ·f(xᵢ), solved for the last.
        let weights = Interpolation::<Prime4241, _>::new(&points[..3], 0);
        let zero = shamir::Element::<Prime4241, _>::ZERO;
        let partial = weights.value(&[known[0], known[1], zero]);
        let weight = weights.value(&[zero, zero, shamir::Element::ONE]);
        let third = other.sub(&partial).mul(&weight.invert_vartime().unwrap());
        assert!(weights.value(&[known[0], known[1], third]) == other);
    }
}

/// Everything that leaves a node while keys are negotiated: sealed messages that open for nobody else, and one sum.
#[test]
fn shares_travel_sealed_and_no_party_sees_a_key_of_another() {
    let mut world = World::new(4);
    let spec = world.spec(0);
    let relayed = world.share_all(&spec);
    for (to, inbound) in relayed.iter().enumerate() {
        assert_eq!(inbound.len(), 3, "one message of each other party");
        for (from, sealed) in inbound {
            assert_eq!(sealed.0.0.len(), 8 + SHARE_BYTES + 16);
            let subject = KeySpec::subject(spec.id(&world.group));
            for other in (0..4).filter(|other| *other != to) {
                assert!(world.channels[other].clone().open(from, subject.as_ref(), sealed).is_err());
            }
            let opened = world.channels[to].clone().open(from, subject.as_ref(), sealed).unwrap();
            let from = from.as_str()[5..].parse::<usize>().unwrap();
            let (key, own) = world.nodes[from].exposed(0);
            assert!(opened[..] != own[..] && !opened.ends_with(key));
        }
    }
    let sum = world.take(0, 0, &relayed[0]).unwrap();
    let (key, own) = world.nodes[0].exposed(0);
    assert!(sum.share.expose() != own && !sum.share.expose().ends_with(key));
}

#[test]
fn altered_truncated_swapped_foreign_and_missing_shares_change_nothing() {
    let mut world = World::new(3);
    let (first, second) = (world.spec(0), world.spec(1));
    let inbound = world.share_all(&first)[0].clone();
    let before = serde_json::to_string(&(&world.nodes[0], &world.channels[0])).unwrap();
    let mut altered = inbound.clone();
    altered[1].1.0.0[20] ^= 1;
    let mut truncated = inbound.clone();
    truncated[0].1.0.0.truncate(30);
    let swapped = vec![(id(1), inbound[1].1.clone()), (id(2), inbound[0].1.clone())];
    let foreign = vec![inbound[0].clone(), (id(9), inbound[1].1.clone())];
    let own = vec![inbound[0].clone(), (id(0), inbound[1].1.clone())];
    let twice = [inbound.clone(), inbound.clone()].concat();
    for wrong in [altered, truncated, swapped, foreign, own, twice, inbound[..1].to_vec(), Vec::new()] {
        assert!(world.take(0, 0, &wrong).is_err());
        assert_eq!(serde_json::to_string(&(&world.nodes[0], &world.channels[0])).unwrap(), before);
    }
    assert_eq!(world.take(0, 5, &inbound).err(), Some(Problem::UnknownGeneration { generation: 5 }));
    let reordered: Vec<_> = inbound.iter().rev().cloned().collect();
    let sum = world.take(0, 0, &reordered).unwrap();
    let again = world.take(0, 0, &inbound).unwrap();
    assert!(sum.share.expose() == again.share.expose(), "the order of arrival does not matter, nor a repetition");
    assert_eq!(
        world.take(0, 0, &inbound[..1]).err(),
        Some(Problem::Missing { what: "key shares are", parties: vec![id(2)] })
    );
    let later = world.share_all(&second)[0].clone();
    assert_eq!(world.take(0, 0, &later).err(), Some(Common::OtherPreparations.into()));
    assert!(
        matches!(world.take(0, 1, &inbound), Err(Problem::Common(Common::Replayed { .. }))),
        "an old share for new keys"
    );
    world.take(0, 1, &later).unwrap();
}

#[test]
fn every_list_of_parties_needs_fresh_keys_of_a_later_generation() {
    let mut world = World::new(4);
    let spec = world.spec(3);
    let shares = world.share(0, &spec).unwrap();
    let state = serde_json::to_string(&world.nodes[0]).unwrap();
    world.nodes[0] = serde_json::from_str(&state).unwrap();
    assert_eq!(world.share(0, &spec).unwrap(), shares, "asked the same, gives the very same");
    let smaller =
        |generation| KeySpec { parties: Parties::new((0..3).map(id)).unwrap(), threshold: 2, generation, ..spec.clone() };
    for generation in [0, 2, 3] {
        let refused = Problem::GenerationUsed { generation, last: 3 };
        assert_eq!(world.share(0, &smaller(generation)).err(), Some(refused));
    }
    world.share(0, &smaller(4)).unwrap();
    assert_ne!(key_of(&world.nodes[0], 3), key_of(&world.nodes[0], 4));
    world.nodes[0].forget(4);
    assert_eq!(world.share(0, &smaller(4)).err(), Some(Problem::GenerationUsed { generation: 4, last: 4 }));
    let group = world.group.clone();
    world.researcher.begin(&group, &spec).unwrap();
    world.researcher.begin(&group, &spec).unwrap();
    assert_eq!(world.researcher.next_generation(), 4);
    let refused = Problem::GenerationUsed { generation: 3, last: 3 };
    assert_eq!(world.researcher.begin(&group, &smaller(3)).err(), Some(refused));
}

#[test]
fn lists_thresholds_and_parties_that_the_rules_forbid_are_refused_before_a_key_is_drawn() {
    let mut world = World::new(4);
    let spec = world.spec(0);
    let stranger = KeySpec { parties: Parties::new([id(1), id(2)]).unwrap(), threshold: 2, ..spec.clone() };
    let unknown = KeySpec { parties: Parties::new([id(0), id(8)]).unwrap(), threshold: 2, ..spec.clone() };
    let other = KeySpec { experiment: Experiment::new("f").unwrap(), ..spec.clone() };
    let low = KeySpec { threshold: 2, ..spec.clone() };
    let high = KeySpec { threshold: 5, ..spec.clone() };
    let colluders = KeySpec { colluders: 2, ..spec.clone() };
    for wrong in [stranger, unknown, other, low, high, colluders] {
        assert!(world.share(0, &wrong).is_err());
    }
    let all_but_one = KeySpec { colluders: 3, threshold: 4, ..spec.clone() };
    let refused = Problem::from(Common::Colluders { got: 3, most: 2 });
    assert_eq!(world.share(0, &all_but_one).err(), Some(refused.clone()));
    assert_eq!(world.researcher.begin(&world.group, &all_but_one).err(), Some(refused));
    let strict = Rules { min_parties: 5, max_colluders: None };
    let refused = world.nodes[0].share_keys(&mut world.channels[0], &world.group, &spec, &strict, &mut world.rng);
    assert_eq!(refused.err(), Some(Common::TooFewParties { got: 4, least: 5 }.into()));
    assert_eq!(serde_json::to_string(&world.nodes[0]).unwrap(), serde_json::to_string(&Node::new()).unwrap());
    world.share(0, &spec).unwrap();
}

#[test]
fn the_researcher_refuses_shares_and_sums_that_do_not_fit() {
    let mut world = World::new(3);
    let spec = world.spec(0);
    let group = world.group.clone();
    world.researcher.begin(&group, &spec).unwrap();
    let shares = world.share(0, &spec).unwrap();
    let mut few = shares.clone();
    few.sealed.pop_last();
    let mut other = shares.clone();
    other.keys = world.spec(1).id(&group);
    let mut changed = shares.clone();
    changed.sealed.first_entry().unwrap().get_mut().0.0[0] ^= 1;
    let accept = |researcher: &mut Researcher, from: usize, shares: &KeyShares| {
        researcher.accept_shares(0, &id(from), shares.clone())
    };
    assert_eq!(accept(&mut world.researcher, 0, &few), Err(Common::OtherShares { party: id(0) }.into()));
    assert_eq!(accept(&mut world.researcher, 1, &shares), Err(Common::OtherShares { party: id(1) }.into()));
    assert_eq!(accept(&mut world.researcher, 0, &other), Err(Problem::OtherKeys { party: id(0) }));
    assert_eq!(accept(&mut world.researcher, 5, &shares), Err(Common::NotAParty { party: id(5) }.into()));
    accept(&mut world.researcher, 0, &shares).unwrap();
    accept(&mut world.researcher, 0, &shares).unwrap();
    assert_eq!(accept(&mut world.researcher, 0, &changed), Err(Common::Equivocation { party: id(0) }.into()));
    let missing = Problem::Missing { what: "key shares are", parties: vec![id(1), id(2)] };
    assert_eq!(world.researcher.inbound(0, &id(0)), Err(missing));
    let sum = |bytes| SumShare { keys: spec.id(&group), share: Secret::new(bytes) };
    let mut one = [0; 531];
    one[530] = 1;
    assert_eq!(world.researcher.accept_sum(0, &id(0), sum([255; 531])), Err(Problem::Share { party: id(0) }));
    world.researcher.accept_sum(0, &id(0), sum([0; 531])).unwrap();
    world.researcher.accept_sum(0, &id(0), sum([0; 531])).unwrap();
    assert_eq!(world.researcher.accept_sum(0, &id(0), sum(one)), Err(Common::Equivocation { party: id(0) }.into()));
}

#[test]
fn one_vector_is_encrypted_for_a_label_and_one_list_for_a_round() {
    let mut world = World::new(3);
    let key = world.negotiate(&world.spec(0));
    let masks = world.masks(0, 0, &context(1, 0), 1);
    let first = world.encrypt(0, &context(1, 0), &[1; 4], &masks).unwrap();
    assert_eq!(world.encrypt(0, &context(1, 0), &[2; 4], &masks), Err(Problem::LabelSpent));
    assert_eq!(world.encrypt(0, &context(1, 0), &[1; 8], &masks), Err(Problem::LabelSpent), "not longer either");
    let retry = world.masks(0, 0, &context(1, 1), 1);
    assert_ne!(world.encrypt(0, &context(1, 1), &[1; 4], &retry).unwrap(), first, "another attempt has other masks");
    assert_eq!(world.encrypt(0, &context(1, 0), &[1; 4], &retry), Err(Problem::OtherMasks));
    let smaller = KeySpec { parties: Parties::new((0..2).map(id)).unwrap(), threshold: 2, ..world.spec(1) };
    world.negotiate(&smaller);
    let others = world.masks(0, 1, &context(1, 2), 1);
    assert_eq!(world.encrypt(0, &context(1, 2), &[1; 4], &others), Err(Problem::SecondList { round: 1 }));
    let next = world.masks(0, 1, &context(2, 0), 1);
    world.encrypt(0, &context(2, 0), &[1; 4], &next).unwrap();
    world.nodes[0].close(1);
    let closed = world.nodes[0].encrypt(
        &world.group,
        0,
        &context(1, 0),
        TERMS,
        Vector { name: NAME, modulus: Modulus::Bits32, elements: &[1; 4] },
        &masks,
    );
    assert_eq!(closed, Err(Common::Closed { round: 1 }.into()));
    world.encrypt(0, &context(2, 0), &[1; 4], &next).unwrap();
    let other = Context { experiment: Experiment::new("f").unwrap(), ..context(2, 0) };
    assert_eq!(world.encrypt(0, &other, &[1; 4], &next), Err(Common::OtherExperiment.into()));
    assert!(Fold::new(&world.group, &key, &other, TERMS, NAME, Modulus::Bits32, 1).is_err());
}

#[test]
fn nothing_is_encrypted_before_all_shares_are_taken() {
    let mut world = World::new(2);
    let spec = world.spec(0);
    world.share(0, &spec).unwrap();
    assert!(matches!(world.nodes[0].masker(&world.group, 0), Err(Problem::Common(Common::WrongStep { .. }))));
    assert!(matches!(world.nodes[0].masker(&world.group, 1), Err(Problem::UnknownGeneration { generation: 1 })));
}

/// A sum of keys as long as a share that no keys can have.
#[test]
fn a_sum_above_what_all_keys_can_add_up_to_is_refused() {
    let mut world = World::new(2);
    let spec = KeySpec { threshold: 2, ..world.spec(0) };
    let group = world.group.clone();
    world.researcher.begin(&group, &spec).unwrap();
    let sum = |above: u8| {
        let mut bytes = [0; 531];
        bytes[2] = above;
        SumShare { keys: spec.id(&group), share: Secret::new(bytes) }
    };
    // Equal shares are a constant polynomial: 2^4224 can be the sum of two keys, 2 · 2^4224 cannot.
    for (above, accepted) in [(1, true), (2, false)] {
        let mut researcher = world.researcher.clone();
        researcher.accept_sum(0, &id(0), sum(above)).unwrap();
        researcher.accept_sum(0, &id(1), sum(above)).unwrap();
        assert_eq!(researcher.server_key(0).is_ok(), accepted);
    }
}

/// A generator that gives chosen bytes, and nothing after them.
pub(super) struct Draws(pub(super) Vec<u8>);

impl rand_core::TryRng for Draws {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        unreachable!("only bytes are drawn")
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        unreachable!("only bytes are drawn")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        let rest = self.0.split_off(bytes.len());
        bytes.copy_from_slice(&std::mem::replace(&mut self.0, rest));
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Draws {}

/// Keys and shares come from the generator that was given and from nothing else: its bytes give them again.
#[test]
fn keys_have_their_full_width_and_come_from_the_generator_alone() {
    fn is_generator(_: &impl CryptoRng) {}
    let mut widths = [0_u32; KEY_BYTES];
    for seed in 0..64 {
        let mut bytes = vec![0; KEY_BYTES];
        ChaCha20Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
        let mut world = World::new(2);
        let spec = world.spec(0);
        // A coefficient below q: its highest bit is zero.
        let mut draws = Draws([bytes.clone(), vec![0; 1], vec![7; 530]].concat());
        is_generator(&draws);
        let mut node = Node::new();
        node.share_keys(&mut world.channels[0], &world.group, &spec, &RULES, &mut draws).unwrap();
        assert!(draws.0.is_empty(), "528 bytes of key and 531 of one coefficient");
        assert_eq!(key_of(&node, 0), bytes);
        for (width, byte) in widths.iter_mut().zip(&bytes) {
            *width |= u32::from(*byte);
        }
    }
    assert!(widths.iter().all(|seen| *seen == 255), "every bit of 4224 is used");
    assert_eq!(KEY_BYTES * 8, KEY_BITS as usize);
}
