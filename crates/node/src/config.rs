//! A node's configuration: its keys, and their values as types.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use component::config::{Config, ConfigError, Origin, Setting, Takes, nearest};
use protocol::ids::IdError;
use protocol::{NodeId, PlanKind, ResearcherId};
use thiserror::Error;

/// The keys of a node's `etc/config.toml`.
pub const SETTINGS: &[Setting] = &[
    Setting {
        section: "default",
        key: "id",
        takes: Takes::Text,
        default: "\"\"",
        doc: "The node's id; made by `component create` and never changed.",
    },
    Setting {
        section: "default",
        key: "name",
        takes: Takes::Text,
        default: "\"\"",
        doc: "The node's name, as researchers see it.",
    },
    Setting {
        section: "researcher",
        key: "ip",
        takes: Takes::Text,
        default: "\"\"",
        doc: "Where the researcher is, if not where the token says; only with one enrolment. A name or an address.",
    },
    Setting {
        section: "researcher",
        key: "port",
        takes: Takes::Integer { least: 1, most: 65_535 },
        default: "50051",
        doc: "The researcher's port, if not the token's; only with one enrolment.",
    },
    Setting {
        section: "security",
        key: "minimum_samples",
        takes: Takes::Integer { least: 0, most: i64::MAX },
        default: "0",
        doc: "Datasets with fewer rows are not registered, and nothing is computed on fewer rows or values of a column. Tasks on \
              other choices of rows may still differ by fewer. How many rows took part is told in the report.",
    },
    Setting {
        section: "security",
        key: "allowed_plan_kinds",
        takes: Takes::Texts,
        default: "[\"training\", \"statistic\"]",
        doc: "What researchers may ask for: training, statistic.",
    },
    Setting {
        section: "security",
        key: "allowed_researchers",
        takes: Takes::Texts,
        default: "[]",
        doc: "The ids of the enrolled researchers that may ask; empty means all enrolled ones.",
    },
    Setting {
        section: "security",
        key: "secure_aggregation",
        takes: Takes::Choice(&["off", "allowed", "required"]),
        default: "\"allowed\"",
        doc: "Whether this node adds masks to what it gives, so that a researcher learns the sum over nodes only: off, allowed, or required \
              for everything, statistics and validation included.",
    },
    Setting {
        section: "security",
        key: "min_parties",
        takes: Takes::Integer { least: 2, most: 65_536 },
        default: "3",
        doc: "The fewest nodes whose hidden sum this node helps to open. With 2, each of the two can compute the other's value.",
    },
    Setting {
        section: "security",
        key: "max_colluders",
        takes: Takes::Integer { least: -1, most: 65_534 },
        default: "-1",
        doc: "How many nodes may conspire with the researcher without learning more than the sum. -1: at most a third, and as many as \
              let one node be lost.",
    },
    Setting {
        section: "security",
        key: "roster",
        takes: Takes::Choice(&["auto", "enrolment", "pinned"]),
        default: "\"auto\"",
        doc: "Whose keys are taken for those of other nodes: enrolment, as the researcher says and then unchanged, or pinned, only those \
              given by `node peers trust`. auto: pinned where secure aggregation is required.",
    },
    Setting {
        section: "security",
        key: "joye_libert_modulus",
        takes: Takes::Text,
        default: "\"\"",
        doc: "A file with the 2048-bit modulus of the scheme joye-libert, decimal or hexadecimal after 0x; a relative path begins in \
              this folder. Whoever knows its factors can read every contribution. Empty: RSA-2048 of the RSA Factoring Challenge. The \
              researcher and all nodes need the same.",
    },
    Setting {
        section: "security",
        key: "negotiation",
        takes: Takes::Choice(&["relay", "direct", "both"]),
        default: "\"relay\"",
        doc: "How keys for hidden sums reach the other nodes: relay, through the researcher, so that this node listens nowhere; direct, by \
              connections between the parties, for which this node listens while a negotiation runs; both, as the experiment says.",
    },
    Setting {
        section: "negotiation",
        key: "host",
        takes: Takes::Text,
        default: "\"0.0.0.0\"",
        doc: "The address on which the other parties are awaited in a direct negotiation; 0.0.0.0 for all addresses of this machine.",
    },
    Setting {
        section: "negotiation",
        key: "port",
        takes: Takes::Integer { least: 1, most: 65_535 },
        default: "14000",
        doc: "The TCP port of direct negotiations; further components of one machine take the next ones.",
    },
    Setting {
        section: "negotiation",
        key: "timeout",
        takes: Takes::Duration,
        default: "\"60s\"",
        doc: "How long a direct negotiation waits for the other parties; then the port is closed.",
    },
    Setting {
        section: "disclosure",
        key: "minimum_rows",
        takes: Takes::Integer { least: 0, most: i64::MAX },
        default: "5",
        doc: "What a statistic says of fewer rows, or of a group with fewer, does not leave; none at all may be said.",
    },
    Setting {
        section: "disclosure",
        key: "minimum_events",
        takes: Takes::Integer { least: 0, most: i64::MAX },
        default: "5",
        doc: "The same for events, as deaths in a survival curve.",
    },
    Setting {
        section: "disclosure",
        key: "small_cells",
        takes: Takes::Choice(&["refuse", "inside_sum"]),
        default: "\"refuse\"",
        doc: "What happens where this node's own counts are too small: refuse the pass, or, where sums are hidden, add them to the sum \
              if the sum's own counts are large enough. The latter holds against a curious researcher, not against one that lies.",
    },
    Setting {
        section: "disclosure",
        key: "time_resolution",
        takes: Takes::Choice(&["limited", "exact"]),
        default: "\"limited\"",
        doc: "How finely times of events are told: in steps that hold the minimum of events, or exact.",
    },
    Setting {
        section: "disclosure",
        key: "minmax",
        takes: Takes::Choice(&["refused", "allowed"]),
        default: "\"refused\"",
        doc: "Whether the smallest and the largest value of a column may be told; each is the value of one person.",
    },
    Setting {
        section: "disclosure",
        key: "per_site",
        takes: Takes::Choice(&["refused", "allowed"]),
        default: "\"allowed\"",
        doc: "Whether a statistic of this node alone may be told, as where sums are not hidden.",
    },
    Setting {
        section: "datasets",
        key: "row_counts",
        takes: Takes::Choice(&["exact", "rounded", "hidden"]),
        default: "\"rounded\"",
        doc: "How a search shows the number of rows; rounded keeps two digits. Taking part in an experiment tells the exact number \
              of rows in the report, whatever this says.",
    },
    Setting {
        section: "proxy",
        key: "url",
        takes: Takes::Url,
        default: "\"\"",
        doc: "An HTTP CONNECT proxy as http://[user:password@]host:port; empty means HTTPS_PROXY of the environment.",
    },
    Setting {
        section: "proxy",
        key: "exceptions",
        takes: Takes::Texts,
        default: "[]",
        doc: "Hosts reached without the proxy; empty means NO_PROXY of the environment.",
    },
    Setting {
        section: "storage",
        key: "quota_mib",
        takes: Takes::Integer { least: 1, most: 1 << 40 },
        default: "20480",
        doc: "The most that contributions and node state take on disk, in MiB; tasks that would need more are refused.",
    },
    Setting {
        section: "storage",
        key: "spool_retention",
        takes: Takes::Duration,
        default: "\"30d\"",
        doc: "After how long a contribution that no researcher fetches is told in the log. It stays until its task is settled or cancelled.",
    },
    Setting {
        section: "storage",
        key: "journal_retention",
        takes: Takes::Duration,
        default: "\"90d\"",
        doc: "How long settled tasks stay in the journal.",
    },
    Setting {
        section: "storage",
        key: "state_retention",
        takes: Takes::Duration,
        default: "\"90d\"",
        doc: "How long the state of an experiment is kept after its last task.",
    },
    Setting {
        section: "training",
        key: "threads",
        takes: Takes::Integer { least: 1, most: 1_024 },
        default: "1",
        doc: "How many trainings run at once, each on one thread; others wait their turn.",
    },
    Setting {
        section: "training",
        key: "memory_mib",
        takes: Takes::Integer { least: 0, most: 1 << 30 },
        default: "0",
        doc: "The most memory that one task may need by estimate, in MiB; larger ones are refused. 0: half of the machine's.",
    },
];

