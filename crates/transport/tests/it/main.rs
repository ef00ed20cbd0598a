//! The transport over real sockets on this machine, and in memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// Runs each test, a function of the world it happens in, over the network and in memory.
macro_rules! on_both_links {
    ($($test:ident),+ $(,)?) => {
        mod over_grpc {
            $(#[tokio::test]
            async fn $test() {
                super::$test(<crate::world::World as crate::world::Way>::start().await).await;
            })+
        }
        mod in_memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(<crate::world::MemoryWorld as crate::world::Way>::start().await).await;
            })+
        }
    };
}

mod bulk;
mod control;
mod enrolment;
mod faults;
mod hostile;
mod negotiation;
mod raw;
mod relay;
mod world;
