//! A node that dies at any point goes on as if nothing had been.

use std::sync::Arc;

use component::blocking::Blocking;
use node::handle::NodeHandle;
use node::participant::State;
use node::store::Enrolment;
use node::workshop::Workshop;
use protocol::{DatasetId, RawTrainingPlan, RefusalCode, ResearcherMessage, Task, TrainingArguments, TrainingPlan};
use tokio::sync::mpsc;
use transport::link::LinkError;

use crate::world::{Played, PlayedSession, RunningAgent, World, heart_dataset, plan, raw_plan};

struct Scene {
    world: World,
    dataset: DatasetId,
    enrolment: Enrolment,
    played: Played,
    sessions: mpsc::UnboundedReceiver<PlayedSession>,
}

fn scene() -> Scene {
    let mut world = World::new();
    let node = world.node();
    let dataset = node.add_dataset(&heart_dataset(&world.heart("cleveland.csv"), &["heart"]), &crate::GO_ON).unwrap().row.id;
    let enrolment = world.enrol(&node);
    let (played, sessions) = Played::new(&world.researcher);
    Scene { world, dataset, enrolment, played, sessions }
}

impl Scene {
    /// A process begins: the folder is opened, the agent connects.
    async fn start(&mut self) -> (Arc<NodeHandle>, RunningAgent, PlayedSession) {
        let node = self.world.node();
        let agent = RunningAgent::start(node.clone(), self.enrolment.clone(), self.played.clone());
        (node, agent, self.sessions.recv().await.unwrap())
    }

    fn training(&mut self, plan: &TrainingPlan) -> Task {
        let (task, model) = self.world.training_task(&self.dataset, plan);
        self.played.offer(&model);
        task
    }

