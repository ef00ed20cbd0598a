//! Questions out of words: what a person types, and what the datasets' faces say, becomes a [`Question`].
//!
//! The levels of a category are part of a question, since all nodes must count in the same cells. They are those that the hospitals
//! show, put together, unless the person names them.

use std::collections::BTreeMap;

use component::config::nearest;
use protocol::experiment::ExperimentError;
use protocol::plan::PlanError;
use protocol::statistic::{Category, Level};
use protocol::{
    ColumnKind, ExperimentSpec, Expression, Factor, Formula, Patience, Plan, Question, RawExperimentSpec, Secagg,
    SecureSpec, Selection, StatisticPlan, Tags,
};
use thiserror::Error;

use crate::command::DatasetRow;

/// Why a question cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuestionError {
    #[error("no dataset has the column {name:?}{}", nearest.as_ref().map(|name| format!("; did you mean {name:?}?")).unwrap_or_default())]
    Unknown { name: String, nearest: Option<String> },
    #[error("{sites} have no column {name:?}; without them the question can be asked with `--nodes`")]
    Lacking { name: String, sites: String },
    #[error("column {name:?} is of kind {} at {}, and of kind {} at {}", .first.1, .first.0, .second.1, .second.0)]
    Kinds { name: String, first: (String, &'static str), second: (String, &'static str) },
    #[error("column {name:?} holds texts; a number is needed")]
    Text { name: String },
    #[error("the hospitals do not show the levels of column {name:?}; name them: --levels \"{name}=A,B\"")]
    NoLevels { name: String },
    #[error("--levels takes COLUMN=LEVEL,LEVEL, found {0:?}")]
    Levels(String),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Experiment(#[from] ExperimentError),
}

/// What is known of the data that a question is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalogue {
    datasets: Vec<DatasetRow>,
    levels: BTreeMap<String, Vec<Level>>,
}

/// A level as it is typed: a number if it reads as one.
fn level(text: &str) -> Level {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Level::Number(number),
        _ => Level::Text(text.trim().to_owned()),
    }
}

/// Numbers by size, texts by their letters.
fn order(left: &Level, right: &Level) -> std::cmp::Ordering {
    match (left, right) {
        (Level::Number(left), Level::Number(right)) => left.total_cmp(right),
        (Level::Text(left), Level::Text(right)) => left.cmp(right),
        (Level::Number(_), Level::Text(_)) => std::cmp::Ordering::Less,
        (Level::Text(_), Level::Number(_)) => std::cmp::Ordering::Greater,
    }
}

impl Catalogue {
    /// Of these datasets, with levels as a person names them: `COLUMN=A,B`.
    pub fn new(datasets: Vec<DatasetRow>, named: &[String]) -> Result<Self, QuestionError> {
        let mut levels = BTreeMap::new();
        for text in named {
            let (column, list) = text.split_once('=').ok_or_else(|| QuestionError::Levels(text.clone()))?;
            levels.insert(column.trim().to_owned(), list.split(',').map(level).collect());
        }
        Ok(Self { datasets, levels })
    }

    /// The datasets.
    pub fn datasets(&self) -> &[DatasetRow] {
        &self.datasets
    }

    /// What a column holds, which must be the same everywhere but for integers and reals.
    pub fn kind(&self, name: &str) -> Result<ColumnKind, QuestionError> {
        let mut found: Option<(&DatasetRow, ColumnKind)> = None;
        let mut lacking = Vec::new();
        for dataset in &self.datasets {
            let Some(column) = dataset.columns.iter().find(|column| column.name == name) else {
                lacking.push(dataset.node.as_str());
                continue;
            };
            match found {
                Some((first, kind)) if kind.is_numeric() != column.kind.is_numeric() => {
                    return Err(QuestionError::Kinds {
                        name: name.to_owned(),
                        first: (first.node.clone(), kind.name()),
                        second: (dataset.node.clone(), column.kind.name()),
                    });
                }
                Some((_, ColumnKind::Integer)) | None => found = Some((dataset, column.kind)),
                Some(_) => {}
            }
        }
        let Some((_, kind)) = found else {
            let known = self.datasets.iter().flat_map(|dataset| &dataset.columns).map(|column| column.name.clone());
            return Err(QuestionError::Unknown { name: name.to_owned(), nearest: nearest(name, known) });
        };
        if lacking.is_empty() {
            return Ok(kind);
        }
        Err(QuestionError::Lacking { name: name.to_owned(), sites: lacking.join(", ") })
    }

