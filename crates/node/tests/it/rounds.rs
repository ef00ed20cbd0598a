//! Rounds with a researcher: what is computed, what is refused, what is said.

use component::blocking::Blocking;
use node::agent::Order;
use node::command::{Reply, Request};
use protocol::{
    Metric, Missing, NodeId, NodeMessage, Plan, Progress, RawTrainingPlan, Refusal, RefusalCode, RequestId,
    ResearcherMessage, StatisticPlan, Tags, Task, TrainingArguments, TrainingPlan, Work,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::oneshot;
use transport::link::LinkError;

use crate::world::{
    FEATURES, Played, PlayedSession, RunningAgent, World, decode, heart_dataset, parameter_count, plan, raw_plan,
};

/// A connected node that offers one file.
struct Scene {
    world: World,
    node: std::sync::Arc<node::handle::NodeHandle>,
    dataset: protocol::DatasetId,
    played: Played,
    session: PlayedSession,
    agent: RunningAgent,
}

async fn scene_with(content: Option<&str>, blocking: Blocking) -> Scene {
    scene_in(World::new(), content, blocking).await
}

/// A scene at a hospital that wants so many rows.
async fn scene_of_least(minimum: &str, content: Option<&str>) -> Scene {
    let mut world = World::new();
    world.env.push(("FBM_SECURITY_MINIMUM_SAMPLES".into(), minimum.into()));
    scene_in(world, content, Blocking::Inline).await
}

async fn scene_in(mut world: World, content: Option<&str>, blocking: Blocking) -> Scene {
    let node = world.node();
    let path = world.heart("cleveland.csv");
    if let Some(content) = content {
        std::fs::write(&path, content).unwrap();
    }
    let dataset = node.add_dataset(&heart_dataset(&path, &["heart", "uci"]), &crate::GO_ON).unwrap().row.id;
    let enrolment = world.enrol(&node);
    let (played, mut sessions) = Played::new(&world.researcher);
    let agent = RunningAgent::start_with(node.clone(), enrolment, played.clone(), blocking);
    let session = sessions.recv().await.unwrap();
    Scene { world, node, dataset, played, session, agent }
}

async fn scene() -> Scene {
    scene_with(None, Blocking::Inline).await
}

impl Scene {
    async fn refused(&mut self, task: &Task) -> Refusal {
        self.session.give(&self.world, task).await;
        self.session.hear_accepted(task).await;
        let refusal = self.session.hear_refusal(task).await;
        assert!(!refusal.sentence.contains("hospital-north"), "{refusal}");
        refusal
    }

    /// A training task of a plan, whose model the researcher offers.
    fn training(&mut self, plan: &TrainingPlan) -> Task {
        let (task, model) = self.world.training_task(&self.dataset, plan);
        self.played.offer(&model);
        task
    }
}

#[tokio::test(start_paused = true)]
async fn a_training_round_gives_what_was_asked_for() {
    let mut scene = scene().await;
    let plan = plan();
    let task = scene.training(&plan);
    scene.session.give(&scene.world, &task).await;
    scene.session.hear_accepted(&task).await;
    let (header, bytes) = scene.played.wait_for_uploads(1).await.remove(0);
    assert_eq!(header.task, task.id);
    let vectors = decode(&task.layout, &bytes);
    let report = header.report.unwrap();
    assert_eq!((report.train_rows, report.test_rows, report.dropped_rows), (228, 75, 0));
    assert_eq!(vectors[0], [228.0], "the weight is the number of training rows");
    assert!((vectors[1][0] / 228.0 - report.loss.unwrap()).abs() < 1e-12, "the loss is weighted");
    let model: Vec<f64> = vectors[2..4].concat();
    assert_eq!(model.len(), parameter_count(&plan));
    assert!(model.iter().any(|difference| *difference != 0.0));
    // Accuracy from the confusion matrices on held-out rows, before and after training.
    for sums in [&vectors[4], &vectors[7]] {
        assert_eq!(sums.iter().sum::<f64>(), 75.0);
    }
    assert!(report.measured.len() >= 12, "{report:?}");
    scene.session.say(ResearcherMessage::Settled { task: task.id.clone() }).await;
    assert!(scene.session.is_silent().await);
    assert!(scene.node.store().open_tasks(&scene.world.researcher).unwrap().is_empty());
    assert_eq!(scene.node.storage_bytes().unwrap(), 0, "a settled task leaves no file");
    assert_eq!(scene.node.ledger().open_reservations(), 0);
}

#[tokio::test(start_paused = true)]
async fn sums_and_squared_differences_are_those_of_the_training_rows() {
    let mut scene = scene().await;
    let plan = TrainingPlan::new(RawTrainingPlan {
        standardise: true,
        arguments: TrainingArguments { split_column: Some("split".into()), test_ratio: 0.0, ..raw_plan().arguments },
        ..raw_plan()
    })
    .unwrap();
    let text = std::fs::read_to_string(scene.world.folder.root().join("data/cleveland.csv")).unwrap();
    let ages: Vec<f64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("train,"))
        .map(|line| line.split(',').next().unwrap().parse().unwrap())
        .collect();
    let work = Work::Sums;
    let layout = analytics::moments::layout(&work, FEATURES.len()).unwrap();
    let task = scene.world.task(&scene.dataset, Plan::Training(plan.clone()), work, None, layout);
    scene.session.give(&scene.world, &task).await;
    let (_, bytes) = scene.played.wait_for_uploads(1).await.remove(0);
    let sums = decode(&task.layout, &bytes);
    assert_eq!(sums[0], [ages.len() as f64; FEATURES.len()]);
    assert_eq!(sums[1][0], ages.iter().sum::<f64>());
    let means: Vec<f64> = sums[1].iter().map(|sum| sum / ages.len() as f64).collect();
    let squares: f64 = ages.iter().map(|age| (age - means[0]) * (age - means[0])).sum();
    let work = Work::SquaredDifferences { means };
    let layout = analytics::moments::layout(&work, FEATURES.len()).unwrap();
    let task = scene.world.task(&scene.dataset, Plan::Training(plan), work, None, layout);
    scene.session.give(&scene.world, &task).await;
    let (_, bytes) = scene.played.wait_for_uploads(2).await.remove(1);
    let found = decode(&task.layout, &bytes).last().unwrap()[0];
    assert!((found - squares).abs() < 1e-9 * squares, "{found} {squares}");
}