/// The least time that something is kept.
const LEAST_RETENTION: Duration = Duration::from_hours(1);

/// How row counts are shown to researchers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowCounts {
    Exact,
    Rounded,
    Hidden,
}

/// Whether a node hides what it gives in sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecureAggregation {
    Off,
    Allowed,
    /// For training, validation, statistics and standardisation alike.
    Required,
}

/// Whose keys are taken for those of other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RosterRule {
    /// Those that the researcher gives, unchanged from then on.
    Enrolment,
    /// Those that the hospital trusts by hand.
    Pinned,
}

/// How keys for hidden sums may reach the other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NegotiationRule {
    /// Through the researcher only.
    Relay,
    /// By direct connections only.
    Direct,
    /// As the experiment says.
    Both,
}

/// Where and how a node negotiates directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NegotiationSettings {
    pub host: String,
    pub port: u16,
    pub timeout: Duration,
}

/// What a hospital demands of hidden sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecureRules {
    pub mode: SecureAggregation,
    pub min_parties: u32,
    /// `None`: the default of crate `secagg`.
    pub max_colluders: Option<u32>,
    pub roster: RosterRule,
    pub negotiation: NegotiationRule,
}

/// Limits of what a node keeps on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageLimits {
    pub quota_bytes: u64,
    pub spool_retention: Duration,
    pub journal_retention: Duration,
    pub state_retention: Duration,
}

