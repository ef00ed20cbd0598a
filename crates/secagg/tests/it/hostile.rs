//! What a lying researcher or node sends: refused by name, and the state is what it was.

use std::collections::BTreeMap;

use secagg::channel::Offer;
use secagg::lom::{Attestation, InboundPreparation, NodeRole, Preparation, ResearcherSession, Revelation};
use secagg::mask::Modulus;
use secagg::party::{Parties, PartyId};
use secagg::problem::Problem;
use secagg::session::{Rules, SessionId, SessionSpec, Terms};
use secagg::wire::Fixed;

use crate::world::{Losses, TERMS, World, id, identity, identity_of, sum, survivors, vector};

fn state(node: &NodeRole) -> String {
    serde_json::to_string(node).unwrap()
}

/// Asks a node something that it must refuse, with its state untouched.
fn refused<T>(world: &mut World, party: &PartyId, ask: impl FnOnce(&mut NodeRole) -> Result<T, Problem>) -> Problem {
    let node = world.nodes.get_mut(party).unwrap();
    let before = state(node);
    let problem = ask(node).err().expect("refused");
    assert_eq!(before, state(node), "the state is what it was after: {problem}");
    problem
}

fn none(n: usize) -> Losses {
    Losses { prepare: vec![false; n], mask: vec![false; n], attest: vec![false; n], reveal: vec![false; n] }
}

fn five() -> (World, SessionSpec) {
    let world = World::new(5, Rules::default(), 7);
    let spec = world.spec(3, 1, 3);
    (world, spec)
}

/// Walks to the relayed preparations.
fn prepared(
    world: &mut World,
    spec: &SessionSpec,
) -> (ResearcherSession, BTreeMap<PartyId, BTreeMap<PartyId, InboundPreparation>>) {
    let mut researcher = ResearcherSession::new(spec.clone(), &world.roster).unwrap();
    for (id, node) in &mut world.nodes {
        researcher.accept_preparation(id, node.prepare(spec, &mut world.rng).unwrap()).unwrap();
    }
    let inbound = researcher.close_preparations().unwrap();
    (researcher, inbound)
}

/// Walks to signatures of all five for the list of all but the last.
fn signed(world: &mut World, spec: &SessionSpec) -> (ResearcherSession, Vec<PartyId>, BTreeMap<PartyId, Attestation>) {
    let mut losses = none(5);
    losses.mask[4] = true;
    let values = world.values(Modulus::Bits32);
    let (mut researcher, _) = world.mask(spec, &losses, &values, Modulus::Bits32).unwrap();
    let list = survivors(&researcher);
    for party in &list {
        let attestation = world.nodes.get_mut(party).unwrap().attest(&spec.id(), &list, &identity_of(party)).unwrap();
        researcher.accept_attestation(party, attestation).unwrap();
    }
    let attestations = researcher.attestations().unwrap().clone();
    (researcher, list, attestations)
}

#[test]
fn a_node_that_lies_about_its_channel_key_is_named() {
    let (mut world, _) = five();
    let experiment = crate::world::experiment();
    let mut fresh = NodeRole::new(experiment.clone(), id(0), Rules::default(), &mut world.rng);
    let mut offers: BTreeMap<PartyId, Offer> =
        world.nodes.iter().map(|(id, node)| (id.clone(), node.offer(&identity_of(id)))).collect();
    offers.remove(&id(0));
    offers.get_mut(&id(3)).unwrap().public = Fixed([8; 32]);
    let before = state(&fresh);
    let named = Problem::Signature { what: "offer", party: id(3) };
    assert_eq!(fresh.agree(&world.roster, &offers), Err(named.clone()));
    assert_eq!(secagg::lom::check_offers(&experiment, &world.roster, &offers), Err(named));
    assert_eq!(before, state(&fresh));
    let ghost = PartyId::new("ghost").unwrap();
    let offer = offers[&id(2)].clone();
    offers = BTreeMap::from([(ghost.clone(), offer)]);
    assert_eq!(fresh.agree(&world.roster, &offers), Err(Problem::NotInRoster { party: ghost }));
    assert_eq!(before, state(&fresh));
}

#[test]
fn other_channel_keys_than_before_and_keys_of_small_order_are_refused() {
    let (mut world, _) = five();
    let other = NodeRole::new(crate::world::experiment(), id(2), Rules::default(), &mut world.rng);
    let offers = BTreeMap::from([(id(2), other.offer(&identity(2)))]);
    let roster = world.roster.clone();
    assert_eq!(refused(&mut world, &id(0), |node| node.agree(&roster, &offers)), Problem::ChangedOffer { party: id(2) });
    let own = BTreeMap::from([(id(0), other.offer(&identity(2)))]);
    assert_eq!(refused(&mut world, &id(0), |node| node.agree(&roster, &own)), Problem::ChangedOffer { party: id(0) });
}

