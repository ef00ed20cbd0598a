//! Questions asked on the command line, of nodes that are processes: the answers are those of the pooled rows.

use std::path::Path;

use serde_json::Value;

use crate::world::{HEART, World, fedbiomed, ok, refused};

const TESTDATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../analytics/testdata");

/// What R, statsmodels, scipy and lifelines say of the pooled rows; how it was made is said in the folder.
fn reference(pointer: &str) -> Value {
    let text = std::fs::read_to_string(Path::new(TESTDATA).join("reference.json")).expect("the reference is there");
    let all: Value = serde_json::from_str(&text).expect("it is JSON");
    all.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}")).clone()
}

/// A federation of the heart hospitals. `limits`: whether small numbers are kept back, as they are by default.
fn hospitals(limits: bool) -> World {
    let mut world = World::with_researcher();
    if !limits {
        let off = [
            ("FBM_DISCLOSURE_MINIMUM_ROWS", "0"),
            ("FBM_DISCLOSURE_MINIMUM_EVENTS", "0"),
            ("FBM_DISCLOSURE_TIME_RESOLUTION", "exact"),
        ];
        world.set_environment(off.map(|(name, value)| (name, value.to_owned())).to_vec());
    }
    for name in ["cleveland", "hungarian", "switzerland", "va"] {
        world.admit(name, &Path::new(HEART).join(format!("{name}.csv")));
    }
    world.connected(4);
    world
}

impl World {
    fn stats(&self, words: &[&str]) -> Value {
        self.json(&[&["researcher", "-p", &self.path("researcher"), "stats"], words].concat())
    }
}

#[track_caller]
fn close(found: &Value, expected: &Value, bound: f64, what: &str) {
    let (found, expected) = (found.as_f64().unwrap_or(f64::NAN), expected.as_f64().expect("a number"));
    let error = (found - expected).abs() / expected.abs().max(1e-12);
    assert!(error <= bound, "{what}: {found} is {error:e} from {expected}");
}

#[test]
fn hidden_answers_are_those_of_the_pooled_rows() {
    let world = hospitals(false);
    let counted = world.stats(&["count", "--tags", "heart", "--where", "age > 50 and sex = 1"]);
    assert_eq!(counted["rows"], 365);
    assert_eq!(counted["sites_used"].as_array().map(Vec::len), Some(4));

    let described = world.stats(&["describe", "--tags", "heart", "--columns", "age,chol,thalach"]);
    for column in ["age", "chol", "thalach"] {
        let expected = reference(&format!("/heart/describe_flamby/numeric/{column}/pooled"));
        let found = &described["columns"][column];
        assert_eq!(found["count"], expected["count"], "{column}");
        close(&found["mean"], &expected["mean"], 1e-9, column);
        close(&found["variance"], &expected["variance"], 1e-9, column);
    }

    let table = world.stats(&["table", "--tags", "heart", "--rows", "sex", "--cols", "target"]);
    let expected = reference("/heart/chi2_sex_by_target/pearson");
    close(&table["statistic"], &expected["chi2"], 1e-9, "chi2");
    close(&table["p"], &expected["p"], 1e-9, "p of chi2");

    let ttest = world.stats(&["ttest", "--tags", "heart", "--value", "thalach", "--by", "target"]);
    let expected = reference("/heart/ttest_thalach_by_target/welch");
    // The groups are in the order of their levels: 0 less 1, where the reference takes 1 less 0.
    close(&ttest["statistic"].as_f64().map(f64::abs).into(), &expected["t"].as_f64().map(f64::abs).into(), 1e-9, "t");
    close(&ttest["p"], &expected["p"], 1e-9, "p of t");

    let expected = reference("/heart/logit");
    let terms: Vec<&str> = expected["terms"].as_array().unwrap().iter().skip(1).map(|term| term.as_str().unwrap()).collect();
    let formula = format!("target ~ {}", terms.join(" + "));
    let glm = world.stats(&["glm", "--tags", "heart", "--family", "binomial", "--formula", &formula]);
    assert_eq!(glm["n"], expected["n"]);
    assert_eq!(glm["converged"], true);
    for (index, term) in glm["terms"].as_array().expect("terms").iter().enumerate() {
        assert_eq!(term["name"], expected["terms"][index]);
        close(&term["estimate"], &expected["coef"][index], 1e-6, "estimate");
        close(&term["std_error"], &expected["se"][index], 1e-6, "standard error");
    }
}

