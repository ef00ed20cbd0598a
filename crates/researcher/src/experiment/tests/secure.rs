//! What holds where sums are hidden, with the nodes' real part of the scheme, real contributions and real sums.

use std::collections::VecDeque;

use protocol::{Clipping, Encoding, Secagg, SecureMessage, SecureSpec, SecureStep};
use secagg::exchange::{
    AgreeAnswer, AttestRequest, MaskRequest, PrepareRequest, RevealAnswer, RevealRequest, decode, encode,
};
use secagg::identity::IdentityKey;
use secagg::lom::NodeRole;
use secagg::mask::{Modulus, VectorName};
use secagg::party::{Experiment as Name, PartyId};
use secagg::problem::Problem;
use secagg::session::{Rules, Terms};
use secagg::wire::Fixed;

use super::*;
use crate::driver::Mail;
use crate::files::Files;
use crate::jobs;

mod random;

/// A node: its part of the scheme, and the answers it has given, which it gives again.
struct Hospital {
    identity: IdentityKey,
    rules: Rules,
    weight: f64,
    role: Option<NodeRole>,
    answers: BTreeMap<TaskId, Answer>,
    is_away: bool,
}

#[derive(Clone)]
enum Answer {
    Message(SecureMessage),
    Contribution(Vec<u8>),
    Refused(Refusal),
}

impl Hospital {
    fn new(number: u8) -> Self {
        let identity = IdentityKey::from_scalar(&[number + 1; 32]).unwrap();
        let rules = Rules { min_parties: 2, max_colluders: Some(0) };
        Self { identity, rules, weight: 10.0 + f64::from(number), role: None, answers: BTreeMap::new(), is_away: false }
    }

    fn key(&self) -> Fingerprint {
        Fingerprint::of_point(self.identity.public().as_bytes())
    }

    fn answer(&mut self, task: &Task, name: &Name, rng: &mut StdRng) -> Answer {
        if let Some(answer) = self.answers.get(&task.id) {
            return answer.clone();
        }
        let answer = self.work(task, name, rng).unwrap_or_else(|problem| {
            Answer::Refused(Refusal::new(RefusalCode::SecureAggregationFailed, problem.to_string()))
        });
        self.answers.insert(task.id.clone(), answer.clone());
        answer
    }

    fn work(&mut self, task: &Task, name: &Name, rng: &mut StdRng) -> Result<Answer, Problem> {
        let party = PartyId::new(task.node.as_str()).unwrap();
        let role = self.role.get_or_insert_with(|| NodeRole::new(name.clone(), party, self.rules, rng));
        let message = |bytes: Vec<u8>| Ok(Answer::Message(SecureMessage::new(bytes).unwrap()));
        let Work::Secure { step, message: asked } = &task.work else {
            let mut bytes = Vec::new();
            let masker = match &task.masking {
                None => None,
                Some(masking) => {
                    let MaskRequest { session, inbound } = decode("request", masking.message.as_bytes())?;
                    Some(role.masker(&session, Terms(Fixed(task.terms())), &inbound)?)
                }
            };
            for (index, spec) in task.layout.iter().enumerate() {
                let mut vector = Vec::new();
                spec.encoding.encode(values(spec, self.weight, task.key.round).into_iter(), &mut vector).unwrap();
                if let Some(masker) = &masker {
                    let index = u32::try_from(index).unwrap();
                    let named = VectorName { index, purpose: spec.purpose.name(), name: &spec.name };
                    masker.add(named, modulus(spec), 0, &mut vector)?;
                }
                bytes.extend(vector);
            }
            return Ok(Answer::Contribution(bytes));
        };
        assert_eq!((task.key.phase > 0, &task.model, &task.masking), (true, &None, &None));
        match step {
            SecureStep::Agree => {
                message(encode(&AgreeAnswer { identity: self.identity.public(), offer: role.offer(&self.identity) }))
            }
            SecureStep::Prepare => {
                let PrepareRequest { roster, offers, spec } = decode("request", asked.as_bytes())?;
                role.agree(&roster, &offers)?;
                message(encode(&role.prepare(&spec, rng)?))
            }
            SecureStep::Attest => {
                let AttestRequest { session, survivors } = decode("request", asked.as_bytes())?;
                message(encode(&role.attest(&session, &survivors, &self.identity)?))
            }
            SecureStep::Reveal => {
                let RevealRequest { session, survivors, attestations, next } = decode("request", asked.as_bytes())?;
                let revelation = role.reveal(&session, &survivors, &attestations)?;
                let next = next.map(|spec| role.prepare(&spec, rng)).transpose()?;
                message(encode(&RevealAnswer { revelation, next }))
            }
        }
    }
}