#[test]
fn sessions_that_weaken_the_rules_are_refused() {
    let (mut world, spec) = five();
    let mut rng = world.rng.clone();
    let mut ask = |world: &mut World, spec: &SessionSpec| refused(world, &id(0), |node| node.prepare(spec, &mut rng));
    let mut low = spec.clone();
    low.threshold = 3;
    assert!(matches!(ask(&mut world, &low), Problem::Threshold { got: 3, least: 4, .. }));
    let weak = SessionSpec::new(spec.context.clone(), spec.parties.clone(), 0, 3);
    assert!(matches!(ask(&mut world, &weak), Problem::Threshold { got: 3, least: 4, colluders: 1, .. }));
    let two = SessionSpec::new(spec.context.clone(), Parties::new([id(0), id(1)]).unwrap(), 0, 2);
    assert_eq!(ask(&mut world, &two), Problem::TooFewParties { got: 2, least: 3 });
    let ghost = PartyId::new("ghost").unwrap();
    let ghosts = Parties::new((0..4).map(id).chain([ghost.clone()])).unwrap();
    let ghosts = SessionSpec::new(spec.context.clone(), ghosts, 1, 3);
    assert_eq!(ask(&mut world, &ghosts), Problem::NoChannel { party: ghost });
    let without = SessionSpec::new(spec.context.clone(), Parties::new((1..5).map(id)).unwrap(), 1, 3);
    assert_eq!(ask(&mut world, &without), Problem::NotAParty { party: id(0) });
    let mut elsewhere = spec.clone();
    elsewhere.context.experiment = secagg::party::Experiment::new("elsewhere").unwrap();
    assert_eq!(ask(&mut world, &elsewhere), Problem::OtherExperiment);
}

#[test]
fn a_second_session_for_the_same_context_is_refused() {
    let (mut world, spec) = five();
    let mut rng = world.rng.clone();
    let first = world.nodes.get_mut(&id(0)).unwrap().prepare(&spec, &mut rng).unwrap();
    let again = world.nodes.get_mut(&id(0)).unwrap().prepare(&spec, &mut rng).unwrap();
    assert_eq!(first, again, "the same request has the same answer");
    let fewer = SessionSpec::new(spec.context.clone(), Parties::new((0..4).map(id)).unwrap(), 1, 3);
    assert_eq!(refused(&mut world, &id(0), |node| node.prepare(&fewer, &mut rng)), Problem::SecondSession);
    let node = world.nodes.get_mut(&id(0)).unwrap();
    node.forget(&spec.id()).unwrap();
    assert_eq!(refused(&mut world, &id(0), |node| node.prepare(&fewer, &mut rng)), Problem::SecondSession);
    assert!(matches!(refused(&mut world, &id(0), |node| node.prepare(&spec, &mut rng)), Problem::WrongStep { .. }));
    world.nodes.get_mut(&id(0)).unwrap().close_rounds_before(4);
    assert_eq!(refused(&mut world, &id(0), |node| node.prepare(&spec, &mut rng)), Problem::Closed { round: 3 });
}

