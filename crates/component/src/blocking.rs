//! Where work runs that keeps a thread busy: files, commits, sums.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::task::JoinError;

/// Threads of their own, or the caller's: a simulation has one thread, so that a schedule can be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocking {
    Threads,
    Inline,
}

impl Blocking {
    /// Does the work and waits for it without holding up other tasks. A panic in it goes on where it is waited for.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self.run_apart(work).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends: nobody waits for the result any more.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// The same, but a panic on a thread of its own ends the work and nothing else.
    pub async fn run_apart<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        match self {
            Self::Inline => Ok(work()),
            Self::Threads => tokio::task::spawn_blocking(work).await,
        }
    }
}

/// Does work whose panic, a mistake in this software, is to end nothing but the work. What it had begun is not looked at again.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let words =
            panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
        format!("a mistake in this software: {}", words.as_deref().unwrap_or("it panicked"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_sentence() {
        assert_eq!(caught(|| 7), Ok(7));
        let sentence = caught(|| -> u32 { panic!("the {} is empty", "layout") }).unwrap_err();
        assert_eq!(sentence, "a mistake in this software: the layout is empty");
    }

    #[tokio::test]
    async fn work_apart_ends_alone() {
        let ended = Blocking::Threads.run_apart(|| -> u32 { panic!("no row") }).await.unwrap_err();
        assert!(ended.is_panic());
        assert_eq!(Blocking::Threads.run_apart(|| 7).await.unwrap(), Blocking::Inline.run(|| 7).await);
    }
}
