//! Federated training against pooled computations and published software.

use learning::{Split, ValidationSums};
use protocol::{
    Activation, Family, Metric, ModelSpec, OptimizerSpec, Outcome, Precision, Purpose, RawTrainingPlan, Tensors,
    TrainingArguments, TrainingPlan, Validation,
};

use crate::hospitals::{FEATURES, Hospital, hospitals, standardisation};
use crate::rounds::{Site, round, rounds, validate_at};

fn plan(family: Family, precision: Precision, learning_rate: f64, arguments: TrainingArguments) -> TrainingPlan {
    TrainingPlan::new(RawTrainingPlan {
        model: ModelSpec::new(family, 0.0).unwrap(),
        precision,
        features: Vec::new(),
        target: "target".into(),
        optimizer: OptimizerSpec::Sgd { learning_rate, momentum: 0.0 },
        arguments,
        standardise: true,
        validation: Validation { on_global: true, on_local: true },
    })
    .unwrap()
}

/// One full-batch step in each round.
fn one_step() -> TrainingArguments {
    TrainingArguments { batch_size: 0, epochs: Some(1), ..TrainingArguments::default() }
}

/// All of each hospital's rows for training.
fn sites(plan: &TrainingPlan, hospitals: &[Hospital]) -> Vec<Site> {
    let standardisation = standardisation(hospitals);
    let site = |(hospital, number): (&Hospital, u64)| {
        let split = Split { train: hospital.all_rows(), test: Vec::new() };
        Site::new(hospital, number, plan, &split, Some(&standardisation))
    };
    hospitals.iter().zip(0..).map(site).collect()
}

/// Weights, then bias.
fn coefficients(parameters: &Tensors) -> Vec<f64> {
    let of = |name: &str| parameters.get(name).unwrap().scalars().to_f64();
    [of("weight"), of("bias")].concat()
}

/// Gradient descent on the stacked, standardised rows, written without this crate.
fn pooled_descent(hospitals: &[Hospital], family: &Family, learning_rate: f64, steps: usize) -> Vec<f64> {
    let standardisation = standardisation(hospitals);
    let mut rows = Vec::new();
    for hospital in hospitals {
        for row in 0..hospital.targets.len() {
            let scaled = hospital.columns.iter().zip(standardisation.means().iter().zip(standardisation.scales()));
            let features: Vec<f64> = scaled.map(|(column, (mean, scale))| (column[row] - mean) / scale).collect();
            rows.push((features, hospital.targets[row]));
        }
    }
    let mut coefficients = [0.0; FEATURES + 1];
    for _ in 0..steps {
        let mut gradient = [0.0; FEATURES + 1];
        for (features, target) in &rows {
            let score: f64 = features.iter().zip(&coefficients).map(|(value, weight)| value * weight).sum();
            let score = score + coefficients[FEATURES];
            let prediction = if *family == Family::Logistic { 1.0 / (1.0 + (-score).exp()) } else { score };
            for (own, value) in gradient.iter_mut().zip(features.iter().chain([&1.0])) {
                *own += (prediction - target) * value / rows.len() as f64;
            }
        }
        coefficients.iter_mut().zip(&gradient).for_each(|(coefficient, own)| *coefficient -= learning_rate * own);
    }
    coefficients.to_vec()
}

#[test]
fn one_full_batch_step_per_round_equals_pooled_gradient_descent_after_50_rounds() {
    let hospitals = hospitals();
    for family in [Family::Logistic, Family::Linear] {
        let plan = plan(family.clone(), Precision::Float64, 0.2, one_step());
        let federated = coefficients(&rounds(&plan, &sites(&plan, &hospitals), 50));
        let pooled = pooled_descent(&hospitals, &family, 0.2, 50);
        let largest = pooled.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        for (federated, pooled) in federated.iter().zip(&pooled) {
            assert!((federated - pooled).abs() <= 1e-9 * largest, "{federated} {pooled}");
        }
    }
}

