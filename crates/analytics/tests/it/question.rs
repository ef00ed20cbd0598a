//! Questions as they travel, and the keys of their answers.

use analytics::analysis::{Answered, Next};
use analytics::question::asked;
use protocol::statistic::Question;
use serde_json::Value;

use crate::world::federation::{batches, contribute_boxed};
use crate::world::frame::sites;

/// Asks the hospitals of the heart set a question that is given as JSON.
fn ask(statistic: &str) -> Value {
    let question: Question = serde_json::from_str(&format!(r#"{{"statistic":{statistic}}}"#)).unwrap();
    let written = serde_json::to_string(&question).unwrap();
    assert_eq!(serde_json::from_str::<Question>(&written).unwrap(), question, "{written}");
    let asked = asked(&question.statistic);
    let nodes: Vec<_> = sites("heart").iter().map(|site| batches(site, &asked.inputs(), 100)).collect();
    let mut history: Vec<Answered> = Vec::new();
    loop {
        match asked.next(&history, question.minimum).unwrap() {
            Next::Done(answer) => return answer,
            Next::Ask(pass) => {
                let mut sums: Vec<Vec<f64>> =
                    asked.layout(&pass).unwrap().iter().map(|spec| vec![0.0; spec.elements().unwrap()]).collect();
                for batches in &nodes {
                    let tallied = contribute_boxed(|| asked.tally(&pass), batches).unwrap();
                    for (sum, vector) in sums.iter_mut().zip(tallied.vectors) {
                        sum.iter_mut().zip(vector.values).for_each(|(sum, value)| *sum += value);
                    }
                }
                history.push(Answered { pass, sums });
            }
        }
    }
}

fn check(statistic: &str, keys: &[&str]) -> Value {
    let answer = ask(statistic);
    for key in keys {
        assert!(answer.pointer(key).is_some_and(|value| !value.is_null()), "{statistic}: no {key} in {answer}");
    }
    answer
}

#[test]
fn every_question_has_the_answer_that_its_documentation_shows() {
    check(r#"{"name":"count"}"#, &["/rows"]);
    let described = check(
        r#"{"name":"describe","numbers":[{"column":"age"},{"column":"log(chol + 1)"}],
            "categories":[{"column":"sex","levels":[0,1]}]}"#,
        &[
            "/columns/age/count",
            "/columns/age/missing",
            "/columns/age/mean",
            "/columns/age/sd",
            "/columns/age/variance",
            "/columns/age/quantiles/0.25",
            "/columns/age/histogram/edges",
            "/columns/age/histogram/counts",
            "/columns/log(chol + 1)/mean",
            "/columns/sex/categories/1",
        ],
    );
    assert_eq!(described["columns"]["sex"]["categories"]["1"], 566);
    let sex = r#"{"column":"sex","levels":[0,1]}"#;
    let target = r#"{"column":"target","levels":[0,1]}"#;
    check(
        &format!(r#"{{"name":"table","rows":{sex},"columns":{target}}}"#),
        &["/statistic", "/df", "/p", "/counts", "/expected"],
    );
    check(
        &format!(r#"{{"name":"ttest","value":"thalach","against":{{"welch":{target}}}}}"#),
        &["/statistic", "/df", "/p", "/difference", "/ci_low", "/groups/0/mean"],
    );
    check(&format!(r#"{{"name":"anova","value":"thalach","by":{target}}}"#), &["/statistic", "/df/0", "/p"]);
    check(
        r#"{"name":"correlation","columns":["age","chol"],"blanks":"pairwise"}"#,
        &["/correlation/0/1", "/covariance/0/1", "/p/0/1", "/n/0/1"],
    );
    check(r#"{"name":"pca","columns":["age","chol"],"components":1}"#, &["/eigenvalues/0", "/components/0/1", "/mean"]);
}
