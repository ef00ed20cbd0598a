use std::sync::Arc;

use arrow_schema::{Field, Schema as ArrowSchema};
use proptest::prelude::*;
use protocol::statistic::{Batch, Column, Input, MISSING, OTHER};
use protocol::{Category, ColumnFace, ColumnKind, Level};

use super::*;
use crate::{DataError, Inputs, Schema};

fn batch() -> (Schema, RecordBatch) {
    let faces = [("i", ColumnKind::Integer), ("r", ColumnKind::Real), ("t", ColumnKind::Text)];
    let schema = Schema::new(faces.map(|(name, kind)| ColumnFace { name: name.to_owned(), kind }).to_vec()).unwrap();
    let columns: [ArrayRef; 3] = [
        Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(9_007_199_254_740_993)])),
        Arc::new(Float64Array::from(vec![Some(-0.0), Some(f64::NAN), Some(2.5), Some(9_007_199_254_740_992.0)])),
        Arc::new(StringArray::from(vec![Some("a"), Some("b"), None, Some("é")])),
    ];
    let fields = columns.iter().zip(faces).map(|(column, (name, _))| Field::new(name, column.data_type().clone(), true));
    let arrow = ArrowSchema::new(fields.collect::<Vec<_>>());
    (schema, RecordBatch::try_new(Arc::new(arrow), columns.to_vec()).unwrap())
}

fn read(inputs: &[Input], filter: Option<&str>) -> Result<Batch, DataError> {
    let (schema, batch) = batch();
    let filter: Option<Expression> = filter.map(|text| text.parse().unwrap());
    let inputs = Inputs::new(&schema, inputs, filter.as_ref())?;
    let positions = schema.positions(&inputs.columns())?;
    Ok(inputs.read(&batch.project(&positions).unwrap()))
}

/// What a number expression gives; `None` is missing.
fn check(text: &str, expected: [Option<f64>; 4]) {
    let block = read(&[Input::Number(text.parse().unwrap())], None).unwrap();
    let [Column::Numbers(found)] = &block.columns[..] else { panic!("{block:?}") };
    let found: Vec<Option<f64>> = found.iter().map(|value| Some(*value).filter(|value| !value.is_nan())).collect();
    assert_eq!(found, expected, "{text}");
}

const T: Option<f64> = Some(1.0);
const F: Option<f64> = Some(0.0);

#[test]
fn logic_has_three_values() {
    check("i > 1", [F, T, None, T]);
    check("i > 1 and r = 0", [F, None, F, F]);
    check("i > 1 or r = 0", [T, T, None, T]);
    check("i = 2 and r > 0", [F, None, None, F]);
    check("not (i = 1)", [F, T, None, T]);
    check("i is missing", [F, F, T, F]);
    check("r is missing", [F, T, F, F]);
    check("r is not missing and t is not missing", [T, F, F, T]);
    check("1 < 2", [T, T, T, T]);
    check("'a' >= 'b'", [F, F, F, F]);
    check("(i > 1) is missing", [F, F, T, F]);
}

#[test]
fn integers_are_compared_exactly() {
    check("i = 9007199254740993", [F, F, None, T]);
    check("i > 9007199254740992", [F, F, None, T]);
    check("i != 9007199254740992.0", [T, T, None, T]);
    check("i > r", [T, None, None, T]);
    check("r < i", [T, None, None, T]);
    check("1.5 < i", [F, T, None, T]);
    check("i <= 1e300 and i > -1e300", [T, T, None, T]);
    check("r = 9007199254740993", [F, None, F, F]);
    check("r in (9007199254740993, 2.5, 0)", [T, None, T, F]);
    check("i in (2.0, 9007199254740993, 1.5)", [F, T, None, T]);
    check("i not in (2)", [T, F, None, T]);
}

#[test]
fn texts_are_compared_by_code_points() {
    check("t = 'a'", [T, F, None, F]);
    check("t < 'z'", [T, T, None, F]);
    check("'b' <= t", [F, T, None, T]);
    check("t in ('é', 'b')", [F, T, None, T]);
}