fn modulus(spec: &VectorSpec) -> Modulus {
    match spec.encoding.width {
        Width::Bits32 => Modulus::Bits32,
        Width::Bits64 => Modulus::Bits64,
        Width::Bits128 => Modulus::Bits128,
    }
}

/// What a node gives: whole numbers where things are counted, otherwise numbers that depend on node, round and place.
fn values(spec: &VectorSpec, weight: f64, round: u32) -> Vec<f64> {
    let element = |place: usize| match (spec.purpose, spec.encoding == Encoding::COUNT) {
        (Purpose::Clipped, _) => 2.0,
        (_, true) => weight,
        (Purpose::Statistic, _) => weight * (1.0 + 0.3 * place as f64),
        _ => weight * (0.01 * (place % 7) as f64 - 0.002 * weight + 0.001 * f64::from(round)),
    };
    (0..spec.elements().unwrap()).map(element).collect()
}

/// A researcher's experiment and its hospitals. After every event the experiment is what its stored form says.
struct Federation {
    experiment: Experiment,
    name: Name,
    hospitals: BTreeMap<NodeId, Hospital>,
    files: Files,
    _dir: tempfile::TempDir,
    now: Timestamp,
    rng: StdRng,
    /// Tasks that hospitals have and that are not over.
    open: VecDeque<Task>,
    jobs: u32,
    records: Vec<RoundRecord>,
    /// How often each step was asked of a node.
    asked: BTreeMap<(u32, u32, u16), usize>,
}

impl Federation {
    fn begun(plan: Plan, rounds: u32, secure: SecureSpec, nodes: u8) -> Self {
        Self::patient(plan, rounds, secure, nodes, Patience::default())
    }

    fn patient(plan: Plan, rounds: u32, secure: SecureSpec, nodes: u8, patience: Patience) -> Self {
        let spec = ExperimentSpec::new(RawExperimentSpec { secure, ..spec(plan, rounds, patience).into() }).unwrap();
        let mut rng = StdRng::seed_from_u64(11);
        let now = Timestamp::from_millis(1_000_000);
        let (id, researcher) = (ExperimentId::random(&mut rng), ResearcherId::random(&mut rng));
        let name = Name::new(format!("{researcher}/{id}")).unwrap();
        let experiment = Experiment::new(id, spec, Requester { user: "ada".into() }, now).of_researcher(researcher);
        let dir = tempfile::tempdir().unwrap();
        let files = Files { spool: dir.path().join("spool"), experiments: dir.path().join("experiments") };
        std::fs::create_dir_all(&files.spool).unwrap();
        std::fs::create_dir_all(files.models(experiment.id())).unwrap();
        let hospitals = (0..nodes).map(|number| (NodeId::random(&mut rng), Hospital::new(number))).collect();
        let mut federation = Self {
            experiment,
            name,
            hospitals,
            files,
            _dir: dir,
            now,
            rng,
            open: VecDeque::new(),
            jobs: 0,
            records: Vec::new(),
            asked: BTreeMap::new(),
        };
        federation.apply(Event::Begun { connected: federation.connected() });
        federation
    }