#[test]
fn converged_federated_logistic_regression_equals_statsmodels() {
    // statsmodels 0.15.0, Logit on the 740 stacked rows: the constant, then age, sex, trestbps, chol, fbs, thalach, exang, oldpeak,
    // cp_2, cp_3, cp_4, restecg_1, restecg_2; gradient norm 4e-12.
    let expected = [
        -2.197_832_841_403_577_6,
        0.021_329_855_673_738_508,
        1.299_612_603_195_413_4,
        0.006_164_338_030_400_56,
        -0.001_942_661_743_495_747,
        0.526_596_621_375_036_5,
        -0.014_008_867_263_394_176,
        1.008_121_145_193_083_8,
        0.628_536_945_043_989_5,
        -0.418_834_253_156_563_7,
        -0.014_580_848_024_493_796,
        1.431_577_483_415_772_4,
        -0.078_207_763_582_674_3,
        0.256_039_607_618_121_1,
    ];
    let hospitals = hospitals();
    let plan = plan(Family::Logistic, Precision::Float64, 2.0, one_step());
    let fitted = coefficients(&rounds(&plan, &sites(&plan, &hospitals), 3000));
    let scaling = standardisation(&hospitals);
    let weights: Vec<f64> = fitted.iter().zip(scaling.scales()).map(|(weight, scale)| weight / scale).collect();
    let shift: f64 = weights.iter().zip(scaling.means()).map(|(weight, mean)| weight * mean).sum();
    for (found, expected) in [&[fitted[FEATURES] - shift], &weights[..]].concat().iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
}

/// Rows as the files mark them.
fn marked_sites(plan: &TrainingPlan, hospitals: &[Hospital]) -> Vec<Site> {
    let standardisation = standardisation(hospitals);
    let site = |(hospital, number): (&Hospital, u64)| {
        let split = Split::by_words(hospital.split.iter().map(|word| Some(word.as_str()))).unwrap();
        Site::new(hospital, number, plan, &split, Some(&standardisation))
    };
    hospitals.iter().zip(0..).map(site).collect()
}

#[test]
fn every_native_model_learns_from_four_hospitals() {
    let mlp = |activation| Family::Mlp { hidden: vec![8], activation, outcome: Outcome::Binary };
    let arguments = || TrainingArguments {
        epochs: Some(1),
        batch_size: 16,
        split_column: Some("split".into()),
        ..TrainingArguments::default()
    };
    for family in [Family::Logistic, mlp(Activation::Relu), mlp(Activation::Tanh)] {
        for precision in [Precision::Float32, Precision::Float64] {
            let plan = plan(family.clone(), precision, 0.05, arguments());
            let sites = marked_sites(&plan, &hospitals());
            let trained = rounds(&plan, &sites, 20);
            let (_, sums) = round(&plan, &sites, 21, trained.clone());
            for purpose in [Purpose::ValidationGlobal, Purpose::ValidationLocal] {
                let pooled = ValidationSums::from_vectors(Outcome::Binary, &sums.of(purpose)).unwrap().metrics();
                // The unpenalised pooled fit has AUC 0.881 and accuracy 0.791 on these 254 rows.
                assert_eq!(pooled.rows, 254);
                assert!(pooled.get(Metric::Auc).unwrap() > 0.84, "{family:?} {pooled:?}");
                assert!(pooled.get(Metric::Accuracy).unwrap() > 0.74, "{family:?} {pooled:?}");
                assert!(pooled.auc_error_bound.unwrap() < 0.01, "{:?}", pooled.auc_error_bound);
            }
            assert_eq!(rounds(&plan, &sites, 20), trained, "the same bits every time");
        }
    }
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
    let plan = plan(Family::Logistic, Precision::Float64, 0.05, one_step());
    let train_rows: Vec<Hospital> = hospitals.iter().map(train_only).collect();
    let scaling = standardisation(&train_rows);
    let tensor = |name: &str, values: Vec<f64>| {
        protocol::Tensor::new(name, vec![values.len()], protocol::Scalars::F64(values)).unwrap()
    };
    let parameters =
        Tensors::new(vec![tensor("weight", weight.to_vec()), tensor("bias", vec![0.130_743_736_918_446_93])]).unwrap();
    for (index, hospital) in hospitals.iter().enumerate() {
        let split = Split::by_words(hospital.split.iter().map(|word| Some(word.as_str()))).unwrap();
        let site = Site::new(hospital, 0, &plan, &split, Some(&scaling));
        let metrics = validate_at(&plan, &parameters, &site).metrics;
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
