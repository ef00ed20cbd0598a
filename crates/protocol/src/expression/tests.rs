use proptest::prelude::*;

use super::*;
use crate::dataset::ColumnKind;

fn check(text: &str, written: &str) {
    let expression: Expression = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(expression.to_string(), written, "{text}");
    assert_eq!(written.parse::<Expression>().as_ref(), Ok(&expression), "{written}");
}

fn check_error(text: &str, message: &str) {
    assert_eq!(text.parse::<Expression>().expect_err(text).to_string(), message);
}

#[test]
fn texts_are_read_and_written_in_one_form() {
    for (text, written) in [
        ("age>50 AND sex=1", "age > 50 and sex = 1"),
        ("a or b = 1 and not c < 2", "a or b = 1 and not c < 2"),
        ("(a = 1 or b = 1) and c = 1", "(a = 1 or b = 1) and c = 1"),
        ("a - (b - c) - d", "a - (b - c) - d"),
        ("(a*b)/(c*d)", "a * b / (c * d)"),
        ("-5 - -x * -(3)", "-5 - -x * -(3)"),
        ("- (a + b)", "-(a + b)"),
        ("x not in (1, -2.5, 1e300)", "x not in (1, -2.5, 1e300)"),
        ("not x in ('it''s', '')", "x not in ('it''s', '')"),
        ("thal is MISSING or thal is not missing", "thal is missing or thal is not missing"),
        ("\"chest pain\" = 'a' and \"in\" = 2 and \"a\"\"b\" = 1", "\"chest pain\" = 'a' and \"in\" = 2 and \"a\"\"b\" = 1"),
        ("log = 1 and missing = 2 and é_1.x = .5", "log = 1 and missing = 2 and é_1.x = 0.5"),
        ("pow(log(x) + 1, -2) >= floor(abs(sqrt(exp(y))))", "pow(log(x) + 1, -2) >= floor(abs(sqrt(exp(y))))"),
        ("pow(x, 0.5) = 9223372036854775807", "pow(x, 0.5) = 9223372036854775807"),
        ("x = -9223372036854775808", "x = -9223372036854775808"),
        ("x = 9223372036854775808", "x = 9.223372036854776e18"),
        ("not not (a = 1)", "not not a = 1"),
        ("((((a))))", "a"),
    ] {
        check(text, written);
    }
}

#[test]
fn errors_name_the_place_and_what_was_expected() {
    const OPERAND: &str = "a number, a text in '…', a column, a function or `(`";
    for (text, message) in [
        ("", &*format!("character 1: expected {OPERAND}, found the end")),
        ("age >", &*format!("character 6: expected {OPERAND}, found the end")),
        ("äge == 5", "character 5: expected `=` for equality, found `==`"),
        ("1 < x < 3", "character 7: expected an operator or the end, found `<`"),
        ("a b", "character 3: expected an operator or the end, found `b`"),
        ("(a", "character 3: expected an operator or `)`, found the end"),
        ("a = 'x", "character 5: expected a closing ', found the end"),
        ("sleep(5) = 1", "character 1: expected one of the functions log, exp, sqrt, abs, floor and pow, found `sleep`"),
        ("x in (select 1)", "character 7: expected a number or a text, found `select`"),
        ("x in (1, 'a')", "character 10: expected a number, like the first of the list, found the text 'a'"),
        ("x in ()", "character 7: expected a number or a text, found `)`"),
        ("x is null", "character 6: expected `missing` or `not missing`, found `null`"),
        ("pow(x, y)", "character 8: expected the exponent, a number, found `y`"),
        ("x = 1e999", "character 5: expected a number within float64, found `1e999`"),
        ("x; drop table t", "character 2: expected a number, a text in '…', a column, or a sign of the grammar, found ';'"),
        ("1 + not a", &*format!("character 5: expected {OPERAND}, found `not`")),
    ] {
        check_error(text, message);
    }
}

#[test]
fn length_and_depth_are_bounded() {
    check_error(&"a".repeat(9_000), "expected at most 8192 bytes, found 9000");
    for nest in ["(", "-", "not ", "log("] {
        let text = nest.repeat(1_500);
        assert!(matches!(text.parse::<Expression>(), Err(ExpressionError::TooDeep { .. })), "{nest}");
    }
    let chain = vec!["a"; 500].join(" + ");
    assert!(matches!(chain.parse::<Expression>(), Err(ExpressionError::TooDeep { .. })));
    assert!(vec!["a"; 99].join(" + ").parse::<Expression>().is_ok());
}