/// Another place of the researcher than the token says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressOverride {
    pub host: Option<String>,
    pub port: Option<u16>,
}

/// What statistics may say of few people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a permission of its own, with a key of its own")]
pub struct DisclosureRules {
    pub minimum_rows: u64,
    pub minimum_events: u64,
    /// Whether small counts may be added to a hidden sum.
    pub small_inside_sum: bool,
    pub exact_times: bool,
    pub minmax: bool,
    pub per_site: bool,
}

/// A proxy from the file, or from `HTTPS_PROXY` and `NO_PROXY`. The URL may hold a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxySettings {
    pub url: Option<String>,
    /// Separated by commas.
    pub exceptions: Option<String>,
}

/// A node's configuration.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    pub id: NodeId,
    pub name: String,
    pub researcher: AddressOverride,
    pub minimum_samples: u64,
    pub allowed_plan_kinds: BTreeSet<PlanKind>,
    /// `None`: all that are enrolled.
    pub allowed_researchers: Option<BTreeSet<ResearcherId>>,
    pub secure: SecureRules,
    pub disclosure: DisclosureRules,
    pub negotiation: NegotiationSettings,
    /// The file of another modulus for Joye-Libert than the default.
    pub joye_libert_modulus: Option<PathBuf>,
    pub row_counts: RowCounts,
    pub proxy: ProxySettings,
    pub storage: StorageLimits,
    /// How many trainings run at once.
    pub trainings: usize,
    /// The most memory that one task may need; `None`: half of the machine's.
    pub memory_bytes: Option<u64>,
    layers: Config,
}

/// Why a node's configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NodeConfigError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("`{key}`: {source}")]
    Id { key: &'static str, source: IdError },
    #[error(
        "`security.allowed_plan_kinds` takes training and statistic, found {found:?}{}",
        nearest.as_ref().map(|word| format!("; did you mean {word:?}?")).unwrap_or_default()
    )]
    PlanKind { found: String, nearest: Option<String> },
    #[error("`storage.{key}` is at least 1h, found {found:?}")]
    Retention { key: &'static str, found: String },
    #[error("`default.name` must have 1 to 128 characters without control characters")]
    Name,
}

fn plan_kind(word: &str) -> Result<PlanKind, NodeConfigError> {
    match word {
        "training" => Ok(PlanKind::Training),
        "statistic" => Ok(PlanKind::Statistic),
        _ => {
            let words = ["training", "statistic"].map(str::to_owned);
            Err(NodeConfigError::PlanKind { found: word.to_owned(), nearest: nearest(word, words) })
        }
    }
}

/// Reads how long something is kept; what would go at once was never meant to be kept.
fn retention(layers: &Config, key: &'static str) -> Result<Duration, NodeConfigError> {
    let kept = layers.duration("storage", key);
    if kept < LEAST_RETENTION {
        return Err(NodeConfigError::Retention { key, found: layers.text("storage", key).to_owned() });
    }
    Ok(kept)
}