#[tokio::test(start_paused = true)]
async fn a_statistic_of_its_own_takes_each_columns_own_values() {
    let mut scene = scene_with(Some("a,b\n1,10\n,20\n3,30\n"), Blocking::Inline).await;
    let plan = Plan::Statistic(StatisticPlan::Moments { columns: vec!["b".into(), "a".into()] });
    let layout = analytics::moments::layout(&Work::Sums, 2).unwrap();
    let task = scene.world.task(&scene.dataset, plan, Work::Sums, None, layout);
    scene.session.give(&scene.world, &task).await;
    let (_, bytes) = scene.played.wait_for_uploads(1).await.remove(0);
    assert_eq!(decode(&task.layout, &bytes), [vec![3.0, 2.0], vec![60.0, 4.0]]);
}

#[tokio::test(start_paused = true)]
async fn a_validation_gives_sums_only() {
    let mut scene = scene().await;
    let plan = plan();
    let (_, model) = scene.world.training_task(&scene.dataset, &plan);
    scene.played.offer(&model);
    let task = scene.world.validation_task(&scene.dataset, &plan, &model);
    scene.session.give(&scene.world, &task).await;
    let (header, bytes) = scene.played.wait_for_uploads(1).await.remove(0);
    assert_eq!(decode(&task.layout, &bytes)[0].iter().sum::<f64>(), 75.0);
    assert_eq!(header.report.unwrap().loss, None);
}

