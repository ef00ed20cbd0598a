//! Joye-Libert: keys that only sums open, and what a node encrypts with them.

use std::num::NonZeroUsize;

use protocol::Validation;
use secagg::exchange::{EncryptRequest, OpenSeedsRequest, ShareKeysRequest, SumKeysRequest};
use secagg::joye_libert::{Fold, Group, KeySpec, Researcher, ServerKey};

use super::*;

/// A training whose contributions have few ciphertexts: no histograms.
fn small() -> TrainingPlan {
    let validation = Validation { on_global: false, on_local: false };
    TrainingPlan::new(RawTrainingPlan { precision: Precision::Float64, validation, ..raw_plan() }).unwrap()
}

/// A negotiation of keys, as the researcher has it.
struct Negotiation {
    role: Researcher,
    spec: KeySpec,
}

impl Federation {
    fn keys(&self, generation: u32) -> Negotiation {
        let SessionSpec { context, parties, threshold, colluders, .. } = self.spec((0, 0), 3);
        let spec = KeySpec { experiment: context.experiment.clone(), generation, parties, threshold, colluders };
        let mut role = Researcher::new(context.experiment);
        role.begin(&Group::default(), &spec).unwrap();
        Negotiation { role, spec }
    }

    fn share_request(&self, spec: &KeySpec) -> ShareKeysRequest {
        let modulus = Fixed(*Group::default().fingerprint());
        ShareKeysRequest { roster: self.roster.clone(), offers: self.offers.clone(), spec: spec.clone(), modulus }
    }

    /// Asks all for keys.
    async fn negotiate(&mut self) -> ServerKey {
        let Negotiation { mut role, spec } = self.keys(0);
        let request = self.share_request(&spec);
        for hospital in &mut self.hospitals {
            let answer = hospital.step(SecureStep::ShareKeys, (0, 0), &request).await.unwrap();
            role.accept_shares(0, &hospital.party(), decode("answer", &answer).unwrap()).unwrap();
        }
        for hospital in &mut self.hospitals {
            let inbound = role.inbound(0, &hospital.party()).unwrap().into_iter().collect();
            let request = SumKeysRequest { generation: 0, inbound };
            let answer = hospital.step(SecureStep::SumKeys, (0, 0), &request).await.unwrap();
            role.accept_sum(0, &hospital.party(), decode("answer", &answer).unwrap()).unwrap();
        }
        role.server_key(0).unwrap()
    }
}

fn encrypt_request(key: &ServerKey, attempt: u32) -> EncryptRequest {
    EncryptRequest { generation: key.spec().generation, keys: key.spec().id(&Group::default()), attempt }
}

impl Hospital {
    /// Asks for a step, kills the node, hears its answer again, and asks anew.
    async fn thrice(&mut self, step: SecureStep, request: &impl Serialize) -> Vec<u8> {
        let task = self.exchange(step, (0, 0), encode(request));
        let first = self.ask(&task).await.unwrap();
        self.restart(|_| {}).await;
        assert!(self.hear_answer(&task).await.unwrap() == first);
        assert!(self.step(step, (0, 0), request).await.unwrap() == first);
        first
    }

    fn encrypted(&mut self, at: (u32, u32), request: &EncryptRequest) -> Task {
        let nothing = MaskRequest { session: Fixed([0; 32]), inbound: BTreeMap::new() };
        let mut task = self.masked(&small(), at, &nothing);
        let masking = task.masking.as_mut().unwrap();
        (masking.scheme, masking.message) = (Scheme::JoyeLibert, message(encode(request)));
        task
    }
}

/// Lets the answers be known that a node would say again.
fn settle(world: &World) {
    let connection = rusqlite::Connection::open(world.folder.database_file()).unwrap();
    connection.execute("UPDATE task SET is_open = 0, state = '{\"state\":\"settled\"}'", ()).unwrap();
}

fn forget_contribution(world: &World) {
    let connection = rusqlite::Connection::open(world.folder.database_file()).unwrap();
    let sql = "UPDATE task SET state = '{\"state\":\"accepted\"}' WHERE is_open = 1";
    assert!(connection.execute(sql, ()).unwrap() > 0);
}

/// Opens the sum of all contributions to a task.
fn open(key: &ServerKey, task: &Task, contributions: &[(PartyId, Vec<u8>)]) -> Vec<Vec<u8>> {
    let group = Group::default();
    let masker = key.masker(&group).unwrap();
    let context =
        Context { experiment: key.spec().experiment.clone(), round: task.key.round, attempt: task.key.attempt, phase: 0 };
    let (mut offset, mut sums) = (0, Vec::new());
    for (index, spec) in task.layout.iter().enumerate() {
        let modulus = Modulus::of_bytes(spec.encoding.width.bytes()).unwrap();
        let purpose = purpose(spec);
        let name = VectorName { index: u32::try_from(index).unwrap(), purpose: &purpose, name: &spec.name };
        let elements = spec.elements().unwrap();
        let mut fold = Fold::new(&group, key, &context, terms(task), name, modulus, elements).unwrap();
        let bytes = fold.ciphertexts() * 512;
        for (party, contribution) in contributions {
            fold.add(party, &contribution[offset..offset + bytes]).unwrap();
        }
        offset += bytes;
        let mut masks = masker.begin(fold.label());
        masker.extend(fold.label(), &mut masks, fold.ciphertexts(), NonZeroUsize::MIN, &|| true).unwrap();
        sums.push(fold.finish(&masks).unwrap());
    }
    assert!(contributions.iter().all(|(_, contribution)| contribution.len() == offset));
    sums
}