fn secure_rules(layers: &Config) -> SecureRules {
    let mode = match layers.text("security", "secure_aggregation") {
        "off" => SecureAggregation::Off,
        "required" => SecureAggregation::Required,
        _ => SecureAggregation::Allowed,
    };
    let roster = match layers.text("security", "roster") {
        "pinned" => RosterRule::Pinned,
        "enrolment" => RosterRule::Enrolment,
        _ if mode == SecureAggregation::Required => RosterRule::Pinned,
        _ => RosterRule::Enrolment,
    };
    SecureRules {
        mode,
        min_parties: layers.number("security", "min_parties"),
        max_colluders: u32::try_from(layers.number::<i64>("security", "max_colluders")).ok(),
        roster,
        negotiation: match layers.text("security", "negotiation") {
            "direct" => NegotiationRule::Direct,
            "both" => NegotiationRule::Both,
            _ => NegotiationRule::Relay,
        },
    }
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn proxy(layers: &Config, env: &impl Fn(&str) -> Option<String>) -> ProxySettings {
    let from_env = |name: &str| env(name).or_else(|| env(&name.to_lowercase()));
    let exceptions = layers.texts("proxy", "exceptions");
    let exceptions = if exceptions.is_empty() { from_env("NO_PROXY") } else { Some(exceptions.join(",")) };
    ProxySettings { url: given(layers.text("proxy", "url")).or_else(|| from_env("HTTPS_PROXY")), exceptions }
}

impl std::fmt::Debug for ProxySettings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ProxySettings").field("exceptions", &self.exceptions).finish_non_exhaustive()
    }
}

/// Whether a text can be a node's name.
pub fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

fn disclosure_rules(layers: &Config) -> DisclosureRules {
    let is = |key: &str, word: &str| layers.text("disclosure", key) == word;
    DisclosureRules {
        minimum_rows: layers.number("disclosure", "minimum_rows"),
        minimum_events: layers.number("disclosure", "minimum_events"),
        small_inside_sum: is("small_cells", "inside_sum"),
        exact_times: is("time_resolution", "exact"),
        minmax: is("minmax", "allowed"),
        per_site: is("per_site", "allowed"),
    }
}

