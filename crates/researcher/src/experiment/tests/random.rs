//! Any sequence of events leaves the invariants standing.

use proptest::prelude::*;
use protocol::Encoding;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Move {
    Contribute(usize),
    Refuse(usize),
    Stop(usize),
    OutOfRange(usize),
    Connect(usize),
    Disconnect(usize),
    Revoke(usize),
    Wait,
    Later(u64),
    Fold,
    Restart,
    Stall,
    Stale(usize),
    Cancel,
    Resume,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let node = 0_usize..4;
    let one = prop_oneof![
        12 => node.clone().prop_map(Move::Contribute),
        2 => node.clone().prop_map(Move::Refuse),
        1 => node.clone().prop_map(Move::Stop),
        2 => node.clone().prop_map(Move::OutOfRange),
        4 => node.clone().prop_map(Move::Connect),
        2 => node.clone().prop_map(Move::Disconnect),
        1 => node.clone().prop_map(Move::Revoke),
        2 => Just(Move::Wait),
        2 => (0_u64..20_000).prop_map(Move::Later),
        6 => Just(Move::Fold),
        2 => Just(Move::Restart),
        1 => Just(Move::Stall),
        3 => node.prop_map(Move::Stale),
        1 => Just(Move::Cancel),
        2 => Just(Move::Resume),
    ];
    proptest::collection::vec(one, 0..80)
}

/// The world after some moves; folds happen only when they are moves.
struct Play {
    world: World,
    counted: BTreeSet<TaskId>,
    closed: Vec<u32>,
    old: Vec<(NodeId, TaskId)>,
}

impl Play {
    fn apply(&mut self, event: Event) {
        let before = self.world.experiment.round().cloned();
        let is_fold = matches!(event, Event::Folded { .. });
        let actions = self.world.apply_only(event);
        for action in &actions {
            match action {
                Action::Ask { node, task } => self.old.push((node.clone(), task.id.clone())),
                Action::Record(record) => {
                    self.closed.push(record.round);
                    let round = before.as_ref().expect("only an open round is closed");
                    // A last validation that nobody is left to make is closed in the same step.
                    if is_fold && record.round == round.number {
                        for (_, task, ..) in round.contributions() {
                            assert!(self.counted.insert(task.clone()), "a contribution was counted twice");
                        }
                    }
                }
                Action::Initialise => {
                    let model = BlobRef { digest: Digest::of(b"first"), bytes: 5 };
                    self.apply(Event::Initialised { model });
                }
                Action::Search { node, .. } => {
                    let datasets = vec![self.world.face(&["a", "b", "y"])];
                    self.apply(Event::Found { node: node.clone(), datasets });
                }
                _ => {}
            }
        }
        self.check();
    }

    fn check(&self) {
        let experiment = &self.world.experiment;
        let expected: Vec<u32> = (0..u32::try_from(self.closed.len()).unwrap()).collect();
        assert_eq!(self.closed, expected, "rounds are closed once each, in order");
        assert_eq!(experiment.row().round as usize, self.closed.len());
        match experiment.round() {
            Some(round) => {
                assert_eq!(round.number as usize, self.closed.len(), "one round is open, the next one");
                let open: BTreeSet<TaskId> = round
                    .seats
                    .values()
                    .filter(|seat| seat.state == SeatState::Open)
                    .map(|seat| seat.task.clone())
                    .collect();
                let tally = round.tally();
                match experiment.stage() {
                    Stage::Folding(_) => assert!(tally.open == 0 && tally.out_of_range == 0 && tally.contributed > 0),
                    _ => assert!(tally.open > 0, "somebody is waited for"),
                }
                // A task that somebody works on is one of an open or a contributed seat.
                for (node, task) in &self.world.tasks {
                    let seat = &round.seats[node];
                    assert_eq!(seat.task, task.id);
                }
                assert!(open.iter().all(|task| self.world.tasks.values().any(|asked| asked.id == *task)));
            }
            None => assert!(self.world.tasks.is_empty(), "whatever ended, every task is settled or cancelled"),
        }
    }