    /// What an undisturbed node gives.
    async fn undisturbed(&mut self, task: &Task) -> Vec<u8> {
        let (_, agent, session) = self.start().await;
        session.give(&self.world, task).await;
        let bytes = self.played.wait_for_uploads(1).await[0].1.clone();
        session.say(ResearcherMessage::Settled { task: task.id.clone() }).await;
        while !self.world.node().store().open_tasks(&self.world.researcher).unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        agent.kill().await;
        bytes
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_is_in_the_journal_before_it_is_accepted() {
    let mut scene = scene();
    let task = scene.training(&plan());
    let (node, _agent, mut session) = scene.start().await;
    session.give(&scene.world, &task).await;
    session.hear_accepted(&task).await;
    assert!(node.store().task(&scene.world.researcher, &task.id).unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_accepted_task_is_done_after_a_restart_with_the_same_bits() {
    let mut scene = scene();
    let first = scene.training(&plan());
    let expected = scene.undisturbed(&first).await;
    let task = scene.training(&plan());
    // Without its model the work cannot begin: the node dies while it waits.
    let model = task.model.unwrap();
    let (_, agent, mut session) = scene.start().await;
    scene.played.set_down(true);
    session.give(&scene.world, &task).await;
    session.hear_accepted(&task).await;
    agent.kill().await;
    scene.played.set_down(false);
    let (_, _agent, session) = scene.start().await;
    assert_eq!(session.hello.held.len(), 1, "the researcher hears that the task is held");
    let uploads = scene.played.wait_for_uploads(2).await;
    assert_eq!(uploads[1].0.task, task.id);
    assert_eq!(uploads[1].1, expected, "the same bits as undisturbed, model {}", model.digest);
}

#[tokio::test(start_paused = true)]
async fn what_was_computed_is_sent_again_and_not_computed_again() {
    let mut scene = scene();
    let task = scene.training(&plan());
    let (node, agent, mut session) = scene.start().await;
    for _ in 0..1_000 {
        scene.played.obstruct(LinkError::Broken("cut".into()));
    }
    session.give(&scene.world, &task).await;
    session.hear_accepted(&task).await;
    assert!(session.is_silent().await);
    let record = node.store().task(&scene.world.researcher, &task.id).unwrap().unwrap();
    let State::Computed(held) = record.state else { panic!("{:?}", record.state) };
    agent.kill().await;
    scene.played.clear_the_way();
    // The spool's file was not on the disk when the power went; the journal has the bytes.
    for file in std::fs::read_dir(scene.world.folder.spool()).unwrap() {
        std::fs::write(file.unwrap().path(), b"torn").unwrap();
    }
    // Nothing could be computed any more.
    std::fs::remove_file(scene.world.folder.root().join("data/cleveland.csv")).unwrap();
    let (_, _agent, _session) = scene.start().await;
    let uploads = scene.played.wait_for_uploads(1).await;
    assert_eq!(uploads[0].0.digest, held.digest);
}

#[tokio::test(start_paused = true)]
async fn a_delivered_contribution_is_not_sent_again() {
    let mut scene = scene();
    let task = scene.training(&plan());
    let (_, agent, mut session) = scene.start().await;
    session.give(&scene.world, &task).await;
    session.hear_accepted(&task).await;
    scene.played.wait_for_uploads(1).await;
    assert!(session.is_silent().await);
    agent.kill().await;
    let (_, _agent, mut session) = scene.start().await;
    assert_eq!(session.hello.held.len(), 1);
    assert!(session.is_silent().await);
    assert_eq!(scene.played.uploads().len(), 1);
    session.say(ResearcherMessage::Settled { task: task.id.clone() }).await;
    assert!(session.is_silent().await);
    drop(session);
    let session = scene.sessions.recv().await.unwrap();
    assert!(session.hello.held.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_said_again_after_a_restart_until_it_is_settled() {
    let mut scene = scene();
    let node = scene.world.node();
    node.delete_dataset(&scene.dataset).unwrap();
    let task = scene.training(&plan());
    let (_, agent, mut session) = scene.start().await;
    session.give(&scene.world, &task).await;
    assert_eq!(session.hear_refusal(&task).await.code, RefusalCode::DatasetUnknown);
    agent.kill().await;
    let (_, agent, mut session) = scene.start().await;
    assert_eq!(session.hear_refusal(&task).await.code, RefusalCode::DatasetUnknown);
    session.say(ResearcherMessage::Settled { task: task.id.clone() }).await;
    assert!(session.is_silent().await);
    agent.kill().await;
    let (_, _agent, mut session) = scene.start().await;
    assert!(session.hello.held.is_empty());
    assert!(session.is_silent().await);
}

#[tokio::test(start_paused = true)]
async fn the_rules_of_after_the_restart_hold() {
    let mut scene = scene();
    let task = scene.training(&plan());
    let (node, agent, mut session) = scene.start().await;
    for _ in 0..1_000 {
        scene.played.obstruct(LinkError::Broken("cut".into()));
    }
    session.give(&scene.world, &task).await;
    session.hear_accepted(&task).await;
    assert!(session.is_silent().await);
    agent.kill().await;
    node.store().set_mark("paused", node.now()).unwrap();
    let (_, _agent, mut session) = scene.start().await;
    assert_eq!(session.hear_refusal(&task).await.code, RefusalCode::StoppedByHospital);
    assert!(session.is_silent().await);
    assert!(scene.played.uploads().is_empty());
}

#[tokio::test]
async fn a_training_that_was_killed_goes_on_from_its_checkpoint_with_the_same_bits() {
    let mut scene = scene();
    let arguments = TrainingArguments { epochs: Some(400), test_ratio: 0.0, ..raw_plan().arguments };
    let plan = TrainingPlan::new(RawTrainingPlan { arguments, ..raw_plan() }).unwrap();
    let first = scene.training(&plan);
    let expected = scene.undisturbed(&first).await;
    let task = scene.training(&plan);
    let node = scene.world.node();
    let agent = RunningAgent::start_with(node.clone(), scene.enrolment.clone(), scene.played.clone(), Blocking::Threads);
    let mut session = scene.sessions.recv().await.unwrap();
    session.give(&scene.world, &task).await;
    session.hear_accepted(&task).await;
    let experiment = scene.world.folder.experiments().join(format!("{}.{}", scene.world.researcher, scene.world.experiment));
    // Each look moves the clock by a second, so that every pass may write a checkpoint.
    while !experiment.exists() && scene.played.uploads().len() < 2 {
        scene.world.clock.advance(std::time::Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    agent.kill().await;
    let (_, _agent, _session) = scene.start().await;
    assert_eq!(scene.played.wait_for_uploads(2).await[1].1, expected);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ended_the_node_three_times_is_given_up() {
    let mut scene = scene();
    let task = scene.training(&plan());
    let (node, agent, mut session) = scene.start().await;
    scene.played.set_down(true);
    session.give(&scene.world, &task).await;
    session.hear_accepted(&task).await;
    agent.kill().await;
    // As the work does at its begin, before the machine has no memory left.
    for _ in 0..3 {
        node.store().begin_task(&scene.world.researcher, &task.id).unwrap();
    }
    drop(node);
    scene.played.set_down(false);
    let (_, _agent, mut session) = scene.start().await;
    assert_eq!(session.hear_refusal(&task).await.code, RefusalCode::Internal);
    let next = scene.training(&plan());
    session.give(&scene.world, &next).await;
    session.hear_accepted(&next).await;
    scene.played.wait_for_uploads(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_researcher_that_does_not_send_its_model_holds_up_nobody_else() {
    let mut scene = scene();
    let node = scene.world.node();
    let workshop = Arc::new(Workshop::new(Blocking::Inline, 1));
    let silent = scene.enrolment.clone();
    let task = scene.training(&plan());
    let _first = RunningAgent::start_in(node.clone(), silent, scene.played.clone(), workshop.clone());
    let mut session = scene.sessions.recv().await.unwrap();
    scene.played.set_down(true);
    session.give(&scene.world, &task).await;
    session.hear_accepted(&task).await;
    // The same machine, another researcher: it has the turn that the first one does not use.
    let turn = workshop.turn(&task.work);
    tokio::time::timeout(std::time::Duration::from_secs(1), turn).await.expect("the lane is free");
}

#[tokio::test(start_paused = true)]
async fn tasks_of_a_dataset_that_is_taken_away_are_stopped() {
    let mut scene = scene();
    let task = scene.training(&plan());
    let (node, agent, mut session) = scene.start().await;
    scene.played.set_down(true);
    session.give(&scene.world, &task).await;
    session.hear_accepted(&task).await;
    agent.kill().await;
    let request = node::command::Request::DeleteDataset { dataset: scene.dataset.clone() };
    assert!(matches!(node.answer(request, "carer").await, node::command::Reply::Done { .. }));
    let records = node.store().open_tasks(&scene.world.researcher).unwrap();
    assert!(matches!(&records[0].state, State::Refused(refusal) if refusal.code == RefusalCode::StoppedByHospital));
}
