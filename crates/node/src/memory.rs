//! How much memory a task needs, by estimate, and how much it may have. A task that the machine cannot hold would end the
//! daemon, and do so again at every start.

use protocol::{Plan, Precision, Scheme, Task, layout_byte_len};

/// What a task may need where the machine does not say how much memory it has.
const UNKNOWN_MACHINE: u64 = 2 << 30;
/// Copies of the model and of the contribution: as it came, parsed, trained, its best, the optimizer's two.
const MODEL_COPIES: u64 = 6;

/// An encrypted contribution is a little more than twice as long as its elements, and so are its masks; neither is there as
/// often as the copies above.
const ENCRYPTED_TIMES: u64 = 2;

/// The bytes in the first line of `/proc/meminfo`, such as `MemTotal:       16318480 kB`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The most bytes that one task may need; by default half of the machine's memory, read from `/proc/meminfo`.
pub(crate) fn limit(configured: Option<u64>) -> u64 {
    let machine = || std::fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(total);
    configured.or_else(|| machine().map(|bytes| bytes / 2)).unwrap_or(UNKNOWN_MACHINE)
}

/// The bytes that a task needs by estimate, on a dataset of so many rows and columns: its columns as they are read and in the
/// plan's precision, and the copies of the model and of the contribution.
pub(crate) fn estimate(task: &Task, rows: u64, all_columns: u64) -> u64 {
    let (takes_all, precision) = match &task.plan {
        Plan::Training(plan) => {
            let bytes = match plan.precision() {
                Precision::Float32 => 4,
                Precision::Float64 => 8,
            };
            (plan.features().is_empty(), bytes)
        }
        Plan::Statistic(_) => (false, 8),
    };
    let columns = if takes_all { all_columns } else { task.plan.columns().len() as u64 };
    let table = rows.saturating_mul(columns).saturating_mul(8 + precision);
    let mut contribution = layout_byte_len(&task.layout).unwrap_or(u64::MAX);
    if task.masking.as_ref().is_some_and(|masking| masking.scheme == Scheme::JoyeLibert) {
        contribution = contribution.saturating_mul(ENCRYPTED_TIMES);
    }
    let model = task.model.map_or(0, |model| model.bytes);
    table.saturating_add(model.saturating_add(contribution).saturating_mul(MODEL_COPIES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_how_much_memory_it_has() {
        assert_eq!(total("MemTotal:       16318480 kB\nMemFree: 1 kB\n"), Some(16_318_480 * 1024));
        for strange in ["", "MemTotal: many kB", "MemTotal: 18446744073709551615 kB"] {
            assert_eq!(total(strange), None, "{strange}");
        }
        assert_eq!(limit(Some(7)), 7);
    }
}