#[tokio::test(start_paused = true)]
async fn data_that_cannot_be_trained_on_is_refused_before_training() {
    let header = "age,sex,thalach,oldpeak,target\n";
    let rows = |row: &dyn Fn(usize) -> String| format!("{header}{}", (0..40).map(row).collect::<String>());
    let cases = [
        (rows(&|row| format!("{row},1,150,0.5,1\n")), RefusalCode::OneClass),
        (rows(&|row| format!("{row},1,150,0.5,{}\n", row % 3)), RefusalCode::TargetInvalid),
        (
            rows(&|row| format!("{row},{},150,0.5,{}\n", if row == 7 { "" } else { "1" }, row % 2)),
            RefusalCode::MissingValues,
        ),
        (rows(&|row| format!("{row},1,fast,0.5,{}\n", row % 2)), RefusalCode::ColumnNotNumeric),
        (rows(&|row| format!("{row},1,150,0.5,{}\n", row % 2)).replace("thalach", "rate"), RefusalCode::ColumnUnknown),
    ];
    for (content, code) in cases {
        let mut scene = scene_with(Some(&content), Blocking::Inline).await;
        let task = scene.training(&plan());
        assert_eq!(scene.refused(&task).await.code, code, "{content}");
    }
}

#[tokio::test(start_paused = true)]
async fn rows_with_missing_cells_are_dropped_and_counted_when_asked() {
    let rows = |row: usize| format!("{row},{},150,0.5,{}\n", if row == 7 { "" } else { "1" }, row % 2);
    let content = format!("age,sex,thalach,oldpeak,target\n{}", (0..40).map(rows).collect::<String>());
    let mut scene = scene_with(Some(&content), Blocking::Inline).await;
    let arguments = TrainingArguments { missing: Missing::Drop, test_ratio: 0.0, ..raw_plan().arguments };
    let task = scene.training(&TrainingPlan::new(RawTrainingPlan { arguments, ..raw_plan() }).unwrap());
    scene.session.give(&scene.world, &task).await;
    let report = scene.played.wait_for_uploads(1).await[0].0.report.clone().unwrap();
    assert_eq!((report.train_rows, report.dropped_rows), (39, 1));
}

