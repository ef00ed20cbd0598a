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
    /// Take the researcher's answer to a request: the node is enrolled then. Or take the certificate of a party, node or researcher,
    /// with which keys are negotiated directly.
    #[command(
        after_help = "Examples:\n  fedbiomed node certificate register --public-key north.answer\n  fedbiomed node certificate register -pk north.answer --address research.example.org:50051 --upsert\n  fedbiomed node certificate register -pi NODE_1a2b3c4d-... -pk south.pem --address south.example.org:14000"
    )]
    Register {
        /// The file from the researcher, or a party's certificate.
        #[arg(long, value_name = "FILE")]
        public_key: PathBuf,
        /// The researcher that the answer must be from, or the party whose certificate it is.
        #[arg(long, value_name = "PARTY")]
        party_id: Option<String>,
        /// Where the researcher listens, HOST:PORT, if the answer does not say or it is reached otherwise from here. Of a party: where
        /// it negotiates, by default on port 14000.
        #[arg(long)]
        address: Option<String>,
        /// Of a node's certificate: the researcher of the federation, if this node is in several.
        #[arg(long)]
        researcher: Option<String>,
        /// Take the new certificate in the place of an earlier one.
        #[arg(long)]
        upsert: bool,
    },
    /// Write this node's certificate, for the other parties of direct key negotiations.
    Export {
        /// The file to write; standard output if absent.
        #[arg(short, long)]
        output: Option<PathBuf>,
        /// The researcher of the federation, if this node is in several.
        #[arg(long)]
        researcher: Option<String>,
    },
    /// The parties with which this node negotiates keys directly.
    Parties(Format),
    /// Forget a party of direct key negotiations.
    Remove {
        /// Its id, or the first digits of it.
        party: String,
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
    /// Sign a node's request, and write the answer that enrols it. Or take the certificate of an enrolled node, with which keys are
    /// negotiated directly.
    #[command(
        after_help = "Examples:\n  fedbiomed researcher certificate register --public-key north.csr --name \"North Hospital\" --output north.answer\n  fedbiomed researcher certificate register -pi NODE_1a2b3c4d-... -pk north.pem --address north.example.org:14000"
    )]
    Register {
        /// The file from the node.
        #[arg(long, value_name = "FILE")]
        public_key: PathBuf,
        /// The node that the request must be from, or whose certificate it is.
        #[arg(long, value_name = "NODE")]
        party_id: Option<String>,
        /// The hospital, of a request.
        #[arg(long, required_unless_present = "party_id")]
        name: Option<String>,
        /// Of a request: where the node finds this researcher, HOST:PORT; the configured `server.public_address` if absent. Of a
        /// certificate: where the node negotiates, by default on port 14000.
        #[arg(long)]
        address: Option<String>,
        /// The file to write; standard output if absent.
        #[arg(short, long)]
        output: Option<PathBuf>,
        /// Take another key of a node that is enrolled already.
        #[arg(long)]
        upsert: bool,
    },
    /// Write the federation's certificate, by which nodes know this researcher in direct key negotiations.
    Export {
        /// The file to write; standard output if absent.
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// The nodes with which keys are negotiated directly.
    Parties(Format),
    /// Forget where a node negotiates keys directly.
    Remove {
        /// Its id, or the first digits of it.
        node: String,
    },
    /// Cut a node off, now and for good, as `revoke` does.
    Delete {
        /// Its id or name.
        node: String,
    },
    /// Make a new key and certificate for the server. Nodes need nothing: the federation's authority stays.
    Generate,
}