#[test]
fn what_is_not_finite_is_missing() {
    check("r", [Some(0.0), None, Some(2.5), Some(9_007_199_254_740_992.0)]);
    check("1 / r", [None, None, Some(0.4), Some(1.0 / 9_007_199_254_740_992.0)]);
    check("1 / 0", [None; 4]);
    check("(1 / r) is missing", [T, T, F, F]);
    check("log(r - 2.5)", [None, None, None, Some(9_007_199_254_740_990.0_f64.ln())]);
    check(
        "sqrt(i) + pow(i, 2) - floor(abs(-i) / 2)",
        [
            Some(2.0),
            Some(2.0_f64.sqrt() + 3.0),
            None,
            Some(9_007_199_254_740_993_f64.sqrt() + 81_129_638_414_606_681_695_789_005_144_064.0 - 4_503_599_627_370_496.0),
        ],
    );
    check("exp(i * 1000)", [None; 4]);
    check("pow(i, 0.5)", [Some(1.0), Some(2.0_f64.powf(0.5)), None, Some(9_007_199_254_740_992.0_f64.powf(0.5))]);
    check("3", [Some(3.0); 4]);
}

#[test]
fn rows_are_kept_where_the_filter_is_true() {
    let category = |column: &str, levels: Vec<Level>| Input::Levels(Category::new(column.to_owned(), levels).unwrap());
    let inputs = [
        category("t", vec![Level::Text("é".to_owned()), Level::Text("b".to_owned())]),
        category("i", vec![Level::Number(2.0)]),
        category("r", vec![Level::Number(2.5), Level::Number(0.0)]),
    ];
    let codes = |rows: usize, codes: [&[u32]; 3]| Batch {
        rows,
        columns: codes.map(|codes| Column::Levels(codes.to_vec())).to_vec(),
    };
    let all = codes(4, [&[OTHER, 1, MISSING, 0], &[OTHER, 0, MISSING, OTHER], &[1, MISSING, 0, OTHER]]);
    assert_eq!(read(&inputs, None).unwrap(), all);
    assert_eq!(read(&inputs, Some("i is missing or not i is missing")).unwrap(), all);
    assert_eq!(
        read(&inputs, Some("r >= 0")).unwrap(),
        codes(3, [&[OTHER, MISSING, 0], &[OTHER, MISSING, OTHER], &[1, 0, OTHER]])
    );
    assert_eq!(read(&inputs, Some("i > 1")).unwrap().rows, 2);
    assert_eq!(read(&[], Some("t = 'zz'")).unwrap(), Batch { rows: 0, columns: Vec::new() });
    assert_eq!(read(&[], None).unwrap().rows, 4);
    assert_eq!(read(&[], Some("1 > 2")).unwrap().rows, 0);
}

#[test]
fn what_does_not_fit_the_dataset_is_said_with_the_column() {
    let number = |text: &str| [Input::Number(text.parse().unwrap())];
    let level = |column: &str, level: Level| [Input::Levels(Category::new(column.to_owned(), vec![level]).unwrap())];
    for (inputs, filter, message) in [
        (number("t"), None, "column \"t\" holds text, a number is needed"),
        (number("I + 1"), None, "the dataset has no column \"I\"; did you mean \"i\"?"),
        (number("i"), Some("t"), "`where` must be true or false for each row, as `age > 50`; found `t`"),
        (number("i"), Some("t = 1"), "`t = 1` compares a text with a number"),
        (level("age", Level::Number(1.0)), None, "the dataset has no column \"age\""),
        (level("t", Level::Number(1.0)), None, "column \"t\" holds texts, and \"1\" is no level of it"),
        (level("i", Level::Text("a".to_owned())), None, "column \"i\" holds integers, and \"a\" is no level of it"),
    ] {
        let error = read(&inputs, filter).expect_err(message);
        assert_eq!(error.to_string(), message);
        assert!(!crate::refusal(&error).to_string().is_empty());
    }
}

proptest! {
    /// The outside answer is the 128-bit integers'.
    #[test]
    fn an_integer_and_a_real_are_ordered_without_rounding(
        left in prop_oneof![any::<i64>(), (9_007_199_254_740_980_i64..9_007_199_254_741_000)],
        shift in -2_i64..3,
        right in prop_oneof![any::<f64>(), -1e20..1e20],
    ) {
        for right in [right, left as f64, left.saturating_add(shift) as f64] {
            if !right.is_finite() { continue; }
            #[expect(clippy::cast_possible_truncation, reason = "what it cannot hold is beyond every i64")]
            let floor = right.floor() as i128;
            let expected = i128::from(left).cmp(&floor).then(if right > right.floor() { Ordering::Less } else { Ordering::Equal });
            prop_assert_eq!(exactly(left, right), expected);
        }
    }
}
