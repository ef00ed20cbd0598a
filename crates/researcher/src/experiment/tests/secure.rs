//! What holds where sums are hidden, with the nodes' real part of the scheme, real contributions and real sums.

use std::collections::VecDeque;
use std::sync::Arc;

use protocol::{Clipping, Encoding, Secagg, SecureMessage, SecureSpec, SecureStep};
use secagg::exchange::{
    AgreeAnswer, AttestRequest, EncryptRequest, MaskRequest, OpenSeedsRequest, PrepareRequest, RevealAnswer, RevealRequest,
    ShareKeysRequest, SumKeysRequest, decode, encode,
};
use secagg::identity::IdentityKey;
use secagg::joye_libert::{self, Group, Packing, Problem};
use secagg::lom::NodeRole;
use secagg::mask::VectorName;
use secagg::party::{Experiment as Name, PartyId};
use secagg::session::{Context, Rules, Terms};
use secagg::wire::Fixed;

use super::*;
use crate::driver::Mail;
use crate::files::Files;
use crate::fold::{Ahead, modulus};
use crate::jobs;

mod direct;
mod encrypted;
mod kept;
mod masked;
mod random;
mod ring;
mod silent;

/// With so many nodes each step is stored and read again; with more it would take minutes.
const MOST_STORED: usize = 20;

/// A node: its part of the scheme, and the answers it has given, which it gives again.
struct Hospital {
    identity: IdentityKey,
    rules: Rules,
    weight: f64,
    role: Option<NodeRole>,
    keys: joye_libert::Node,
    answers: BTreeMap<TaskId, Answer>,
    is_away: bool,
    /// Whether it has keys of which nobody said that they are not needed.
    is_keyed: bool,
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
        Self {
            identity,
            rules,
            weight: 10.0 + f64::from(number),
            role: None,
            keys: joye_libert::Node::new(),
            answers: BTreeMap::new(),
            is_away: false,
            is_keyed: false,
        }
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

    /// Encrypts what this node gives.
    fn encrypt(&mut self, task: &Task, name: &Name, request: &EncryptRequest) -> Result<Vec<u8>, Problem> {
        let EncryptRequest { generation, attempt, .. } = *request;
        let context = Context { experiment: name.clone(), round: task.key.round, attempt, phase: 0 };
        let (group, terms) = (Group::default(), Terms(Fixed(task.terms())));
        let parties = self.keys.keys_of(generation).unwrap().0.parties.count();
        let masker = self.keys.masker(&group, generation)?;
        let mut bytes = Vec::new();
        for (index, spec) in task.layout.iter().enumerate() {
            let mut elements = Vec::new();
            spec.encoding.encode(values(spec, self.weight, task.key.round).into_iter(), &mut elements).unwrap();
            let index = u32::try_from(index).unwrap();
            let named = VectorName { index, purpose: spec.purpose.name(), name: &spec.name };
            let label = self.keys.label(generation, &context, terms, named)?;
            let mut masks = masker.begin(&label);
            let needed = Packing::new(modulus(spec), parties).ciphertexts(spec.elements().unwrap());
            masker.extend(&label, &mut masks, needed, std::num::NonZeroUsize::MIN, &|| true)?;
            let vector = joye_libert::Vector { name: named, modulus: modulus(spec), elements: &elements };
            bytes.extend(self.keys.encrypt(&group, generation, &context, terms, vector, &masks)?);
        }
        Ok(bytes)
    }