#[test]
fn preparations_altered_truncated_swapped_or_replayed_are_refused() {
    let (mut world, spec) = five();
    let session = spec.id();
    let (_, inbound) = prepared(&mut world, &spec);
    let honest = inbound[&id(0)].clone();
    let with = |change: &dyn Fn(&mut BTreeMap<PartyId, InboundPreparation>)| {
        let mut inbound = honest.clone();
        change(&mut inbound);
        inbound
    };
    let sealed = Problem::Sealed { party: id(2) };
    let cases: Vec<(BTreeMap<PartyId, InboundPreparation>, Problem)> = vec![
        (with(&|all| all.get_mut(&id(2)).unwrap().sealed.0.0[40] ^= 1), sealed.clone()),
        (with(&|all| all.get_mut(&id(2)).unwrap().sealed.0.0[7] ^= 2), sealed.clone()),
        (with(&|all| all.get_mut(&id(2)).unwrap().sealed.0.0.truncate(121)), sealed.clone()),
        (with(&|all| all.get_mut(&id(2)).unwrap().sealed.0.0.truncate(9)), sealed.clone()),
        (with(&|all| all.get_mut(&id(2)).unwrap().sealed = honest[&id(1)].sealed.clone()), sealed.clone()),
        (with(&|all| all.get_mut(&id(2)).unwrap().sealed = inbound[&id(1)][&id(2)].sealed.clone()), sealed),
        (
            with(&|all| all.get_mut(&id(2)).unwrap().mask_public = honest[&id(1)].mask_public),
            Problem::Commitment { what: "masking key", party: id(2) },
        ),
        (with(&|all| drop(all.insert(id(0), honest[&id(1)].clone()))), Problem::NotAParty { party: id(0) }),
        (
            with(&|all| all.retain(|party, _| *party == id(1) || *party == id(2))),
            Problem::TooFewParties { got: 3, least: 4 },
        ),
    ];
    for (inbound, expected) in cases {
        assert_eq!(refused(&mut world, &id(0), |node| node.masker(&session, TERMS, &inbound)), expected);
    }
    assert_eq!(refused(&mut world, &id(0), |node| node.masker(&Fixed([1; 32]), TERMS, &honest)), Problem::UnknownSession);
    world.nodes.get_mut(&id(0)).unwrap().masker(&session, TERMS, &honest).unwrap();
    let fewer = with(&|all| drop(all.remove(&id(4))));
    assert_eq!(refused(&mut world, &id(0), |node| node.masker(&session, TERMS, &fewer)), Problem::OtherPreparations);
    let terms = Terms(Fixed([10; 32]));
    assert_eq!(refused(&mut world, &id(0), |node| node.masker(&session, terms, &honest)), Problem::OtherTerms);
    // The next round, with what was relayed in this one.
    let next = world.spec(4, 1, 3);
    let mut rng = world.rng.clone();
    world.nodes.get_mut(&id(0)).unwrap().prepare(&next, &mut rng).unwrap();
    assert!(matches!(
        refused(&mut world, &id(0), |node| node.masker(&next.id(), TERMS, &honest)),
        Problem::Replayed { got: 1, last: 1, .. }
    ));
}

#[test]
fn preparations_of_rounds_in_another_order_are_refused() {
    let (mut world, spec) = five();
    let next = world.spec(4, 1, 3);
    let (_, first) = prepared(&mut world, &spec);
    let (_, second) = prepared(&mut world, &next);
    world.nodes.get_mut(&id(0)).unwrap().masker(&next.id(), TERMS, &second[&id(0)]).unwrap();
    assert!(matches!(
        refused(&mut world, &id(0), |node| node.masker(&spec.id(), TERMS, &first[&id(0)])),
        Problem::Replayed { got: 1, last: 2, .. }
    ));
}

#[test]
fn steps_out_of_order_are_refused() {
    let (mut world, spec) = five();
    let session = spec.id();
    let all: Vec<PartyId> = (0..5).map(id).collect();
    let unknown = |problem| assert_eq!(problem, Problem::UnknownSession);
    unknown(refused(&mut world, &id(0), |node| node.attest(&session, &all, &identity(0))));
    unknown(refused(&mut world, &id(0), |node| node.reveal(&session, &all, &BTreeMap::new())));
    unknown(refused(&mut world, &id(0), |node| node.forget(&session)));
    prepared(&mut world, &spec);
    for problem in [
        refused(&mut world, &id(0), |node| node.attest(&session, &all, &identity(0))),
        refused(&mut world, &id(0), |node| node.reveal(&session, &all, &BTreeMap::new())),
    ] {
        assert!(matches!(problem, Problem::WrongStep { expected: "prepared", .. }), "{problem}");
    }
}

#[test]
fn lists_of_survivors_that_are_second_short_or_strange_are_refused() {
    let (mut world, spec) = five();
    let session = spec.id();
    let (_, list, attestations) = signed(&mut world, &spec);
    let all: Vec<PartyId> = (0..5).map(id).collect();
    let attest = |world: &mut World, party: usize, list: &[PartyId]| {
        refused(world, &id(party), |node| node.attest(&session, list, &identity(party)))
    };
    assert_eq!(attest(&mut world, 0, &all), Problem::SecondList);
    assert_eq!(refused(&mut world, &id(0), |node| node.reveal(&session, &all, &attestations)), Problem::SecondList);
    // A node that has signed nothing yet.
    let (mut world, spec) = five();
    let values = world.values(Modulus::Bits32);
    world.mask(&spec, &none(5), &values, Modulus::Bits32).unwrap();
    assert_eq!(attest(&mut world, 0, &list[..3]), Problem::TooFewSurvivors { got: 3, least: 4 });
    assert_eq!(attest(&mut world, 4, &list), Problem::NotASurvivor);
    let mut disordered = list.clone();
    disordered.swap(0, 1);
    assert_eq!(attest(&mut world, 0, &disordered), Problem::Malformed { what: "list of survivors" });
    let mut twice = list.clone();
    twice[1] = twice[0].clone();
    assert_eq!(attest(&mut world, 0, &twice), Problem::Malformed { what: "list of survivors" });
    let ghost = PartyId::new("zzz").unwrap();
    let ghosts: Vec<PartyId> = list.iter().cloned().chain([ghost.clone()]).collect();
    assert_eq!(attest(&mut world, 0, &ghosts), Problem::NotAParty { party: ghost });
}

