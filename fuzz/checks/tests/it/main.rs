//! The fuzzer's inputs, once through, as ordinary tests.

use std::path::Path;

use fuzz_checks::CHECKS;

#[test]
fn the_fuzzers_inputs_are_read_without_panic() {
    for (target, check) in CHECKS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
        let inputs: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty(), "{} holds nothing", folder.display());
        for input in inputs {
            println!("{}", input.display());
            check(&std::fs::read(&input).unwrap());
        }
    }
}
