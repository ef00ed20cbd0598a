use proptest::prelude::*;
use protocol::Integers;

use super::*;

/// Sums contributions as the researcher does.
fn sum(work: &Work, n_columns: usize, contributions: &[Contribution]) -> Vec<Vec<f64>> {
    let fold = |(index, spec): (usize, &VectorSpec)| {
        let mut sum = Integers::zeros(spec.encoding.width, spec.elements().unwrap());
        for contribution in contributions {
            assert_eq!(contribution.vectors[index].name, spec.name);
            let mut bytes = Vec::new();
            spec.encoding.encode(contribution.vectors[index].values.iter().copied(), &mut bytes).unwrap();
            assert!(sum.add(spec.encoding.width, &bytes));
        }
        sum.sums().map(|sum| spec.encoding.decode(sum)).collect()
    };
    layout(work, n_columns).unwrap().iter().enumerate().map(fold).collect()
}

/// Both passes over sites; each site is a list of columns.
fn moments(sites: &[Vec<Vec<f64>>]) -> Moments {
    let mut work = first_work();
    loop {
        let contribute = |site: &Vec<Vec<f64>>| {
            let columns: Vec<&[f64]> = site.iter().map(Vec::as_slice).collect();
            contribute(&work, &columns).unwrap()
        };
        let contributions: Vec<Contribution> = sites.iter().map(contribute).collect();
        match step(&work, &sum(&work, sites[0].len(), &contributions)).unwrap() {
            Step::Ask(next) => work = next,
            Step::Done(moments) => return moments,
        }
    }
}

/// The columns of one hospital's file, without the split column.
fn hospital(name: &str) -> Vec<Vec<f64>> {
    let path = format!("{}/../../examples/heart-disease/{name}.csv", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let mut columns = vec![Vec::new(); 14];
    for line in text.lines().skip(1) {
        for (column, cell) in columns.iter_mut().zip(line.split(',').skip(1)) {
            column.push(cell.parse().unwrap());
        }
    }
    columns
}

#[test]
fn moments_of_four_hospitals_equal_pandas() {
    // pandas 2.3.3 on the 740 stacked rows: mean() and var() (divisor n - 1) of age, sex, trestbps, chol, fbs, thalach, exang,
    // oldpeak, cp_2, cp_3, cp_4, restecg_1, restecg_2 and target.
    let expected = [
        (53.097_297_297_297_295, 88.512_847_896_956_56),
        (0.764_864_864_864_864_8, 0.180_089_968_197_984_42),
        (132.754_054_054_054_05, 345.262_838_752_148_64),
        (220.136_486_486_486_5, 8_763.684_999_817_136),
        (0.15, 0.127_672_530_446_549_4),
        (138.744_594_594_594_6, 668.019_930_146_655_5),
        (0.4, 0.240_324_763_193_504_76),
        (0.894_324_324_324_324_3, 1.181_916_322_276_268),
        (0.202_702_702_702_702_7, 0.161_833_010_276_853_3),
        (0.217_567_567_567_567_57, 0.170_462_275_536_700_43),
        (0.529_729_729_729_729_8, 0.249_453_242_146_070_31),
        (0.162_162_162_162_162_16, 0.136_049_445_927_659_72),
        (0.236_486_486_486_486_49, 0.180_804_959_221_738_7),
        (0.517_567_567_567_567_6, 0.250_029_257_945_360_8),
    ];
    let moments = moments(&["cleveland", "hungarian", "switzerland", "va"].map(hospital));
    assert_eq!(moments.columns.len(), expected.len());
    for (column, (mean, variance)) in moments.columns.iter().zip(expected) {
        assert_eq!(column.count, 740);
        assert!((column.mean.unwrap() - mean).abs() <= 1e-10 * mean, "{column:?} {mean}");
        assert!((column.variance().unwrap() - variance).abs() <= 1e-10 * variance, "{column:?} {variance}");
    }
}

#[test]
fn a_large_mean_costs_no_digits() {
    // Chan, Golub and LeVeque's difficulty: the deviation is 10⁹ times smaller than the mean.
    let column: Vec<f64> = (0..1000).map(|index| 1e9 + f64::from(index % 2)).collect();
    let moments = moments(&[vec![column]]);
    assert_eq!(moments.columns[0].mean, Some(1e9 + 0.5));
    assert!((moments.columns[0].variance().unwrap() - 250.0 / 999.0).abs() < 1e-15);
}

#[test]
fn columns_without_values_have_no_mean_and_one_value_no_variance() {
    let moments = moments(&[vec![vec![], vec![4.0]], vec![vec![], vec![]]]);
    assert_eq!((moments.columns[0].count, moments.columns[0].mean), (0, None));
    assert_eq!((moments.columns[0].variance(), moments.columns[0].population_deviation()), (None, None));
    assert_eq!((moments.columns[1].mean, moments.columns[1].variance()), (Some(4.0), None));
    assert_eq!(moments.columns[1].population_deviation(), Some(0.0));
}

#[test]
fn other_works_vectors_and_values_are_refused() {
    assert_eq!(layout(&Work::Validate, 1), Err(MomentsError::OtherWork));
    assert_eq!(contribute(&Work::Train { training_round: 1 }, &[]), Err(MomentsError::OtherWork));
    assert_eq!(contribute(&Work::Sums, &[&[f64::NAN]]), Err(MomentsError::NotFinite));
    let second = Work::SquaredDifferences { means: vec![0.0] };
    assert_eq!(contribute(&second, &[]), Err(MomentsError::Columns { expected: 1, found: 0 }));
    assert_eq!(step(&Work::Sums, &[]), Err(MomentsError::Vector { expected: "counts" }));
    assert_eq!(step(&Work::Sums, &[vec![0.5], vec![1.0]]), Err(MomentsError::Vector { expected: "counts" }));
    assert_eq!(step(&Work::Sums, &[vec![1.0], vec![]]), Err(MomentsError::Columns { expected: 1, found: 0 }));
    assert_eq!(step(&second, &[vec![1.0], vec![-1.0]]), Err(MomentsError::Vector { expected: "squared_differences" }));
}

proptest! {
    #[test]
    fn any_split_of_rows_over_sites_gives_the_same_moments(rows in proptest::collection::vec((-1e6..1e6_f64, 0_usize..4), 2..60)) {
        let site = |number: usize| vec![rows.iter().filter(|row| row.1 == number).map(|row| row.0).collect::<Vec<f64>>()];
        let split = moments(&[site(0), site(1), site(2), site(3)]).columns[0];
        let whole = moments(&[vec![rows.iter().map(|row| row.0).collect()]]).columns[0];
        prop_assert_eq!(split.count, whole.count);
        prop_assert!((split.mean.unwrap() - whole.mean.unwrap()).abs() <= 1e-9);
        let (split, whole) = (split.variance().unwrap(), whole.variance().unwrap());
        prop_assert!((split - whole).abs() <= 1e-12 * whole, "{} {}", split, whole);
    }
}
