//! The `peers` commands: with whose nodes this one may be summed.

use clap::{Args, Subcommand};

use super::Format;

#[derive(Debug, Subcommand)]
#[command(
    after_help = "At the other hospital, for you to compare by phone:\n  fedbiomed node certificate show\n\nHere:\n  fedbiomed node peers trust NODE_1a2b3c4d-… --fingerprint \"BA78 16BF …\" --name \"South Hospital\"\n  fedbiomed node peers trust NODE_1a2b3c4d-… --public-key south.csr\n  fedbiomed node peers list\n  fedbiomed node peers distrust NODE_1a2b3c4d"
)]
pub(crate) enum PeersCommand {
    /// The nodes that this one knows, the fingerprints of their keys, and where it has them from.
    List(Format),
    /// Take a node into the pinned roster, by its key.
    Trust(PeersTrustArgs),
    /// Never be summed with a node again, wherever its key came from.
    Distrust {
        /// The node's id, or the first digits of it.
        node: String,
        /// The federation, where there are several: the researcher's id, or the first digits of it.
        #[arg(long, value_name = "RESEARCHER")]
        researcher: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PeersTrustArgs {
    /// The node's id.
    pub node: String,
    /// What the other hospital read out: SHA-256 of its node's key, 64 hexadecimal digits.
    #[arg(long, value_name = "HEX", required_unless_present = "public_key", conflicts_with = "public_key")]
    pub fingerprint: Option<String>,
    /// A file with the other node's key: its signing request or its certificate, as PEM.
    #[arg(long, value_name = "FILE")]
    pub public_key: Option<std::path::PathBuf>,
    /// The hospital, for people.
    #[arg(long)]
    pub name: Option<String>,
    /// The federation, where there are several: the researcher's id, or the first digits of it.
    #[arg(long, value_name = "RESEARCHER")]
    pub researcher: Option<String>,
}
