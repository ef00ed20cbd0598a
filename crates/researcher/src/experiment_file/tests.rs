use proptest::prelude::*;

use super::*;

const NODE: &str = "NODE_2f7b1f0e-6a3c-4d7e-9a55-0c1d2e3f4a5b";
const DATASET: &str = "dataset_9d3e5c7a-1b2f-4e6d-8c9b-a0b1c2d3e4f5";

/// The smallest file that trains.
const SMALL: &str = r#"name = "small"
tags = ["heart"]
rounds = 2
[plan]
target = "num"
model = "logistic"
[optimizer]
type = "sgd"
learning_rate = 0.1
[training]
epochs = 1
"#;

fn training(spec: &ExperimentSpec) -> &TrainingPlan {
    let Plan::Training(plan) = spec.plan() else { panic!("expected a training plan") };
    plan
}

/// Checks that `from`, replaced by `to` in the smallest file, is refused with exactly this message.
fn check_refused(from: &str, to: &str, message: &str) {
    assert!(SMALL.contains(from), "{from}");
    let error = parse(&SMALL.replacen(from, to, 1)).unwrap_err();
    assert_eq!(error.to_string(), message);
}

#[test]
fn the_example_is_read() {
    let spec = parse(EXAMPLE).unwrap();
    assert_eq!(spec.name(), "Heart disease");
    assert_eq!(spec.rounds(), 20);
    assert_eq!(spec.patience().min_nodes, 1);
    assert_eq!(spec.patience().node_timeout(), Duration::from_mins(1));
    let plan = training(&spec);
    assert_eq!(plan.features().len(), 11);
    assert_eq!((plan.target(), plan.split_column()), ("target", Some("split")));
    assert_eq!(plan.optimizer(), OptimizerSpec::Sgd { learning_rate: 0.1, momentum: 0.9 });
    assert_eq!(plan.arguments().missing, Missing::Drop);
    assert!(plan.standardise() && plan.validation().on_global && !plan.validation().on_local);
}

#[test]
fn the_example_shows_every_key() {
    for Keys { section, keys } in SECTIONS {
        for key in keys {
            let shown = |line: &str| {
                let line = line.trim_start_matches("# ");
                line.starts_with(&format!("{key} =")) || line.starts_with(&format!("[{key}]"))
            };
            assert!(EXAMPLE.lines().any(shown), "{section} {key}");
        }
    }
}

#[test]
fn every_commented_line_of_the_example_is_valid() {
    let perceptron = EXAMPLE
        .replace("model = \"logistic\"", "# model =")
        .replace("# [plan.model]", "[plan.model]")
        .replace("# type = \"mlp\"", "type = \"mlp\"")
        .replace("type = \"sgd\"", "type = \"adam\"")
        .replace("\nmomentum", "\n# momentum")
        .replace("\nsplit_column", "\n# column");
    let mut text = String::new();
    for line in perceptron.lines() {
        let wanted = [
            "l2",
            "hidden",
            "activation",
            "outcome",
            "classes",
            "beta",
            "epsilon",
            "num_",
            "batch_m",
            "dry",
            "test_ratio",
            "nodes",
        ];
        let bare = line.trim_start_matches("# ");
        text.push_str(if wanted.iter().any(|key| bare.starts_with(key)) { bare } else { line });
        text.push('\n');
    }
    let spec = parse(&text).unwrap();
    let expected = Family::Mlp { hidden: vec![16, 8], activation: Activation::Relu, outcome: Outcome::Class { classes: 3 } };
    assert_eq!(training(&spec).model().family(), &expected);
    assert_eq!((training(&spec).split_column(), training(&spec).arguments().test_ratio), (None, 0.25));
    assert_eq!(training(&spec).arguments().num_updates, Some(10));

    let statistic = "name = \"ages\"\ntags = [\"heart\"]\n[plan]\nstatistic = \"moments\"\ncolumns = [\"age\", \"chol\"]";
    let expected = StatisticPlan::Moments { columns: vec!["age".into(), "chol".into()] };
    assert_eq!(parse(statistic).unwrap().plan(), &Plan::Statistic(expected));
    assert!(parse(&statistic.replace("chol", "age")).is_err(), "a column is named once");
}

