//! The demo keeps its promises.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::{fedbiomed_in, ok, text};

#[test]
fn demo_prints_one_json_object_and_leaves_artefacts_only() {
    let folder = tempfile::tempdir().unwrap();
    let output = fedbiomed_in(folder.path(), &["demo", "--json"]);
    let result: Value = serde_json::from_str(&ok(&output)).expect("one JSON object and nothing else");
    let sites = result["sites"].as_array().unwrap();
    let rows: Vec<(u64, u64)> =
        sites.iter().map(|site| (site["n_train"].as_u64().unwrap(), site["n_test"].as_u64().unwrap())).collect();
    // The split of the FLamby benchmark (Ogier du Terrail et al. 2022, Fed-Heart-Disease).
    assert_eq!(rows, [(199, 104), (172, 89), (30, 16), (85, 45)]);
    // The converged pooled fit has AUC 0.881 and accuracy 0.791 on the pooled held-out rows (scikit-learn 1.9).
    for model in ["federated", "pooled"] {
        let metrics = &result["pooled_metrics"][model];
        assert!((metrics["auc"].as_f64().unwrap() - 0.881).abs() < 0.015, "{model}: {metrics}");
        assert!((metrics["accuracy"].as_f64().unwrap() - 0.791).abs() < 0.03, "{model}: {metrics}");
    }
    // Its 30 training rows hold one class: no model of its own, and the reason instead of a number.
    assert_eq!(sites[2]["local"]["auc"], Value::Null);
    assert!(sites[2]["local"]["reason"].as_str().unwrap().contains("one class"));
    // One healthy patient is held out there: no AUC of any model means anything.
    assert_eq!(sites[2]["federated"]["auc"], Value::Null);
    assert!(sites[2]["federated"]["reason"].as_str().unwrap().contains("1 healthy patient"));
    for site in sites {
        assert!(site["federated"]["accuracy"].as_f64().unwrap() > 0.6, "{site}");
    }
    for artifact in ["model", "metrics", "report", "tensorboard"] {
        let path = result["artifacts"][artifact].as_str().unwrap();
        assert!(Path::new(path).exists(), "{artifact} at {path}");
    }
}

#[test]
fn demo_prints_a_table_that_says_why_a_number_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let out = ok(&fedbiomed_in(folder.path(), &["demo", "--rounds", "3", "--keep", "kept"]));
    for words in ["Cleveland", "Budapest", "Zurich/Basel", "Long Beach", "one class", "model.safetensors", "report.html"] {
        assert!(out.contains(words), "{words:?} is missing in\n{out}");
    }
    let here = folder.path().canonicalize().unwrap();
    for folder in ["researcher", "node-cleveland", "node-hungarian", "node-switzerland", "node-va"] {
        let role = folder.split('-').next().unwrap();
        let place = here.join("kept").join(folder);
        let start = format!("fedbiomed {role} -p {} start --background", place.display());
        assert!(out.contains(&start), "{start:?} is missing in\n{out}");
    }
    let again = fedbiomed_in(folder.path(), &["demo", "--keep", "kept"]);
    assert!(text(&again.stderr).contains("exists"), "a kept federation is not overwritten");
}

#[test]
fn demo_leaves_nothing_when_it_is_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let (here, temporary) = (folder.path().join("here"), folder.path().join("temporary"));
    for folder in [&here, &temporary] {
        std::fs::create_dir(folder).unwrap();
    }
    // While the components are made, and while they train.
    for awaited in ["A researcher starts", "training 2"] {
        let mut demo = Command::new(env!("CARGO_BIN_EXE_fedbiomed"))
            .args(["demo", "--rounds", "100000"])
            .current_dir(&here)
            .env("TMPDIR", &temporary)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(demo.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with(awaited) {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the demo ended before {awaited:?}");
        }
        let processes = children(demo.id());
        let process = demo.id().try_into().ok().and_then(Pid::from_raw).unwrap();
        kill_process(process, Signal::INT).unwrap();
        let mut said = String::new();
        lines.read_to_string(&mut said).unwrap();
        assert_eq!(demo.wait().unwrap().code(), Some(130), "{said}");
        assert!(said.contains("error: interrupted"), "{said}");
        for process in processes {
            assert!(!Path::new(&format!("/proc/{process}")).exists(), "process {process} is left behind");
        }
        for folder in [&here, &temporary] {
            assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "something is left behind in {}", folder.display());
        }
    }
}

/// The processes that this one started and that run.
fn children(process: u32) -> Vec<String> {
    let list = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    list.split_whitespace().map(str::to_owned).collect()
}
