//! How many trainings run at once.

use std::sync::Arc;

use component::blocking::Blocking;
use node::workshop::Workshop;
use protocol::{
    NodeMessage, Plan, RawTrainingPlan, Refusal, RefusalCode, ResearcherMessage, SecureMessage, SecureStep,
    TrainingArguments, TrainingPlan, Work,
};

use crate::world::{Played, RunningAgent, World, heart_dataset, plan, raw_plan};

#[tokio::test]
async fn two_trainings_run_at_once_where_the_hospital_allows_two() {
    let mut world = World::new();
    let node = world.node();
    let dataset = node.add_dataset(&heart_dataset(&world.heart("cleveland.csv"), &["heart"]), &crate::GO_ON).unwrap().row.id;
    let enrolment = world.enrol(&node);
    let (played, mut sessions) = Played::new(&world.researcher);
    let workshop = Arc::new(Workshop::new(Blocking::Threads, 2));
    let agent = RunningAgent::start_in(node, enrolment, played.clone(), workshop);
    let mut session = sessions.recv().await.unwrap();
    let endless = TrainingArguments { epochs: Some(u32::MAX), ..raw_plan().arguments };
    let endless = TrainingPlan::new(RawTrainingPlan { arguments: endless, ..raw_plan() }).unwrap();
    let [first, second] = [endless, plan()].map(|plan| {
        let (task, model) = world.training_task(&dataset, &plan);
        played.offer(&model);
        task
    });
    for task in [&first, &second] {
        session.give(&world, task).await;
        session.hear_accepted(task).await;
    }
    assert_eq!(played.wait_for_uploads(1).await[0].0.task, second.id);
    assert_eq!(agent.handle.state().running.map(|running| running.task), Some(first.id.clone()));
    let refusal = Refusal::new(RefusalCode::Cancelled, "by ada");
    session.say(ResearcherMessage::Cancel { task: first.id.clone(), refusal }).await;
    assert_eq!(session.hear_refusal(&first).await.code, RefusalCode::Cancelled);
}

#[tokio::test]
async fn keys_of_hidden_sums_are_agreed_while_a_node_trains() {
    let mut world = World::new();
    let node = world.node();
    let dataset = node.add_dataset(&heart_dataset(&world.heart("cleveland.csv"), &["heart"]), &crate::GO_ON).unwrap().row.id;
    let enrolment = world.enrol(&node);
    let (played, mut sessions) = Played::new(&world.researcher);
    let agent = RunningAgent::start_in(node, enrolment, played.clone(), Arc::new(Workshop::new(Blocking::Threads, 1)));
    let mut session = sessions.recv().await.unwrap();
    let endless = TrainingArguments { epochs: Some(u32::MAX), ..raw_plan().arguments };
    let endless = TrainingPlan::new(RawTrainingPlan { arguments: endless, ..raw_plan() }).unwrap();
    let (training, model) = world.training_task(&dataset, &endless);
    played.offer(&model);
    session.give(&world, &training).await;
    session.hear_accepted(&training).await;
    let message = SecureMessage::new(Vec::new()).unwrap();
    let work = Work::Secure { step: SecureStep::Agree, message };
    let mut agree = world.task(&dataset, Plan::Training(plan()), work, None, Vec::new());
    agree.key.phase = SecureStep::Agree.phase();
    session.give(&world, &agree).await;
    loop {
        match session.hear().await {
            NodeMessage::Answered { task, .. } if task == agree.id => break,
            NodeMessage::Accepted { .. } | NodeMessage::Progress { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(agent.handle.state().running.map(|running| running.task), Some(training.id.clone()), "it trains on");
    let refusal = Refusal::new(RefusalCode::Cancelled, "by ada");
    session.say(ResearcherMessage::Cancel { task: training.id.clone(), refusal }).await;
    assert_eq!(session.hear_refusal(&training).await.code, RefusalCode::Cancelled);
}
