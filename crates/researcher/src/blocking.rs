//! Where work runs that keeps a thread busy: files, commits, sums.

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
