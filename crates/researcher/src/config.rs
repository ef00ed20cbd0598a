//! The researcher's settings, `etc/config.toml`.

use std::path::PathBuf;
use std::time::Duration;

use component::config::{Config, ConfigError, Setting, Takes};
use protocol::ResearcherId;

/// Certificates begin an hour before they are made, for clocks that are behind, and are due after two thirds of their time.
const SHORTEST_VALIDITY: Duration = Duration::from_hours(2);

/// Every key a researcher takes.
pub const SETTINGS: &[Setting] = &[
    Setting {
        section: "default",
        key: "id",
        takes: Takes::Text,
        default: "\"\"",
        doc: "The component's id, written when it is created; it never changes.",
    },
    Setting {
        section: "default",
        key: "name",
        takes: Takes::Text,
        default: "\"researcher\"",
        doc: "The component's name, for people.",
    },
    Setting {
        section: "server",
        key: "host",
        takes: Takes::Text,
        default: "\"localhost\"",
        doc: "The address on which nodes are awaited; 0.0.0.0 for all addresses of this machine.",
    },
    Setting {
        section: "server",
        key: "port",
        takes: Takes::Integer { least: 0, most: 65_535 },
        default: "50051",
        doc: "The TCP port on which nodes are awaited; 0 lets the system choose one.",
    },
    Setting {
        section: "server",
        key: "public_address",
        takes: Takes::Text,
        default: "\"\"",
        doc: "The host name or host:port by which nodes reach this machine, for invitations. Empty: host and port.",
    },
    Setting {
        section: "server",
        key: "certificate_validity",
        takes: Takes::Duration,
        default: "\"90d\"",
        doc: "How long a node's certificate is good, 2h at least; nodes renew theirs when a third of it is left.",
    },
    Setting {
        section: "negotiation",
        key: "host",
        takes: Takes::Text,
        default: "\"0.0.0.0\"",
        doc: "The address on which nodes are awaited while keys are negotiated directly (key_negotiation = \"direct\" in an experiment); \
              0.0.0.0 for all addresses of this machine.",
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
        doc: "How long a direct negotiation waits for the nodes; then the port is closed.",
    },
    Setting {
        section: "experiments",
        key: "spool_quota_mb",
        takes: Takes::Integer { least: 1, most: 100_000_000 },
        default: "20000",
        doc: "How many megabytes (10^6 bytes) contributions that are not folded yet may take on the disk.",
    },
    Setting {
        section: "experiments",
        key: "joye_libert_modulus",
        takes: Takes::Text,
        default: "\"\"",
        doc: "A file with the 2048-bit modulus of the scheme joye-libert, decimal or hexadecimal after 0x; a relative path begins in \
              this folder. Empty: RSA-2048 of the RSA Factoring Challenge. All nodes have to be given the same.",
    },
    Setting {
        section: "experiments",
        key: "retention",
        takes: Takes::Duration,
        default: "\"365d\"",
        doc: "How long the models between rounds of a failed or cancelled experiment are kept, so that it can be resumed.",
    },
];

/// Settings with their types.
#[derive(Debug, Clone)]
pub struct Settings {
    pub id: ResearcherId,
    pub name: String,
    pub host: String,
    pub port: u16,
    /// Host or host:port for invitations.
    pub public_address: Option<String>,
    pub certificate_validity: Duration,
    /// Where keys are negotiated directly, and how long nodes are awaited there.
    pub negotiation_host: String,
    pub negotiation_port: u16,
    pub negotiation_timeout: Duration,
    pub spool_quota_bytes: u64,
    /// The file of another modulus for Joye-Libert than the default.
    pub joye_libert_modulus: Option<PathBuf>,
    pub retention: Duration,
}

impl Settings {
    /// Reads the file's text with the environment over it.
    pub fn load(file: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let config = Config::load(SETTINGS, file, env)?;
        let id = config.text("default", "id");
        let id = id.parse().map_err(|_| ConfigError::Wrong {
            place: "etc/config.toml".into(),
            key: "default.id".into(),
            expected: Takes::Text,
            found: format!("{id:?}, which is not a researcher's id"),
        })?;
        let certificate_validity = config.duration("server", "certificate_validity");
        if certificate_validity < SHORTEST_VALIDITY {
            return Err(ConfigError::Wrong {
                place: "etc/config.toml or FBM_SERVER_CERTIFICATE_VALIDITY".into(),
                key: "server.certificate_validity".into(),
                expected: Takes::Duration,
                found: format!(
                    "{:?}: certificates begin an hour early and are due after two thirds of their time; \
                     less than 2h leaves no time to renew them",
                    config.text("server", "certificate_validity")
                ),
            });
        }
        let modulus = config.text("experiments", "joye_libert_modulus");
        let public_address = config.text("server", "public_address").trim();
        Ok(Self {
            id,
            name: config.text("default", "name").to_owned(),
            host: config.text("server", "host").to_owned(),
            port: config.number("server", "port"),
            public_address: (!public_address.is_empty()).then(|| public_address.to_owned()),
            certificate_validity,
            negotiation_host: config.text("negotiation", "host").to_owned(),
            negotiation_port: config.number("negotiation", "port"),
            negotiation_timeout: config.duration("negotiation", "timeout"),
            spool_quota_bytes: config.number::<u64>("experiments", "spool_quota_mb") * 1_000_000,
            joye_libert_modulus: (!modulus.is_empty()).then(|| PathBuf::from(modulus)),
            retention: config.duration("experiments", "retention"),
        })
    }

    /// The file of a new component.
    pub fn template(id: &ResearcherId, name: &str) -> String {
        Config::template(SETTINGS, &[("default", "id", id.to_string()), ("default", "name", name.to_owned())])
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_new_components_file_loads_with_its_id_and_the_defaults() {
        let id = ResearcherId::random(&mut StdRng::seed_from_u64(1));
        let settings = Settings::load(&Settings::template(&id, "Ada"), |_| None).unwrap();
        assert_eq!((settings.id, settings.name.as_str(), settings.port), (id, "Ada", 50_051));
        assert_eq!(settings.public_address, None);
    }

    #[test]
    fn certificates_that_leave_no_time_to_renew_them_are_refused() {
        let id = ResearcherId::random(&mut StdRng::seed_from_u64(1));
        let load = |validity: &str| {
            let env = |name: &str| (name == "FBM_SERVER_CERTIFICATE_VALIDITY").then(|| validity.to_owned());
            Settings::load(&Settings::template(&id, "Ada"), env)
        };
        let error = load("90m").unwrap_err().to_string();
        assert!(error.contains("`server.certificate_validity`") && error.contains("less than 2h"), "{error}");
        assert_eq!(load("2h").unwrap().certificate_validity, SHORTEST_VALIDITY);
    }

    #[test]
    fn a_file_without_an_id_is_refused() {
        assert!(Settings::load("[default]\nname = \"x\"\n", |_| None).is_err());
    }
}
