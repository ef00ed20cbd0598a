//! Who takes part.

use super::*;

fn asked(world: &World) -> usize {
    world.log.iter().filter(|action| matches!(action, Action::Search { .. })).count()
}

fn connect_all(world: &mut World) {
    let connected = world.nodes.iter().map(|node| (node.clone(), name(node))).collect();
    world.apply(Event::Begun { connected });
}

#[test]
fn it_begins_when_all_connected_nodes_have_answered() {
    let mut world = World::new(spec(training(|_| {}), 1, Patience::default()), 2);
    connect_all(&mut world);
    assert_eq!(asked(&world), 2);
    let face = world.face(&["a", "b", "y"]);
    world.apply(Event::Found { node: world.nodes[0].clone(), datasets: vec![face] });
    assert_eq!(world.state(), ExperimentState::Selecting);
    world.apply(Event::Found { node: world.nodes[1].clone(), datasets: vec![] });
    assert_eq!(world.state(), ExperimentState::Running);
    assert_eq!(world.experiment.participants().len(), 1, "a node without such a dataset is not asked");
}

#[test]
fn it_waits_a_while_for_min_nodes_and_then_says_who_is_there() {
    let patience = Patience { min_nodes: 2, ..Patience::default() };
    let mut world = World::new(spec(training(|_| {}), 1, patience), 2);
    let node = world.nodes[0].clone();
    world.apply(Event::Begun { connected: BTreeMap::from([(node.clone(), "North".into())]) });
    let face = world.face(&["a", "b", "y"]);
    world.apply(Event::Found { node, datasets: vec![face.clone()] });
    assert_eq!(world.state(), ExperimentState::Selecting);
    let mut late = World { log: Vec::new(), tasks: BTreeMap::new(), ..world_like(&world) };
    late.connect(1);
    late.apply(Event::Found { node: late.nodes[1].clone(), datasets: vec![face] });
    assert_eq!(late.state(), ExperimentState::Running, "the second one came in time");
    world.wait(SELECTION_WAIT);
    assert_eq!(world.state(), ExperimentState::Failed);
    assert_eq!(world.reason(), "only 1 of the connected nodes (North) have a dataset with the tags heart; `min_nodes` is 2");
}

pub(super) fn world_like(world: &World) -> World {
    World {
        experiment: world.experiment.clone(),
        nodes: world.nodes.clone(),
        now: world.now,
        rng: StdRng::seed_from_u64(8),
        tasks: BTreeMap::new(),
        log: Vec::new(),
    }
}

#[test]
fn nobody_connected_and_nothing_matching_are_told_apart() {
    let mut world = World::new(spec(training(|_| {}), 1, Patience::default()), 1);
    world.apply(Event::Begun { connected: BTreeMap::new() });
    world.wait(SELECTION_WAIT);
    assert_eq!(world.reason(), "no node that may take part is connected");
    let mut world = World::new(spec(training(|_| {}), 1, Patience::default()), 1);
    world.apply(Event::Begun { connected: BTreeMap::from([(world.nodes[0].clone(), "North".into())]) });
    world.apply(Event::Found { node: world.nodes[0].clone(), datasets: vec![] });
    world.wait(SELECTION_WAIT);
    assert_eq!(world.reason(), "no node has a dataset with the tags heart; connected: North");
}

#[test]
fn a_misspelt_tag_node_or_column_is_answered_with_the_name_that_was_meant() {
    let mut world = World::new(spec(training(|_| {}), 1, Patience::default()), 2);
    let mut raw = RawExperimentSpec::from(world.experiment.spec().clone());
    raw.selection = Selection::Tags(Tags::new(["hart"]).unwrap());
    world.experiment.spec = ExperimentSpec::new(raw.clone()).unwrap();
    let names = BTreeMap::from([(world.nodes[0].clone(), "Basel".into()), (world.nodes[1].clone(), "Zurich".into())]);
    world.apply(Event::Begun { connected: names.clone() });
    for node in world.nodes.clone() {
        let actions = world.apply(Event::Found { node: node.clone(), datasets: vec![] });
        assert!(actions.contains(&Action::Search { node: node.clone(), tags: None }), "which tags there are");
        let datasets = vec![world.face(&["a", "b", "y"])];
        assert!(!world.apply(Event::Found { node, datasets }).iter().any(|it| matches!(it, Action::Search { .. })));
    }
    let remark = world.experiment.snapshot(|_| Live::default()).remark.unwrap();
    world.wait(SELECTION_WAIT);
    for text in [remark, world.reason()] {
        assert!(text.contains("no dataset has the tag \"hart\"; did you mean \"heart\"?"), "{text}");
    }

    raw.selection = Selection::Tags(Tags::new(["heart"]).unwrap());
    raw.nodes = Some(BTreeSet::from(["Bazel".to_owned()]));
    let mut world = World::new(ExperimentSpec::new(raw).unwrap(), 2);
    world.apply(Event::Begun { connected: names });
    world.wait(SELECTION_WAIT);
    let expected = "no node that may take part is connected; Bazel is not connected; did you mean \"Basel\"?";
    assert_eq!(world.reason(), expected);

    let plan = training(|raw| raw.features = vec!["age".into(), "cholesterl".into()]);
    let mut world = World::new(spec(plan, 1, Patience::default()), 2);
    connect_all(&mut world);
    for (node, columns) in world.nodes.clone().into_iter().zip([["age", "chol", "y"], ["age", "cholesterol", "y"]]) {
        let datasets = vec![world.face(&columns)];
        world.apply(Event::Found { node, datasets });
    }
    assert_eq!(world.reason(), "no dataset has the column \"cholesterl\"; did you mean \"cholesterol\"?");
}

