//! What the policy refuses, and that its sentences say nothing of paths and values.

use node::policy::Policy;
use protocol::{DatasetId, Plan, RefusalCode, StatisticPlan, Task, Work};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::world::{World, heart_dataset, plan};

struct Asked {
    world: World,
    task: Task,
}

fn asked() -> Asked {
    let mut world = World::new();
    let node = world.node();
    let id = node.add_dataset(&heart_dataset(&world.heart("cleveland.csv"), &["heart"]), &crate::GO_ON).unwrap().row.id;
    let (task, _) = world.training_task(&id, &plan());
    Asked { world, task }
}

/// Asks the policy with the given changes to the world and to the task, signed unless told otherwise.
fn check(env: &[(&str, &str)], change: impl FnOnce(&mut Task), is_signed: bool) -> Option<RefusalCode> {
    let Asked { mut world, mut task } = asked();
    world.env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let node = world.node();
    let enrolment = world.enrol(&node);
    let signature = world.sign(&task);
    change(&mut task);
    let signature = if is_signed { world.sign(&task) } else { signature };
    let decision = Policy::of(node.config()).admit(&node, &enrolment, &task, &signature);
    let lines = component::audit::AuditLog::tail(&world.folder.audit_file(), 1).unwrap();
    assert_eq!(lines[0].facts["requester"], "ada");
    assert_eq!(lines[0].facts["researcher"], world.researcher.as_str());
    match decision {
        Ok(permit) => {
            assert_eq!(node.ledger().open_reservations(), 1);
            drop(permit);
            assert_eq!(node.ledger().open_reservations(), 0);
            assert_eq!(lines[0].event, "task.admitted");
            None
        }
        Err(refusal) => {
            assert!(!refusal.sentence.contains("hospital-north") && !refusal.sentence.contains("303"), "{refusal}");
            assert_eq!(lines[0].facts["decision"], refusal.code.name());
            assert_eq!(lines[0].event, "task.refused");
            Some(refusal.code)
        }
    }
}

#[test]
fn a_task_that_fits_all_rules_is_admitted() {
    assert_eq!(check(&[], |_| {}, true), None);
    assert_eq!(check(&[("FBM_SECURITY_MINIMUM_SAMPLES", "303")], |_| {}, true), None);
}

#[test]
fn a_task_that_was_changed_on_its_way_is_refused() {
    let change = |task: &mut Task| task.requester.user = "mallory".into();
    let Asked { mut world, mut task } = asked();
    let node = world.node();
    let enrolment = world.enrol(&node);
    let signature = world.sign(&task);
    change(&mut task);
    let refusal = node.policy().admit(&node, &enrolment, &task, &signature).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::SignatureInvalid);
    assert_eq!(check(&[], |task| task.key.round = 9, false), Some(RefusalCode::SignatureInvalid));
}

#[test]
fn a_task_that_is_signed_for_another_node_is_refused() {
    let other = "NODE_00000000-0000-4000-8000-000000000009";
    assert_eq!(check(&[], |task| task.node = other.parse().unwrap(), true), Some(RefusalCode::OtherNode));
}

#[test]
fn the_hospitals_rules_hold() {
    let other = "RESEARCHER_00000000-0000-4000-8000-000000000009";
    assert_eq!(check(&[("FBM_SECURITY_ALLOWED_RESEARCHERS", other)], |_| {}, true), Some(RefusalCode::ResearcherNotAllowed));
    assert_eq!(
        check(&[("FBM_SECURITY_ALLOWED_PLAN_KINDS", "statistic")], |_| {}, true),
        Some(RefusalCode::PlanKindNotAllowed)
    );
    assert_eq!(check(&[("FBM_SECURITY_MINIMUM_SAMPLES", "304")], |_| {}, true), Some(RefusalCode::TooFewSamples));
    let unknown = DatasetId::random(&mut StdRng::seed_from_u64(1));
    assert_eq!(check(&[], |task| task.dataset = unknown, true), Some(RefusalCode::DatasetUnknown));
}

#[test]
fn work_that_does_not_belong_to_the_plan_is_refused() {
    assert_eq!(check(&[], |task| task.work = Work::Sums, true), Some(RefusalCode::PlanInvalid));
    assert_eq!(check(&[], |task| task.model = None, true), Some(RefusalCode::PlanInvalid));
    let statistic = Plan::Statistic(StatisticPlan::Moments { columns: vec!["age".into()] });
    assert_eq!(check(&[], |task| task.plan = statistic.clone(), true), Some(RefusalCode::PlanInvalid));
    let with_model = |task: &mut Task| (task.plan, task.work) = (statistic.clone(), Work::Sums);
    assert_eq!(check(&[], with_model, true), Some(RefusalCode::PlanInvalid), "a statistic has no model to wait for");
    let without = |task: &mut Task| (task.plan, task.work, task.model) = (statistic.clone(), Work::Sums, None);
    assert_eq!(check(&[], without, true), None);
}

#[test]
fn what_would_not_fit_on_the_disk_is_refused() {
    let huge = |task: &mut Task| task.layout[0].shape = vec![1 << 40];
    assert_eq!(check(&[], huge, true), Some(RefusalCode::TooLarge));
    assert_eq!(
        check(&[("FBM_STORAGE_QUOTA_MIB", "1")], |task| task.model.as_mut().unwrap().bytes = 2 << 20, true),
        Some(RefusalCode::TooLarge)
    );
}

#[test]
fn what_would_not_fit_in_memory_is_refused() {
    let mib = |mib: &'static str| [("FBM_TRAINING_MEMORY_MIB", mib)];
    let model_of = |bytes: u64| move |task: &mut Task| task.model.as_mut().unwrap().bytes = bytes;
    assert_eq!(check(&mib("1"), |_| {}, true), None);
    assert_eq!(check(&mib("1"), model_of(200_000), true), Some(RefusalCode::TooLarge), "six copies are one MiB and more");
    assert_eq!(check(&mib("2"), model_of(200_000), true), None);
    assert_eq!(check(&[], model_of(200_000), true), None, "half of the machine's memory is enough for that");
}

#[test]
fn a_dataset_that_a_researcher_may_not_see_is_unknown_to_it() {
    let mut world = World::new();
    let node = world.node();
    let mut new = heart_dataset(&world.heart("cleveland.csv"), &["heart"]);
    new.visible_to = vec!["RESEARCHER_00000000-0000-4000-8000-000000000009".parse().unwrap()];
    let id = node.add_dataset(&new, &crate::GO_ON).unwrap().row.id;
    let enrolment = world.enrol(&node);
    let (task, _) = world.training_task(&id, &plan());
    let refusal = node.policy().admit(&node, &enrolment, &task, &world.sign(&task)).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::DatasetUnknown);
}
