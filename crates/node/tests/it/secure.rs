//! Hidden sums: three nodes, and a researcher that the test plays with the role of crate `secagg`.

mod encrypted;
mod over;
mod rules;

use std::collections::BTreeMap;
use std::sync::Arc;

use component::audit::AuditLog;
use node::command::{Reply, Request, ResultRow};
use node::handle::NodeHandle;
use node::store::Enrolment;
use protocol::{
    DatasetId, Masking, NodeMessage, Plan, Precision, Purpose, RawTrainingPlan, Refusal, RefusalCode, ResearcherMessage,
    RoundKey, Scheme, SecureMessage, SecureStep, Task, TrainingPlan, UploadHeader, VectorSpec, Width, Work,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use secagg::channel::{Offer, Roster};
use secagg::exchange::{
    AgreeAnswer, AttestRequest, MaskRequest, PrepareRequest, RevealAnswer, RevealRequest, decode, encode,
};
use secagg::lom::{Attestation, InboundPreparation, Preparation, ResearcherSession, Unmasker};
use secagg::mask::{Modulus, VectorName};
use secagg::party::{Experiment, Parties, PartyId};
use secagg::session::{Context, SessionSpec, Terms};
use secagg::wire::Fixed;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::world::{Played, PlayedSession, RunningAgent, World, decode as decode_plain, heart_dataset, raw_plan};

/// Wider than any difference of these trainings.
const WIDE: f64 = 16.0;

/// A hospital whose daemon runs.
struct Hospital {
    world: World,
    dataset: DatasetId,
    enrolment: Enrolment,
    played: Played,
    sessions: mpsc::UnboundedReceiver<PlayedSession>,
    node: Arc<NodeHandle>,
    agent: Option<RunningAgent>,
    session: PlayedSession,
}

type Inbound = BTreeMap<PartyId, BTreeMap<PartyId, InboundPreparation>>;

fn message(bytes: Vec<u8>) -> SecureMessage {
    SecureMessage::new(bytes).unwrap()
}

impl Hospital {
    async fn open(number: u64, env: &[(&str, &str)]) -> Self {
        let mut world = World::numbered(number);
        world.env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let node = world.node();
        let dataset = heart_dataset(&world.heart("cleveland.csv"), &["heart"]);
        let dataset = node.add_dataset(&dataset, &crate::GO_ON).unwrap().row.id;
        let enrolment = world.enrol(&node);
        let (played, mut sessions) = Played::new(&world.researcher);
        let agent = RunningAgent::start(node.clone(), enrolment.clone(), played.clone());
        let session = sessions.recv().await.unwrap();
        Self { world, dataset, enrolment, played, sessions, node, agent: Some(agent), session }
    }

    fn party(&self) -> PartyId {
        PartyId::new(self.node.id().as_str()).unwrap()
    }

    /// Ends at once, as `kill -9` does, lets `meanwhile` happen to the folder, and starts again.
    async fn restart(&mut self, meanwhile: impl FnOnce(&World)) {
        self.agent.take().unwrap().kill().await;
        meanwhile(&self.world);
        self.node = self.world.node();
        self.agent = Some(RunningAgent::start(self.node.clone(), self.enrolment.clone(), self.played.clone()));
        self.session = self.sessions.recv().await.unwrap();
    }

    fn exchange(&mut self, step: SecureStep, (round, attempt): (u32, u32), request: Vec<u8>) -> Task {
        let phase = step.phase();
        let work = Work::Secure { step, message: message(request) };
        let dataset = self.dataset.clone();
        let task = self.world.task(&dataset, Plan::Training(plan(Precision::Float64)), work, None, Vec::new());
        let key = RoundKey { round, attempt, phase, ..task.key.clone() };
        Task { key, ..task }
    }

    /// What the node says to a task that is answered by a message.
    async fn ask(&mut self, task: &Task) -> Result<Vec<u8>, Refusal> {
        self.session.give(&self.world, task).await;
        self.hear_answer(task).await
    }

    async fn hear_answer(&mut self, task: &Task) -> Result<Vec<u8>, Refusal> {
        loop {
            match self.session.hear().await {
                NodeMessage::Answered { task: id, answer } if id == task.id => return Ok(answer.as_bytes().to_vec()),
                NodeMessage::Refused { task: id, refusal } if id == task.id => return Err(refusal),
                // Answers that nobody has settled are said again after a restart.
                NodeMessage::Accepted { .. } | NodeMessage::Answered { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn step(&mut self, step: SecureStep, at: (u32, u32), request: &impl Serialize) -> Result<Vec<u8>, Refusal> {
        let task = self.exchange(step, at, encode(request));
        self.ask(&task).await
    }

    /// A training task whose contribution is masked.
    fn masked(&mut self, plan: &TrainingPlan, at: (u32, u32), request: &MaskRequest) -> Task {
        let mut task = self.plain(plan, at);
        let names = task.layout.iter().filter(|spec| spec.purpose == Purpose::Model).map(|spec| (spec.name.clone(), WIDE));
        let (scheme, message) = (Scheme::Lom, message(encode(request)));
        task.masking = Some(Masking { scheme, message, clipping: names.collect() });
        task.layout.push(VectorSpec::clipped());
        task
    }

    fn plain(&mut self, plan: &TrainingPlan, (round, attempt): (u32, u32)) -> Task {
        let dataset = self.dataset.clone();
        let (mut task, model) = self.world.training_task(&dataset, plan);
        self.played.offer(&model);
        (task.key.round, task.key.attempt) = (round, attempt);
        task
    }

    async fn upload(&mut self, task: &Task) -> (UploadHeader, Vec<u8>) {
        let before = self.played.uploads().len();
        self.session.give(&self.world, task).await;
        self.session.hear_accepted(task).await;
        let upload = self.played.wait_for_uploads(before + 1).await.pop().unwrap();
        assert_eq!(upload.0.task, task.id);
        upload
    }

    async fn refused(&mut self, task: &Task) -> Refusal {
        self.session.give(&self.world, task).await;
        self.session.hear_accepted(task).await;
        self.session.hear_refusal(task).await
    }

    async fn results(&self) -> Vec<ResultRow> {
        match self.node.answer(Request::Results { experiment: None }, "carer").await {
            Reply::Results { rows } => rows,
            other => panic!("{other:?}"),
        }
    }

    fn events(&self) -> Vec<String> {
        let entries = AuditLog::tail(&self.world.folder.audit_file(), 1_000).unwrap();
        entries.into_iter().map(|entry| entry.event).collect()
    }
}

fn plan(precision: Precision) -> TrainingPlan {
    TrainingPlan::new(RawTrainingPlan { precision, ..raw_plan() }).unwrap()
}

/// What the researcher of the test knows of a federation.
struct Federation {
    hospitals: Vec<Hospital>,
    roster: Roster,
    offers: BTreeMap<PartyId, Offer>,
}

async fn federation(n: u64, env: &[(&str, &str)]) -> Federation {
    let mut hospitals = Vec::new();
    for number in 0..n {
        hospitals.push(Hospital::open(21 + number, env).await);
    }
    let mut federation = Federation { hospitals, roster: Roster::new(), offers: BTreeMap::new() };
    federation.agree().await;
    federation
}

impl Federation {
    async fn agree(&mut self) {
        for hospital in &mut self.hospitals {
            let task = hospital.exchange(SecureStep::Agree, (0, 0), Vec::new());
            let answer: AgreeAnswer = decode("answer", &hospital.ask(&task).await.unwrap()).unwrap();
            self.roster.insert(hospital.party(), answer.identity);
            self.offers.insert(hospital.party(), answer.offer);
        }
    }

    fn spec(&self, (round, attempt): (u32, u32), min_parties: u32) -> SessionSpec {
        let world = &self.hospitals[0].world;
        let experiment = Experiment::new(format!("{}/{}", world.researcher, world.experiment)).unwrap();
        let context = Context { experiment, round, attempt, phase: 0 };
        let parties = Parties::new(self.hospitals.iter().map(Hospital::party)).unwrap();
        SessionSpec::new(context, parties, 0, min_parties)
    }

    fn request(&self, spec: &SessionSpec) -> PrepareRequest {
        let (roster, offers) = (self.roster.clone(), self.offers.clone());
        PrepareRequest { roster, offers, spec: spec.clone(), seeds: BTreeMap::new() }
    }

    async fn prepare(&mut self, spec: &SessionSpec) -> (ResearcherSession, Inbound) {
        let mut session = ResearcherSession::new(spec.clone(), &self.roster).unwrap();
        let request = self.request(spec);
        let at = (spec.context.round, spec.context.attempt);
        for hospital in &mut self.hospitals {
            let answer = hospital.step(SecureStep::Prepare, at, &request).await.unwrap();
            let preparation: Preparation = decode("answer", &answer).unwrap();
            session.accept_preparation(&hospital.party(), preparation).unwrap();
        }
        let inbound = session.close_preparations().unwrap();
        (session, inbound)
    }

    /// Attests and reveals for these survivors.
    async fn end(
        &mut self,
        session: &mut ResearcherSession,
        terms: Terms,
        next: Option<SessionSpec>,
    ) -> (Unmasker, Vec<RevealAnswer>) {
        let survivors = session.fix_survivors(self.hospitals.iter().map(Hospital::party)).unwrap().to_vec();
        let at = (session.spec().context.round, session.spec().context.attempt);
        let id = session.spec().id();
        for hospital in &mut self.hospitals {
            let request = AttestRequest { session: id, survivors: survivors.clone() };
            let answer = hospital.step(SecureStep::Attest, at, &request).await.unwrap();
            session.accept_attestation(&hospital.party(), decode("answer", &answer).unwrap()).unwrap();
        }
        let attestations: BTreeMap<PartyId, Attestation> = session.attestations().unwrap().clone();
        let mut answers = Vec::new();
        for hospital in &mut self.hospitals {
            let (attestations, next) = (attestations.clone(), next.clone());
            let request = RevealRequest { session: id, survivors: survivors.clone(), attestations, next };
            let answer = hospital.step(SecureStep::Reveal, at, &request).await.unwrap();
            let answer: RevealAnswer = decode("answer", &answer).unwrap();
            session.accept_revelation(&hospital.party(), answer.revelation.clone()).unwrap();
            answers.push(answer);
        }
        (session.unmasker(terms).unwrap(), answers)
    }
}

fn mask_request(session: &ResearcherSession, inbound: &Inbound, hospital: &Hospital) -> MaskRequest {
    MaskRequest { session: session.spec().id(), inbound: inbound[&hospital.party()].clone() }
}

fn purpose(spec: &VectorSpec) -> String {
    serde_json::to_value(spec.purpose).unwrap().as_str().unwrap().to_owned()
}

/// Adds contributions modulo two to the width of each vector.
fn sum(layout: &[VectorSpec], contributions: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut sums: Vec<Vec<u8>> = layout.iter().map(|spec| vec![0; spec.byte_len().unwrap()]).collect();
    for contribution in contributions {
        let mut rest = contribution.as_slice();
        for (spec, sum) in layout.iter().zip(&mut sums) {
            let (own, after) = rest.split_at(sum.len());
            rest = after;
            let width = spec.encoding.width.bytes();
            for (sum, own) in sum.chunks_mut(width).zip(own.chunks(width)) {
                let mut carry = 0;
                for (sum, own) in sum.iter_mut().zip(own) {
                    let total = u16::from(*sum) + u16::from(*own) + carry;
                    [*sum, _] = total.to_le_bytes();
                    carry = total >> 8;
                }
            }
        }
        assert!(rest.is_empty());
    }
    sums
}

fn unmask(unmasker: &Unmasker, layout: &[VectorSpec], sums: &mut [Vec<u8>]) {
    for (index, (spec, sum)) in layout.iter().zip(sums).enumerate() {
        let modulus = match spec.encoding.width {
            Width::Bits32 => Modulus::Bits32,
            Width::Bits64 => Modulus::Bits64,
            Width::Bits128 => Modulus::Bits128,
        };
        let purpose = purpose(spec);
        let name = VectorName { index: u32::try_from(index).unwrap(), purpose: &purpose, name: &spec.name };
        unmasker.subtract(name, modulus, 0, sum).unwrap();
    }
}

fn terms(task: &Task) -> Terms {
    Terms(Fixed(task.terms()))
}

#[tokio::test(start_paused = true)]
async fn the_sum_is_that_of_the_plain_contributions_and_each_of_them_is_hidden() {
    for precision in [Precision::Float64, Precision::Float32] {
        let mut federation = federation(3, &[]).await;
        let plan = plan(precision);
        let spec = federation.spec((1, 0), 3);
        let (mut session, inbound) = federation.prepare(&spec).await;
        let (mut masked, mut plain, mut asked) = (Vec::new(), Vec::new(), None);
        for hospital in &mut federation.hospitals {
            let open = hospital.plain(&plan, (0, 0));
            let (open_header, mut open_bytes) = hospital.upload(&open).await;
            let task = hospital.masked(&plan, (1, 0), &mask_request(&session, &inbound, hospital));
            let (header, bytes) = hospital.upload(&task).await;
            assert_eq!(header.report, None, "what only this node knows stays here");
            let rows = hospital.results().await;
            assert_eq!((rows[0].hidden, rows[1].hidden, rows[1].clipped), (false, true, Some(0)));
            let report = open_header.report.unwrap();
            assert_eq!(
                (rows[1].train_rows, rows[1].loss, &rows[1].measured),
                (report.train_rows, report.loss, &report.measured)
            );
            // No value of it is clipped.
            open_bytes.extend([0; 8]);
            assert_eq!(bytes.len(), open_bytes.len());
            let same = bytes.iter().zip(&open_bytes).filter(|(masked, open)| masked == open).count();
            // Of n bytes n/256 are equal by chance; twice that is 10 standard deviations here.
            assert!(same * 128 < bytes.len(), "{same} of {}", bytes.len());
            masked.push(bytes);
            plain.push(open_bytes);
            asked = Some(task);
        }
        let task = asked.unwrap();
        let (unmasker, _) = federation.end(&mut session, terms(&task), None).await;
        let mut sums = sum(&task.layout, &masked);
        unmask(&unmasker, &task.layout, &mut sums);
        assert_eq!(sums, sum(&task.layout, &plain), "{precision:?}");
        let weight = decode_plain(&task.layout, &sums.concat())[0][0];
        assert!(weight > 600.0, "{weight}");
        let events = federation.hospitals[0].events();
        for event in ["peer.seen", "secure.agreed", "secure.prepared", "secure.masked", "secure.attested", "secure.revealed"]
        {
            assert!(events.iter().any(|one| one == event), "{event}: {events:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_step_gives_the_same_bytes_after_a_restart_wherever_it_was_killed() {
    /// The journal does not have the answer: the node died after the desk wrote its secrets.
    fn forget_answer(world: &World) {
        let connection = rusqlite::Connection::open(world.folder.database_file()).unwrap();
        let sql = "UPDATE task SET state = '{\"state\":\"accepted\"}' WHERE is_open = 1";
        assert!(connection.execute(sql, ()).unwrap() > 0);
    }
    async fn same_again(hospital: &mut Hospital, task: &Task) -> Vec<u8> {
        let answer = hospital.ask(task).await.unwrap();
        hospital.restart(|_| {}).await;
        assert_eq!(hospital.session.hello.held.len(), 1);
        assert_eq!(hospital.hear_answer(task).await.unwrap(), answer, "said again from the journal");
        hospital.restart(forget_answer).await;
        assert_eq!(hospital.hear_answer(task).await.unwrap(), answer, "done again by the desk");
        hospital.session.say(ResearcherMessage::Settled { task: task.id.clone() }).await;
        assert!(hospital.session.is_silent().await);
        answer
    }
    let mut federation = federation(3, &[]).await;
    for hospital in &mut federation.hospitals {
        hospital
            .restart(|world| {
                // Their answers to the first exchange are known.
                let connection = rusqlite::Connection::open(world.folder.database_file()).unwrap();
                connection.execute("UPDATE task SET is_open = 0, state = '{\"state\":\"settled\"}'", ()).unwrap();
            })
            .await;
    }
    let mut first = federation.hospitals.remove(0);
    let agree = first.exchange(SecureStep::Agree, (0, 0), Vec::new());
    let answer: AgreeAnswer = decode("answer", &same_again(&mut first, &agree).await).unwrap();
    assert_eq!(answer.offer, federation.offers[&first.party()], "asked again, it offers the same key");
    let mut parties = federation.spec((1, 0), 2);
    let all = federation.hospitals.iter().map(Hospital::party).chain([first.party()]);
    parties = SessionSpec::new(parties.context, Parties::new(all).unwrap(), 0, 3);
    let (spec, request) = (parties.clone(), federation.request(&parties));
    let mut session = ResearcherSession::new(spec.clone(), &federation.roster).unwrap();
    let prepare = first.exchange(SecureStep::Prepare, (1, 0), encode(&request));
    let answer = same_again(&mut first, &prepare).await;
    session.accept_preparation(&first.party(), decode("answer", &answer).unwrap()).unwrap();
    for hospital in &mut federation.hospitals {
        let answer = hospital.step(SecureStep::Prepare, (1, 0), &request).await.unwrap();
        session.accept_preparation(&hospital.party(), decode("answer", &answer).unwrap()).unwrap();
    }
    let inbound = session.close_preparations().unwrap();
    // The contribution: killed after it was masked, and before and after it is in the journal.
    let plan = plan(Precision::Float32);
    let task = first.masked(&plan, (1, 0), &mask_request(&session, &inbound, &first));
    let (_, bytes) = first.upload(&task).await;
    first.restart(forget_answer).await;
    let again = first.played.wait_for_uploads(2).await.pop().unwrap();
    assert_eq!(again.1, bytes);
    first.session.say(ResearcherMessage::Settled { task: task.id.clone() }).await;
    assert!(first.session.is_silent().await);
    for hospital in &mut federation.hospitals {
        let task = hospital.masked(&plan, (1, 0), &mask_request(&session, &inbound, hospital));
        hospital.upload(&task).await;
    }
    let survivors = session.fix_survivors(spec.parties.iter().cloned()).unwrap().to_vec();
    let request = AttestRequest { session: spec.id(), survivors: survivors.clone() };
    let attest = first.exchange(SecureStep::Attest, (1, 0), encode(&request));
    let answer = same_again(&mut first, &attest).await;
    session.accept_attestation(&first.party(), decode("answer", &answer).unwrap()).unwrap();
    for hospital in &mut federation.hospitals {
        let answer = hospital.step(SecureStep::Attest, (1, 0), &request).await.unwrap();
        session.accept_attestation(&hospital.party(), decode("answer", &answer).unwrap()).unwrap();
    }
    let mut next = spec.clone();
    next.context.round = 2;
    let attestations = session.attestations().unwrap().clone();
    let request = RevealRequest { session: spec.id(), survivors, attestations, next: Some(next) };
    let reveal = first.exchange(SecureStep::Reveal, (1, 0), encode(&request));
    let answer: RevealAnswer = decode("answer", &same_again(&mut first, &reveal).await).unwrap();
    assert!(answer.next.is_some(), "the next round is prepared with the end of this one");
    session.accept_revelation(&first.party(), answer.revelation).unwrap();
    for hospital in &mut federation.hospitals {
        let answer = hospital.step(SecureStep::Reveal, (1, 0), &request).await.unwrap();
        let answer: RevealAnswer = decode("answer", &answer).unwrap();
        session.accept_revelation(&hospital.party(), answer.revelation).unwrap();
    }
    session.unmasker(terms(&task)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_lost_after_it_masked_does_not_stop_the_sum() {
    let mut federation = federation(4, &[]).await;
    let plan = plan(Precision::Float32);
    let spec = federation.spec((1, 0), 3);
    let (mut session, inbound) = federation.prepare(&spec).await;
    let (mut masked, mut plain, mut asked) = (Vec::new(), Vec::new(), None);
    for hospital in &mut federation.hospitals {
        let open = hospital.plain(&plan, (0, 0));
        plain.push([hospital.upload(&open).await.1, vec![0; 8]].concat());
        let task = hospital.masked(&plan, (1, 0), &mask_request(&session, &inbound, hospital));
        masked.push(hospital.upload(&task).await.1);
        asked = Some(task);
    }
    // Its contribution has come, but not whole.
    let lost = federation.hospitals.pop().unwrap().party();
    masked.truncate(3);
    plain.truncate(3);
    let task = asked.unwrap();
    let (unmasker, answers) = federation.end(&mut session, terms(&task), None).await;
    for answer in &answers {
        assert!(answer.revelation.pair_shares.keys().eq([&lost]), "what removes its masks");
        assert!(!answer.revelation.self_shares.contains_key(&lost), "never what opens its numbers");
    }
    let mut sums = sum(&task.layout, &masked);
    unmask(&unmasker, &task.layout, &mut sums);
    assert_eq!(sums, sum(&task.layout, &plain));
    let entries = AuditLog::tail(&federation.hospitals[0].world.folder.audit_file(), 1).unwrap();
    let facts = serde_json::Value::Object(entries[0].facts.clone());
    assert_eq!((entries[0].event.as_str(), &facts["survivors"]), ("secure.revealed", &serde_json::json!(3)));
    assert_eq!((&facts["lost"], &facts["parties"]), (&serde_json::json!([lost.as_str()]), &serde_json::json!(4)));
    assert_eq!(facts["session"], spec.id().to_string());
}

#[tokio::test(start_paused = true)]
async fn two_nodes_are_too_few_unless_the_owner_says_so() {
    let mut federation = federation(2, &[]).await;
    let spec = federation.spec((0, 0), 2);
    let request = federation.request(&spec);
    let refusal = federation.hospitals[0].step(SecureStep::Prepare, (0, 0), &request).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::TooFewParties);
    assert!(
        refusal.sentence.contains("min_parties = 2") && refusal.sentence.contains("learns the other's value"),
        "{refusal}"
    );
    // The owner thinks again: nothing has to be agreed anew.
    let eased = |world: &mut World| world.env.push(("FBM_SECURITY_MIN_PARTIES".into(), "2".into()));
    for hospital in &mut federation.hospitals {
        eased(&mut hospital.world);
        hospital.restart(|_| {}).await;
        while !hospital.session.is_silent().await {}
    }
    federation.prepare(&federation.spec((0, 1), 2)).await;
}

#[tokio::test(start_paused = true)]
async fn one_list_one_contribution_and_no_attempt_after_the_end() {
    let mut federation = federation(4, &[]).await;
    let plan = plan(Precision::Float64);
    let spec = federation.spec((1, 0), 3);
    let (mut session, inbound) = federation.prepare(&spec).await;
    let mut last = None;
    for hospital in &mut federation.hospitals {
        let task = hospital.masked(&plan, (1, 0), &mask_request(&session, &inbound, hospital));
        hospital.upload(&task).await;
        // Another task with the same masks, a repetition of the round for this node alone.
        let second = hospital.masked(&plan, (1, 1), &mask_request(&session, &inbound, hospital));
        let refusal = hospital.refused(&second).await;
        assert_eq!(refusal.code, RefusalCode::SecureAggregationFailed);
        assert!(refusal.sentence.contains("hide a contribution already"), "{refusal}");
        // And in another round than they were prepared for.
        let elsewhere = hospital.masked(&plan, (2, 0), &mask_request(&session, &inbound, hospital));
        assert!(hospital.refused(&elsewhere).await.sentence.contains("another round"));
        last = Some(task);
    }
    let all: Vec<PartyId> = spec.parties.iter().cloned().collect();
    let attest = |survivors: &[PartyId]| AttestRequest { session: spec.id(), survivors: survivors.to_vec() };
    let own = federation.hospitals[0].party();
    let few: Vec<PartyId> =
        [own.clone()].into_iter().chain(all.iter().filter(|party| **party != own).take(1).cloned()).collect();
    let mut sorted = few.clone();
    sorted.sort();
    let refusal = federation.hospitals[0].step(SecureStep::Attest, (1, 0), &attest(&sorted)).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::TooFewParties);
    federation.end(&mut session, terms(&last.unwrap()), None).await;
    let fewer: Vec<PartyId> = all.iter().filter(|party| **party == own || **party != all[3]).take(3).cloned().collect();
    let fewer = if fewer.contains(&own) { fewer } else { vec![all[0].clone(), all[1].clone(), own.clone()] };
    let refusal = federation.hospitals[0].step(SecureStep::Attest, (1, 0), &attest(&fewer)).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::SecureAggregationFailed, "{refusal}");
    let request = federation.request(&federation.spec((1, 1), 3));
    let refusal = federation.hospitals[0].step(SecureStep::Prepare, (1, 1), &request).await.unwrap_err();
    assert!(refusal.sentence.contains("revealed"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_changed_is_refused_loudly_until_the_hospital_trusts_it() {
    let mut federation = federation(3, &[]).await;
    federation.prepare(&federation.spec((0, 0), 3)).await;
    // The third node is set up anew, with its old id: another key.
    let replaced = federation.hospitals.pop().unwrap();
    let (party, id) = (replaced.party(), replaced.node.id().clone());
    drop(replaced);
    federation.hospitals.push(Hospital::open(23, &[]).await);
    // Opened once more, it draws otherwise than the first one did.
    federation.hospitals[2].restart(|_| {}).await;
    assert_eq!(federation.hospitals[2].party(), party);
    federation.agree().await;
    let request = federation.request(&federation.spec((1, 0), 3));
    let first = &mut federation.hospitals[0];
    let refusal = first.step(SecureStep::Prepare, (1, 0), &request).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::RosterMismatch);
    assert!(refusal.sentence.contains("another key") && refusal.sentence.contains(party.as_str()), "{refusal}");
    assert!(first.events().iter().any(|event| event == "peer.refused"));
    let fingerprint = federation.hospitals[2].enrolment.certificate.key_fingerprint().to_string();
    let first = &mut federation.hospitals[0];
    let trust = Request::TrustPeer { researcher: None, node: id.clone(), name: None, fingerprint };
    assert!(matches!(first.node.answer(trust, "carer").await, Reply::Done { .. }));
    // The key is fine now; but the secrets that the other node had are gone, and this experiment cannot go on with new ones.
    let refusal = first.step(SecureStep::Prepare, (1, 0), &request).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::SecureAggregationFailed, "{refusal}");
    let distrust = Request::DistrustPeer { researcher: None, node: id };
    assert!(matches!(first.node.answer(distrust, "carer").await, Reply::Done { .. }));
    let refusal = first.step(SecureStep::Prepare, (1, 0), &request).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::RosterMismatch);
    let Reply::Peers { rows } = first.node.answer(Request::Peers, "carer").await else { panic!() };
    let mut trusts: Vec<&str> = rows.iter().map(|row| row.trust.as_str()).collect();
    trusts.sort_unstable();
    assert_eq!(trusts, ["distrusted", "enrolment"]);
}

#[tokio::test(start_paused = true)]
async fn a_pinned_roster_takes_keys_of_the_hospitals_hand_only() {
    let mut federation = federation(3, &[("FBM_SECURITY_SECURE_AGGREGATION", "required")]).await;
    let spec = federation.spec((0, 0), 3);
    let request = federation.request(&spec);
    let refusal = federation.hospitals[0].step(SecureStep::Prepare, (0, 0), &request).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::RosterMismatch);
    assert!(refusal.sentence.contains("node peers trust"), "{refusal}");
    let known: Vec<_> = federation
        .hospitals
        .iter()
        .map(|hospital| (hospital.node.id().clone(), hospital.enrolment.certificate.key_fingerprint().to_string()))
        .collect();
    for hospital in &federation.hospitals {
        for (node, fingerprint) in &known {
            let trust =
                Request::TrustPeer { researcher: None, node: node.clone(), name: None, fingerprint: fingerprint.clone() };
            let reply = hospital.node.answer(trust, "carer").await;
            assert_eq!(matches!(reply, Reply::Failed { .. }), node == hospital.node.id(), "{reply:?}");
        }
    }
    federation.prepare(&spec).await;
    // A key under another name is no trusted one.
    let mut ghost = federation.request(&federation.spec((1, 0), 3));
    let (one, other) = (federation.hospitals[1].party(), federation.hospitals[2].party());
    let key = ghost.roster[&one];
    ghost.roster.insert(other, key);
    let refusal = federation.hospitals[0].step(SecureStep::Prepare, (1, 0), &ghost).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::RosterMismatch);
}

#[tokio::test(start_paused = true)]
async fn secrets_in_a_copy_of_the_folder_do_not_open() {
    let mut federation = federation(3, &[]).await;
    let spec = federation.spec((1, 0), 3);
    federation.prepare(&spec).await;
    let request = federation.request(&federation.spec((2, 0), 3));
    let first = &mut federation.hospitals[0];
    first
        .restart(|world| {
            let key = world.folder.keys().join("secure-storage.key");
            let copy = world.folder.keys().join("copy");
            std::fs::copy(&key, &copy).unwrap();
            std::fs::rename(&copy, &key).unwrap();
        })
        .await;
    while !first.session.is_silent().await {}
    let refusal = first.step(SecureStep::Prepare, (2, 0), &request).await.unwrap_err();
    assert!(refusal.sentence.contains("no channel key"), "{refusal}");
    let task = first.exchange(SecureStep::Agree, (2, 0), Vec::new());
    let answer: AgreeAnswer = decode("answer", &first.ask(&task).await.unwrap()).unwrap();
    assert_ne!(answer.offer, federation.offers[&federation.hospitals[0].party()], "a new key for the copy");
}

#[tokio::test(start_paused = true)]
async fn values_that_do_not_fit_are_answered_without_their_size() {
    let mut federation = federation(3, &[]).await;
    let spec = federation.spec((1, 0), 3);
    let (session, inbound) = federation.prepare(&spec).await;
    let hospital = &mut federation.hospitals[0];
    let mut task = hospital.masked(&plan(Precision::Float64), (1, 0), &mask_request(&session, &inbound, hospital));
    task.layout[1].encoding.exponent = 110;
    let expected: Vec<i16> = task
        .layout
        .iter()
        .map(|spec| spec.encoding.exponent - if spec.encoding.width == Width::Bits128 { 32 } else { 0 })
        .collect();
    hospital.session.give(&hospital.world, &task).await;
    hospital.session.hear_accepted(&task).await;
    let said = hospital.session.hear().await;
    assert_eq!(said, NodeMessage::OutOfRange { task: task.id.clone(), exponents: expected });
    // Its masks hid nothing that left; the same terms may use them.
    let again = Task { id: protocol::TaskId::random(&mut StdRng::seed_from_u64(8)), ..task.clone() };
    hospital.session.give(&hospital.world, &again).await;
    hospital.session.hear_accepted(&again).await;
    assert!(matches!(hospital.session.hear().await, NodeMessage::OutOfRange { .. }));
    // Other terms may not.
    let mut other = Task { id: protocol::TaskId::random(&mut StdRng::seed_from_u64(9)), ..task };
    other.layout[1].encoding.exponent = 64;
    let refusal = hospital.refused(&other).await;
    assert!(refusal.sentence.contains("terms"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn elements_outside_the_range_are_moved_to_its_edge_and_counted() {
    let mut federation = federation(3, &[]).await;
    let plan = plan(Precision::Float64);
    let spec = federation.spec((1, 0), 3);
    let (mut session, inbound) = federation.prepare(&spec).await;
    let (mut masked, mut asked) = (Vec::new(), None);
    for hospital in &mut federation.hospitals {
        let mut task = hospital.masked(&plan, (1, 0), &mask_request(&session, &inbound, hospital));
        for range in task.masking.as_mut().unwrap().clipping.values_mut() {
            *range = 1e-12;
        }
        masked.push(hospital.upload(&task).await.1);
        asked = Some(task);
    }
    let task = asked.unwrap();
    let (unmasker, _) = federation.end(&mut session, terms(&task), None).await;
    let mut sums = sum(&task.layout, &masked);
    unmask(&unmasker, &task.layout, &mut sums);
    let vectors = decode_plain(&task.layout, &sums.concat());
    let rows = vectors[0][0];
    assert_eq!(vectors.last().unwrap(), &[15.0], "five parameters at three nodes");
    let models = task.layout.iter().zip(&vectors).filter(|(spec, _)| spec.purpose == Purpose::Model);
    for value in models.flat_map(|(_, values)| values) {
        assert!(value.abs() <= rows * 1e-12 * (1.0 + 1e-6), "{value}");
    }
    assert_eq!(federation.hospitals[0].results().await[0].clipped, Some(5));
}

#[tokio::test(start_paused = true)]
async fn a_contribution_without_its_session_is_refused_before_it_is_computed() {
    let mut hospital = Hospital::open(21, &[]).await;
    let request = MaskRequest { session: Fixed([7; 32]), inbound: BTreeMap::new() };
    let task = hospital.masked(&plan(Precision::Float64), (1, 0), &request);
    let refusal = hospital.refused(&task).await;
    assert_eq!(refusal.code, RefusalCode::SecureAggregationFailed);
    let garbage = hospital.exchange(SecureStep::Attest, (1, 0), b"{".to_vec());
    assert_eq!(hospital.ask(&garbage).await.unwrap_err().code, RefusalCode::SecureAggregationFailed);
    assert!(hospital.results().await.is_empty());
}
