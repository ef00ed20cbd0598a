use proptest::prelude::*;

use super::*;

fn check(text: &str, written: &str) {
    let formula: Formula = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(formula.to_string(), written, "{text}");
    assert_eq!(written.parse::<Formula>().as_ref(), Ok(&formula), "{written}");
}

#[test]
fn terms_are_expanded_as_in_r() {
    for (text, written) in [
        ("target ~ age + sex + C(cp)", "target ~ age + sex + C(cp)"),
        ("y~a*b", "y ~ a + b + a:b"),
        ("y ~ a*b*c", "y ~ a + b + c + a:b + a:c + b:c + a:b:c"),
        ("y ~ a:b + a + a:a + b:a", "y ~ a + a:b"),
        ("y ~ a*b:c", "y ~ a + b:c + a:b:c"),
        ("y ~ x - 1", "y ~ x - 1"),
        ("y ~ 0 + x", "y ~ x - 1"),
        ("y ~ -1 + x + 1", "y ~ x"),
        ("y ~ 1", "y ~ 1"),
        ("y ~ 0", "y ~ 0"),
        ("y ~ offset(log(days)) - 1", "y ~ offset(log(days)) - 1"),
        ("log(y) ~ I(a + b) + I(log(a)) + I(a) + pow(a, 2)", "log(y) ~ I(a + b) + log(a) + a + pow(a, 2)"),
        ("I(y > 3) ~ x", "I(y > 3) ~ x"),
        (
            "Surv(time, status = 2) ~ age*C(grade, ref='II')",
            "Surv(time, status = 2) ~ age + C(grade, ref='II') + age:C(grade, ref='II')",
        ),
        ("y ~ C(x, ref=2) + C(\"a b\", ref=-1.5) + C + I", "y ~ C(x, ref=2) + C(\"a b\", ref=-1.5) + C + I"),
    ] {
        check(text, written);
    }
}

#[test]
fn columns_are_those_of_all_parts() {
    let formula: Formula = "Surv(t, d) ~ age + C(cp):I(a * age) + offset(log(w))".parse().unwrap();
    assert_eq!(formula.columns(), ["t", "d", "age", "cp", "a", "w"]);
    assert_eq!(formula.terms().len(), 2);
}

#[test]
fn errors_name_the_place_and_what_was_expected() {
    const TERM: &str = "a column, C(…), I(…), offset(…), a function, 0 or 1";
    for (text, message) in [
        ("", "character 1: expected a column, I(…), a function or Surv(…), found the end".to_owned()),
        ("y", "character 2: expected `~` behind the response, found the end".to_owned()),
        ("y ~", format!("character 4: expected {TERM}, found the end")),
        ("y ~ x - z", "character 9: expected 0 or 1: only the intercept can be left out, found `z`".to_owned()),
        ("y ~ 2", format!("character 5: expected {TERM}, found `2`")),
        ("y ~ (a + b):c", format!("character 5: expected {TERM}, found `(`")),
        ("y ~ a / b", "character 7: expected `+`, `-`, `:`, `*` or the end, found `/`".to_owned()),
        ("y ~ a + C(x, base=1)", "character 14: expected `ref=` and a level, found `base`".to_owned()),
        (
            "y ~ a ^ 2",
            "character 7: expected a number, a text in '…', a column, or a sign of the grammar, found '^'".to_owned(),
        ),
        (
            "y ~ poly(x, 2)",
            "character 5: expected one of the functions log, exp, sqrt, abs, floor and pow, found `poly`".to_owned(),
        ),
        ("Surv(t) ~ x", "character 7: expected `,` and the event, found `)`".to_owned()),
    ] {
        assert_eq!(text.parse::<Formula>().expect_err(text).to_string(), message);
    }
}

#[test]
fn terms_and_factors_are_bounded() {
    let names: Vec<String> = (0..40).map(|index| format!("x{index}")).collect();
    let limited = |text: String| matches!(text.parse::<Formula>(), Err(ExpressionError::TooMany { .. }));
    assert!(limited(format!("y ~ {}", names.join("*"))));
    assert!(limited(format!("y ~ {}", names.join(":"))));
    let many: Vec<String> = (0..600).map(|index| format!("x{index}")).collect();
    assert!(limited(format!("y ~ {}", many.join(" + "))));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "a", "b", "C(", "I(", ")", "~", " + ", "*", ":", " - ", "1", "0", "offset(", "log(", ", ref=", "'x'", "2.5", "Surv(", ",",
            ]),
            0..16,
        ),
        is_regression in any::<bool>(),
    ) {
        let text = format!("{}{}", if is_regression { "y ~ " } else { "" }, parts.concat());
        if let Ok(formula) = text.parse::<Formula>() {
            let written = formula.to_string();
            prop_assert_eq!(written.parse::<Formula>(), Ok(formula), "{} -> {}", text, written);
        }
    }

    #[test]
    fn expanded_terms_read_back(
        terms in prop::collection::vec(prop::collection::vec(prop::sample::select(vec![
            "a", "b", "c", "C(d)", "C(e, ref='x')", "I(a > 1)", "log(b)", "\"in\"",
        ]), 1..4), 1..6),
        sign in prop::sample::select(vec!["*", ":"]),
        has_intercept in any::<bool>(),
    ) {
        let terms: Vec<String> = terms.iter().map(|factors| factors.join(sign)).collect();
        let text = format!("y ~ {}{}", terms.join(" + "), if has_intercept { "" } else { " - 1" });
        let formula: Formula = text.parse().unwrap();
        prop_assert_eq!(formula.has_intercept(), has_intercept);
        prop_assert_eq!(formula.to_string().parse::<Formula>(), Ok(formula));
    }
}
