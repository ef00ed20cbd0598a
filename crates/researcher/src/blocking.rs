//! Where work runs that keeps a thread busy: files, commits, sums.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Threads of their own, or the caller's: simulation has one thread, so that a schedule can be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocking {
    Threads,
    Inline,
}

impl Blocking {
    /// Does the work and waits for it without holding up other tasks.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::Inline => work(),
            Self::Threads => match tokio::task::spawn_blocking(work).await {
                Ok(result) => result,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime ends: nobody waits for the result any more.
                    Err(_) => std::future::pending().await,
                },
            },
        }
    }
}

/// Does work whose panic, a mistake in this software, is to end nothing but the work. What it had begun is not looked at again.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let words =
            panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
        format!("a mistake in the researcher's software: {}", words.as_deref().unwrap_or("it panicked"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_sentence() {
        assert_eq!(caught(|| 7), Ok(7));
        let sentence = caught(|| -> u32 { panic!("the {} is empty", "layout") }).unwrap_err();
        assert_eq!(sentence, "a mistake in the researcher's software: the layout is empty");
    }
}
