//! A question on its way: the sums of its passes so far, and what they came to.

use std::collections::BTreeSet;

use analytics::analysis::{Answered, Next as Step};
use analytics::question::asked;
use analytics::survey;
use protocol::statistic::Question;
use protocol::{NodeId, Pass, Vector, Work};
use serde::{Deserialize, Serialize};

use super::steps::Next;
use super::{Experiment, Round};
use crate::command::{Answer, SiteLeftOut};

/// How often a question begins anew because a node was lost on its way.
const MAX_BEGINNINGS: u32 = 4;

/// What is kept between the passes of a question.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    history: Vec<Answered>,
    /// Whose rows are in the sums.
    nodes: BTreeSet<NodeId>,
    beginnings: u32,
    /// Why there is no answer, or what it is.
    ended: Option<Result<serde_json::Value, String>>,
}

impl Experiment {
    /// Takes the sums of a pass. Passes of other nodes than the first one's do not belong together: the question begins anew.
    pub(super) fn take_pass(&mut self, round: &Round, pass: &Pass, sums: &[Vector]) {
        let nodes: BTreeSet<NodeId> = round.contributions().map(|(node, ..)| node.clone()).collect();
        let asked = &mut self.asked;
        if !asked.history.is_empty() && asked.nodes != nodes {
            asked.history.clear();
            asked.nodes.clear();
            asked.beginnings += 1;
            if asked.beginnings >= MAX_BEGINNINGS {
                asked.ended = Some(Err("other nodes answered in each pass of the statistic".to_owned()));
            }
            return;
        }
        asked.nodes = nodes;
        let sums = sums.iter().map(|vector| vector.values.clone()).collect();
        asked.history.push(Answered { pass: pass.clone(), sums });
    }

    /// What the question leads to now.
    pub(super) fn next_question(&self, question: &Question) -> Next {
        match &self.asked.ended {
            Some(Err(reason)) => return Next::Impossible(reason.clone()),
            Some(Ok(_)) => return Next::Nothing,
            None => {}
        }
        match asked(&question.statistic).next(&self.asked.history, question.minimum) {
            Ok(Step::Ask(pass)) => Next::Exchange(Work::Pass { pass: with_total(pass, &self.asked.history) }),
            Ok(Step::Done(answer)) => Next::Answered(answer),
            Err(error) => Next::Impossible(error.to_string()),
        }
    }

    /// Keeps the answer; the sums that led to it go.
    pub(super) fn keep_answer(&mut self, answer: serde_json::Value) {
        self.asked.history.clear();
        self.asked.ended = Some(Ok(answer));
    }
}

/// Tells the nodes how many rows were surveyed, over all of them.
fn with_total(pass: Pass, history: &[Answered]) -> Pass {
    let surveyed = history.first().filter(|answered| answered.pass.step == survey::STEP);
    let rows = surveyed.and_then(|answered| answered.sums.first()).and_then(|sums| sums.first());
    match rows {
        Some(rows) => pass.with(survey::TOTAL, vec![*rows]),
        None => pass,
    }
}

/// What a question came to, with the names of the nodes.
pub(super) fn answer(experiment: &Experiment) -> Option<Answer> {
    let protocol::Plan::Statistic(plan) = experiment.spec.plan() else { return None };
    let Some(Ok(numbers)) = &experiment.asked.ended else { return None };
    let is_in = |node: &NodeId| experiment.asked.nodes.contains(node);
    let (used, left): (Vec<_>, Vec<_>) = experiment.participants.iter().partition(|(node, _)| is_in(node));
    let reason = |dropped: &Option<super::Dropped>| {
        dropped.as_ref().map_or_else(|| "it did not contribute".to_owned(), |dropped| dropped.reason.clone())
    };
    Some(Answer {
        statistic: plan.name().to_owned(),
        numbers: numbers.clone(),
        sites_used: used.into_iter().map(|(_, participant)| participant.name.clone()).collect(),
        sites_left_out: left
            .into_iter()
            .map(|(_, participant)| SiteLeftOut { site: participant.name.clone(), reason: reason(&participant.dropped) })
            .collect(),
    })
}
