//! Processor time, which other programs on the machine do not change as much as the time of day.

use rustix::time::{ClockId, clock_gettime};

/// Gives the seconds of processor time of this thread.
pub(crate) fn of_thread() -> f64 {
    seconds(ClockId::ThreadCPUTime)
}

/// Gives the seconds of processor time of the program.
pub(crate) fn of_program() -> f64 {
    seconds(ClockId::ProcessCPUTime)
}

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Runs something and gives what came of it with the processor time it took this thread, in seconds.
pub(crate) fn timed<T>(run: impl FnOnce() -> T) -> (T, f64) {
    let begin = of_thread();
    let outcome = run();
    (outcome, of_thread() - begin)
}

/// The middle value, the upper one of two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