#[tokio::test(start_paused = true)]
async fn the_sum_opens_to_that_of_the_plain_contributions() {
    let mut federation = federation(3, &[]).await;
    let key = federation.negotiate().await;
    let (mut encrypted, mut plain, mut asked) = (Vec::new(), Vec::new(), None);
    for hospital in &mut federation.hospitals {
        let task = hospital.encrypted((1, 0), &encrypt_request(&key, 0));
        let (header, bytes) = hospital.upload(&task).await;
        assert_eq!(header.report, None);
        encrypted.push((hospital.party(), bytes));
        let mut clear = hospital.plain(&small(), (1, 0));
        clear.layout = task.layout.iter().filter(|spec| spec.purpose != Purpose::Clipped).cloned().collect();
        plain.push(hospital.upload(&clear).await.1);
        asked = Some((task, clear));
    }
    let (task, clear) = asked.unwrap();
    let mut sums = open(&key, &task, &encrypted);
    assert_eq!(sums.pop().unwrap(), [0; 8], "nothing was clipped");
    assert_eq!(sums, sum(&clear.layout, &plain));
    let events = federation.hospitals[0].events();
    for event in ["secure.key_shared", "secure.key_summed", "secure.encrypted"] {
        assert_eq!(events.iter().filter(|known| *known == event).count(), 1, "{event}: {events:?}");
    }
}

/// Keys, their shares and what was encrypted are on the disk before they leave.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_killed_between_any_two_steps_says_the_same_bytes_again() {
    let mut federation = federation(3, &[]).await;
    let Negotiation { mut role, spec } = federation.keys(0);
    let request = federation.share_request(&spec);
    for hospital in &mut federation.hospitals {
        let first = hospital.thrice(SecureStep::ShareKeys, &request).await;
        role.accept_shares(0, &hospital.party(), decode("answer", &first).unwrap()).unwrap();
    }
    for hospital in &mut federation.hospitals {
        let inbound = role.inbound(0, &hospital.party()).unwrap().into_iter().collect();
        let request = SumKeysRequest { generation: 0, inbound };
        let first = hospital.thrice(SecureStep::SumKeys, &request).await;
        role.accept_sum(0, &hospital.party(), decode("answer", &first).unwrap()).unwrap();
    }
    let key = role.server_key(0).unwrap();
    let hospital = &mut federation.hospitals[0];
    hospital.restart(settle).await;
    let task = hospital.encrypted((1, 0), &encrypt_request(&key, 0));
    let first = hospital.upload(&task).await;
    let before = hospital.played.uploads().len();
    // Killed after it has encrypted, and before that was in its journal: it computes everything again.
    hospital.restart(forget_contribution).await;
    let again = hospital.played.wait_for_uploads(before + 1).await.pop().unwrap();
    assert!(again == first, "the same bytes");
    // Asked for anew, the same data are the same ciphertexts; those of another attempt have nothing in common with them.
    let task = hospital.encrypted((1, 0), &encrypt_request(&key, 0));
    assert!(hospital.upload(&task).await.1 == first.1);
    let task = hospital.encrypted((1, 1), &encrypt_request(&key, 1));
    let retry = hospital.upload(&task).await.1;
    assert!(retry.chunks(512).zip(first.1.chunks(512)).all(|(one, other)| one != other));
}

