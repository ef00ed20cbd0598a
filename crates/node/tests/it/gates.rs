//! What the policy refuses, and that its sentences say nothing of paths and values.

use node::policy::Policy;
use protocol::{
    DatasetId, Encoding, Masking, Plan, Purpose, RefusalCode, Scheme, SecureMessage, SecureStep, StatisticPlan, Task, Width,
    Work,
};
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

const MODE: &str = "FBM_SECURITY_SECURE_AGGREGATION";

/// Hides what a task gives.
fn masked(task: &mut Task) {
    let ranges = task.layout.iter().filter(|spec| spec.purpose == Purpose::Model).map(|spec| (spec.name.clone(), 3.0));
    let message = SecureMessage::new(Vec::new()).unwrap();
    task.masking = Some(Masking { scheme: Scheme::Lom, message, clipping: ranges.collect() });
}

fn exchange(task: &mut Task) {
    (task.work, task.key.phase) =
        (Work::Secure { step: SecureStep::Attest, message: SecureMessage::new(Vec::new()).unwrap() }, 3);
    (task.model, task.layout) = (None, Vec::new());
}

fn statistic(task: &mut Task) {
    let plan = Plan::Statistic(StatisticPlan::Moments { columns: vec!["age".into()] });
    (task.plan, task.work, task.model) = (plan, Work::Sums, None);
}

#[test]
fn a_hospital_that_does_not_hide_sums_refuses_all_that_belongs_to_it() {
    let not_allowed = Some(RefusalCode::SecureAggregationNotAllowed);
    let off = [(MODE, "off")];
    assert_eq!(check(&off, |_| {}, true), None);
    assert_eq!(check(&off, masked, true), not_allowed);
    assert_eq!(check(&off, exchange, true), not_allowed);
    assert_eq!(check(&[], masked, true), None);
    assert_eq!(check(&[], exchange, true), None);
    let other_scheme = |task: &mut Task| {
        masked(task);
        task.masking.as_mut().unwrap().scheme = Scheme::JoyeLibert;
    };
    assert_eq!((check(&off, other_scheme, true), check(&[], other_scheme, true)), (not_allowed, None));
}

#[test]
fn a_hospital_that_requires_hidden_sums_requires_them_of_all_work() {
    let required = [(MODE, "required")];
    let refused = Some(RefusalCode::SecureAggregationRequired);
    assert_eq!(check(&required, |_| {}, true), refused);
    assert_eq!(check(&required, |task| task.work = Work::Validate, true), refused);
    assert_eq!(check(&required, statistic, true), refused);
    let squares = |task: &mut Task| {
        statistic(task);
        task.work = Work::SquaredDifferences { means: vec![50.0] };
    };
    assert_eq!(check(&required, squares, true), refused);
    assert_eq!(check(&required, masked, true), None);
    assert_eq!(check(&required, exchange, true), None);
}

#[test]
fn a_hidden_contribution_has_a_range_for_each_vector_of_the_model_and_an_exchange_has_nothing_else() {
    let invalid = Some(RefusalCode::PlanInvalid);
    for range in [None, Some(0.0), Some(f64::NAN), Some(f64::INFINITY)] {
        let change = |task: &mut Task| {
            masked(task);
            for spec in task.layout.iter_mut().filter(|spec| spec.purpose == Purpose::Model) {
                spec.encoding = Encoding { width: Width::Bits32, exponent: 20 };
            }
            let clipping = &mut task.masking.as_mut().unwrap().clipping;
            clipping.remove("weight");
            clipping.extend(range.map(|range| ("weight".to_owned(), range)));
        };
        // JSON, which is what is signed, has no number that is not finite.
        assert_eq!(check(&[], change, true), invalid, "{range:?}");
    }
    let with = |change: fn(&mut Task)| {
        move |task: &mut Task| {
            let (model, layout) = (task.model, task.layout.clone());
            exchange(task);
            change(task);
            if task.key.round == 7 {
                task.model = model;
            } else if task.key.round == 8 {
                task.layout = layout;
            }
        }
    };
    assert_eq!(check(&[], with(|task| task.key.phase = 0), true), invalid);
    assert_eq!(check(&[], with(|task| task.key.round = 7), true), invalid, "no model");
    assert_eq!(check(&[], with(|task| task.key.round = 8), true), invalid, "no layout");
    let phased = |task: &mut Task| {
        masked(task);
        task.key.phase = 1;
    };
    assert_eq!(check(&[], phased, true), invalid);
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
