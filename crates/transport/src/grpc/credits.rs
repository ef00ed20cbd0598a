//! The researcher's memory for chunks under way: one budget for all nodes, so that it does not grow with their number.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Chunks that may be under way from all nodes together: 32 MiB.
const UPLOAD_CHUNKS: usize = 128;
/// Chunks that one node may have under way, if it is alone or nearly so: 10 MiB.
const AHEAD: usize = 40;

/// The budget of uploads. Who asks first gets first; a permit comes back when it is dropped, so a dead peer's do too.
#[derive(Clone)]
pub(super) struct Credits {
    permits: Arc<Semaphore>,
    uploads: Arc<AtomicUsize>,
}

/// One upload's part in the budget.
pub(super) struct Share(Credits);

impl Credits {
    pub(super) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(UPLOAD_CHUNKS)), uploads: Arc::default() }
    }

    pub(super) fn share(&self) -> Share {
        self.uploads.fetch_add(1, Ordering::Relaxed);
        Share(self.clone())
    }
}

impl Share {
    /// How many chunks this upload may have under way now.
    pub(super) fn ahead(&self) -> usize {
        (UPLOAD_CHUNKS / self.0.uploads.load(Ordering::Relaxed).max(1)).clamp(1, AHEAD)
    }

    /// Waits for the permission to let one more chunk come.
    pub(super) async fn permit(permits: Arc<Semaphore>) -> OwnedSemaphorePermit {
        permits.acquire_owned().await.expect("the budget is never closed")
    }

    /// One more chunk, if that is possible without waiting and nobody waits.
    pub(super) fn permit_now(&self) -> Option<OwnedSemaphorePermit> {
        self.permits().try_acquire_owned().ok()
    }

    pub(super) fn permits(&self) -> Arc<Semaphore> {
        self.0.permits.clone()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.uploads.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_budget_is_the_same_for_any_number_of_nodes_and_comes_back() {
        let credits = Credits::new();
        let shares: Vec<Share> = (0..3).map(|_| credits.share()).collect();
        assert_eq!(shares[0].ahead(), AHEAD);
        let more: Vec<Share> = (0..197).map(|_| credits.share()).collect();
        assert_eq!(shares[0].ahead(), 1);
        let mut permits = Vec::new();
        for share in shares.iter().chain(&more).take(UPLOAD_CHUNKS) {
            permits.push(Share::permit(share.permits()).await);
        }
        assert_eq!(credits.permits.available_permits(), 0);
        drop(permits);
        drop(more);
        assert_eq!(credits.permits.available_permits(), UPLOAD_CHUNKS);
        assert_eq!(shares[0].ahead(), AHEAD);
    }
}
