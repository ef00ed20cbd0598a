//! A model and a checkpoint from strangers, put to use: training and validation on a node.

use learning::{Assignment, Checkpoint, Standardisation, Stream, Table, train, validate};
use protocol::{
    Activation, Family, ModelSpec, NodeId, OptimizerSpec, Outcome, Precision, RawTrainingPlan, Tensors, TrainingArguments,
    TrainingPlan, Validation,
};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Takes a choice of plan, a model and then a checkpoint from the bytes; trains and validates with them.
pub fn check(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let Some((model, checkpoint)) = super::split(rest) else { return };
    let Ok(tensors) = Tensors::from_bytes(model) else { return };
    let Ok((start, standardisation)) = Standardisation::detach(tensors) else { return };
    let plan = plan(*choice);
    let columns: [&[f64]; 2] = [&[1.0, -2.0, 0.5, 3.0], &[0.0, 1.0, 1.0, -1.0]];
    let kind = (plan.model().outcome(), plan.precision());
    let targets = [0.0, 1.0, 1.0, 0.0];
    let Ok(table) = Table::from_columns(kind, &columns, &targets, &[0, 1, 2, 3], standardisation.as_ref()) else { return };
    drop(validate(plan.model(), &start, &table));
    let stream = Stream::training(0, &NodeId::random(&mut StdRng::seed_from_u64(1)), 1);
    let assignment = Assignment { plan: &plan, table: &table, start: &start, stream };
    let checkpoint = Tensors::from_bytes(checkpoint).ok().and_then(|it| Checkpoint::from_tensors(it).ok());
    for checkpoint in [None, checkpoint.as_ref()] {
        if let Ok(trained) = train(assignment, checkpoint, &mut ()) {
            let mut values = trained.parameters.iter().flat_map(|tensor| tensor.scalars().to_f64());
            assert!(values.all(f64::is_finite), "a training that ends gives numbers");
        }
    }
}

fn plan(choice: u8) -> TrainingPlan {
    let family = match choice % 4 {
        0 => Family::Linear,
        1 => Family::Logistic,
        2 => Family::Multinomial { classes: 2 },
        _ => Family::Mlp { hidden: vec![2], activation: Activation::Tanh, outcome: Outcome::Binary },
    };
    let optimizer = if choice & 4 == 0 {
        OptimizerSpec::Sgd { learning_rate: 0.1, momentum: 0.9 }
    } else {
        OptimizerSpec::Adam { learning_rate: 0.1, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    };
    let raw = RawTrainingPlan {
        model: ModelSpec::new(family, 0.01).expect("the penalty is a number"),
        precision: if choice & 8 == 0 { Precision::Float32 } else { Precision::Float64 },
        features: vec!["a".to_owned(), "b".to_owned()],
        target: "c".to_owned(),
        optimizer,
        arguments: TrainingArguments { epochs: Some(3), batch_size: 2, ..TrainingArguments::default() },
        standardise: false,
        validation: Validation::default(),
    };
    TrainingPlan::new(raw).expect("the plan is a good one")
}
