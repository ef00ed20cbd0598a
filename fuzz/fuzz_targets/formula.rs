#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::prepare(), |bytes: &[u8]| fuzz::within_bounds(bytes, fuzz_checks::expression::check_formula));
