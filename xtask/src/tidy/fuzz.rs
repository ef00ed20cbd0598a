//! Every fuzz target is built, and has inputs to start from.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Finding, Source};
use crate::project::{Problem, Project};

const MANIFEST: &str = "fuzz/Cargo.toml";

pub(super) fn check(project: &Project, sources: &[Source]) -> Result<Vec<Finding>, Problem> {
    let folder = project.root().join("fuzz/corpus");
    let mut corpora = BTreeSet::new();
    let failed = |source| Problem::File { path: folder.clone(), source };
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        corpora.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(check_targets(sources, &corpora))
}

fn check_targets(sources: &[Source], corpora: &BTreeSet<String>) -> Vec<Finding> {
    let manifest = sources.iter().find(|source| source.path == Path::new(MANIFEST));
    let built: BTreeSet<String> = manifest.iter().flat_map(|manifest| programs(&manifest.text)).collect();
    let written = sources.iter().filter(|source| source.path.starts_with("fuzz/fuzz_targets"));
    let written: BTreeSet<String> =
        written.filter_map(|source| Some(source.path.file_stem()?.to_str()?.to_owned())).collect();
    let differ = |one: &BTreeSet<String>, other, text: &str| -> Vec<Finding> {
        one.difference(other)
            .map(|name| Finding::new(Path::new(MANIFEST), 0, format!("the fuzz target {name} {text}")))
            .collect()
    };
    [
        differ(&written, &built, "is not built: add a [[bin]]"),
        differ(&written, corpora, "has no corpus: add seeds to fuzz/checks/examples/seeds.rs"),
        differ(corpora, &written, "has a corpus only"),
    ]
    .concat()
}

/// The programs that a manifest names.
fn programs(manifest: &str) -> impl Iterator<Item = String> {
    manifest.split("[[bin]]").skip(1).filter_map(|part| Some(part.split('"').nth(1)?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_not_built_or_has_no_inputs_is_found() {
        let target = |name: &str| Source { path: format!("fuzz/fuzz_targets/{name}.rs").into(), text: String::new() };
        let manifest = |text: &str| Source { path: MANIFEST.into(), text: text.into() };
        let built = "[[bin]]\nname = \"csv\"\npath = \"fuzz_targets/csv.rs\"\n";
        let corpora = BTreeSet::from(["csv".to_owned()]);
        assert_eq!(check_targets(&[target("csv"), manifest(built)], &corpora), []);
        assert_eq!(check_targets(&[target("csv"), manifest("")], &corpora).len(), 1);
        assert_eq!(check_targets(&[target("csv"), manifest(built)], &BTreeSet::new()).len(), 1);
        assert_eq!(check_targets(&[manifest(built)], &corpora).len(), 1);
    }
}
