//! The independent reference in Python agrees with this crate: on the published vectors, and on sessions that were never seen before.

use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use secagg::graph::{neighbourhood_colluders, neighbours};
use secagg::threshold::threshold;
use serde_json::{Value, json};

use crate::encryption;
use crate::sessions::{play, random_inputs, random_sparse_inputs};

/// The variable by which `cargo xtask test` names a Python that has NumPy and `cryptography`.
const PYTHON: &str = "FEDBIOMED_TEST_PYTHON";

/// Runs the reference's check on these files; none: on all of `testdata/`.
fn check_by_reference(files: &[&Path]) {
    let Some(python) = std::env::var_os(PYTHON) else {
        panic!(
            "{PYTHON} is not set: run `cargo xtask test`, or set it to a Python with the packages numpy and cryptography"
        );
    };
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/check.py");
    let mut command = Command::new(&python);
    // Nothing but the sources belongs into the repository's folders.
    command.arg("-B").arg(check).args(files);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => panic!("{} of {PYTHON} does not start: {error}", PathBuf::from(python).display()),
    };
    assert!(
        output.status.success(),
        "the reference disagrees\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Gives new random numbers each time, and says how to have them again.
#[expect(clippy::print_stdout, reason = "shown where a test fails")]
fn generator() -> ChaCha20Rng {
    let chosen = std::env::var("FEDBIOMED_SEED").ok().and_then(|text| text.parse().ok());
    let seed = chosen.unwrap_or_else(|| RandomState::new().hash_one("sessions never seen before"));
    println!("play it again with FEDBIOMED_SEED={seed}");
    ChaCha20Rng::seed_from_u64(seed)
}

fn check_cases(cases: &[Value]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cases.json");
    std::fs::write(&path, json!({ "cases": cases }).to_string()).unwrap();
    check_by_reference(&[&path]);
}

/// Lists where one value is not within the other, which may hold more.
fn check_within(part: &Value, whole: &Value, at: &str) {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            for (name, value) in part {
                check_within(value, whole.get(name).unwrap_or(&Value::Null), &format!("{at}.{name}"));
            }
        }
        (Value::Array(part), Value::Array(whole)) => {
            assert_eq!(part.len(), whole.len(), "{at}");
            part.iter()
                .zip(whole)
                .enumerate()
                .for_each(|(index, (part, whole))| check_within(part, whole, &format!("{at}[{index}]")));
        }
        _ => assert_eq!(part, whole, "{at}"),
    }
}

#[test]
fn the_reference_gives_all_published_vectors() {
    check_by_reference(&[]);
}

#[test]
fn published_sessions_come_out_to_the_byte() {
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/lom.json")).unwrap();
    let content: Value = serde_json::from_str(&file).unwrap();
    let sessions: Vec<&Value> =
        content["cases"].as_array().unwrap().iter().filter(|case| case["kind"] == "session").collect();
    assert_eq!(sessions.len(), 2);
    for case in sessions {
        check_within(&play(&case["inputs"]), &case["outputs"], case["name"].as_str().unwrap());
    }
}

#[test]
fn published_numbers_of_neighbours_come_out() {
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/graph.json")).unwrap();
    let content: Value = serde_json::from_str(&file).unwrap();
    let number = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let of_kind = |kind: &'static str| content["cases"].as_array().unwrap().iter().filter(move |case| case["kind"] == kind);
    for case in of_kind("number-of-neighbours") {
        let [n, c, d] = ["n", "c", "d"].map(|name| number(&case["inputs"][name]));
        let k = neighbours(n, c, d).unwrap_or(n - 1);
        let near = neighbourhood_colluders(n, c, k);
        let shared = if k == n - 1 { threshold(n, c) } else { threshold(k + 1, near) };
        assert_eq!(
            (k, shared),
            (number(&case["outputs"]["k"]), number(&case["outputs"]["share_threshold"])),
            "{}",
            case["name"]
        );
    }
    assert_eq!(of_kind("number-of-neighbours").count(), 8);
}

#[test]
fn the_reference_gives_masks_shares_and_sums_of_random_sessions() {
    let mut rng = generator();
    let case = |number: u32| {
        let inputs = if number == 0 { random_sparse_inputs(&mut rng) } else { random_inputs(&mut rng) };
        json!({ "name": format!("session {number}"), "kind": "session", "outputs": play(&inputs), "inputs": inputs })
    };
    check_cases(&(0..8).map(case).collect::<Vec<_>>());
}

#[test]
fn the_reference_gives_shares_ciphertexts_and_sums_of_random_encryptions() {
    let mut rng = generator();
    let case = |number: u32| {
        let inputs = encryption::random_inputs(&mut rng);
        let outputs = encryption::play(&inputs, &mut rng);
        json!({ "name": format!("run {number}"), "kind": "joye-libert", "inputs": inputs, "outputs": outputs })
    };
    check_cases(&(0..2).map(case).collect::<Vec<_>>());
}

#[test]
#[should_panic(expected = "the reference disagrees")]
fn the_reference_sees_a_wrong_mask() {
    let inputs = random_inputs(&mut ChaCha20Rng::seed_from_u64(1));
    let mut outputs = play(&inputs);
    let masked = outputs["nodes"][0]["masked"][0].as_str().unwrap();
    let changed = if masked.starts_with('0') { '1' } else { '0' };
    outputs["nodes"][0]["masked"][0] = json!(format!("{changed}{}", &masked[1..]));
    check_cases(&[json!({ "name": "wrong", "kind": "session", "inputs": inputs, "outputs": outputs })]);
}