#[tokio::test(start_paused = true)]
async fn a_node_refuses_other_moduli_smaller_lists_later_attempts_and_a_second_list_for_a_round() {
    let mut federation = federation(4, &[]).await;
    let Negotiation { spec, .. } = federation.keys(0);
    let request = federation.share_request(&spec);
    let other_modulus = ShareKeysRequest { modulus: Fixed([7; 32]), ..request.clone() };
    let some = |federation: &Federation, count: usize, generation: u32| {
        let parties = Parties::new(federation.hospitals.iter().take(count).map(Hospital::party)).unwrap();
        let threshold = secagg::threshold::threshold(parties.count(), 0);
        KeySpec { parties, generation, threshold, colluders: 0, ..spec.clone() }
    };
    let two = federation.share_request(&some(&federation, 2, 0));
    let first = &mut federation.hospitals[0];
    let refusal = first.step(SecureStep::ShareKeys, (0, 0), &other_modulus).await.unwrap_err();
    assert!(refusal.sentence.contains("joye_libert_modulus"), "{refusal}");
    let refusal = first.step(SecureStep::ShareKeys, (0, 0), &two).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::TooFewParties);

    let key = federation.negotiate().await;
    let first = &mut federation.hospitals[0];
    let unknown = EncryptRequest { generation: 1, ..encrypt_request(&key, 0) };
    let task = first.encrypted((1, 0), &unknown);
    assert!(first.refused(&task).await.sentence.contains("does not have the keys"));
    let task = first.encrypted((1, 0), &encrypt_request(&key, 1));
    assert!(first.refused(&task).await.sentence.contains("later attempt"));
    let task = first.encrypted((1, 0), &encrypt_request(&key, 0));
    first.upload(&task).await;
    let prepare = federation.request(&federation.spec((1, 0), 3));
    let refusal = federation.hospitals[0].step(SecureStep::Prepare, (1, 0), &prepare).await.unwrap_err();
    assert!(refusal.sentence.contains("joye-libert already"), "{refusal}");

    // Without the fourth: other keys, which are good for the next round only.
    let three = some(&federation, 3, 1);
    let request = federation.share_request(&three);
    let mut role = Researcher::new(three.experiment.clone());
    role.begin(&Group::default(), &three).unwrap();
    for hospital in federation.hospitals.iter_mut().take(3) {
        let answer = hospital.step(SecureStep::ShareKeys, (1, 1), &request).await.unwrap();
        role.accept_shares(1, &hospital.party(), decode("answer", &answer).unwrap()).unwrap();
    }
    for hospital in federation.hospitals.iter_mut().take(3) {
        let inbound = role.inbound(1, &hospital.party()).unwrap().into_iter().collect();
        let request = SumKeysRequest { generation: 1, inbound };
        let answer = hospital.step(SecureStep::SumKeys, (1, 1), &request).await.unwrap();
        role.accept_sum(1, &hospital.party(), decode("answer", &answer).unwrap()).unwrap();
    }
    let fewer = role.server_key(1).unwrap();
    let first = &mut federation.hospitals[0];
    let task = first.encrypted((1, 1), &encrypt_request(&fewer, 1));
    assert!(first.refused(&task).await.sentence.contains("encrypted already for another list"));
    let task = first.encrypted((2, 0), &encrypt_request(&fewer, 0));
    first.upload(&task).await;
    let task = first.encrypted((1, 1), &encrypt_request(&key, 1));
    assert!(first.refused(&task).await.sentence.contains("does not have the keys"), "those of the earlier list are gone");
}

#[tokio::test(start_paused = true)]
async fn a_seed_is_opened_for_one_list_of_nodes_and_its_ring_is_used_for_no_other() {
    let mut federation = federation(4, &[]).await;
    let spec = federation.spec((1, 0), 3);
    let parties = spec.parties.clone();
    let request = |federation: &Federation, parties: &Parties| OpenSeedsRequest {
        roster: federation.roster.clone(),
        offers: federation.offers.clone(),
        parties: parties.clone(),
    };
    let asked = request(&federation, &parties);
    let mut seeds = BTreeMap::new();
    for hospital in &mut federation.hospitals {
        let first = hospital.thrice(SecureStep::OpenSeeds, &asked).await;
        seeds.insert(hospital.party(), decode("seed", &first).unwrap());
    }
    let fewer = Parties::new(parties.iter().take(3).cloned()).unwrap();
    let asked = request(&federation, &fewer);
    let hospital = federation.hospitals.iter_mut().find(|hospital| fewer.contains(&hospital.party())).unwrap();
    assert!(hospital.step(SecureStep::OpenSeeds, (0, 1), &asked).await.is_err());

    let ordered: Vec<Fixed<32>> = seeds.values().copied().collect();
    let seed = secagg::graph::graph_seed(&spec.context.experiment, &parties, &ordered);
    let graph = secagg::graph::Graph::Sparse { neighbours: 2, seed };
    let spec = SessionSpec { graph, ..spec };
    let other = SessionSpec { graph: secagg::graph::Graph::Sparse { neighbours: 2, seed: Fixed([1; 32]) }, ..spec.clone() };
    let rules = [("FBM_SECURITY_MAX_COLLUDERS", "0")];
    let prepare = |spec: &SessionSpec| PrepareRequest { seeds: seeds.clone(), ..federation.request(spec) };
    let (good, bad) = (prepare(&spec), prepare(&other));
    let hospital = &mut federation.hospitals[0];
    let refusal = hospital.step(SecureStep::Prepare, (1, 0), &good).await.unwrap_err();
    assert!(refusal.sentence.contains("collude"), "by default one of four may collude: {refusal}");
    hospital.world.env = rules.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    hospital.restart(settle).await;
    assert!(hospital.step(SecureStep::Prepare, (1, 0), &bad).await.is_err());
    let preparation: Preparation =
        decode("answer", &hospital.step(SecureStep::Prepare, (1, 0), &good).await.unwrap()).unwrap();
    assert_eq!(preparation.sealed.len(), 2, "two neighbours");
}