impl NodeConfig {
    /// Layers environment over file over defaults and reads the values.
    pub fn load(file: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self, NodeConfigError> {
        let layers = Config::load(SETTINGS, file, &env)?;
        let id = layers.text("default", "id").parse().map_err(|source| NodeConfigError::Id { key: "default.id", source })?;
        let name = layers.text("default", "name").to_owned();
        if !is_name(&name) {
            return Err(NodeConfigError::Name);
        }
        let kinds = layers.texts("security", "allowed_plan_kinds");
        let researchers =
            layers.texts("security", "allowed_researchers").iter().map(|id| id.parse()).collect::<Result<BTreeSet<_>, _>>();
        let researchers =
            researchers.map_err(|source| NodeConfigError::Id { key: "security.allowed_researchers", source })?;
        let port_is_given = layers.entries().any(|(setting, _, origin)| {
            (setting.section, setting.key) == ("researcher", "port") && *origin != Origin::Default
        });
        Ok(Self {
            id,
            name,
            researcher: AddressOverride {
                host: given(layers.text("researcher", "ip")),
                port: port_is_given.then(|| layers.number("researcher", "port")),
            },
            minimum_samples: layers.number("security", "minimum_samples"),
            allowed_plan_kinds: kinds.iter().map(|word| plan_kind(word)).collect::<Result<_, _>>()?,
            allowed_researchers: (!researchers.is_empty()).then_some(researchers),
            secure: secure_rules(&layers),
            disclosure: disclosure_rules(&layers),
            negotiation: NegotiationSettings {
                host: layers.text("negotiation", "host").to_owned(),
                port: layers.number("negotiation", "port"),
                timeout: layers.duration("negotiation", "timeout"),
            },
            joye_libert_modulus: given(layers.text("security", "joye_libert_modulus")).map(PathBuf::from),
            row_counts: match layers.text("datasets", "row_counts") {
                "exact" => RowCounts::Exact,
                "hidden" => RowCounts::Hidden,
                _ => RowCounts::Rounded,
            },
            proxy: proxy(&layers, &env),
            storage: StorageLimits {
                quota_bytes: layers.number::<u64>("storage", "quota_mib") << 20,
                spool_retention: retention(&layers, "spool_retention")?,
                journal_retention: retention(&layers, "journal_retention")?,
                state_retention: retention(&layers, "state_retention")?,
            },
            trainings: layers.number("training", "threads"),
            memory_bytes: Some(layers.number::<u64>("training", "memory_mib") << 20).filter(|bytes| *bytes > 0),
            layers,
        })
    }

    /// The file of a new node.
    pub fn template(id: &NodeId, name: &str) -> String {
        Config::template(SETTINGS, &[("default", "id", id.to_string()), ("default", "name", name.to_owned())])
    }

    /// Every key with its value and where it came from.
    pub fn layers(&self) -> &Config {
        &self.layers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "NODE_00000000-0000-4000-8000-000000000001";

    fn load(rest: &str, env: &[(&str, &str)]) -> Result<NodeConfig, NodeConfigError> {
        let file = format!("[default]\nid = \"{ID}\"\nname = \"North\"\n{rest}");
        NodeConfig::load(&file, |name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn a_new_nodes_file_loads() {
        let config = NodeConfig::load(&NodeConfig::template(&ID.parse().unwrap(), "North \"A\""), |_| None).unwrap();
        assert_eq!(config.name, "North \"A\"");
        assert_eq!(config.allowed_plan_kinds.len(), 2);
        assert_eq!(config.researcher, AddressOverride::default());
        assert_eq!(config.row_counts, RowCounts::Rounded);
    }

    #[test]
    fn fed_biomeds_variable_names_work() {
        let env =
            [("FBM_RESEARCHER_IP", "10.0.0.1"), ("FBM_RESEARCHER_PORT", "50051"), ("FBM_SECURITY_MINIMUM_SAMPLES", "20")];
        let config = load("", &env).unwrap();
        assert_eq!(config.researcher, AddressOverride { host: Some("10.0.0.1".into()), port: Some(50_051) });
        assert_eq!(config.minimum_samples, 20);
    }

    #[test]
    fn a_node_that_requires_secure_aggregation_pins_keys_unless_told_otherwise() {
        let secure = |rest: &str| load(&format!("[security]\n{rest}\n"), &[]).map(|config| config.secure);
        let default = secure("").unwrap();
        let allowed = (SecureAggregation::Allowed, RosterRule::Enrolment, 3, None);
        assert_eq!((default.mode, default.roster, default.min_parties, default.max_colluders), allowed);
        let required = secure("secure_aggregation = \"required\"").unwrap();
        assert_eq!((required.mode, required.roster), (SecureAggregation::Required, RosterRule::Pinned));
        let eased = secure("secure_aggregation = \"required\"\nroster = \"enrolment\"\nmax_colluders = 0").unwrap();
        assert_eq!((eased.roster, eased.max_colluders), (RosterRule::Enrolment, Some(0)));
        assert!(secure("min_parties = 1").is_err());
        assert!(secure("secure_aggregation = \"on\"").is_err());
    }

    #[test]
    fn nothing_is_kept_for_no_time_at_all() {
        for key in ["spool_retention", "journal_retention", "state_retention"] {
            let load = |value: &str| load(&format!("[storage]\n{key} = \"{value}\"\n"), &[]);
            let error = load("0s").unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("at least 1h"), "{error}");
            assert!(load("59m").is_err());
            load("1h").unwrap();
        }
    }

    #[test]
    fn wrong_words_and_ids_are_refused_by_name() {
        let error = load("[security]\nallowed_plan_kinds = [\"traning\"]\n", &[]).unwrap_err();
        assert!(error.to_string().ends_with("did you mean \"training\"?"), "{error}");
        assert!(matches!(load("[security]\nallowed_researchers = [\"x\"]\n", &[]), Err(NodeConfigError::Id { .. })));
        assert!(matches!(load("", &[("FBM_DEFAULT_NAME", "")]), Err(NodeConfigError::Name)));
    }
}