    fn connected(&self) -> BTreeMap<NodeId, String> {
        let here = self.hospitals.iter().filter(|(_, hospital)| !hospital.is_away);
        here.map(|(node, _)| (node.clone(), name(node))).collect()
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.hospitals.keys().cloned().collect()
    }

    fn apply(&mut self, event: Event) {
        let actions = self.experiment.apply(event, self.now, &mut self.rng);
        let stored = serde_json::to_string(&self.experiment).unwrap();
        let read: Experiment = serde_json::from_str(&stored).unwrap();
        assert_eq!(read, self.experiment, "what is stored is all there is");
        self.experiment = read;
        for action in actions {
            match action {
                Action::Search { node, .. } => {
                    let face = DatasetFace {
                        id: DatasetId::random(&mut self.rng),
                        name: "d".into(),
                        data_type: DataType::Csv,
                        tags: Tags::new(["heart"]).unwrap(),
                        description: String::new(),
                        rows: RowCount::Rounded(100),
                        columns: columns(&["a", "b", "y"]),
                    };
                    self.apply(Event::Found { node, datasets: vec![face] });
                }
                Action::Ask { node, task } => {
                    *self.asked.entry((task.key.round, task.key.attempt, task.key.phase)).or_default() += 1;
                    if !self.hospitals[&node].is_away && !self.open.iter().any(|open| open.id == task.id) {
                        self.open.push_back(*task);
                    }
                }
                Action::Cancel { task, .. } | Action::Settle { task, .. } => {
                    self.open.retain(|open| open.id != task);
                    drop(std::fs::remove_file(self.files.contribution(&task)));
                }
                Action::Initialise | Action::Fold => self.jobs += 1,
                Action::Record(record) => self.records.push(*record),
                Action::WakeAt(_) | Action::End => {}
            }
        }
    }

    /// A hospital says what it has done.
    fn answer(&mut self, task: &Task) {
        let node = task.node.clone();
        let hospital = self.hospitals.get_mut(&node).unwrap();
        let key = hospital.key();
        let answer = hospital.answer(task, &self.name, &mut self.rng);
        let task = task.id.clone();
        match answer {
            Answer::Message(answer) => self.apply(Event::Answered { node, task, answer, key }),
            Answer::Refused(refusal) => self.apply(Event::Refused { node, task, refusal }),
            Answer::Contribution(bytes) => {
                // Whoever is out of the round is not listened to.
                let is_open = self.experiment.round().is_some_and(|round| {
                    round.phase == Phase::Contribute && round.seats.get(&node).is_some_and(|seat| seat.task == task)
                });
                if is_open {
                    std::fs::write(self.files.contribution(&task), &bytes).unwrap();
                }
                let (digest, bytes) = (Digest::of(&bytes), bytes.len() as u64);
                // What it says about itself is not kept.
                let report = Some(Report { train_rows: 7, loss: Some(0.25), ..Report::default() });
                self.apply(Event::Contributed { node, task, digest, bytes, report });
            }
        }
    }

    fn job(&mut self) {
        self.jobs -= 1;
        let Mail::Job { event, .. } = jobs::work(&self.files, &self.experiment) else { unreachable!() };
        self.apply(event);
    }

    /// Does the next thing that can be done. False if nothing can.
    fn step(&mut self) -> bool {
        if self.jobs > 0 {
            self.job();
            return true;
        }
        let Some(task) = self.open.pop_front() else { return false };
        self.answer(&task);
        true
    }

    /// Goes on until `is_there`, or fails.
    fn until(&mut self, is_there: impl Fn(&Self) -> bool) {
        while !is_there(self) {
            assert!(self.step(), "nothing happens any more: {:?}", self.experiment.stage());
        }
    }

    /// Goes on to the end; what only time brings, it brings.
    fn finish(&mut self) {
        while !self.experiment.is_over() {
            if !self.step() {
                self.wait();
            }
        }
    }