#[test]
fn shares_are_revealed_for_enough_good_signatures_and_one_list_only() {
    let (mut world, spec) = five();
    let session = spec.id();
    let (_, list, attestations) = signed(&mut world, &spec);
    let mut few = attestations.clone();
    few.remove(&id(3));
    let mut ask = |list: &[PartyId], attestations: &BTreeMap<PartyId, Attestation>| {
        refused(&mut world, &id(0), |node| node.reveal(&session, list, attestations))
    };
    assert_eq!(ask(&list, &few), Problem::TooFewSignatures { got: 3, least: 4 });
    let mut wrong = attestations.clone();
    wrong.insert(id(3), attestations[&id(2)]);
    assert_eq!(ask(&list, &wrong), Problem::Signature { what: "list of survivors", party: id(3) });
    let mut stranger = attestations.clone();
    stranger.insert(id(4), attestations[&id(2)]);
    assert_eq!(ask(&list, &stranger), Problem::NotAParty { party: id(4) });
    let node = world.nodes.get_mut(&id(0)).unwrap();
    let revelation = node.reveal(&session, &list, &attestations).unwrap();
    // Never both kinds of one party, whatever is asked next.
    assert!(revelation.self_shares.keys().eq(&list));
    assert!(revelation.pair_shares.keys().eq(&[id(4)]));
    let all: Vec<PartyId> = (0..5).map(id).collect();
    assert_eq!(refused(&mut world, &id(0), |node| node.reveal(&session, &all, &attestations)), Problem::SecondList);
    assert_eq!(refused(&mut world, &id(0), |node| node.attest(&session, &all, &identity(0))), Problem::SecondList);
    // The lost one may help, but for this list only.
    world.nodes.get_mut(&id(1)).unwrap().reveal(&session, &list, &attestations).unwrap();
}

#[test]
fn a_retry_ends_the_earlier_attempt_or_is_refused() {
    let (mut world, spec) = five();
    let (_, list, attestations) = signed(&mut world, &spec);
    let mut retry = spec.clone();
    retry.context.attempt = 1;
    let mut rng = world.rng.clone();
    world.nodes.get_mut(&id(0)).unwrap().reveal(&spec.id(), &list, &attestations).unwrap();
    assert_eq!(refused(&mut world, &id(0), |node| node.prepare(&retry, &mut rng)), Problem::AlreadyRevealed);
    // Three nodes, whose own threshold would allow a second sum beside the first: t + t' must exceed 5 + 1.
    let lone = Rules { min_parties: 2, max_colluders: Some(0) };
    let mut lax = World::new(5, lone, 7);
    let first = lax.spec(3, 0, 2);
    lax.nodes.get_mut(&id(1)).unwrap().prepare(&first, &mut rng).unwrap();
    let fewer = SessionSpec::new(retry.context.clone(), Parties::new((1..4).map(id)).unwrap(), 0, 2);
    let problem = refused(&mut lax, &id(1), |node| node.prepare(&fewer, &mut rng));
    assert_eq!(problem, Problem::RetryThreshold { got: 2, least: 3 });
    world.nodes.get_mut(&id(1)).unwrap().prepare(&retry, &mut rng).unwrap();
    for problem in [
        refused(&mut world, &id(1), |node| node.reveal(&spec.id(), &list, &attestations)),
        refused(&mut world, &id(1), |node| node.attest(&spec.id(), &list, &identity(1))),
    ] {
        assert_eq!(problem, Problem::Superseded);
    }
}

