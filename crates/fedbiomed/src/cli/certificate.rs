//! The `certificate` commands, for sites that must exchange files by hand. Flags as in Fed-BioMed where it has them.

use std::path::PathBuf;

use clap::Subcommand;

use super::Format;

#[derive(Debug, Subcommand)]
#[command(
    after_help = "In this order, with a phone call at the end:\n  fedbiomed node certificate generate --output north.csr\n  fedbiomed node certificate registration-instructions\n  fedbiomed node certificate register --public-key north.answer"
)]
pub(crate) enum NodeCertificateCommand {
    /// This node's certificates and open requests, with fingerprints to compare by phone.
    #[command(visible_alias = "list")]
    Show(Format),
    /// Make a key, and a request for a certificate of it: a file for the researcher. The key stays here.
    #[command(after_help = "Example:\n  fedbiomed node certificate generate --output north.csr")]
    Generate {
        /// The file to write; standard output if absent.
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// Print what to send to the researcher, and what to type at both ends.
    RegistrationInstructions,
    /// Take the researcher's answer to a request: the node is enrolled then.
    #[command(
        after_help = "Examples:\n  fedbiomed node certificate register --public-key north.answer\n  fedbiomed node certificate register -pk north.answer --address research.example.org:50051 --upsert"
    )]
    Register {
        /// The file from the researcher.
        #[arg(long, value_name = "FILE")]
        public_key: PathBuf,
        /// The researcher that the answer must be from.
        #[arg(long, value_name = "RESEARCHER")]
        party_id: Option<String>,
        /// Where the researcher listens, HOST:PORT, if the answer does not say or it is reached otherwise from here.
        #[arg(long)]
        address: Option<String>,
        /// Take the new certificate in the place of an earlier one from this researcher.
        #[arg(long)]
        upsert: bool,
    },
    /// Leave a researcher's federation, or drop an open request; its key is deleted.
    Delete {
        /// The researcher's id, or the first digits of the key fingerprint of an open request.
        what: String,
    },
}

#[derive(Debug, Subcommand)]
#[command(
    after_help = "Example:\n  fedbiomed researcher certificate register --public-key north.csr --name \"North Hospital\" --output north.answer"
)]
pub(crate) enum ResearcherCertificateCommand {
    /// The certificates of the federation and of its server, with fingerprints to compare by phone.
    Show(Format),
    /// The certificates of the nodes.
    List(Format),
    /// Print what to tell a hospital that cannot use a token.
    RegistrationInstructions,
    /// Sign a node's request, and write the answer that enrols it.
    #[command(
        after_help = "Example:\n  fedbiomed researcher certificate register --public-key north.csr --name \"North Hospital\" --output north.answer"
    )]
    Register {
        /// The file from the node.
        #[arg(long, value_name = "FILE")]
        public_key: PathBuf,
        /// The node that the request must be from.
        #[arg(long, value_name = "NODE")]
        party_id: Option<String>,
        /// The hospital.
        #[arg(long)]
        name: String,
        /// Where the node finds this researcher, HOST:PORT; the configured `server.public_address` if absent.
        #[arg(long)]
        address: Option<String>,
        /// The file to write; standard output if absent.
        #[arg(short, long)]
        output: Option<PathBuf>,
        /// Take another key of a node that is enrolled already.
        #[arg(long)]
        upsert: bool,
    },
    /// Cut a node off, now and for good, as `revoke` does.
    Delete {
        /// Its id or name.
        node: String,
    },
    /// Make a new key and certificate for the server. Nodes need nothing: the federation's authority stays.
    Generate,
}