#[test]
fn the_smallest_file_has_the_defaults_of_the_protocol() {
    let spec = parse(SMALL).unwrap();
    assert_eq!(spec.patience(), Patience::default());
    let expected = TrainingPlan::new(RawTrainingPlan {
        model: ModelSpec::new(Family::Logistic, 0.0).unwrap(),
        precision: Precision::default(),
        features: vec![],
        target: "num".into(),
        optimizer: serde_json::from_str(r#"{"type": "sgd", "learning_rate": 0.1}"#).unwrap(),
        arguments: TrainingArguments::default(),
        standardise: false,
        validation: Validation::default(),
    });
    assert_eq!(training(&spec), &expected.unwrap());
    let adam: OptimizerSpec = serde_json::from_str(r#"{"type": "adam", "learning_rate": 0.1}"#).unwrap();
    assert_eq!(training(&parse(&SMALL.replace("sgd", "adam")).unwrap()).optimizer(), adam);
}

#[test]
fn datasets_are_chosen_by_id() {
    let text = format!("{}\n[datasets]\n{NODE} = \"{DATASET}\"\n", SMALL.replace("tags = [\"heart\"]\n", ""));
    let Selection::Datasets(datasets) = parse(&text).unwrap().selection().clone() else { panic!("expected datasets") };
    assert_eq!(datasets, BTreeMap::from([(NODE.parse().unwrap(), DATASET.parse().unwrap())]));

    let error = parse(&text.replace(NODE, "NODE_1")).unwrap_err().to_string();
    assert_eq!(error, "line 13, column 1: the key `NODE_1` must be the id of a node, NODE_<uuid>");
    let error = parse(&text.replace(DATASET, "heart")).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("line 13, column 45: `{NODE}` must be the id of a dataset, \"dataset_<uuid>\", found the text \"heart\"")
    );
    let error = parse(&format!("tags = [\"a\"]\n{text}")).unwrap_err().to_string();
    assert_eq!(error, "line 1, column 8: `tags` cannot stand beside [datasets]: give the one or the other");
}

#[test]
fn durations_have_a_unit() {
    for (text, expected_ms) in
        [("10s", 10_000), ("5m", 300_000), ("5min", 300_000), ("2h", 7_200_000), ("250 ms", 250), ("3d", 259_200_000)]
    {
        let text = SMALL.replace("rounds", &format!("round_timeout = \"{text}\"\nrounds"));
        assert_eq!(parse(&text).unwrap().patience().round_timeout_ms, Some(expected_ms));
    }
    for wrong in [
        "10",
        "\"10\"",
        "\"s\"",
        "\"-1s\"",
        "\"1.5h\"",
        "\"0s\"",
        "\"99999999999999999999s\"",
        "\"9999999999999999h\"",
        "true",
    ] {
        let error = parse(&SMALL.replace("rounds", &format!("node_timeout = {wrong}\nrounds"))).unwrap_err().to_string();
        let start = "line 3, column 16: `node_timeout` must be a duration from \"1ms\" to \"3650d\", such as \"10s\", \"5m\" or \"2h\", found ";
        assert!(error.starts_with(start), "{error}");
    }
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest_one() {
    check_refused(
        "rounds =",
        "round =",
        "line 3, column 1: unknown key `round` in the experiment file; did you mean `rounds`?",
    );
    check_refused("learning_rate", "lr", "line 9, column 1: unknown key `lr` in [optimizer]; did you mean `learning_rate`?");
    check_refused(
        "epochs = 1",
        "test_ratio = 0.5\nrounds = 1",
        "line 12, column 1: unknown key `rounds` in [training]; `rounds` belongs to the experiment file",
    );
    check_refused(
        "target = \"num\"",
        "epochs = 3\ntarget = \"num\"",
        "line 5, column 1: unknown key `epochs` in [plan]; `epochs` belongs to [training]",
    );
    check_refused(
        "[training]",
        "[validation]\ncolour = 1\n[training]",
        "line 11, column 1: unknown key `colour` in [validation]; known here: on_global, on_local",
    );
    check_refused(
        "type = \"sgd\"",
        "type = \"adam\"\nmomentum = 0.9",
        "line 9, column 1: unknown key `momentum` in [optimizer] of the type \"adam\"; known here: type, learning_rate, beta1, beta2, epsilon",
    );
    check_refused(
        "model = \"logistic\"",
        "model = { type = \"logistic\", hidden = [3] }",
        "line 6, column 30: unknown key `hidden` in [plan.model] of the type \"logistic\"; known here: type, l2",
    );
}

#[test]
fn a_wrong_value_names_what_was_found_and_expected() {
    let cases = [
        (
            "rounds = 2",
            "rounds = \"two\"",
            "line 3, column 10: `rounds` must be a whole number from 1 to 1000000, found the text \"two\"",
        ),
        ("rounds = 2", "rounds = 0", "line 3, column 10: `rounds` must be a whole number from 1 to 1000000, found 0"),
        ("rounds = 2", "rounds = -2", "line 3, column 10: `rounds` must be a whole number from 1 to 1000000, found -2"),
        ("epochs = 1", "epochs = 1.5", "line 11, column 10: `epochs` must be a whole number of at least 0, found 1.5"),
        (
            "epochs = 1",
            "epochs = 99999999999",
            "line 11, column 10: `epochs` must be a whole number of at least 0, found 99999999999",
        ),
        (
            "tags = [\"heart\"]",
            "tags = \"heart\"",
            "line 2, column 8: `tags` must be a list of tags, such as [\"heart\", \"uci\"], found the text \"heart\"",
        ),
        (
            "tags = [\"heart\"]",
            "tags = [\"heart\", 3]",
            "line 2, column 18: `tags` must be a list of tags, such as [\"heart\", \"uci\"], found 3 in it",
        ),
        (
            "tags = [\"heart\"]",
            "tags = [\"a,b\"]",
            "line 2, column 8: a tag has 1 to 64 characters without commas or control characters, found \"a,b\"",
        ),
        (
            "\"logistic\"",
            "\"logistik\"",
            "line 6, column 9: `model` must be \"linear\" or \"logistic\" or \"multinomial\" or \"mlp\", found the text \"logistik\"; did you mean \"logistic\"?",
        ),
        (
            "\"logistic\"",
            "\"mlp\"",
            "`hidden` is missing in [plan.model] of the type \"mlp\": expected a list with the units of each hidden layer (1 to 100000), such as [16, 8]",
        ),
        (
            "rounds = 2",
            "rounds = 2\non_failure = \"dorp\"",
            "line 4, column 14: `on_failure` must be \"fail\" or \"drop\" or \"retry\", found the text \"dorp\"; did you mean \"drop\"?",
        ),
        (
            "rounds = 2",
            "rounds = 2\nmin_nodes = 0",
            "line 4, column 13: `min_nodes` must be a whole number from 1 to 65536, found 0",
        ),
        ("rate = 0.1", "rate = 0", "line 9, column 17: `learning_rate` must be a finite number above 0, found 0"),
        ("rate = 0.1", "rate = nan", "line 9, column 17: `learning_rate` must be a finite number above 0, found NaN"),
        (
            "epochs = 1",
            "epochs = 1\ntest_ratio = 1",
            "line 12, column 14: `test_ratio` must be at least 0 and below 1, found 1",
        ),
        (
            "epochs = 1",
            "epochs = 1\nshuffle = \"yes\"",
            "line 12, column 11: `shuffle` must be true or false, found the text \"yes\"",
        ),
        (
            "epochs = 1",
            "seed = 1",
            "line 10, column 1: give `epochs` or `num_updates`: with neither nothing would be trained",
        ),
        (
            "target = \"num\"",
            "target = \"num\"\nfeatures = [\"num\"]",
            "line 5, column 10: `target` \"num\" is also a feature",
        ),
        (
            "target = \"num\"",
            "target = \"num\"\nfeatures = []",
            "line 6, column 12: `features` must be a list of column names, found an empty list",
        ),
        ("target = \"num\"\n", "", "line 4, column 1: `target` is missing in [plan]: expected the name of a column"),
        ("name = \"small\"\n", "", "`name` is missing in the experiment file: expected a text"),
        ("\"small\"", "\"\"", "line 1, column 8: `name` must have 1 to 128 characters without control characters"),
        ("[plan]", "plan = 3\n[plam]", "line 5, column 2: unknown key `plam` in the experiment file; did you mean `plan`?"),
        (
            "target = \"num\"",
            "statistic = \"moments\"",
            "line 3, column 10: `rounds` cannot stand beside `statistic`: a statistic takes as many rounds as it needs",
        ),
    ];
    for (from, to, message) in cases {
        check_refused(from, to, message);
    }
}

#[test]
fn text_that_is_not_toml_is_refused_with_its_place() {
    let error = parse("name = \"a\"\nrounds = = 2").unwrap_err();
    assert!(matches!(*error.problem, Problem::Syntax(_)), "{error}");
    assert_eq!(error.position.as_ref().unwrap().line, 2);
    let error = parse("name = \"a\"\nname = \"b\"").unwrap_err();
    assert_eq!(error.to_string(), "line 2, column 1: not valid TOML: duplicate key");
}

#[test]
fn the_excerpt_marks_the_place() {
    let error = parse(&SMALL.replace("rounds = 2", "rounds = \"zwölf\"")).unwrap_err();
    assert_eq!(error.excerpt(), "  |\n3 | rounds = \"zwölf\"\n  |          ^^^^^^^\n");
    assert_eq!(parse("").unwrap_err().excerpt(), "");
}

#[test]
fn the_place_lies_within_the_line_however_that_ends() {
    for text in ["nam= \r\r\n\r\"", "nam= \r\r\r\n", "rounds =\r\ntags", "rounds = 1\r\nrounds = 2\r\n"] {
        let position = parse(text).unwrap_err().position.unwrap();
        assert!(position.column <= position.text.chars().count() + 1, "{text:?}: {position:?}");
        assert!(!position.text.contains('\n'), "{text:?}: {position:?}");
    }
    let error = parse("rounds =\r\n").unwrap_err();
    assert_eq!(error.excerpt(), "  |\n1 | rounds =\n  |         ^\n");
}

proptest! {
    #[test]
    fn random_text_never_panics(text in any::<String>()) {
        let _ = parse(&text).map_err(|error| (error.to_string(), error.excerpt()));
    }

    #[test]
    fn a_damaged_example_never_panics(at in 0_usize..4_000, len in 0_usize..40, with in "[\\[\\]\"= \n\u{e9}a1.-]{0,4}") {
        let start = EXAMPLE.floor_char_boundary(at);
        let end = EXAMPLE.floor_char_boundary((start + len).min(EXAMPLE.len()));
        let text = format!("{}{with}{}", &EXAMPLE[..start], &EXAMPLE[end.max(start)..]);
        let _ = parse(&text).map_err(|error| (error.to_string(), error.excerpt()));
    }

    #[test]
    fn any_value_under_any_key_never_panics(section in 0_usize..6, key in 0_usize..13, value in 0_usize..9) {
        let values = ["1", "-1.5", "nan", "\"x\"", "[1]", "[]", "{}", "1979-05-27", "[\"a\", \"a\"]"];
        let Keys { section, keys } = &SECTIONS[section];
        let header = if section.starts_with('[') { section } else { "" };
        let _ = parse(&format!("{header}\n{} = {}", keys[key % keys.len()], values[value]));
    }
}

#[test]
fn secure_aggregation_is_what_the_file_says() {
    let parse_with = |line: &str| parse(&SMALL.replacen("rounds = 2", &format!("rounds = 2\n{line}"), 1));
    assert_eq!(parse(SMALL).unwrap().secure(), SecureSpec::default());
    for (line, expected) in [
        ("secagg = \"lom\"", SecureSpec { secagg: Secagg::Lom, ..SecureSpec::default() }),
        ("secagg = \"joye-libert\"", SecureSpec { secagg: Secagg::JoyeLibert, ..SecureSpec::default() }),
        ("secagg = \"none\"", SecureSpec::NONE),
        ("min_parties = 2", SecureSpec { min_parties: 2, ..SecureSpec::default() }),
        ("max_colluders = 0", SecureSpec { max_colluders: Some(0), ..SecureSpec::default() }),
        ("max_losses = 5", SecureSpec { max_losses: Some(5), ..SecureSpec::default() }),
        ("clipping = 1", SecureSpec { clipping: Clipping::Range(1.0), ..SecureSpec::default() }),
        ("clipping = \"auto\"", SecureSpec { clipping: Clipping::Auto, ..SecureSpec::default() }),
        ("key_negotiation = \"direct\"", SecureSpec { key_negotiation: KeyNegotiation::Direct, ..SecureSpec::default() }),
    ] {
        assert_eq!(parse_with(line).unwrap().secure(), expected, "{line}");
    }
    for (line, message) in [
        (
            "secagg = \"lmo\"",
            "line 4, column 10: `secagg` must be \"lom\" or \"joye-libert\" or \"none\", found the text \"lmo\"; did you mean \"lom\"?",
        ),
        ("min_parties = 1", "line 4, column 15: `min_parties` must be a whole number from 2 to 65536, found 1"),
        ("max_colluders = -1", "line 4, column 17: `max_colluders` must be a whole number from 0 to 65534, found -1"),
        ("clipping = \"off\"", "line 4, column 12: `clipping` must be \"auto\", found the text \"off\""),
        ("clipping = true", "line 4, column 12: `clipping` must be a number above 0, or \"auto\", found true"),
        ("clipping = 0", "line 4, column 12: `clipping` must be a number above 0 and at most 1e30, or \"auto\", found 0"),
        (
            "clipping = inf",
            "line 4, column 12: `clipping` must be a number above 0 and at most 1e30, or \"auto\", found inf",
        ),
    ] {
        assert_eq!(parse_with(line).unwrap_err().to_string(), message);
    }
}