#[test]
fn small_counts_do_not_leave_and_the_person_is_told_why() {
    let world = hospitals(true);
    let stats = |words: &[&str]| fedbiomed(&[&["researcher", "-p", &world.path("researcher"), "stats"], words].concat());
    let table = ["table", "--tags", "heart", "--rows", "sex", "--cols", "target"];
    // Seen one by one, the counts of two hospitals are small; their sum is not.
    let error = refused(&stats(&[&table[..], &["--secagg", "none", "--nodes", "switzerland,va"]].concat()));
    assert!(error.contains("sex = 0, target = ") && error.contains("fewer rows than the 5"), "{error}");
    let pooled = world.stats(&table);
    assert_eq!(pooled["counts"], serde_json::json!([[131, 43], [226, 340]]));
    // Where the sum is small, too, it is not told, nor what it follows from.
    let young = world.stats(&[&table[..], &["--where", "age < 42"]].concat());
    let told = young["counts"].as_array().expect("counts").iter().flat_map(|row| row.as_array().expect("a row"));
    assert!(told.clone().any(Value::is_null), "{young}");
    assert!(told.filter_map(Value::as_u64).all(|count| count == 0 || count >= 5), "{young}");
    let error = refused(&stats(&[&table[..], &["--minimum", "4"]].concat()));
    assert!(error.contains("ask with a minimum of 5"), "{error}");
    let error = refused(&stats(&["describe", "--tags", "heart", "--columns", "age", "--minmax"]));
    assert!(error.contains("smallest and the largest"), "{error}");
    let error = refused(&stats(&["describe", "--tags", "heart", "--columns", "aeg"]));
    assert!(error.contains("did you mean \"age\""), "{error}");
    let error = refused(&stats(&["count", "--tags", "heart", "--where", "age > (select 1)"]));
    assert!(error.contains("--where"), "{error}");
    let error = refused(&stats(&["count", "--tags", "heart", "--nodes", "cleveland,va"]));
    assert!(error.contains("--secagg none"), "{error}");

    // Women under 46 whose cholesterol is not 236 are one fewer: the difference would tell that one's numbers.
    let women = world.stats(&["count", "--tags", "heart", "--where", "age < 46 and sex = 0"]);
    assert!(women["rows"].as_u64() > Some(5), "{women}");
    let fewer = stats(&["count", "--tags", "heart", "--where", "age < 46 and sex = 0 and chol != 236"]);
    let told = String::from_utf8_lossy(&fewer.stderr);
    assert!(told.contains("almost the same rows as an earlier one"), "{told}");

    let picture = world.folder().join("ages.svg");
    let file = picture.to_str().expect("a UTF-8 path");
    let table = ok(&stats(&["describe", "--tags", "heart", "--columns", "age", "--plot", file]));
    assert!(table.contains("age") && table.contains("sites: "), "{table}");
    assert!(std::fs::read_to_string(&picture).expect("a picture").starts_with("<svg"));
    let per_site = world.stats(&["count", "--tags", "heart", "--per-site"]);
    assert_eq!(per_site["sites"]["va"]["rows"], 130);
    let schema = world.stats(&["schema", "--tags", "heart"]);
    assert!(schema.as_array().is_some_and(|rows| rows.iter().any(|row| row["column"] == "age")));
}

#[test]
fn survival_of_two_registers_is_that_of_one() {
    let mut world = World::with_researcher();
    let off = [
        ("FBM_DISCLOSURE_MINIMUM_ROWS", "0"),
        ("FBM_DISCLOSURE_MINIMUM_EVENTS", "0"),
        ("FBM_DISCLOSURE_TIME_RESOLUTION", "exact"),
    ];
    world.set_environment(off.map(|(name, value)| (name, value.to_owned())).to_vec());
    for name in ["gbsg", "rotterdam"] {
        world.admit(name, &Path::new(TESTDATA).join("breast-survival").join(format!("{name}.csv")));
    }
    world.connected(2);
    let among = ["--tags", "heart", "--secagg", "none"];
    let survival =
        [&["survival", "--time", "time_days", "--event", "event", "--by", "hormon", "--exact"], &among[..]].concat();
    let survival = world.stats(&survival);
    let expected = reference("/breast/logrank/hormon");
    close(&survival["logrank"]["chi2"], &expected["chi2"], 1e-9, "log-rank");
    for (group, level) in survival["groups"].as_array().expect("groups").iter().zip(["0", "1"]) {
        let expected = reference(&format!("/breast/km/hormon_{level}"));
        let (times, survived) = (group["time"].as_array().unwrap(), group["survival"].as_array().unwrap());
        for (at, expected) in expected["times"].as_array().unwrap().iter().zip(expected["survival"].as_array().unwrap()) {
            let last = times.iter().rposition(|time| time.as_f64() <= at.as_f64()).expect("an event before");
            close(&survived[last], expected, 1e-9, "survival");
        }
    }

    let formula = "Surv(time_days, event) ~ age + meno + I(size_class = 1) + I(size_class = 2) + I(grade = 3) + nodes + pgr + er + hormon";
    for (strata, name) in [("site", "stratified_by_site_efron"), ("none", "pooled_efron")] {
        let words = [&["cox", "--formula", formula, "--strata", strata, "--exact"], &among[..]].concat();
        let cox = world.stats(&words);
        let expected = reference(&format!("/breast/cox/{name}"));
        assert_eq!(cox["events"], expected["events"]);
        for (index, term) in cox["terms"].as_array().expect("terms").iter().enumerate() {
            close(&term["estimate"], &expected["coef"][index], 1e-6, name);
            close(&term["std_error"], &expected["se"][index], 1e-6, name);
        }
    }
}
