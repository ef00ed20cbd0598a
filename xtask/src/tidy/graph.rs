//! The crate graph: who may use whom, who may use what of others. `ARCHITECTURE.md` says why.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use super::Finding;
use crate::project::{Problem, Project, output_of};

/// Every crate of ours and the crates of ours that it may use, tests included.
const MAY_USE: [(&str, &[&str]); 13] = [
    ("protocol", &[]),
    ("transport", &["protocol"]),
    ("component", &["protocol", "transport"]),
    ("data", &["protocol"]),
    ("analytics", &["protocol"]),
    ("learning", &["protocol"]),
    ("secagg", &[]),
    ("node", &["protocol", "transport", "component", "data", "analytics", "learning", "secagg"]),
    ("researcher", &["protocol", "transport", "component", "analytics", "learning", "secagg"]),
    ("simulation", &["protocol", "transport", "component", "data", "analytics", "learning", "node", "researcher"]),
    (
        "fedbiomed",
        &["protocol", "transport", "component", "data", "analytics", "learning", "node", "researcher", "simulation"],
    ),
    ("fuzz-checks", &["protocol", "transport", "component", "data", "learning", "secagg", "node", "researcher"]),
    ("xtask", &[]),
];

/// Crates whose results depend on their arguments alone.
pub(super) const PURE: [&str; 4] = ["protocol", "analytics", "learning", "secagg"];

/// What brings async code, sockets, clocks, files or entropy with it: never below a pure crate, at any depth.
const IMPURE: [&str; 15] = [
    "async-io",
    "async-std",
    "chrono",
    "futures-executor",
    "getrandom",
    "hyper",
    "mio",
    "reqwest",
    "rusqlite",
    "rustix",
    "rustls",
    "smol",
    "socket2",
    "tokio",
    "tonic",
];

/// Other people's crates that only these crates of ours name.
const ONLY_IN: [(&str, &[&str]); 12] = [
    ("aws-lc-rs", &["transport"]),
    ("hyper", &["transport"]),
    ("hyper-util", &["transport"]),
    // The researcher writes TensorBoard's files, which are protobuf.
    ("prost", &["transport", "researcher"]),
    ("rcgen", &["transport"]),
    ("rustls", &["transport"]),
    ("tokio-rustls", &["transport"]),
    ("tonic", &["transport"]),
    ("x509-parser", &["transport"]),
    // `data` puts the tables of an OMOP folder together in a database that lives as long as a reading; the tests of `fedbiomed` look
    // into a node's store.
    ("rusqlite", &["component", "data", "fedbiomed", "node", "researcher"]),
    ("postgres-protocol", &["data"]),
    ("clap", &["fedbiomed"]),
];

#[derive(Deserialize)]
struct Metadata {
    /// With `--no-deps`, those of this workspace.
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// Present for crates of this workspace only.
    path: Option<String>,
}

pub(super) fn check(project: &Project) -> Result<Vec<Finding>, Problem> {
    let json = output_of(project.cargo().args(["metadata", "--format-version", "1", "--no-deps", "--quiet"]))?;
    let metadata: Metadata = serde_json::from_str(&json).map_err(|error| Problem::Unexpected {
        what: "cargo metadata".into(),
        expected: "its format version 1",
        found: error.to_string(),
    })?;
    let mut findings: Vec<Finding> = metadata.packages.iter().flat_map(check_edges).collect();
    for name in PURE {
        // `cargo metadata` adds up the features that all crates ask for; this is what the crate alone brings with it.
        let arguments = ["tree", "--quiet", "--edges", "normal,no-proc-macro", "--prefix", "depth", "--package", name];
        findings.extend(check_purity(name, &output_of(project.cargo().args(arguments))?));
    }
    Ok(findings)
}

fn finding(package: &str, text: String) -> Finding {
    let folder = if package == "xtask" { Path::new("").to_owned() } else { Path::new("crates").to_owned() };
    Finding::new(&folder.join(package).join("Cargo.toml"), 0, text)
}

fn check_edges(package: &Package) -> Vec<Finding> {
    let name = package.name.as_str();
    let Some((_, may_use)) = MAY_USE.iter().find(|(of, _)| *of == name) else {
        return vec![finding(name, format!("`{name}` is not in the crate graph of xtask/src/tidy/graph.rs"))];
    };
    let mut findings = Vec::new();
    for dependency in &package.dependencies {
        let used = dependency.name.as_str();
        if dependency.path.is_some() && !may_use.contains(&used) {
            findings.push(finding(name, format!("`{name}` may not use `{used}`")));
        }
        if let Some((_, only_in)) = ONLY_IN.iter().find(|(of, _)| *of == used)
            && !only_in.contains(&name)
        {
            findings.push(finding(name, format!("only {} may use `{used}`", only_in.join(", "))));
        }
    }
    findings
}

/// Looks through what `cargo tree` prints: one crate on a line, its depth before its name.
fn check_purity(pure: &str, tree: &str) -> Vec<Finding> {
    let mut path = Vec::new();
    let mut found = BTreeSet::new();
    for line in tree.lines() {
        let name = line.trim_start_matches(|letter: char| letter.is_ascii_digit());
        let depth = line[..line.len() - name.len()].parse().unwrap_or_default();
        path.truncate(depth);
        path.push(name.split(' ').next().unwrap_or_default());
        if path.last().is_some_and(|last| IMPURE.contains(last)) {
            found.insert(path.join(" > "));
        }
    }
    let text = |path| finding(pure, format!("`{pure}` is pure and may not depend on this: {path}"));
    found.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, ours: &[&str], others: &[&str]) -> Package {
        let ours = ours.iter().map(|name| Dependency { name: (*name).into(), path: Some("crates".into()) });
        let others = others.iter().map(|name| Dependency { name: (*name).into(), path: None });
        Package { name: name.into(), dependencies: ours.chain(others).collect() }
    }

    #[test]
    fn an_edge_outside_the_graph_is_found() {
        assert_eq!(check_edges(&package("node", &["protocol", "data"], &["serde"])), []);
        assert_eq!(check_edges(&package("node", &["researcher"], &[])).len(), 1);
        assert_eq!(check_edges(&package("node", &[], &["rustls"])).len(), 1);
        assert_eq!(check_edges(&package("nobody", &[], &[])).len(), 1);
    }

    #[test]
    fn an_impure_crate_is_found_at_any_depth() {
        let tree = |last: &str| {
            format!("0protocol v0.1.0 (/a/b)\n1blake3 v1.8.7\n1rand v0.10.4\n2{last} v1.0.0 (*)\n1time v0.3.0\n")
        };
        assert_eq!(check_purity("protocol", &tree("rand_core")), []);
        let found = check_purity("protocol", &tree("getrandom"));
        assert_eq!(found.len(), 1);
        assert!(found[0].text.ends_with("protocol > rand > getrandom"), "{}", found[0].text);
    }
}