#[tokio::test(start_paused = true)]
async fn a_layout_that_asks_for_more_than_the_plan_has_is_refused() {
    let mut scene = scene().await;
    let mut task = scene.training(&plan());
    task.layout[0].shape = vec![5];
    assert_eq!(scene.refused(&task).await.code, RefusalCode::PlanInvalid);
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_refused_until_it_is_refreshed() {
    let mut scene = scene().await;
    let path = scene.world.folder.root().join("data/cleveland.csv");
    let text = std::fs::read_to_string(&path).unwrap().replacen("train,63", "train,64", 1);
    std::fs::write(&path, text).unwrap();
    let task = scene.training(&plan());
    assert_eq!(scene.refused(&task).await.code, RefusalCode::DatasetChanged);
    scene.node.refresh_dataset(&scene.dataset, &crate::GO_ON).unwrap();
    let task = scene.training(&plan());
    scene.session.give(&scene.world, &task).await;
    scene.played.wait_for_uploads(1).await;
}

#[tokio::test(start_paused = true)]
async fn values_beyond_the_scale_are_answered_with_one_that_fits() {
    let mut scene = scene().await;
    let mut task = scene.training(&plan());
    let at = task.layout.iter().position(|spec| spec.name == "weight" && spec.purpose == protocol::Purpose::Model).unwrap();
    task.layout[at].encoding.exponent = 900;
    scene.session.give(&scene.world, &task).await;
    scene.session.hear_accepted(&task).await;
    let NodeMessage::OutOfRange { exponents, .. } = scene.session.hear().await else { panic!() };
    assert_eq!(exponents.len(), task.layout.len());
    let mut again = scene.training(&plan());
    again.layout.iter_mut().zip(exponents).for_each(|(spec, exponent)| spec.encoding.exponent = exponent);
    scene.session.give(&scene.world, &again).await;
    scene.played.wait_for_uploads(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_comes_twice_has_its_effect_once() {
    let mut scene = scene().await;
    let task = scene.training(&plan());
    for _ in 0..3 {
        scene.session.give(&scene.world, &task).await;
        scene.session.hear_accepted(&task).await;
    }
    scene.played.wait_for_uploads(1).await;
    assert!(scene.session.is_silent().await);
    let uploads = scene.played.uploads();
    assert!(
        uploads.iter().all(|upload| *upload == uploads[0]),
        "what was delivered may be offered again, never computed again"
    );
    scene.session.say(ResearcherMessage::Settled { task: task.id.clone() }).await;
    scene.session.give(&scene.world, &task).await;
    assert_eq!(scene.session.hear_refusal(&task).await.code, RefusalCode::Duplicate);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_breaks_is_tried_again_and_a_refused_one_is_given_up() {
    let mut scene = scene().await;
    scene.played.obstruct(LinkError::Broken("cut".into()));
    scene.played.obstruct(LinkError::Refused(Refusal::new(RefusalCode::Unavailable, "disk full")));
    let task = scene.training(&plan());
    scene.session.give(&scene.world, &task).await;
    scene.session.hear_accepted(&task).await;
    scene.played.wait_for_uploads(1).await;
    let late = scene.training(&plan());
    scene.played.obstruct(LinkError::Refused(Refusal::new(RefusalCode::Late, "the round is over")));
    scene.session.give(&scene.world, &late).await;
    scene.session.hear_accepted(&late).await;
    assert_eq!(scene.session.hear_refusal(&late).await.code, RefusalCode::Late);
}

#[tokio::test(start_paused = true)]
async fn searches_find_what_carries_all_tags() {
    let mut scene = scene().await;
    let request = RequestId::random(&mut StdRng::seed_from_u64(1));
    for (tags, count) in [(None, 1), (Some(&["heart"][..]), 1), (Some(&["heart", "lung"]), 0)] {
        let tags = tags.map(|tags| Tags::new(tags).unwrap());
        scene.session.say(ResearcherMessage::Search { request: request.clone(), tags }).await;
        let NodeMessage::Found { datasets, .. } = scene.session.hear().await else { panic!() };
        assert_eq!(datasets.len(), count);
    }
}

/// A plan that trains for as long as nobody stops it.
fn endless() -> TrainingPlan {
    let arguments = TrainingArguments { epochs: Some(u32::MAX), test_ratio: 0.0, ..raw_plan().arguments };
    TrainingPlan::new(RawTrainingPlan { arguments, ..raw_plan() }).unwrap()
}

#[tokio::test]
async fn searches_statistics_and_cancellations_are_answered_while_a_node_trains() {
    let mut scene = scene_with(None, Blocking::Threads).await;
    let task = scene.training(&endless());
    scene.session.give(&scene.world, &task).await;
    scene.session.hear_accepted(&task).await;
    let waiting = scene.training(&plan());
    scene.session.give(&scene.world, &waiting).await;
    scene.session.hear_accepted(&waiting).await;
    let request = RequestId::random(&mut StdRng::seed_from_u64(1));
    scene.session.say(ResearcherMessage::Search { request, tags: None }).await;
    assert!(matches!(scene.session.hear().await, NodeMessage::Found { .. }));
    let columns = vec!["age".to_owned()];
    let layout = analytics::moments::layout(&Work::Sums, 1).unwrap();
    let statistic = Plan::Statistic(StatisticPlan::Moments { columns });
    let sums = scene.world.task(&scene.dataset, statistic, Work::Sums, None, layout);
    scene.session.give(&scene.world, &sums).await;
    scene.session.hear_accepted(&sums).await;
    assert_eq!(scene.played.wait_for_uploads(1).await[0].0.task, sums.id);
    let refusal = Refusal::new(RefusalCode::Cancelled, "not wanted any more");
    scene.session.say(ResearcherMessage::Cancel { task: task.id.clone(), refusal: refusal.clone() }).await;
    assert_eq!(scene.session.hear_refusal(&task).await, refusal);
    assert_eq!(scene.played.wait_for_uploads(2).await[1].0.task, waiting.id, "the next one has its turn");
}

#[tokio::test]
async fn the_hospital_stops_work_at_once_and_pauses() {
    let mut scene = scene_with(None, Blocking::Threads).await;
    let task = scene.training(&endless());
    scene.session.give(&scene.world, &task).await;
    scene.session.hear_accepted(&task).await;
    scene.node.answer(Request::Pause, "carer").await;
    let (stopped, answer) = oneshot::channel();
    let refusal = Refusal::new(RefusalCode::StoppedByHospital, "stopped by the hospital");
    scene.agent.handle.order(Order::Stop { task: None, refusal, stopped }).await;
    assert_eq!(answer.await, Ok(1));
    let refusal = scene.session.hear_refusal(&task).await;
    assert_eq!((refusal.code, refusal.sentence.as_str()), (RefusalCode::StoppedByHospital, "stopped by the hospital"));
    let next = scene.training(&plan());
    scene.session.give(&scene.world, &next).await;
    assert_eq!(scene.session.hear_refusal(&next).await.code, RefusalCode::PausedByHospital);
    scene.node.answer(Request::Resume, "carer").await;
    let after = scene.training(&plan());
    scene.session.give(&scene.world, &after).await;
    scene.session.hear_accepted(&after).await;
    scene.played.wait_for_uploads(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_training_that_diverges_is_refused() {
    let mut scene = scene().await;
    let optimizer = protocol::OptimizerSpec::Sgd { learning_rate: 1e307, momentum: 0.0 };
    let arguments = TrainingArguments { epochs: Some(50), ..raw_plan().arguments };
    let task = scene.training(&TrainingPlan::new(RawTrainingPlan { optimizer, arguments, ..raw_plan() }).unwrap());
    assert_eq!(scene.refused(&task).await.code, RefusalCode::TrainingDiverged);
}

#[tokio::test(start_paused = true)]
async fn a_validation_that_fails_does_not_fail_the_round() {
    // No held-out row is there to be measured: the plan's ratio takes none of three rows.
    let mut scene =
        scene_with(Some("age,sex,thalach,oldpeak,target\n1,1,1,1,0\n2,1,1,1,1\n3,0,1,1,1\n"), Blocking::Inline).await;
    let task = scene.training(&plan());
    scene.session.give(&scene.world, &task).await;
    let (header, bytes) = scene.played.wait_for_uploads(1).await.remove(0);
    let report = header.report.unwrap();
    assert!(!report.remarks.is_empty());
    assert_eq!(decode(&task.layout, &bytes)[4].iter().sum::<f64>(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn fewer_rows_than_the_hospital_wants_are_not_trained_on() {
    let mut scene = scene_of_least("100", None).await;
    let arguments = |change: &dyn Fn(&mut TrainingArguments)| {
        let mut arguments = TrainingArguments { test_ratio: 0.0, ..raw_plan().arguments };
        change(&mut arguments);
        TrainingPlan::new(RawTrainingPlan { arguments, ..raw_plan() }).unwrap()
    };
    let few = [
        arguments(&|it| it.test_ratio = 0.7),
        arguments(&|it| (it.epochs, it.num_updates) = (None, Some(3))),
        arguments(&|it| it.batch_maxnum = Some(1)),
        arguments(&|it| it.dry_run = true),
        arguments(&|it| (it.epochs, it.num_updates, it.batch_size) = (None, Some(1), 1)),
    ];
    for plan in few {
        let task = scene.training(&plan);
        assert_eq!(scene.refused(&task).await.code, RefusalCode::TooFewSamples, "{:?}", plan.arguments());
    }
    let enough = [
        arguments(&|it| (it.epochs, it.num_updates) = (None, Some(4))),
        arguments(&|it| (it.epochs, it.num_updates) = (None, Some(0))),
        arguments(&|it| (it.batch_size, it.dry_run) = (0, true)),
    ];
    for (index, plan) in enough.iter().enumerate() {
        let task = scene.training(plan);
        scene.session.give(&scene.world, &task).await;
        scene.session.hear_accepted(&task).await;
        scene.played.wait_for_uploads(index + 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn few_held_out_rows_are_not_measured_on() {
    let mut scene = scene_of_least("100", None).await;
    let plan = plan();
    let task = scene.training(&plan);
    let (_, model) = scene.world.training_task(&scene.dataset, &plan);
    let validation = scene.world.validation_task(&scene.dataset, &plan, &model);
    for (index, task) in [task, validation].iter().enumerate() {
        scene.session.give(&scene.world, task).await;
        let (header, bytes) = scene.played.wait_for_uploads(index + 1).await.remove(index);
        let report = header.report.unwrap();
        assert_eq!((report.test_rows, report.measured.len(), report.remarks.len()), (0, 0, 1), "{report:?}");
        let vectors = decode(&task.layout, &bytes);
        for (spec, values) in task.layout.iter().zip(vectors) {
            if matches!(spec.purpose, protocol::Purpose::ValidationGlobal | protocol::Purpose::ValidationLocal) {
                assert!(values.iter().all(|value| *value == 0.0), "{}", spec.name);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_auc_that_one_row_decides_is_not_shown_and_the_sums_have_it() {
    let content = "age,sex,thalach,oldpeak,target,split\n\
        1,1,1,1,0,train\n2,1,1,1,1,train\n3,0,1,1,1,train\n4,0,1,1,0,train\n\
        1,1,1,1,0,test\n2,1,1,1,1,test\n3,0,1,1,1,test\n";
    let mut scene = scene_of_least("1", Some(content)).await;
    let arguments = TrainingArguments { test_ratio: 0.0, split_column: Some("split".into()), ..raw_plan().arguments };
    let task = scene.training(&TrainingPlan::new(RawTrainingPlan { arguments, ..raw_plan() }).unwrap());
    scene.session.give(&scene.world, &task).await;
    let (header, bytes) = scene.played.wait_for_uploads(1).await.remove(0);
    let report = header.report.unwrap();
    assert_eq!(report.test_rows, 3);
    assert!(report.measured.iter().any(|measured| measured.metric == Metric::Accuracy));
    assert!(report.measured.iter().all(|measured| measured.metric != Metric::Auc), "{report:?}");
    let expected = "auc of the global parameters is not shown: fewer than 2 held-out rows of a class";
    assert!(report.remarks.iter().any(|remark| remark == expected), "{report:?}");
    let scores = task.layout.iter().zip(decode(&task.layout, &bytes)).filter(|(spec, _)| spec.name.contains("score"));
    let counted: f64 = scores.flat_map(|(_, values)| values).sum();
    assert!(counted > 0.0, "all nodes together have an AUC");
}

#[tokio::test(start_paused = true)]
async fn a_node_says_that_it_reads_its_data_and_then_how_much_there_is_to_do() {
    let mut scene = scene().await;
    let task = scene.training(&plan());
    scene.session.give(&scene.world, &task).await;
    assert_eq!(scene.session.hear_progress().await, Progress { done: 0, total: 0, loss: None });
    let Progress { done, total, .. } = scene.session.hear_progress().await;
    assert!((1..=total).contains(&done), "{done} of {total}");
}

#[tokio::test(start_paused = true)]
async fn a_column_of_few_values_is_in_no_statistic() {
    let content = "a,b,c\n1,10,\n,20,\n3,30,\n";
    let mut scene = scene_of_least("3", Some(content)).await;
    let mut sums = |columns: &[&str]| {
        let plan = Plan::Statistic(StatisticPlan::Moments { columns: columns.iter().map(|name| (*name).into()).collect() });
        let layout = analytics::moments::layout(&Work::Sums, columns.len()).unwrap();
        scene.world.task(&scene.dataset, plan, Work::Sums, None, layout)
    };
    let (few, enough) = (sums(&["a", "b"]), sums(&["b"]));
    assert_eq!(scene.refused(&few).await.code, RefusalCode::TooFewSamples);
    scene.session.give(&scene.world, &enough).await;
    let (_, bytes) = scene.played.wait_for_uploads(1).await.remove(0);
    assert_eq!(decode(&enough.layout, &bytes), [vec![3.0], vec![60.0]]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_signed_for_this_node_does_not_fill_the_journal() {
    let mut scene = scene().await;
    let elsewhere = Task { node: NodeId::random(&mut StdRng::seed_from_u64(8)), ..scene.training(&plan()) };
    scene.session.give(&scene.world, &elsewhere).await;
    assert_eq!(scene.session.hear_refusal(&elsewhere).await.code, RefusalCode::OtherNode);
    assert_eq!(scene.node.store().task(&scene.world.researcher, &elsewhere.id).unwrap(), None);
    let task = scene.training(&plan());
    scene.session.say(ResearcherMessage::Task { task: Box::new(task.clone()), signature: b"nobody's".to_vec() }).await;
    assert_eq!(scene.session.hear_refusal(&task).await.code, RefusalCode::SignatureInvalid);
    assert_eq!(scene.node.store().task(&scene.world.researcher, &task.id).unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_researcher_has_so_many_open_tasks_at_most() {
    let mut scene = scene().await;
    let plan = plan();
    let first = scene.training(&plan);
    scene.played.set_down(true);
    scene.session.give(&scene.world, &first).await;
    scene.session.hear_accepted(&first).await;
    for _ in 1..256 {
        let task = scene.training(&plan);
        scene.session.give(&scene.world, &task).await;
        scene.session.hear_accepted(&task).await;
    }
    let one_more = scene.training(&plan);
    scene.session.give(&scene.world, &one_more).await;
    assert_eq!(scene.session.hear_refusal(&one_more).await.code, RefusalCode::QuotaExceeded);
    assert_eq!(scene.node.store().task(&scene.world.researcher, &one_more.id).unwrap(), None);
    scene.session.say(ResearcherMessage::Settled { task: first.id.clone() }).await;
    scene.session.give(&scene.world, &one_more).await;
    scene.session.hear_accepted(&one_more).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_computed_on_a_dataset_that_is_gone_does_not_leave() {
    let mut scene = scene().await;
    let task = scene.training(&plan());
    scene.played.set_down(true);
    scene.session.give(&scene.world, &task).await;
    scene.session.hear_accepted(&task).await;
    assert!(scene.session.is_silent().await);
    scene.node.delete_dataset(&scene.dataset).unwrap();
    scene.played.set_down(false);
    assert_eq!(scene.session.hear_refusal(&task).await.code, RefusalCode::DatasetUnknown);
    assert!(scene.played.uploads().is_empty());
}

#[tokio::test]
async fn a_full_disk_does_not_keep_work_going_that_the_hospital_stops() {
    let mut scene = scene_with(None, Blocking::Threads).await;
    let task = scene.training(&endless());
    scene.session.give(&scene.world, &task).await;
    scene.session.hear_accepted(&task).await;
    scene.node.store().watch_commits(component::database::CommitWatch::new(|_| false));
    let Reply::Failed { .. } = scene.node.answer(Request::Pause, "carer").await else { panic!("nothing can be written") };
    assert!(scene.node.is_paused().unwrap(), "it is paused all the same");
    let (stopped, answer) = oneshot::channel();
    let refusal = Refusal::new(RefusalCode::StoppedByHospital, "stopped by the hospital");
    scene.agent.handle.order(Order::Stop { task: None, refusal, stopped }).await;
    assert_eq!(answer.await, Ok(1));
    while scene.node.ledger().open_reservations() > 0 {
        tokio::task::yield_now().await;
    }
}
