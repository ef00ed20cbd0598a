//! Which nodes take part with which dataset, from what they answered to the search.

use std::collections::{BTreeMap, BTreeSet};

use component::config::nearest;
use protocol::encoding::MAX_CONTRIBUTIONS;
use protocol::{
    DatasetFace, DatasetId, ExperimentSpec, NodeId, Plan, RawExperimentSpec, RowCount, Selection, Tags, Timestamp,
};
use serde::{Deserialize, Serialize};

/// The nodes that are being found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selecting {
    pub since: Timestamp,
    /// Nodes that were asked and have not answered, or that are gone and may come back.
    pub asked: BTreeMap<NodeId, String>,
    pub found: BTreeMap<NodeId, Offer>,
    /// Connected nodes that are not asked, by name: one of them may have been meant by a name that nobody has.
    #[serde(default)]
    pub others: BTreeMap<NodeId, String>,
}

/// What a node answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    pub name: String,
    pub datasets: Vec<DatasetFace>,
}

/// A node that takes part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Participant {
    pub name: String,
    pub dataset: DatasetId,
    /// Rows as the hospital shows them.
    pub rows: RowCount,
    pub away_since: Option<Timestamp>,
    /// Set once it is left out of the rest of the experiment.
    pub dropped: Option<Dropped>,
}

/// Why a node is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropped {
    /// Whether a person at the hospital stopped the work.
    pub by_hospital: bool,
    pub reason: String,
}

impl Dropped {
    pub(super) fn because(reason: impl Into<String>) -> Self {
        Self { by_hospital: false, reason: reason.into() }
    }
}

/// What the answers amount to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Choice {
    /// Somebody may still come or answer.
    Wait,
    Chosen {
        spec: Box<ExperimentSpec>,
        participants: BTreeMap<NodeId, Participant>,
    },
    /// It cannot be.
    Refused(String),
}

/// What is searched for.
pub(super) fn tags(spec: &ExperimentSpec) -> Option<Tags> {
    match spec.selection() {
        Selection::Tags(tags) => Some(tags.clone()),
        Selection::Datasets(_) => None,
    }
}

impl Selecting {
    pub(super) fn new(since: Timestamp) -> Self {
        Self { since, asked: BTreeMap::new(), found: BTreeMap::new(), others: BTreeMap::new() }
    }

    /// After a restart: whoever was here is expected back.
    pub(super) fn begin_again(&mut self, since: Timestamp) {
        self.since = since;
        self.others.clear();
        let found = std::mem::take(&mut self.found);
        self.asked.extend(found.into_iter().map(|(node, offer)| (node, offer.name)));
    }

    /// A node whose connection is gone is expected back.
    pub(super) fn lose(&mut self, node: &NodeId) {
        self.others.remove(node);
        if let Some(offer) = self.found.remove(node) {
            self.asked.insert(node.clone(), offer.name);
        }
    }

    /// Chooses once everybody who is expected has answered, or when time is up.
    pub(super) fn choose(&self, spec: &ExperimentSpec, is_time_up: bool) -> Choice {
        let mut chosen = BTreeMap::new();
        for (node, offer) in &self.found {
            match matching(spec, node, &offer.datasets).as_slice() {
                [] => {}
                [face] => {
                    chosen.insert(node.clone(), (offer, *face));
                }
                several => {
                    let names: Vec<String> = several.iter().map(|face| format!("{} ({})", face.name, face.id)).collect();
                    return Choice::Refused(format!(
                        "{} has {} datasets that match: {}; add a tag that only one has, or name the dataset",
                        offer.name,
                        several.len(),
                        names.join(", ")
                    ));
                }
            }
        }
        let min_nodes = spec.least_nodes() as usize;
        let missing = missing(spec, &self.found);
        if !is_time_up && (!self.asked.is_empty() || !missing.is_empty() || chosen.len() < min_nodes) {
            return Choice::Wait;
        }
        if chosen.len() < min_nodes {
            return Choice::Refused(self.too_few(spec, chosen.len(), &missing));
        }
        if chosen.len() > MAX_CONTRIBUTIONS as usize {
            return Choice::Refused(format!(
                "{} nodes would take part, and at most {MAX_CONTRIBUTIONS} contributions can be summed; name the nodes",
                chosen.len()
            ));
        }
        let faces: Vec<(&str, &DatasetFace)> = chosen.values().map(|(offer, face)| (offer.name.as_str(), *face)).collect();
        if let Some(reason) = misspelt_column(spec.plan(), &faces) {
            return Choice::Refused(reason);
        }
        match resolve(spec.clone(), &faces) {
            Err(reason) => Choice::Refused(reason),
            Ok(spec) => Choice::Chosen {
                spec: Box::new(spec),
                participants: chosen.into_iter().map(|(node, (offer, face))| (node, participant(offer, face))).collect(),
            },
        }
    }