    fn wait(&mut self) {
        let wake = self.experiment.wake_at().unwrap_or_else(|| panic!("nothing is waited for: {:?}", self.experiment));
        self.now = self.now.max(wake);
        self.apply(Event::Tick);
    }

    fn is_at(&self, round: u32, phase: Phase) -> bool {
        self.experiment.round().is_some_and(|open| (open.number, open.phase) == (round, phase))
    }

    fn lose(&mut self, node: &NodeId) {
        self.hospitals.get_mut(node).unwrap().is_away = true;
        self.open.retain(|task| task.node != *node);
        self.apply(Event::Disconnected { node: node.clone() });
    }

    fn bring_back(&mut self, node: &NodeId) {
        self.hospitals.get_mut(node).unwrap().is_away = false;
        self.apply(Event::Connected { node: node.clone(), name: name(node) });
    }

    /// The researcher's process dies and starts again: what it had not carried out is gone.
    fn crash(&mut self) {
        self.jobs = 0;
        self.open.clear();
        let experiments = [self.experiment.clone()];
        let lost = jobs::tidy(&self.files, &experiments);
        for task in lost.into_values().flatten() {
            self.apply(Event::Lost { task });
        }
        self.apply(Event::Restarted);
        for node in self.connected().into_keys() {
            self.apply(Event::Connected { name: name(&node), node });
        }
    }

    fn reason(&self) -> String {
        self.experiment.end().and_then(|(_, reason)| reason).unwrap_or_default()
    }

    fn check_finished(&self) {
        assert_eq!(self.experiment.state(), ExperimentState::Finished, "{}", self.reason());
        assert!(self.open.is_empty(), "every task is settled");
        assert_eq!(std::fs::read_dir(&self.files.spool).unwrap().count(), 0, "nothing is left in the spool");
    }

    fn model(&self) -> Vec<u8> {
        std::fs::read(self.files.model(self.experiment.id(), self.experiment.model().unwrap())).unwrap()
    }
}

fn lom() -> SecureSpec {
    SecureSpec { secagg: Secagg::Lom, ..SecureSpec::default() }
}

fn standardised() -> Plan {
    training(|raw| {
        raw.standardise = true;
        raw.arguments.test_ratio = 0.25;
    })
}

fn float32() -> Plan {
    training(|raw| raw.precision = Precision::Float32)
}

const CONTRIBUTE: Phase = Phase::Contribute;
const AGREE: Phase = Phase::Secure(SecureStep::Agree);
const PREPARE: Phase = Phase::Secure(SecureStep::Prepare);
const ATTEST: Phase = Phase::Secure(SecureStep::Attest);
const REVEAL: Phase = Phase::Secure(SecureStep::Reveal);

#[test]
fn a_hidden_experiment_ends_with_the_same_bits_as_a_plain_one() {
    for nodes in [3, 4, 7] {
        let mut plain = Federation::begun(standardised(), 3, SecureSpec::NONE, nodes);
        plain.finish();
        plain.check_finished();
        let mut hidden = Federation::begun(standardised(), 3, lom(), nodes);
        hidden.finish();
        hidden.check_finished();
        assert_eq!(hidden.model(), plain.model());
        assert_eq!(hidden.experiment.moments(), plain.experiment.moments());
        let pooled = |federation: &Federation| -> Vec<_> {
            federation.records.iter().map(|record| (record.round, record.train_rows, record.loss)).collect()
        };
        assert_eq!(pooled(&hidden), pooled(&plain));
        for record in &hidden.records {
            let how = record.hidden.as_ref().unwrap();
            let clipped = (record.kind == RoundKind::Training).then(|| 2 * u64::from(nodes));
            assert_eq!((how.parties, how.survivors, how.clipped), (nodes.into(), nodes.into(), clipped));
            for node in &record.nodes {
                assert_eq!((node.train_rows, node.loss, node.work_ms), (None, None, None));
                assert_eq!(node.hidden.as_deref(), Some("hidden by secure aggregation"));
            }
        }
    }
}

