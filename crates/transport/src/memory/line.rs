//! One connection in memory: it is up until it breaks, for all that use it at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::Chance;
use crate::link::LinkError;

pub(super) struct Line {
    is_down: AtomicBool,
    /// Wakes in the order of waiting; tokio's `watch` wakes in a random one.
    down: Notify,
    /// Messages and chunks that still pass; absent: any number.
    left: Mutex<Option<u32>>,
    chance: Arc<Chance>,
}

impl Line {
    pub(super) fn new(lasts: Option<u32>, chance: Arc<Chance>) -> Self {
        Self { is_down: AtomicBool::new(false), down: Notify::new(), left: Mutex::new(lasts), chance }
    }

    pub(super) fn cut(&self) {
        self.is_down.store(true, Ordering::SeqCst);
        self.down.notify_waiters();
    }

    pub(super) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::SeqCst)
    }

    /// Waits until the connection is broken.
    pub(super) async fn down(&self) {
        // Listening begins here, before the look.
        let down = self.down.notified();
        if !self.is_down() {
            down.await;
        }
    }

    pub(super) fn broken_before() -> LinkError {
        LinkError::Broken("the connection was cut".to_owned())
    }

    /// Breaks the connection for a reason.
    pub(super) fn broken(&self, reason: &str) -> LinkError {
        self.cut();
        LinkError::Broken(reason.to_owned())
    }

    /// Waits for the host, while the connection lasts.
    pub(super) async fn wait_for<T>(&self, answer: impl Future<Output = T>) -> Result<T, LinkError> {
        tokio::select! {
            biased;
            () = self.down() => Err(Self::broken_before()),
            answer = answer => Ok(answer),
        }
    }

    /// Lets one message or chunk pass, if the connection lasts until it has arrived.
    pub(super) async fn pass(&self) -> Result<(), LinkError> {
        let is_lost = {
            let mut left = self.left.lock().expect("nobody panics with the lock held");
            match left.as_mut() {
                Some(0) => true,
                Some(left) => {
                    *left -= 1;
                    false
                }
                None => false,
            }
        };
        self.chance.delay().await;
        if is_lost {
            self.chance.silence().await;
            self.cut();
        }
        if self.is_down() { Err(Self::broken_before()) } else { Ok(()) }
    }
}
