//! What can be typed. Each command's words, defaults and examples; what they do is in the module of the same name.

mod certificate;
mod demo;
mod peers;
mod stats;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use certificate::{NodeCertificateCommand, ResearcherCertificateCommand};
pub(crate) use demo::{DemoArgs, SecaggChoice};
pub(crate) use peers::{PeersCommand, PeersTrustArgs};
pub(crate) use stats::{Asking, FamilyArg, GlmArgs, LinkArg, StatsCommand, StrataArg, TableTestArg, TiesArg};

/// Federated learning and analytics over data that never leaves the hospitals.
#[derive(Debug, Parser)]
#[command(name = "fedbiomed", version, disable_version_flag = true, arg_required_else_help = true)]
#[command(after_help = "Start here:\n  fedbiomed demo          four hospitals train one model on this machine")]
pub(crate) struct Cli {
    /// Print the version.
    #[arg(short = 'v', long, short_alias = 'V', action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    pub command: Command,
}

/// Writes Fed-BioMed's short flags of two letters as the long ones that they mean.
pub(crate) fn spelled_out(words: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    const LONG: [(&str, &str); 4] =
        [("-pk", "--public-key"), ("-pi", "--party-id"), ("-fl", "--file"), ("-eo", "--exist-ok")];
    words.map(|word| LONG.iter().find(|(short, _)| word == *short).map_or(word, |(_, long)| long.into()))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, back up and restore components.
    #[command(
        subcommand,
        after_help = "Examples:\n  fedbiomed component create -c node -p ./fbm-node -n \"North Hospital\"\n  fedbiomed component backup -p ./fbm-node -o north.backup\n  fedbiomed component restore -i north.backup -p ./fbm-node"
    )]
    Component(ComponentCommand),
    /// The hospital's side.
    Node(NodeArgs),
    /// The side that asks.
    Researcher(ResearcherArgs),
    /// Train one model over four hospitals, all on this machine, with real processes and connections.
    #[command(
        after_help = "Examples:\n  fedbiomed demo\n  fedbiomed demo --secagg none\n  fedbiomed demo --json > result.json\n  fedbiomed demo --keep ./federation"
    )]
    Demo(DemoArgs),
    /// Enrol all nodes in the sub-folders of a folder with the researcher there, for development on one machine.
    #[command(
        name = "certificate-dev-setup",
        after_help = "Example:\n  fedbiomed component create -c researcher -p dev/researcher\n  fedbiomed component create -c node -p dev/north\n  fedbiomed researcher -p dev/researcher start --background\n  fedbiomed certificate-dev-setup dev"
    )]
    CertificateDevSetup {
        /// The folder that holds the components.
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Print a reference page of the docs.
    #[command(hide = true)]
    Reference { page: ReferencePage },
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  fedbiomed completions bash > /etc/bash_completion.d/fedbiomed")]
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReferencePage {
    Commands,
    Configuration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ComponentKind {
    #[value(alias = "NODE")]
    Node,
    #[value(alias = "RESEARCHER")]
    Researcher,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ComponentCommand {
    /// Make a component's folder.
    #[command(
        after_help = "Examples:\n  fedbiomed component create -c researcher -p ./fbm-researcher\n  fedbiomed component create -c node -p ./fbm-node -n \"North Hospital\""
    )]
    Create {
        /// What the component is.
        #[arg(short, long)]
        component: ComponentKind,
        /// The folder; ./fbm-node or ./fbm-researcher if absent.
        #[arg(short, long)]
        path: Option<PathBuf>,
        /// A name for people, such as the hospital's.
        #[arg(short, long)]
        name: Option<String>,
        /// Keep a component that is there already.
        #[arg(long, visible_alias = "eo")]
        exist_ok: bool,
    },
    /// Write the whole folder, keys included, into one file (0600). The component must be stopped.
    Backup {
        #[arg(short, long)]
        path: PathBuf,
        /// The file to write.
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Make a folder from a backup.
    Restore {
        /// The backup file.
        #[arg(short, long)]
        input: PathBuf,
        /// The new folder.
        #[arg(short, long)]
        path: PathBuf,
    },
}

/// Options of every command that lists or shows something.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Format {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
pub(crate) struct StartArgs {
    /// Return once the daemon runs; its log is in log/application.log.
    #[arg(short, long)]
    pub background: bool,
    /// Stop a daemon that runs in this folder first.
    #[arg(long)]
    pub force: bool,
    /// Log more.
    #[arg(short = 'D', long)]
    pub debug: bool,
    /// End with the process that started this one.
    #[arg(long, hide = true)]
    pub with_parent: bool,
    /// Log to the file only.
    #[arg(long, hide = true)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "In this order:\n  fedbiomed component create -c node -p ./fbm-node -n \"North Hospital\"\n  fedbiomed node -p ./fbm-node enroll TOKEN\n  fedbiomed node -p ./fbm-node dataset add --file dataset.json\n  fedbiomed node -p ./fbm-node start --background\n  fedbiomed node -p ./fbm-node status"
)]
pub(crate) struct NodeArgs {
    /// The node's folder; `start` and `dataset add` make the default one if there is none.
    #[arg(short, long, global = true, default_value = "fbm-node", env = "FBM_NODE_COMPONENT_ROOT")]
    pub path: PathBuf,
    /// Answer yes to every question.
    #[arg(short = 'y', long, global = true)]
    pub yes: bool,
    #[command(subcommand)]
    pub command: NodeCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Join a federation with a one-time token from its researcher.
    #[command(visible_alias = "enrol", after_help = "Example:\n  fedbiomed node enroll fbm1_...")]
    Enroll {
        /// The last word that `researcher invite` printed.
        token: String,
    },
    /// The researchers with whom this node is enrolled.
    #[command(
        subcommand,
        after_help = "Examples:\n  fedbiomed node enrolment list\n  fedbiomed node enrolment forbid RESEARCHER_1a2b3c4d"
    )]
    Enrolment(EnrolmentCommand),
    /// Enrol by files that are exchanged by hand, and compare fingerprints.
    #[command(subcommand)]
    Certificate(NodeCertificateCommand),
    /// Run the daemon.
    #[command(
        after_help = "Examples:\n  fedbiomed node start\n  fedbiomed node start --background\n  fedbiomed node start --debug"
    )]
    Start(StartArgs),
    /// Stop the daemon.
    Stop,
    /// Stop the daemon and start it again in the background.
    Restart(StartArgs),
    /// Show how the node is.
    Status(Format),
    /// The data that this node offers.
    #[command(
        subcommand,
        after_help = "Wherever a DATASET is asked for: its id, the first digits of it, or its name.\n\nExamples:\n  fedbiomed node dataset add --file dataset.json\n  fedbiomed node dataset list --json\n  fedbiomed node dataset update Heart --tags heart,uci\n  fedbiomed node dataset refresh Heart\n  fedbiomed node -y dataset delete --all"
    )]
    Dataset(DatasetCommand),
    /// What this node was asked to do.
    #[command(
        subcommand,
        after_help = "Examples:\n  fedbiomed node tasks list\n  fedbiomed node tasks cancel task_1a2b3c4d\n  fedbiomed node tasks cancel --all"
    )]
    Tasks(TasksCommand),
    /// The other hospitals' nodes with which this one may be summed, under secure aggregation.
    #[command(subcommand)]
    Peers(PeersCommand),
    /// This node's own numbers in each round; under secure aggregation nobody else has them.
    #[command(
        after_help = "EXPERIMENT is its id, or the first digits of it.\n\nExamples:\n  fedbiomed node results\n  fedbiomed node results exper_1a2b3c4d --json"
    )]
    Results {
        /// Of one experiment; of all if absent.
        experiment: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Stop running work at once and refuse new work; researchers see "stopped by the hospital".
    Pause,
    /// Take work again.
    Resume,
    /// Check or show the audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Show the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum EnrolmentCommand {
    /// All enrolments and how their connections are.
    List(Format),
    /// Let an enrolled researcher give work again.
    Allow { researcher: String },
    /// Refuse all work from an enrolled researcher.
    Forbid { researcher: String },
    /// Drop an enrolment with its open tasks.
    Delete { researcher: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DatasetCommand {
    /// Register a dataset: by a JSON file, by flags, or by answering questions.
    #[command(
        after_help = "Examples:\n  fedbiomed node dataset add --file dataset.json\n  fedbiomed node dataset add --name Heart --tags heart,uci --data /data/heart.csv --description \"UCI heart disease\"\n  fedbiomed node dataset add --mnist /data/mnist\n\ndataset.json:\n  {\"name\": \"Heart\", \"data_type\": \"csv\", \"path\": \"/data/heart.csv\", \"tags\": [\"heart\"], \"description\": \"UCI heart disease\"}"
    )]
    Add(DatasetAddArgs),
    /// All datasets, and whether their files are as they were.
    List(Format),
    /// All about one dataset, with its columns.
    Show {
        dataset: String,
        #[command(flatten)]
        format: Format,
    },
    /// Change what is given, keep the rest.
    Update {
        dataset: String,
        #[arg(long)]
        name: Option<String>,
        #[arg(long, value_delimiter = ',')]
        tags: Option<Vec<String>>,
        #[arg(long)]
        description: Option<String>,
        /// Another place of the data.
        #[arg(long)]
        data: Option<PathBuf>,
        /// Researchers that see the dataset; an empty text: all that are enrolled.
        #[arg(long, value_delimiter = ',')]
        visible_to: Option<Vec<String>>,
    },
    /// Take a changed file as it is now.
    Refresh { dataset: String },
    /// Take a dataset off the list; the data stay where they are.
    Delete {
        #[arg(required_unless_present = "all")]
        dataset: Option<String>,
        /// All datasets.
        #[arg(short, long, conflicts_with = "dataset")]
        all: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DatasetAddArgs {
    /// A JSON file that describes the dataset.
    #[arg(short, long, visible_alias = "fl", conflicts_with_all = ["mnist", "name", "tags", "data", "description"])]
    pub file: Option<PathBuf>,
    /// MNIST in its IDX files, in this folder or in the component's data folder.
    #[arg(short, long, num_args = 0..=1, conflicts_with_all = ["name", "tags", "data", "description"])]
    #[expect(clippy::option_option, reason = "the flag may stand with or without a folder")]
    pub mnist: Option<Option<PathBuf>>,
    #[arg(long)]
    pub name: Option<String>,
    /// Separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub tags: Option<Vec<String>>,
    /// Where the data lie.
    #[arg(long)]
    pub data: Option<PathBuf>,
    #[arg(long)]
    pub description: Option<String>,
    /// csv (also for TSV) or default (MNIST).
    #[arg(long, default_value = "csv")]
    pub data_type: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TasksCommand {
    /// What is waiting, running, or computed and not fetched yet.
    List {
        /// Settled ones too.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Stop a task; the researcher sees "stopped by the hospital".
    Cancel {
        /// Its id, or the first digits of it.
        #[arg(required_unless_present = "all")]
        task: Option<String>,
        /// All open tasks.
        #[arg(long, conflicts_with = "task")]
        all: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that no line was changed, removed or put in between.
    Verify,
    /// The last lines.
    Tail {
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: usize,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Each value and where it came from.
    Show(Format),
}

#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "In this order:\n  fedbiomed component create -c researcher -p ./fbm-researcher\n  fedbiomed researcher -p ./fbm-researcher start --background\n  fedbiomed researcher -p ./fbm-researcher invite --name \"North Hospital\" --expires 7d\n  fedbiomed researcher -p ./fbm-researcher datasets\n  fedbiomed researcher -p ./fbm-researcher run experiment.toml"
)]
pub(crate) struct ResearcherArgs {
    /// The researcher's folder; `start` makes the default one if there is none.
    #[arg(short, long, global = true, default_value = "fbm-researcher", env = "FBM_RESEARCHER_COMPONENT_ROOT")]
    pub path: PathBuf,
    /// Answer yes to every question.
    #[arg(short = 'y', long, global = true)]
    pub yes: bool,
    #[command(subcommand)]
    pub command: ResearcherCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ResearcherCommand {
    /// Run the daemon: nodes connect to it by gRPC/TLS on TCP 50051.
    #[command(
        after_help = "Examples:\n  fedbiomed researcher start\n  FBM_SERVER_PORT=50052 fedbiomed researcher start --background"
    )]
    Start(StartArgs),
    /// Stop the daemon.
    Stop,
    /// Stop the daemon and start it again in the background.
    Restart(StartArgs),
    /// Show how the researcher is.
    Status(Format),
    /// Print a one-time token for a hospital; the token is the last word.
    #[command(
        after_help = "Example:\n  fedbiomed researcher invite --name \"North Hospital\" --expires 7d --address research.example.org:50051"
    )]
    Invite {
        /// The hospital.
        #[arg(long)]
        name: String,
        /// How long the token is good: 30m, 12h, 7d.
        #[arg(long, default_value = "7d")]
        expires: String,
        /// Where the node finds this researcher, HOST:PORT; the configured `server.public_address` if absent.
        #[arg(long)]
        address: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Tokens that have been given out.
    #[command(
        subcommand,
        after_help = "Examples:\n  fedbiomed researcher invitations list\n  fedbiomed researcher invitations revoke 1a2b3c4d"
    )]
    Invitations(InvitationCommand),
    /// Enrol nodes by files that are exchanged by hand, and compare fingerprints.
    #[command(subcommand)]
    Certificate(ResearcherCertificateCommand),
    /// The enrolled nodes, and who is connected.
    Nodes(Format),
    /// What the connected nodes offer.
    Datasets {
        /// Only datasets with all of these tags, separated by commas.
        #[arg(long, value_delimiter = ',')]
        tags: Option<Vec<String>>,
        #[command(flatten)]
        format: Format,
    },
    /// Cut a node off, now and for good.
    #[command(after_help = "Example:\n  fedbiomed researcher revoke \"North Hospital\"")]
    Revoke {
        /// Its id or name.
        node: String,
    },
    /// Run an experiment from a file. Ctrl-C cancels it on the nodes too; a closed terminal leaves it running.
    #[command(
        after_help = "Examples:\n  fedbiomed researcher run experiment.toml\n  fedbiomed researcher run --example > experiment.toml"
    )]
    Run {
        #[arg(required_unless_present = "example")]
        file: Option<PathBuf>,
        /// Print an experiment file with all keys explained.
        #[arg(long)]
        example: bool,
        /// Return at once; `experiments follow` shows it later.
        #[arg(long)]
        detach: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Ask for a statistic over all hospitals' data.
    #[command(
        subcommand,
        after_help = "By default sums are hidden, which needs three sites or more.\n\nExamples:\n  fedbiomed researcher stats schema --tags heart\n  fedbiomed researcher stats describe --tags heart --columns age,chol\n  fedbiomed researcher stats table --tags heart --rows sex --cols target --test chi2\n  fedbiomed researcher stats glm --tags heart --formula \"target ~ age + sex\" --family binomial"
    )]
    Stats(StatsCommand),
    /// Experiments of this researcher.
    #[command(
        subcommand,
        after_help = "Wherever an EXPERIMENT is asked for: its id, or as many of its first digits as tell it from others.\n\nExamples:\n  fedbiomed researcher experiments list\n  fedbiomed researcher experiments follow exper_1a2b3c4d\n  fedbiomed researcher experiments resume exper_1a2b3c4d --detach\n  fedbiomed researcher experiments cancel exper_1a2b3c4d"
    )]
    Experiments(ExperimentCommand),
    /// Check or show the audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Show the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum InvitationCommand {
    /// All tokens, and what became of them.
    List(Format),
    /// Make a token useless.
    Revoke { invitation: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExperimentCommand {
    /// All experiments, newest first.
    List(Format),
    /// All about one experiment: its nodes, rounds and artefacts.
    Show {
        experiment: String,
        #[command(flatten)]
        format: Format,
    },
    /// Show live progress until the end.
    Follow {
        experiment: String,
        #[command(flatten)]
        format: Format,
    },
    /// Go on with an experiment that failed or was cancelled.
    Resume {
        experiment: String,
        #[arg(long)]
        detach: bool,
        #[command(flatten)]
        format: Format,
    },
    /// End an experiment, on the nodes too.
    Cancel { experiment: String },
}
