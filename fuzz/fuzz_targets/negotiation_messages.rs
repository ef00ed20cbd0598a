#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::prepare(), |bytes: &[u8]| fuzz::within_bounds(bytes, transport::fuzzing::check_negotiation_message));