#[test]
fn wrong_shares_give_no_wrong_sum_and_the_liar_is_named() {
    let (mut world, spec) = five();
    let (mut researcher, list, attestations) = signed(&mut world, &spec);
    let revelations: Vec<Revelation> = list
        .iter()
        .map(|party| world.nodes.get_mut(party).unwrap().reveal(&spec.id(), &list, &attestations).unwrap())
        .collect();
    // Node 4 masked nothing, but it holds shares: with it there are five, one more than needed.
    let changed = |revelation: &Revelation, of: &PartyId| {
        let mut value = serde_json::to_value(revelation).unwrap();
        let other = revelations[2].self_shares[&id(0)].clone();
        value["self_shares"][of.as_str()] = serde_json::to_value(other).unwrap();
        serde_json::from_value::<Revelation>(value).unwrap()
    };
    let before = serde_json::to_string(&researcher).unwrap();
    let mut missing = revelations[0].clone();
    missing.self_shares.pop_first();
    assert_eq!(researcher.accept_revelation(&id(0), missing), Err(Problem::OtherShares { party: id(0) }));
    assert_eq!(before, serde_json::to_string(&researcher).unwrap());
    let mut exact = researcher.clone();
    for (party, revelation) in list.iter().zip(&revelations) {
        let revelation = if *party == id(1) { changed(revelation, &id(3)) } else { revelation.clone() };
        exact.accept_revelation(party, revelation).unwrap();
    }
    let problem = exact.unmasker(TERMS).err().unwrap();
    assert_eq!(problem, Problem::WrongShares { party: id(3), liars: vec![] }, "with t shares nobody can be named");
    assert_eq!(exact.accept_revelation(&id(1), revelations[1].clone()), Err(Problem::Equivocation { party: id(1) }));
    researcher.accept_revelation(&id(0), revelations[0].clone()).unwrap();
    researcher.accept_revelation(&id(0), revelations[0].clone()).unwrap();
}

/// With six nodes and all of them left, a threshold of four leaves two shares to spare.
#[test]
fn a_liar_among_enough_is_named_and_the_sum_is_right() {
    let mut world = World::new(6, Rules::default(), 9);
    let spec = world.spec(1, 1, 3);
    let values = world.values(Modulus::Bits128);
    let (mut researcher, contributions) = world.mask(&spec, &none(6), &values, Modulus::Bits128).unwrap();
    let list = survivors(&researcher);
    for party in &list {
        let attestation = world.nodes.get_mut(party).unwrap().attest(&spec.id(), &list, &identity_of(party)).unwrap();
        researcher.accept_attestation(party, attestation).unwrap();
    }
    let attestations = researcher.attestations().unwrap().clone();
    for party in &list {
        let mut revelation = world.nodes.get_mut(party).unwrap().reveal(&spec.id(), &list, &attestations).unwrap();
        if *party == id(1) {
            let other = revelation.self_shares[&id(2)].clone();
            revelation.self_shares.insert(id(3), other);
        }
        researcher.accept_revelation(party, revelation).unwrap();
    }
    let unmasker = researcher.unmasker(TERMS).unwrap();
    assert_eq!(unmasker.liars(), [id(1)]);
    let mut total = sum(contributions.values(), Modulus::Bits128);
    unmasker.subtract(vector(0), Modulus::Bits128, 0, &mut total).unwrap();
    assert_eq!(total, sum(values.values(), Modulus::Bits128));
}

#[test]
fn the_researcher_refuses_what_does_not_fit() {
    let (mut world, spec) = five();
    let mut researcher = ResearcherSession::new(spec.clone(), &world.roster).unwrap();
    let mut roster = world.roster.clone();
    roster.remove(&id(4));
    assert_eq!(ResearcherSession::new(spec.clone(), &roster).err(), Some(Problem::NotInRoster { party: id(4) }));
    let mut rng = world.rng.clone();
    let mut preparation: Preparation = world.nodes.get_mut(&id(0)).unwrap().prepare(&spec, &mut rng).unwrap();
    researcher.accept_preparation(&id(0), preparation.clone()).unwrap();
    researcher.accept_preparation(&id(0), preparation.clone()).unwrap();
    assert_eq!(researcher.close_preparations().err(), Some(Problem::TooFewParties { got: 1, least: 4 }));
    preparation.mask_public = Fixed([3; 32]);
    assert_eq!(researcher.accept_preparation(&id(0), preparation.clone()), Err(Problem::Equivocation { party: id(0) }));
    assert_eq!(researcher.accept_preparation(&id(1), preparation), Err(Problem::OtherShares { party: id(1) }));
    assert!(matches!(researcher.fix_survivors([id(0)]), Err(Problem::WrongStep { .. })));
    let session: SessionId = spec.id();
    let all: Vec<PartyId> = (0..5).map(id).collect();
    assert!(matches!(
        refused(&mut world, &id(0), |node| node.attest(&session, &all, &identity(0))),
        Problem::WrongStep { .. }
    ));
}