#[test]
fn keys_are_agreed_once_and_every_later_session_is_prepared_with_the_revelation_before() {
    let mut federation = Federation::begun(standardised(), 2, lom(), 4);
    federation.finish();
    federation.check_finished();
    let asked =
        |phase: u16| federation.asked.keys().filter(|(.., asked)| *asked == phase).map(|(round, ..)| *round).collect();
    let rounds: Vec<u32> = (0..5).collect();
    assert_eq!((asked(1), asked(2)), (vec![0], vec![0]));
    for phase in [0, 3, 4] {
        assert_eq!(asked(phase), rounds);
    }
    assert!(federation.asked.values().all(|count| *count == 4));
}

#[test]
fn rows_are_counted_first_where_float32_sums_need_their_number() {
    let mut federation = Federation::begun(float32(), 2, lom(), 3);
    federation.finish();
    federation.check_finished();
    let kinds: Vec<RoundKind> = federation.records.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [RoundKind::Sums, RoundKind::Training, RoundKind::Training]);
    let training = &federation.records[1];
    assert_eq!((training.train_rows, training.hidden.as_ref().unwrap().clipped), (33, Some(6)));
    assert_eq!(federation.experiment.row().rounds, 3);
}

#[test]
fn a_range_follows_the_aggregates_under_auto() {
    let auto = SecureSpec { clipping: Clipping::Auto, ..lom() };
    let mut federation = Federation::begun(float32(), 3, auto, 3);
    let ranges = |federation: &Federation| -> BTreeMap<String, f64> {
        let node = &federation.nodes()[0];
        federation.experiment.task(node).unwrap().masking.unwrap().clipping
    };
    federation.until(|federation| federation.is_at(1, CONTRIBUTE));
    assert!(ranges(&federation).values().all(|range| *range == 3.0));
    federation.until(|federation| federation.is_at(2, CONTRIBUTE));
    let second = ranges(&federation);
    assert!(second.values().all(|range| *range > 0.0 && *range < 3.0), "{second:?}");
    federation.finish();
    federation.check_finished();
}

#[test]
fn no_sum_of_differences_in_range_leaves_its_modulus() {
    for range in [1e-6, 0.5, 3.0, 4.0, 1e6] {
        for rows in [1_u64, 2, 1024, 1 << 20, 1 << 40] {
            let exponent = scale::hidden_32(range, rows);
            let largest = range * rows as f64 * f64::from(exponent).exp2() + 65_536.0;
            assert!(largest < 31_f64.exp2() && largest > 29_f64.exp2(), "{range} {rows}: {largest}");
        }
    }
}

#[test]
fn one_of_four_may_be_lost_at_any_phase() {
    for round in [0, 2] {
        for phase in [AGREE, PREPARE, CONTRIBUTE, ATTEST, REVEAL] {
            if round > 0 && matches!(phase, AGREE | PREPARE) {
                continue;
            }
            for answered in 0..4 {
                let mut federation = Federation::begun(standardised(), 2, lom(), 4);
                federation.until(|federation| federation.is_at(round, phase));
                for _ in 0..answered {
                    federation.step();
                }
                if !federation.is_at(round, phase) {
                    continue;
                }
                let node = federation.open.back().unwrap().node.clone();
                federation.lose(&node);
                let before = federation.now;
                if matches!(phase, ATTEST | REVEAL) {
                    federation.until(|federation| federation.records.len() > round as usize);
                    assert_eq!(federation.now, before, "a loss after the contribution costs no time");
                    assert_eq!(federation.records[round as usize].hidden.as_ref().unwrap().survivors, 4);
                }
                federation.finish();
                federation.check_finished();
                let last = federation.records.last().unwrap().hidden.clone().unwrap();
                assert_eq!(last.survivors, 3, "round {round} {phase:?} {answered}");
                assert!(federation.records.iter().all(|record| record.attempt == 0) || round == 0);
            }
        }
    }
}

