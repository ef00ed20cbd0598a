//! What the demo takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// A scheme of secure aggregation, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SecaggChoice {
    /// Low-overhead masking: the researcher learns sums only.
    Lom,
    /// Encryption under which only sums can be opened.
    JoyeLibert,
    /// Not at all: the researcher sees what each hospital gives.
    None,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Print one JSON object and nothing else.
    #[arg(long)]
    pub json: bool,
    /// Keep the components and artefacts in this new folder.
    #[arg(long)]
    pub keep: Option<PathBuf>,
    /// How the hospitals' numbers are hidden from the researcher.
    #[arg(long, default_value = "lom")]
    pub secagg: SecaggChoice,
    /// Rounds of federated averaging.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rounds: u32,
}