#[test]
fn kinds_are_checked_against_the_columns() {
    let kind_of = |name: &str| match name {
        "age" => Some(ColumnKind::Integer),
        "chol" => Some(ColumnKind::Real),
        "sex" => Some(ColumnKind::Text),
        _ => None,
    };
    let kind = |text: &str| text.parse::<Expression>().unwrap().kind(&kind_of);
    assert_eq!(kind("age + chol"), Ok(ValueKind::Number));
    assert_eq!(kind("sex"), Ok(ValueKind::Text));
    assert_eq!(kind("age > 50 and not sex in ('f') or sex is missing"), Ok(ValueKind::Truth));
    for (text, message) in [
        ("agee > 50", "the dataset has no column \"agee\""),
        ("sex + 1", "`sex` is a text, a number is needed"),
        ("age and sex = 'f'", "`age` is a number, true or false is needed"),
        ("sex = 1", "`sex = 1` compares a text with a number"),
        ("age in ('1')", "`age in ('1')` compares a number with a text"),
        ("(age = 1) = (chol = 2)", "`(age = 1) = (chol = 2)` compares true or false with true or false"),
        ("log(sex) = 1", "`sex` is a text, a number is needed"),
    ] {
        assert_eq!(kind(text).expect_err(text).to_string(), message);
    }
}

#[test]
fn columns_are_listed_once() {
    let expression: Expression = "b + a > log(b) and c in (1) or \"d e\" is missing".parse().unwrap();
    assert_eq!(expression.columns(), ["b", "a", "c", "d e"]);
    assert_eq!(Expression::column("d e").as_column(), Some("d e"));
}

fn literals() -> impl Strategy<Value = Literal> {
    prop_oneof![
        any::<i64>().prop_map(Literal::Integer),
        any::<f64>().prop_filter("finite", |real| real.is_finite()).prop_map(Literal::Real),
        ".{0,5}".prop_map(Literal::Text),
    ]
}

/// Any expression, whether or not its kinds fit.
fn expressions() -> impl Strategy<Value = Expression> {
    let leaf = prop_oneof![
        literals().prop_map(Node::Literal),
        prop_oneof![".{1,5}", "[a-c]", Just("not".to_owned()), Just("log".to_owned())].prop_map(Node::Column),
    ]
    .prop_map(|node| Expression::new(node).unwrap());
    leaf.prop_recursive(8, 64, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        let arithmetic =
            prop::sample::select(vec![Arithmetic::Add, Arithmetic::Subtract, Arithmetic::Multiply, Arithmetic::Divide]);
        let comparison = prop::sample::select(vec![Comparison::Equal, Comparison::NotEqual, Comparison::LessOrEqual]);
        let exponent = any::<f64>().prop_filter("finite", |exponent| exponent.is_finite());
        prop_oneof![
            inner.clone().prop_map(Node::Negate),
            (arithmetic, pair.clone()).prop_map(|(sign, (left, right))| Node::Arithmetic(sign, left, right)),
            (prop::sample::select(Function::ALL.to_vec()), inner.clone()).prop_map(|(name, x)| Node::Call(name, x)),
            (inner.clone(), exponent).prop_map(|(x, exponent)| Node::Power(x, exponent)),
            (comparison, pair.clone()).prop_map(|(sign, (left, right))| Node::Compare(sign, left, right)),
            (inner.clone(), prop::collection::vec(any::<i64>().prop_map(Literal::Integer), 1..4))
                .prop_map(|(value, list)| Node::In(value, list)),
            (inner.clone(), prop::collection::vec(".{0,3}".prop_map(Literal::Text), 1..4))
                .prop_map(|(value, list)| Node::In(value, list)),
            inner.clone().prop_map(Node::IsMissing),
            inner.prop_map(Node::Not),
            pair.clone().prop_map(|(left, right)| Node::And(left, right)),
            pair.prop_map(|(left, right)| Node::Or(left, right)),
        ]
        .prop_map(|node| Expression::new(node).unwrap())
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(expression in expressions()) {
        let written = expression.to_string();
        prop_assert_eq!(written.parse::<Expression>(), Ok(expression.clone()), "{}", written);
        let json = serde_json::to_string(&expression).unwrap();
        prop_assert_eq!(serde_json::from_str::<Expression>(&json).unwrap(), expression);
    }

    #[test]
    fn any_text_is_read_or_refused(text in r#"[ a-c1.e'"()<>=!,+*/~:-]{0,30}"#) {
        if let Ok(expression) = text.parse::<Expression>() {
            prop_assert_eq!(expression.to_string().parse::<Expression>(), Ok(expression));
        }
    }
}
