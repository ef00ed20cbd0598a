//! What happened, in order, with virtual times: the same for the same seed.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// A log that everybody in a world writes to, and the one place that reads the runtime's clock.
#[derive(Clone)]
pub struct Log {
    begun: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Log {
    /// Begins a log, and time with it.
    #[expect(clippy::disallowed_methods, reason = "the clock of the simulation: the runtime's, which is paused")]
    pub(crate) fn begin() -> Self {
        Self { begun: Instant::now(), lines: Arc::default() }
    }

    /// Virtual time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self, line: impl fmt::Display) {
        self.lines().push(format!("{:9.3} {line}", self.elapsed().as_secs_f64()));
    }

    /// All lines so far.
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// Whether a line has this text in it.
    pub fn has(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }

    /// Writes down what the daemons trace too, until the guard is dropped. Costs more than the rest of a simulation.
    pub fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let lines = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::DEBUG)
            .with_timer(VirtualTime(self.clone()))
            .with_writer(move || LogWriter(lines.clone()))
            .finish();
        tracing::subscriber::set_default(subscriber)
    }
}

struct VirtualTime(Log);

impl FormatTime for VirtualTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:9.3}", self.0.elapsed().as_secs_f64())
    }
}

struct LogWriter(Log);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lines().push(String::from_utf8_lossy(bytes).trim_end().to_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
