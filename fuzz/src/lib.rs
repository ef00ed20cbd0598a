//! What every fuzz target has: a bound on memory.

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What a check may take whatever its input, in bytes: blocks of files, a runtime, a batch of rows.
const FIXED_BYTES: usize = 16 << 20;
/// What it may take besides for each byte of input. A JSON value of two bytes takes 32, twice that while a list grows.
const BYTES_PER_BYTE: usize = 128;

/// Lets a panic say all it has to say: who takes too much and who panics are different mistakes.
pub fn prepare() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        set_limit(usize::MAX);
        told(panic);
    }));
}

/// Checks an input; memory beyond the bound is refused, which ends the program and so is found.
pub fn within_bounds(bytes: &[u8], check: fn(&[u8])) {
    set_limit(ALLOCATOR.allocated() + FIXED_BYTES + BYTES_PER_BYTE * bytes.len());
    check(bytes);
    set_limit(usize::MAX);
}

fn set_limit(bytes: usize) {
    ALLOCATOR.set_limit(bytes).expect("it is more than is allocated");
}