#[test]
fn two_matching_datasets_at_one_node_are_an_error_that_names_them() {
    let mut world = World::new(spec(training(|_| {}), 1, Patience::default()), 1);
    connect_all(&mut world);
    let datasets = vec![world.face(&["a", "b", "y"]), world.face(&["a", "b", "y"])];
    world.apply(Event::Found { node: world.nodes[0].clone(), datasets });
    assert_eq!(world.state(), ExperimentState::Failed);
    assert!(world.reason().contains("has 2 datasets that match"), "{}", world.reason());
}

#[test]
fn a_node_that_leaves_before_the_choice_is_waited_for_a_while_only() {
    let mut world = World::new(spec(training(|_| {}), 1, Patience::default()), 2);
    connect_all(&mut world);
    let face = world.face(&["a", "b", "y"]);
    world.apply(Event::Found { node: world.nodes[0].clone(), datasets: vec![face] });
    world.disconnect(1);
    assert_eq!(world.state(), ExperimentState::Selecting);
    world.wait(SELECTION_WAIT);
    assert_eq!(world.state(), ExperimentState::Running);
    assert_eq!(world.experiment.participants().len(), 1);
}

#[test]
fn features_left_open_are_all_numeric_columns_but_target_and_split() {
    let open = training(|raw| {
        raw.features.clear();
        raw.arguments.split_column = Some("split".into());
    });
    let mut world = World::new(spec(open.clone(), 1, Patience::default()), 2);
    connect_all(&mut world);
    for node in world.nodes.clone() {
        let datasets = vec![world.face(&["b", "y", "a", "split"])];
        world.apply(Event::Found { node, datasets });
    }
    let Plan::Training(plan) = world.experiment.spec().plan() else { panic!() };
    assert_eq!(plan.features(), ["b", "a"]);
    let mut world = World::new(spec(open, 1, Patience::default()), 2);
    connect_all(&mut world);
    for (node, names) in world.nodes.clone().into_iter().zip([["b", "y", "a"], ["a", "y", "b"]]) {
        let datasets = vec![world.face(&names)];
        world.apply(Event::Found { node, datasets });
    }
    assert!(
        world.reason().starts_with("the numeric columns differ, so `features` must be given: column 1 is"),
        "{}",
        world.reason()
    );
}

#[test]
fn nodes_that_are_named_are_waited_for_and_others_are_not_asked() {
    let mut world = World::new(spec(training(|_| {}), 1, Patience::default()), 3);
    let mut raw = RawExperimentSpec::from(world.experiment.spec().clone());
    raw.nodes = Some(BTreeSet::from([world.nodes[0].to_string(), name(&world.nodes[1])]));
    world.experiment.spec = ExperimentSpec::new(raw).unwrap();
    let connected = [0, 2].map(|node: usize| (world.nodes[node].clone(), name(&world.nodes[node])));
    world.apply(Event::Begun { connected: BTreeMap::from(connected) });
    assert_eq!(asked(&world), 1);
    let face = world.face(&["a", "b", "y"]);
    world.apply(Event::Found { node: world.nodes[0].clone(), datasets: vec![face.clone()] });
    assert_eq!(world.state(), ExperimentState::Selecting);
    world.connect(1);
    world.apply(Event::Found { node: world.nodes[1].clone(), datasets: vec![face] });
    assert_eq!(world.experiment.participants().len(), 2);
}

