//! Rounds without a network: nodes' contributions are encoded, summed as integers, decoded and averaged.

use learning::{
    Assignment, Split, Stream, Table, Validated, Validations, average, check_layout, initial, train, training_contribution,
    training_layout, validate,
};
use protocol::{Contribution, Encoding, Integers, NodeId, Purpose, Tensors, TrainingPlan, Vector, VectorSpec};
use rand::{SeedableRng, rngs::StdRng};

use crate::hospitals::{FEATURES, Hospital};

/// A hospital with its rows apart.
pub(crate) struct Site {
    pub(crate) node: NodeId,
    pub(crate) train: Table,
    pub(crate) test: Table,
}

impl Site {
    pub(crate) fn new(
        hospital: &Hospital,
        number: u64,
        plan: &TrainingPlan,
        split: &Split,
        standardisation: Option<&learning::Standardisation>,
    ) -> Self {
        Self {
            node: NodeId::random(&mut StdRng::seed_from_u64(number)),
            train: hospital.table(plan, &split.train, standardisation),
            test: hospital.table(plan, &split.test, standardisation),
        }
    }

    fn contribute(&self, plan: &TrainingPlan, round: u32, global: &Tensors) -> Contribution {
        let stream = Stream::training(plan.arguments().seed, &self.node, round);
        let assignment = Assignment { plan, table: &self.train, start: global, optimizer: None, stream };
        let trained = train(assignment, None, &mut ()).unwrap();
        let on_global = validate(plan.model(), global, &self.test).unwrap();
        let on_local = validate(plan.model(), &trained.parameters, &self.test).unwrap();
        let validations = Validations { on_global: Some(&on_global.sums), on_local: Some(&on_local.sums) };
        training_contribution(plan, self.train.len() as u64, global, &trained, validations)
    }
}

/// The sums of a round, decoded.
pub(crate) struct Sums {
    layout: Vec<VectorSpec>,
    pub(crate) vectors: Vec<Vec<f64>>,
}

impl Sums {
    pub(crate) fn of(&self, purpose: Purpose) -> Vec<Vec<f64>> {
        let found = self.layout.iter().zip(&self.vectors).filter(|(spec, _)| spec.purpose == purpose);
        found.map(|(_, vector)| vector.clone()).collect()
    }
}

/// Adds contributions as the researcher does.
pub(crate) fn sum(layout: Vec<VectorSpec>, contributions: &[Contribution]) -> Sums {
    let fold = |(index, spec): (usize, &VectorSpec)| {
        let Encoding { width, .. } = spec.encoding;
        let mut sum = Integers::zeros(width, spec.elements().unwrap());
        for contribution in contributions {
            let Vector { purpose, name, values } = &contribution.vectors[index];
            assert_eq!((*purpose, name), (spec.purpose, &spec.name));
            let mut bytes = Vec::new();
            spec.encoding.encode(values.iter().copied(), &mut bytes).unwrap();
            assert!(sum.add(width, &bytes));
        }
        sum.sums().map(|sum| spec.encoding.decode(sum)).collect()
    };
    let vectors = layout.iter().enumerate().map(fold).collect();
    Sums { layout, vectors }
}

/// One round over all sites: the new parameters and the sums.
pub(crate) fn round(plan: &TrainingPlan, sites: &[Site], number: u32, global: Tensors) -> (Tensors, Sums) {
    let rows: usize = sites.iter().map(|site| site.train.len()).sum();
    let layout = training_layout(plan, FEATURES, Some(rows as u64)).unwrap();
    check_layout(&layout, &training_layout(plan, FEATURES, None).unwrap()).unwrap();
    let contributions: Vec<Contribution> = sites.iter().map(|site| site.contribute(plan, number, &global)).collect();
    assert!(contributions.iter().all(|contribution| contribution.vectors.len() == layout.len()));
    let sums = sum(layout, &contributions);
    let weight = sums.of(Purpose::Weight)[0][0];
    (average(global, weight, sums.of(Purpose::Model)).unwrap(), sums)
}

/// Trains for some rounds from the plan's first parameters.
pub(crate) fn rounds(plan: &TrainingPlan, sites: &[Site], n_rounds: u32) -> Tensors {
    let start = initial(plan.model(), plan.precision(), FEATURES, plan.arguments().seed).unwrap();
    (1..=n_rounds).fold(start, |global, number| round(plan, sites, number, global).0)
}

pub(crate) fn validate_at(plan: &TrainingPlan, parameters: &Tensors, site: &Site) -> Validated {
    validate(plan.model(), parameters, &site.test).unwrap()
}