    fn make(&mut self, action: Move) {
        let task_of = |world: &World, node: usize| world.tasks.get(&world.nodes[node]).map(|task| task.id.clone());
        let node = |world: &World, node: usize| world.nodes[node].clone();
        let contributed = |node, task| Event::Contributed { node, task, digest: Digest::of(b"c"), bytes: 1, report: None };
        match action {
            Move::Contribute(n) => {
                if let Some(task) = task_of(&self.world, n) {
                    self.apply(contributed(node(&self.world, n), task));
                }
            }
            Move::Refuse(n) | Move::Stop(n) => {
                let code =
                    if matches!(action, Move::Stop(_)) { RefusalCode::StoppedByHospital } else { RefusalCode::Internal };
                if let Some(task) = task_of(&self.world, n) {
                    self.apply(Event::Refused { node: node(&self.world, n), task, refusal: Refusal::new(code, "no") });
                }
            }
            Move::OutOfRange(n) => {
                if let Some(task) = task_of(&self.world, n) {
                    let layout = &self.world.tasks[&self.world.nodes[n]].layout;
                    let exponents = layout
                        .iter()
                        .map(|spec| spec.encoding.exponent - if spec.encoding == Encoding::COUNT { 0 } else { 3 });
                    let exponents = exponents.collect();
                    self.apply(Event::OutOfRange { node: node(&self.world, n), task, exponents });
                }
            }
            Move::Connect(n) => self.apply(Event::Connected { node: node(&self.world, n), name: "n".into() }),
            Move::Disconnect(n) => self.apply(Event::Disconnected { node: node(&self.world, n) }),
            Move::Revoke(n) => self.apply(Event::Revoked { node: node(&self.world, n) }),
            Move::Wait => {
                if let Some(wake) = self.world.experiment.wake_at() {
                    self.world.now = self.world.now.max(wake);
                    self.apply(Event::Tick);
                }
            }
            Move::Later(millis) => {
                self.world.now = self.world.now.saturating_add(Duration::from_millis(millis));
                self.apply(Event::Tick);
            }
            Move::Fold => {
                if matches!(self.world.experiment.stage(), Stage::Folding(_)) {
                    self.apply(self.world.folded());
                }
            }
            Move::Restart => self.apply(Event::Restarted),
            Move::Stall => self.apply(Event::Stalled { reason: "disk".into() }),
            Move::Stale(n) => {
                if let Some((node, task)) = self.old.get(n * 7 % self.old.len().max(1)).cloned() {
                    self.apply(contributed(node.clone(), task.clone()));
                    self.apply(Event::Refused { node, task, refusal: Refusal::new(RefusalCode::Cancelled, "") });
                }
            }
            Move::Cancel => self.apply(Event::Cancelled { by: "ada".into() }),
            Move::Resume => {
                let connected = self.world.nodes.iter().map(|node| (node.clone(), name(node))).collect();
                self.apply(Event::Resumed { connected });
            }
        }
    }
}

/// How many sequences are tried; `PROPTEST_CASES` says another number.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(100)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]
    #[test]
    fn any_sequence_of_events_keeps_the_invariants(
        moves in moves(),
        min_nodes in 1_u32..4,
        round_timeout_ms in proptest::option::of(5_000_u64..50_000),
        on_failure in prop_oneof![Just(OnFailure::Fail), Just(OnFailure::Drop), Just(OnFailure::Retry)],
    ) {
        let patience = Patience { round_timeout_ms, min_nodes, node_timeout_ms: 10_000, on_failure };
        let plan = training(|raw| {
            raw.standardise = true;
            raw.arguments.test_ratio = 0.25;
        });
        let world = World::new(spec(plan, 3, patience), 4);
        let mut play = Play { world, counted: BTreeSet::new(), closed: Vec::new(), old: Vec::new() };
        let connected = play.world.nodes.iter().map(|node| (node.clone(), name(node))).collect();
        play.apply(Event::Begun { connected });
        for action in moves {
            play.make(action);
        }
    }
}