#[test]
fn a_node_whose_connection_breaks_while_others_answer_is_waited_for() {
    let mut world = World::new(spec(training(|_| {}), 1, Patience::default()), 2);
    connect_all(&mut world);
    let face = world.face(&["a", "b", "y"]);
    world.apply(Event::Found { node: world.nodes[0].clone(), datasets: vec![face.clone()] });
    world.disconnect(0);
    world.apply(Event::Found { node: world.nodes[1].clone(), datasets: vec![face.clone()] });
    assert_eq!(world.state(), ExperimentState::Selecting);
    world.connect(0);
    world.apply(Event::Found { node: world.nodes[0].clone(), datasets: vec![face] });
    assert_eq!(world.experiment.participants().len(), 2);
}

#[test]
fn after_a_restart_it_waits_for_whoever_was_there_until_they_can_be_back() {
    let mut world = World::new(spec(training(|_| {}), 1, Patience::default()), 2);
    connect_all(&mut world);
    let face = world.face(&["a", "b", "y"]);
    world.apply(Event::Found { node: world.nodes[0].clone(), datasets: vec![face.clone()] });
    world.apply(Event::Restarted);
    for node in [1, 0] {
        assert_eq!(world.state(), ExperimentState::Selecting);
        world.connect(node);
        world.apply(Event::Found { node: world.nodes[node].clone(), datasets: vec![face.clone()] });
    }
    assert_eq!(world.experiment.participants().len(), 2);
    let mut alone = World::new(spec(training(|_| {}), 1, Patience { min_nodes: 2, ..Patience::default() }), 1);
    alone.apply(Event::Begun { connected: BTreeMap::new() });
    alone.apply(Event::Restarted);
    assert_eq!(alone.experiment.wake_at(), Some(alone.now.saturating_add(RETURN_WAIT + SELECTION_WAIT)));
}

#[test]
fn while_nodes_are_found_the_remark_says_what_is_missing() {
    let remark = |world: &World| world.experiment.snapshot(|_| Live::default()).remark;
    let patience = Patience { min_nodes: 2, ..Patience::default() };
    let mut world = World::new(spec(training(|_| {}), 1, patience), 3);
    world.apply(Event::Begun { connected: BTreeMap::new() });
    let expected = "waits a short while for nodes with a dataset with the tags heart: 0 of 2 found";
    assert_eq!(remark(&world), Some(format!("{expected}; none is connected")));
    world.connect(0);
    let silent = name(&world.nodes[0]);
    assert_eq!(remark(&world), Some(format!("{expected}; {silent} has not answered yet")));
    world.apply(Event::Found { node: world.nodes[0].clone(), datasets: vec![] });
    assert_eq!(remark(&world), Some(format!("{expected}; {silent} has no such dataset")));
    for node in [1, 2] {
        world.connect(node);
        let datasets = vec![world.face(&["a", "b", "y"])];
        world.apply(Event::Found { node: world.nodes[node].clone(), datasets });
    }
    assert_eq!((world.state(), remark(&world)), (ExperimentState::Running, None));
}

#[test]
fn more_nodes_than_contributions_can_be_summed_are_refused() {
    let mut world = World::new(spec(training(|_| {}), 1, Patience::default()), 0);
    let face = world.face(&["a", "b", "y"]);
    let mut selecting = Selecting::new(world.now);
    while selecting.found.len() <= protocol::encoding::MAX_CONTRIBUTIONS as usize {
        let offer = Offer { name: "n".into(), datasets: vec![face.clone()] };
        selecting.found.insert(NodeId::random(&mut world.rng), offer);
    }
    let choice = selecting.choose(world.experiment.spec(), true);
    let selection::Choice::Refused(reason) = choice else { panic!("they are taken") };
    assert!(reason.starts_with("65537 nodes would take part, and at most 65536"), "{reason}");
    selecting.found.pop_last();
    assert!(matches!(selecting.choose(world.experiment.spec(), true), selection::Choice::Chosen { .. }));
}

#[test]
fn a_plan_that_no_message_holds_is_refused_before_anybody_is_asked() {
    let columns = |count: usize| (0..count).map(|number| format!("{number:0>250}")).collect::<Vec<_>>();
    for (count, state) in [(16_000, ExperimentState::Running), (16_700, ExperimentState::Failed)] {
        let plan = training(|raw| raw.features = columns(count));
        let mut world = World::new(spec(plan, 1, Patience::default()), 1);
        connect_all(&mut world);
        let datasets = vec![world.face(&["y"])];
        world.apply(Event::Found { node: world.nodes[0].clone(), datasets });
        assert_eq!((world.state(), world.tasks.len()), (state, usize::from(state == ExperimentState::Running)));
        assert_eq!(world.reason().starts_with("the plan is too large to be sent"), state == ExperimentState::Failed);
        assert!(!world.log.iter().any(|action| matches!(action, Action::Cancel { .. })));
    }
}