#[test]
fn the_sum_is_that_of_the_survivors() {
    let mut federation = Federation::begun(standardised(), 1, lom(), 4);
    federation.until(|federation| federation.is_at(2, CONTRIBUTE));
    let node = federation.open.back().unwrap().node.clone();
    let weight = federation.hospitals[&node].weight;
    federation.lose(&node);
    federation.finish();
    federation.check_finished();
    let all: f64 = federation.hospitals.values().map(|hospital| hospital.weight).sum();
    assert_eq!(federation.records[2].train_rows as f64, all - weight);
    assert_eq!(federation.records[2].hidden.as_ref().unwrap().survivors, 3);
}

#[test]
fn a_node_that_comes_back_takes_part_again_with_new_masks() {
    let mut federation = Federation::begun(standardised(), 4, lom(), 4);
    federation.until(|federation| federation.is_at(1, ATTEST));
    let node = federation.open.back().unwrap().node.clone();
    federation.lose(&node);
    federation.until(|federation| federation.experiment.round().is_some_and(|round| round.number == 2));
    federation.bring_back(&node);
    federation.finish();
    federation.check_finished();
    let survivors: Vec<u32> = federation.records.iter().map(|record| record.hidden.as_ref().unwrap().survivors).collect();
    assert_eq!(survivors, [4; 7]);
}

#[test]
fn with_three_nodes_none_may_be_lost_and_that_is_said() {
    let mut federation = Federation::begun(standardised(), 2, lom(), 3);
    federation.until(|federation| federation.is_at(1, CONTRIBUTE));
    let warning = federation.experiment.snapshot(|_| Live::default()).warning.unwrap();
    assert!(warning.contains("survives the loss of none") && warning.contains("with 4 nodes one may be lost"), "{warning}");
    assert!(federation.records[0].remarks.contains(&warning));
    let node = federation.nodes()[0].clone();
    federation.lose(&node);
    federation.finish();
    assert_eq!(federation.experiment.state(), ExperimentState::Failed);
    assert!(federation.reason().contains("secure aggregation needs 3"), "{}", federation.reason());
}

#[test]
fn two_nodes_need_their_requesters_word() {
    let federation = Federation::begun(standardised(), 1, lom(), 2);
    let mut federation = federation;
    federation.finish();
    assert!(federation.reason().contains("min_parties"), "{}", federation.reason());
    let two = SecureSpec { min_parties: 2, ..lom() };
    let mut federation = Federation::begun(standardised(), 1, two, 2);
    federation.finish();
    federation.check_finished();
    let auto = SecureSpec::default();
    let mut federation = Federation::begun(standardised(), 1, auto, 2);
    let warning = federation.experiment.snapshot(|_| Live::default()).warning.unwrap();
    assert!(warning.contains("seen by this researcher"), "{warning}");
    federation.finish();
    federation.check_finished();
    assert_eq!(federation.records[0].hidden, None);
    let mut federation = Federation::begun(standardised(), 1, auto, 3);
    federation.finish();
    assert!(federation.records[0].hidden.is_some(), "hidden from three nodes on");
}

#[test]
fn five_nodes_that_lose_two_repeat_the_round_with_new_masks() {
    let mut federation = Federation::begun(standardised(), 2, lom(), 5);
    federation.until(|federation| federation.is_at(2, CONTRIBUTE));
    for _ in 0..2 {
        let node = federation.open.back().unwrap().node.clone();
        federation.lose(&node);
    }
    federation.finish();
    federation.check_finished();
    let record = &federation.records[2];
    let how = record.hidden.as_ref().unwrap();
    assert_eq!((record.attempt, how.parties, how.survivors), (1, 3, 3));
}

