//! Why a command ended without doing what was asked: one sentence for the person who typed it.

use std::fmt;
use std::process::ExitCode;

/// A sentence, and the exit code that scripts see.
#[derive(Debug)]
pub(crate) struct Failure {
    sentence: String,
    code: u8,
}

impl Failure {
    /// Something could not be done (exit code 1).
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), code: 1 }
    }

    /// The person said stop (exit code 130, as shells have it for Ctrl-C).
    pub(crate) fn interrupted(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), code: 130 }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.sentence)
    }
}

/// An error with its causes, from the outside in.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut sentence = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !sentence.ends_with(&text) {
                sentence = format!("{sentence}: {text}");
            }
            source = cause.source();
        }
        Self::new(sentence)
    }
}

pub(crate) type Outcome = Result<(), Failure>;
