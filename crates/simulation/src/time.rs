//! Virtual time: whenever all wait, the clock jumps to what comes next.

use std::cell::RefCell;
use std::fmt;
use std::sync::Once;
use std::time::Duration;

/// The longest that anything may take, in virtual time: beyond it, it will never be.
const PATIENCE: Duration = Duration::from_mins(30);

/// What did not come to its end in time.
#[derive(Debug)]
pub struct Stuck(pub &'static str);

impl fmt::Display for Stuck {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "after {} s of virtual time still not: {}", PATIENCE.as_secs(), self.0)
    }
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what panics on this thread, besides printing it: a task that panics is not missed otherwise.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            before(panic);
        }));
    });
    PANICS.with_borrow_mut(Vec::clear);
}

/// Runs something in virtual time: whenever all wait, the clock jumps to what comes next.
///
/// # Panics
/// If there is no runtime to be had.
pub fn in_virtual_time<T>(future: impl Future<Output = T>) -> T {
    watch_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime needs nothing but memory").block_on(future)
}

/// Waits, but not for ever.
pub async fn in_time<T>(what: &'static str, future: impl Future<Output = T>) -> Result<T, Stuck> {
    tokio::time::timeout(PATIENCE, future).await.map_err(|_| Stuck(what))
}

/// What has panicked on this thread since [`in_virtual_time`] began.
pub(crate) fn take_panics() -> Vec<String> {
    PANICS.with_borrow_mut(std::mem::take)
}