    /// What is waited for.
    pub(super) fn remark(&self, spec: &ExperimentSpec) -> String {
        let matches = |(node, offer): &(&NodeId, &Offer)| !matching(spec, node, &offer.datasets).is_empty();
        let (chosen, wanted) = (self.found.iter().filter(matches).count(), wanted(spec));
        let sentence = match spec.least_nodes() {
            min_nodes if chosen >= min_nodes as usize => "waits a short while for more nodes".to_owned(),
            1 => format!("waits a short while for a node with {wanted}"),
            min_nodes => format!("waits a short while for nodes with {wanted}: {chosen} of {min_nodes} found"),
        };
        let misspelt = self.misspelt_tags(spec);
        let nobody = (self.asked.is_empty() && self.found.is_empty()).then(|| "none is connected".to_owned());
        let silent = self.asked.values().map(|name| format!("{name} has not answered yet"));
        let unsuited = self.found.iter().filter(|offer| !matches(offer));
        let unsuited = unsuited.map(|(_, offer)| format!("{} has no such dataset", offer.name));
        let absent = missing(spec, &self.found).into_iter();
        let absent = absent.filter(|name| !self.asked.iter().any(|(node, asked)| node.as_str() == name || asked == name));
        let absent = absent.map(|name| format!("{name} is not connected{}", self.similar_node(&name)));
        [sentence]
            .into_iter()
            .chain(misspelt)
            .chain(nobody)
            .chain(silent)
            .chain(unsuited)
            .chain(absent)
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// Takes a node's answer. Returns whether to ask it for all its datasets: none of those that it found does, and the names
    /// of the others tell whether a tag is misspelt.
    pub(super) fn answer(&mut self, node: &NodeId, datasets: Vec<DatasetFace>, spec: &ExperimentSpec) -> bool {
        if let Some(name) = self.asked.remove(node) {
            let is_unsuited = matches!(spec.selection(), Selection::Tags(_)) && datasets.is_empty();
            self.found.insert(node.clone(), Offer { name, datasets });
            return is_unsuited;
        }
        if let Some(offer) = self.found.get_mut(node).filter(|offer| offer.datasets.is_empty()) {
            offer.datasets = datasets;
        }
        false
    }

    /// Says which node is called nearly as one that is not connected.
    fn similar_node(&self, name: &str) -> String {
        let known = self.others.iter().flat_map(|(node, name)| [node.to_string(), name.clone()]);
        did_you_mean(nearest(name, known))
    }

    /// Says which tags nobody has that are nearly those of a dataset.
    fn misspelt_tags(&self, spec: &ExperimentSpec) -> Option<String> {
        let Selection::Tags(wanted) = spec.selection() else { return None };
        let faces = self.found.values().flat_map(|offer| &offer.datasets);
        let known: BTreeSet<&str> = faces.flat_map(|face| face.tags.iter()).collect();
        let unknown = wanted.iter().filter(|tag| !known.contains(tag));
        let sentences = unknown.filter_map(|tag| {
            let near = nearest(tag, known.iter().map(|tag| (*tag).to_owned()))?;
            Some(format!("no dataset has the tag {tag:?}{}", did_you_mean(Some(near))))
        });
        let sentences: Vec<String> = sentences.collect();
        (!sentences.is_empty()).then(|| sentences.join("; "))
    }

    fn too_few(&self, spec: &ExperimentSpec, chosen: usize, missing: &BTreeSet<String>) -> String {
        let wanted = wanted(spec);
        let answered: Vec<&str> = self.found.values().map(|offer| offer.name.as_str()).collect();
        let sentence = match (answered.is_empty(), chosen) {
            (true, _) => "no node that may take part is connected".to_owned(),
            (false, 0) => format!("no node has {wanted}; connected: {}", answered.join(", ")),
            (false, _) => format!("only {chosen} of the connected nodes ({}) have {wanted}", answered.join(", ")),
        };
        let min_nodes = match (spec.least_nodes(), spec.patience().min_nodes) {
            (1, _) => None,
            (least, min_nodes) if least > min_nodes => Some(format!("secure aggregation needs {least} (`min_parties`)")),
            (_, min_nodes) => Some(format!("`min_nodes` is {min_nodes}")),
        };
        let silent = self.asked.values().map(|name| format!("{name} did not answer"));
        let absent = missing.iter().map(|node| format!("{node} is not connected{}", self.similar_node(node)));
        [sentence]
            .into_iter()
            .chain(self.misspelt_tags(spec))
            .chain(min_nodes)
            .chain(silent)
            .chain(absent)
            .collect::<Vec<_>>()
            .join("; ")
    }
}

fn did_you_mean(near: Option<String>) -> String {
    near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"))
}

/// Says which column of a plan no dataset has, if it is nearly the name of one. Other columns are left to the nodes to refuse.
fn misspelt_column(plan: &Plan, faces: &[(&str, &DatasetFace)]) -> Option<String> {
    let known: BTreeSet<&str> =
        faces.iter().flat_map(|(_, face)| &face.columns).map(|column| column.name.as_str()).collect();
    let wanted: Vec<&str> = match plan {
        Plan::Training(plan) => {
            let features = plan.features().iter().map(String::as_str);
            [plan.target()].into_iter().chain(plan.split_column()).chain(features).collect()
        }
        Plan::Statistic(plan) => plan.columns(),
    };
    wanted.into_iter().filter(|column| !known.contains(column)).find_map(|column| {
        let near = nearest(column, known.iter().map(|column| (*column).to_owned()))?;
        Some(format!("no dataset has the column {column:?}{}", did_you_mean(Some(near))))
    })
}

/// What a node must have to take part.
fn wanted(spec: &ExperimentSpec) -> String {
    match spec.selection() {
        Selection::Tags(tags) => format!("a dataset with the tags {tags}"),
        Selection::Datasets(_) => "the dataset that was named for it".to_owned(),
    }
}

fn participant(offer: &Offer, face: &DatasetFace) -> Participant {
    Participant { name: offer.name.clone(), dataset: face.id.clone(), rows: face.rows, away_since: None, dropped: None }
}

fn matching<'faces>(spec: &ExperimentSpec, node: &NodeId, faces: &'faces [DatasetFace]) -> Vec<&'faces DatasetFace> {
    let matches = |face: &&DatasetFace| match spec.selection() {
        Selection::Tags(tags) => face.tags.answer(tags),
        Selection::Datasets(datasets) => datasets.get(node) == Some(&face.id),
    };
    faces.iter().filter(matches).collect()
}