#[test]
fn values_out_of_range_repeat_the_round_with_new_masks() {
    let mut federation = Federation::begun(standardised(), 2, lom(), 4);
    federation.until(|federation| federation.is_at(2, CONTRIBUTE));
    let task = federation.open.pop_front().unwrap();
    let narrower = |spec: &VectorSpec| spec.encoding.exponent - if spec.encoding == Encoding::COUNT { 0 } else { 5 };
    let exponents = task.layout.iter().map(narrower).collect();
    federation.apply(Event::OutOfRange { node: task.node.clone(), task: task.id.clone(), exponents });
    federation.finish();
    federation.check_finished();
    assert_eq!((federation.records[2].attempt, federation.records[2].hidden.as_ref().unwrap().survivors), (1, 4));
}

#[test]
fn too_few_that_can_reveal_fail_the_experiment_with_the_reason() {
    let mut federation = Federation::begun(standardised(), 2, lom(), 4);
    federation.until(|federation| federation.is_at(2, REVEAL));
    federation.step();
    for node in federation.nodes() {
        federation.lose(&node);
    }
    federation.finish();
    assert_eq!(federation.experiment.state(), ExperimentState::Failed);
    assert!(federation.reason().contains("cannot be repeated"), "{}", federation.reason());
    // Going on says the same, and no node is asked for a second sum.
    for hospital in federation.hospitals.values_mut() {
        hospital.is_away = false;
    }
    federation.apply(Event::Resumed { connected: federation.connected() });
    federation.finish();
    assert!(federation.reason().contains("cannot be repeated"), "{}", federation.reason());
}

#[test]
fn a_node_that_signs_with_another_key_than_it_enrolled_with_is_left_out() {
    let mut federation = Federation::begun(standardised(), 1, lom(), 4);
    let task = federation.open.pop_front().unwrap();
    let answer = federation.hospitals.get_mut(&task.node).unwrap().answer(&task, &federation.name, &mut federation.rng);
    let Answer::Message(answer) = answer else { panic!("an offer") };
    let key = Fingerprint::from_bytes([9; 32]);
    federation.apply(Event::Answered { node: task.node.clone(), task: task.id.clone(), answer, key });
    federation.finish();
    federation.check_finished();
    let dropped = federation.experiment.participants()[&task.node].dropped.clone().unwrap();
    assert!(dropped.reason.contains("enrolled with"), "{}", dropped.reason);
    assert_eq!(federation.records[0].hidden.as_ref().unwrap().parties, 3);
}

#[test]
fn a_crash_between_any_two_events_changes_nothing() {
    let mut undisturbed = Federation::begun(standardised(), 1, lom(), 4);
    let mut steps = 0;
    while !undisturbed.experiment.is_over() {
        assert!(undisturbed.step());
        steps += 1;
    }
    for at in 0..steps {
        let mut federation = Federation::begun(standardised(), 1, lom(), 4);
        for _ in 0..at {
            federation.step();
        }
        federation.crash();
        federation.finish();
        federation.check_finished();
        assert_eq!(federation.model(), undisturbed.model(), "a crash after step {at}");
        assert!(federation.records.iter().all(|record| record.attempt == 0));
    }
}

#[test]
fn a_contribution_whose_file_a_loss_of_power_took_is_sent_again() {
    for phase in [CONTRIBUTE, ATTEST, REVEAL] {
        let mut federation = Federation::begun(standardised(), 2, lom(), 4);
        federation.until(|federation| federation.is_at(2, phase));
        for _ in 0..2 {
            federation.step();
        }
        let file = std::fs::read_dir(&federation.files.spool).unwrap().next().unwrap().unwrap().path();
        std::fs::remove_file(file).unwrap();
        federation.crash();
        federation.finish();
        federation.check_finished();
        assert_eq!(federation.records[2].hidden.as_ref().unwrap().survivors, 4);
    }
}
