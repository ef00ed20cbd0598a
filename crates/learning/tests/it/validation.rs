//! Validation on the held-out rows of four hospitals, against published software.

use learning::{Split, validate};
use protocol::{
    Family, Metric, ModelSpec, OptimizerSpec, Precision, RawTrainingPlan, Scalars, Tensor, Tensors, TrainingArguments,
    TrainingPlan, Validation,
};

use crate::hospitals::{Hospital, hospitals, standardisation};

fn plan() -> TrainingPlan {
    TrainingPlan::new(RawTrainingPlan {
        model: ModelSpec::new(Family::Logistic, 0.0).unwrap(),
        precision: Precision::Float64,
        features: Vec::new(),
        target: "target".into(),
        optimizer: OptimizerSpec::Sgd { learning_rate: 0.05, momentum: 0.0 },
        arguments: TrainingArguments::default(),
        standardise: true,
        validation: Validation::default(),
    })
    .unwrap()
}

#[test]
fn a_validation_of_the_pooled_fit_equals_scikit_learn() {
    // scikit-learn 1.9.1: LogisticRegression without penalty on the 486 marked training rows, standardised by their own mean
    // and deviation; roc_auc_score and accuracy_score on the marked test rows of each hospital.
    let weight = [
        0.214_227_895_100_628_62,
        0.547_252_955_861_013_6,
        0.037_576_340_935_867_87,
        -0.075_171_586_399_821_7,
        0.240_474_382_243_530_9,
        -0.329_932_254_220_130_2,
        0.637_198_765_944_050_9,
        0.550_415_576_824_390_5,
        -0.161_942_231_959_223_53,
        0.051_049_983_645_101_05,
        0.686_839_924_993_402_9,
        0.105_263_459_490_744_73,
        0.190_291_418_005_353_12,
    ];
    let auc = [0.864_211_309_523_809_5, 0.876_082_251_082_251_1, 0.933_333_333_333_333_3, 0.777_142_857_142_857_1];
    let accuracy = [0.769_230_769_230_769_3, 0.797_752_808_988_764, 0.8125, 0.822_222_222_222_222_2];
    let hospitals = hospitals();
    let plan = plan();
    let train_rows: Vec<Hospital> = hospitals.iter().map(train_only).collect();
    let scaling = standardisation(&train_rows);
    let tensor = |name: &str, values: Vec<f64>| Tensor::new(name, vec![values.len()], Scalars::F64(values)).unwrap();
    let parameters =
        Tensors::new(vec![tensor("weight", weight.to_vec()), tensor("bias", vec![0.130_743_736_918_446_93])]).unwrap();
    for (index, hospital) in hospitals.iter().enumerate() {
        let split = Split::by_words(hospital.split.iter().map(|word| Some(word.as_str()))).unwrap();
        let test_rows = hospital.table(&plan, &split.test, Some(&scaling));
        let metrics = validate(plan.model(), &parameters, &test_rows).unwrap().metrics;
        assert!((metrics.get(Metric::Auc).unwrap() - auc[index]).abs() < 1e-12, "{index} {metrics:?}");
        assert!((metrics.get(Metric::Accuracy).unwrap() - accuracy[index]).abs() < 1e-12, "{index} {metrics:?}");
    }
}

fn train_only(hospital: &Hospital) -> Hospital {
    let is_train = |row: &usize| hospital.split[*row] == "train";
    let rows: Vec<usize> = (0..hospital.targets.len()).filter(is_train).collect();
    let pick = |column: &Vec<f64>| rows.iter().map(|row| column[*row]).collect();
    Hospital {
        columns: hospital.columns.iter().map(pick).collect(),
        targets: pick(&hospital.targets),
        split: vec!["train".into(); rows.len()],
    }
}