    fn work(&mut self, task: &Task, name: &Name, rng: &mut StdRng) -> Result<Answer, Problem> {
        let party = PartyId::new(task.node.as_str()).unwrap();
        let role = self.role.get_or_insert_with(|| NodeRole::new(name.clone(), party, self.rules, rng));
        let message = |bytes: Vec<u8>| Ok(Answer::Message(SecureMessage::new(bytes).unwrap()));
        let Work::Secure { step, message: asked } = &task.work else {
            let mut bytes = Vec::new();
            let masker = match &task.masking {
                None => None,
                Some(masking) if masking.scheme == Scheme::JoyeLibert => {
                    let request = decode("request", masking.message.as_bytes())?;
                    return self.encrypt(task, name, &request).map(Answer::Contribution);
                }
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
                self.is_keyed = true;
                message(encode(&AgreeAnswer { identity: self.identity.public(), offer: role.offer(&self.identity) }))
            }
            SecureStep::ShareKeys => {
                let ShareKeysRequest { roster, offers, spec, .. } = decode("request", asked.as_bytes())?;
                role.agree(&roster, &offers)?;
                message(encode(&self.keys.share_keys(role.channels(), &Group::default(), &spec, &self.rules, rng)?))
            }
            SecureStep::SumKeys => {
                let SumKeysRequest { generation, inbound } = decode("request", asked.as_bytes())?;
                let inbound: Vec<_> = inbound.into_iter().collect();
                message(encode(&self.keys.take_shares(role.channels(), generation, &inbound)?))
            }
            SecureStep::OpenSeeds => {
                let OpenSeedsRequest { roster, offers, parties } = decode("request", asked.as_bytes())?;
                role.agree(&roster, &offers)?;
                message(encode(&role.open_seed(&parties)?))
            }
            SecureStep::Prepare => {
                let PrepareRequest { roster, offers, spec, seeds } = decode("request", asked.as_bytes())?;
                role.agree(&roster, &offers)?;
                if !seeds.is_empty() {
                    role.accept_seeds(&seeds)?;
                }
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
    store: Store,
    name: Name,
    hospitals: BTreeMap<NodeId, Hospital>,
    files: Files,
    _dir: tempfile::TempDir,
    now: Timestamp,
    rng: StdRng,
    /// Tasks that hospitals have and that are not over.
    open: VecDeque<Task>,
    jobs: u32,
    ahead: Arc<Ahead>,
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
            store: Store::in_memory().unwrap(),
            name,
            hospitals,
            files,
            _dir: dir,
            now,
            rng,
            open: VecDeque::new(),
            jobs: 0,
            ahead: Arc::default(),
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
        let is_small = SecureChange::is_small(&event);
        let actions = self.experiment.apply(event, self.now, &mut self.rng);
        if self.hospitals.len() <= MOST_STORED {
            // As the driver does it: what an answer changes is added, anything else is written anew.
            let change = SecureChange::of(is_small, &actions);
            self.store.save(&[Saved::changed(&self.experiment, &change, Vec::new(), None)], Durability::Lazy).unwrap();
            let read = self.store.experiment(self.experiment.id()).unwrap();
            assert_eq!(read, self.experiment, "what is stored is all there is");
            self.experiment = read;
        }
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
                        levels: BTreeMap::new(),
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
                Action::Over { node } => self.end_keys(&node),
                Action::Initialise | Action::Fold => self.jobs += 1,
                Action::ComputeAhead => self.ahead = jobs::compute_ahead(&self.experiment).unwrap().into(),
                Action::Record(record) => self.records.push(*record),
                Action::Keep(_) | Action::WakeAt(_) | Action::End => {}
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
        let Mail::Job { event, .. } = jobs::work(&self.files, &self.experiment, self.ahead.clone()) else { unreachable!() };
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

    /// A hospital that is there hears that its keys are not needed any more.
    fn end_keys(&mut self, node: &NodeId) {
        let hospital = self.hospitals.get_mut(node).unwrap();
        if let Some(role) = hospital.role.as_mut().filter(|_| !hospital.is_away) {
            role.renew(&mut self.rng);
            hospital.keys.forget_all();
            hospital.is_keyed = false;
        }
    }

    fn bring_back(&mut self, node: &NodeId) {
        let hospital = self.hospitals.get_mut(node).unwrap();
        hospital.is_away = false;
        // As the driver does it, by what the node says when it connects.
        if hospital.is_keyed && self.experiment.has_no_use_for_keys_of(node) {
            self.end_keys(node);
        }
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

fn joye_libert() -> SecureSpec {
    SecureSpec { secagg: Secagg::JoyeLibert, ..SecureSpec::default() }
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