    /// Checks that all columns are there.
    pub fn check<'names>(&self, names: impl IntoIterator<Item = &'names str>) -> Result<(), QuestionError> {
        names.into_iter().try_for_each(|name| self.kind(name).map(drop))
    }

    /// Checks that an expression of one column is a number everywhere.
    pub fn number(&self, expression: &Expression) -> Result<(), QuestionError> {
        self.check(expression.columns())?;
        match expression.as_column() {
            Some(name) if !self.kind(name)?.is_numeric() => Err(QuestionError::Text { name: name.to_owned() }),
            _ => Ok(()),
        }
    }

    /// The columns of all datasets, in the order of the first one.
    pub fn columns(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = Vec::new();
        for column in self.datasets.iter().flat_map(|dataset| &dataset.columns) {
            if !columns.contains(&column.name.as_str()) {
                columns.push(&column.name);
            }
        }
        columns
    }

    /// The levels of a column: as named, or as the hospitals show them.
    pub fn category(&self, name: &str) -> Result<Category, QuestionError> {
        self.kind(name)?;
        if let Some(levels) = self.levels.get(name) {
            return Ok(Category::new(name.to_owned(), levels.clone())?);
        }
        let mut all: Vec<Level> = Vec::new();
        for dataset in &self.datasets {
            let levels = dataset.levels.get(name);
            let levels = levels.ok_or_else(|| QuestionError::NoLevels { name: name.to_owned() })?;
            all.extend(levels.iter().filter(|level| !all.contains(level)).cloned().collect::<Vec<_>>());
        }
        all.sort_by(order);
        if all.is_empty() {
            return Err(QuestionError::NoLevels { name: name.to_owned() });
        }
        Ok(Category::new(name.to_owned(), all)?)
    }

    /// The categories of a formula: what it calls so, and columns of texts.
    pub fn categories(&self, formula: &Formula) -> Result<Vec<Category>, QuestionError> {
        self.check(formula.columns())?;
        let mut names: Vec<&str> = Vec::new();
        for factor in formula.terms().iter().flat_map(protocol::Term::factors) {
            let name = match factor {
                Factor::Category { column, .. } => column.as_str(),
                Factor::Column(column) if !self.kind(column)?.is_numeric() => column.as_str(),
                _ => continue,
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.into_iter().map(|name| self.category(name)).collect()
    }
}

/// Who is asked, and how the sums are hidden.
#[derive(Debug, Clone, PartialEq)]
pub struct Among {
    pub tags: Tags,
    /// Only these nodes, by id or name; empty: all.
    pub nodes: Vec<String>,
    pub secagg: Secagg,
    pub min_parties: u32,
}

/// The experiment that asks a question.
pub fn experiment(question: Question, among: &Among) -> Result<ExperimentSpec, QuestionError> {
    let name = question.statistic.name().to_owned();
    let secure = SecureSpec { secagg: among.secagg, min_parties: among.min_parties, ..SecureSpec::default() };
    Ok(ExperimentSpec::new(RawExperimentSpec {
        name,
        selection: Selection::Tags(among.tags.clone()),
        nodes: (!among.nodes.is_empty()).then(|| among.nodes.iter().cloned().collect()),
        plan: Plan::Statistic(StatisticPlan::Question { question: Box::new(question) }),
        rounds: 1,
        patience: Patience::default(),
        secure,
    })?)
}
