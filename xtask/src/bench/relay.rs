//! A link between a node and its researcher that can be cut.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::project::Problem;

/// How a link breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Connections end at once, and new ones are closed.
    Reset,
    /// Nothing passes, and nobody is told.
    Silent,
}

#[derive(Debug, Default)]
struct State {
    is_silent: AtomicBool,
    is_closed: AtomicBool,
    /// Bytes that passed, towards the node and towards the researcher.
    down: AtomicU64,
    up: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

/// Passes connections on to the researcher.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddr,
    state: Arc<State>,
}

impl Relay {
    #[expect(clippy::disallowed_methods, reason = "the stand-in of a network between two components")]
    pub(super) fn to(researcher: SocketAddr) -> Result<Self, Problem> {
        let listener = TcpListener::bind("127.0.0.1:0");
        let (listener, address) =
            listener.and_then(|it| it.local_addr().map(|address| (it, address))).map_err(|error| failed(&error))?;
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for node in listener.incoming().flatten() {
                // One that cannot be passed on is closed: the node tries again.
                let _ = shared.connect(node, researcher);
            }
        });
        Ok(Self { address, state })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that passed towards the node, and towards the researcher.
    pub(super) fn passed(&self) -> (u64, u64) {
        (self.state.down.load(Ordering::Relaxed), self.state.up.load(Ordering::Relaxed))
    }

    /// Cuts the link for so long.
    pub(super) fn cut(&self, cut: Cut, lasts: Duration) {
        let flag = match cut {
            Cut::Reset => &self.state.is_closed,
            Cut::Silent => &self.state.is_silent,
        };
        flag.store(true, Ordering::SeqCst);
        if cut == Cut::Reset {
            for stream in self.state.open.lock().expect("no thread panics with the lock held").drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        std::thread::sleep(lasts);
        flag.store(false, Ordering::SeqCst);
    }
}

impl State {
    #[expect(clippy::disallowed_methods, reason = "the stand-in of a network between two components")]
    fn connect(self: &Arc<Self>, node: TcpStream, researcher: SocketAddr) -> io::Result<()> {
        if self.is_closed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let researcher = TcpStream::connect(researcher)?;
        for stream in [&node, &researcher] {
            stream.set_nodelay(true)?;
            self.open.lock().expect("no thread panics with the lock held").push(stream.try_clone()?);
        }
        let (mut up, mut down) = ((node.try_clone()?, researcher.try_clone()?), (researcher, node));
        let (state, other) = (self.clone(), self.clone());
        std::thread::spawn(move || state.pump(&mut up, &state.up));
        std::thread::spawn(move || other.pump(&mut down, &other.down));
        Ok(())
    }

    fn pump(&self, (from, to): &mut (TcpStream, TcpStream), passed: &AtomicU64) {
        let mut block = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut block) {
            while self.is_silent.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if to.write_all(&block[..read]).is_err() {
                break;
            }
            passed.fetch_add(read as u64, Ordering::Relaxed);
        }
        // If either direction ends, both do.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

fn failed(error: &io::Error) -> Problem {
    Problem::Unexpected { what: "a relay".into(), expected: "a socket", found: error.to_string() }
}