/// The nodes that the experiment names, by id or name, and that have not answered.
fn missing(spec: &ExperimentSpec, found: &BTreeMap<NodeId, Offer>) -> BTreeSet<String> {
    let raw = RawExperimentSpec::from(spec.clone());
    let mut named = raw.nodes.unwrap_or_default();
    if let Selection::Datasets(datasets) = raw.selection {
        let listed = |node: &NodeId| named.is_empty() || named.contains(node.as_str());
        let nodes: BTreeSet<String> = datasets.into_keys().filter(listed).map(String::from).collect();
        named = if nodes.is_empty() { named } else { nodes };
    }
    named.retain(|name| !found.iter().any(|(node, offer)| node.as_str() == name || offer.name == *name));
    named
}

/// Spells out the features of a training plan that names none: every numeric column but target and split, the same everywhere.
fn resolve(spec: ExperimentSpec, faces: &[(&str, &DatasetFace)]) -> Result<ExperimentSpec, String> {
    let Plan::Training(plan) = spec.plan() else { return Ok(spec) };
    if !plan.features().is_empty() {
        return Ok(spec);
    }
    let features_of = |face: &DatasetFace| -> Vec<String> {
        let numeric = face.columns.iter().filter(|column| column.kind.is_numeric()).map(|column| column.name.as_str());
        numeric.filter(|name| *name != plan.target() && Some(*name) != plan.split_column()).map(str::to_owned).collect()
    };
    let Some((first, face)) = faces.first() else { return Ok(spec) };
    let features = features_of(face);
    for (other, face) in &faces[1..] {
        let found = features_of(face);
        if found != features {
            let place = features.iter().zip(&found).take_while(|(a, b)| a == b).count();
            let at = |list: &[String]| list.get(place).map_or("no further column".to_owned(), |name| format!("{name:?}"));
            return Err(format!(
                "the numeric columns differ, so `features` must be given: column {} is {} at {first} and {} at {other}",
                place + 1,
                at(&features),
                at(&found),
            ));
        }
    }
    if features.is_empty() {
        return Err(format!("the dataset at {first} has no numeric column but the target; give `features`"));
    }
    let plan = plan.clone().with_features(features).map_err(|error| error.to_string())?;
    Ok(spec.with_plan(Plan::Training(plan)))
}
