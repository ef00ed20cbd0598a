//! Cohorts of the OMOP common data model: a definition of concept sets and time windows that gives a row for each person.
//!
//! ```toml
//! [index]                                   # the event that puts a person into the cohort; without it everybody is in it
//! domain = "condition"
//! concepts = [192671]
//! which = "first"
//! [columns]
//! age = { age = "at_index" }
//! man = { person = "gender_concept_id", is = [8507] }
//! celecoxib = { domain = "drug", concepts = [1118084], take = "any", from_days = -365, to_days = 0 }
//! systolic = { domain = "measurement", concepts = [3004249], take = "last", to_days = 0 }
//! ```
//!
//! A definition becomes one statement whose numbers are bound. The same runs on PostgreSQL and, through an embedded SQLite, on a
//! folder of CSV files.
//!
//! Model: OHDSI, OMOP Common Data Model 5.3 and 5.4, tables `person`, `condition_occurrence`, `measurement`,
//! `drug_exposure`, `procedure_occurrence`, `observation`, `visit_occurrence`, `concept_ancestor`.

mod folder;
mod statement;

use std::collections::BTreeMap;

use protocol::{ColumnFace, ColumnKind};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use folder::{OmopSource, files, scan};
pub(crate) use statement::push_cohort;

use crate::error::DataError;
use crate::schema::Schema;
use crate::sql::Name;

/// The most concepts of one set.
const MAX_CONCEPTS: usize = 10_000;
/// The most columns of a cohort: each is a sub-query.
const MAX_COHORT_COLUMNS: usize = 200;
/// A hundred and fifty years, in days.
const MAX_DAYS: i64 = 54_750;

/// Why a definition is no cohort.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CohortError {
    #[error("expected 1 to {MAX_COHORT_COLUMNS} columns, found {0}")]
    Columns(usize),
    #[error("column {column:?}: {reason}")]
    Column { column: String, reason: &'static str },
    #[error("index: expected 1 to {MAX_CONCEPTS} concepts")]
    Index,
}

/// A definition whose parts fit together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawCohort", into = "RawCohort")]
pub struct Cohort {
    raw: RawCohort,
}

/// A definition as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawCohort {
    #[serde(default)]
    pub index: Option<Index>,
    /// In the order of their names.
    pub columns: BTreeMap<String, CohortColumn>,
    /// The names of tables that are called differently, as `measurement = "measurement_2024"`.
    #[serde(default)]
    pub tables: BTreeMap<Table, Name>,
}

/// The event whose date is the index date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    pub domain: Domain,
    pub concepts: Vec<i64>,
    /// With all that `concept_ancestor` has below the concepts.
    #[serde(default)]
    pub descendants: bool,
    #[serde(default)]
    pub which: Which,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    #[default]
    First,
    Last,
}

/// A column of a cohort.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CohortColumn {
    Age(AgeColumn),
    Person(PersonColumn),
    Events(EventsColumn),
}

/// Years from the year of birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgeColumn {
    pub age: Age,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Age {
    /// In the year of the index date.
    AtIndex,
    /// In this year.
    InYear(i32),
}

/// What the table of persons says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonColumn {
    pub person: PersonField,
    /// 1 if it is one of these, 0 if not; without it the number itself.
    #[serde(default)]
    pub is: Option<Vec<i64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonField {
    PersonId,
    YearOfBirth,
    GenderConceptId,
    RaceConceptId,
    EthnicityConceptId,
}

/// What the events of a person say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsColumn {
    pub domain: Domain,
    /// None: all events of the domain.
    #[serde(default)]
    pub concepts: Vec<i64>,
    #[serde(default)]
    pub descendants: bool,
    pub take: Take,
    /// Days from the index date to the first that counts; none: from the beginning.
    #[serde(default)]
    pub from_days: Option<i64>,
    /// Days from the index date to the last that counts; none: to the end.
    #[serde(default)]
    pub to_days: Option<i64>,
}

/// What is taken of the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Take {
    /// 1 if there is one, else 0.
    Any,
    Count,
    /// Days from the index date to the first one; missing if there is none.
    DaysToFirst,
    /// The value of the earliest, of the latest, or what the values make; of measurements and observations with numbers.
    First,
    Last,
    Mean,
    Smallest,
    Largest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    Condition,
    Measurement,
    Drug,
    Procedure,
    Observation,
    Visit,
}

/// The tables that definitions read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    Person,
    ConditionOccurrence,
    Measurement,
    DrugExposure,
    ProcedureOccurrence,
    Observation,
    VisitOccurrence,
    ConceptAncestor,
}

/// The columns of a table that are read.
pub(crate) struct TableColumns {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [(&'static str, ColumnKind)],
}

impl Table {
    pub(crate) fn columns(self) -> TableColumns {
        use ColumnKind::{Integer, Real, Text};
        let (name, columns): (_, &[_]) = match self {
            Self::Person => (
                "person",
                &[
                    ("person_id", Integer),
                    ("year_of_birth", Integer),
                    ("gender_concept_id", Integer),
                    ("race_concept_id", Integer),
                    ("ethnicity_concept_id", Integer),
                ],
            ),
            Self::ConditionOccurrence => (
                "condition_occurrence",
                &[
                    ("condition_occurrence_id", Integer),
                    ("person_id", Integer),
                    ("condition_concept_id", Integer),
                    ("condition_start_date", Text),
                ],
            ),
            Self::Measurement => (
                "measurement",
                &[
                    ("measurement_id", Integer),
                    ("person_id", Integer),
                    ("measurement_concept_id", Integer),
                    ("measurement_date", Text),
                    ("value_as_number", Real),
                ],
            ),
            Self::DrugExposure => (
                "drug_exposure",
                &[
                    ("drug_exposure_id", Integer),
                    ("person_id", Integer),
                    ("drug_concept_id", Integer),
                    ("drug_exposure_start_date", Text),
                ],
            ),
            Self::ProcedureOccurrence => (
                "procedure_occurrence",
                &[
                    ("procedure_occurrence_id", Integer),
                    ("person_id", Integer),
                    ("procedure_concept_id", Integer),
                    ("procedure_date", Text),
                ],
            ),
            Self::Observation => (
                "observation",
                &[
                    ("observation_id", Integer),
                    ("person_id", Integer),
                    ("observation_concept_id", Integer),
                    ("observation_date", Text),
                    ("value_as_number", Real),
                ],
            ),
            Self::VisitOccurrence => (
                "visit_occurrence",
                &[
                    ("visit_occurrence_id", Integer),
                    ("person_id", Integer),
                    ("visit_concept_id", Integer),
                    ("visit_start_date", Text),
                ],
            ),
            Self::ConceptAncestor => {
                ("concept_ancestor", &[("ancestor_concept_id", Integer), ("descendant_concept_id", Integer)])
            }
        };
        TableColumns { name, columns }
    }
}

impl Domain {
    pub(crate) fn table(self) -> Table {
        match self {
            Self::Condition => Table::ConditionOccurrence,
            Self::Measurement => Table::Measurement,
            Self::Drug => Table::DrugExposure,
            Self::Procedure => Table::ProcedureOccurrence,
            Self::Observation => Table::Observation,
            Self::Visit => Table::VisitOccurrence,
        }
    }

    fn has_values(self) -> bool {
        matches!(self, Self::Measurement | Self::Observation)
    }
}

impl Take {
    fn is_of_values(self) -> bool {
        matches!(self, Self::First | Self::Last | Self::Mean | Self::Smallest | Self::Largest)
    }
}

impl TryFrom<RawCohort> for Cohort {
    type Error = CohortError;

    fn try_from(raw: RawCohort) -> Result<Self, CohortError> {
        if !(1..=MAX_COHORT_COLUMNS).contains(&raw.columns.len()) {
            return Err(CohortError::Columns(raw.columns.len()));
        }
        if raw.index.as_ref().is_some_and(|index| !(1..=MAX_CONCEPTS).contains(&index.concepts.len())) {
            return Err(CohortError::Index);
        }
        for (name, column) in &raw.columns {
            let wrong = |reason| Err(CohortError::Column { column: name.clone(), reason });
            match column {
                CohortColumn::Age(AgeColumn { age: Age::AtIndex }) if raw.index.is_none() => {
                    return wrong("an age at the index date needs `index`");
                }
                CohortColumn::Age(AgeColumn { age: Age::InYear(year) }) if !(1900..=2200).contains(year) => {
                    return wrong("expected a year from 1900 to 2200");
                }
                CohortColumn::Person(person)
                    if person.is.as_ref().is_some_and(|is| !(1..=MAX_CONCEPTS).contains(&is.len())) =>
                {
                    return wrong("`is`: expected at least one number");
                }
                CohortColumn::Events(events) => {
                    let window = [events.from_days, events.to_days];
                    if events.concepts.len() > MAX_CONCEPTS || (events.descendants && events.concepts.is_empty()) {
                        return wrong("expected 1 to 10000 concepts, or none and no descendants");
                    }
                    if raw.index.is_none() && (window != [None, None] || events.take == Take::DaysToFirst) {
                        return wrong("days from the index date need `index`");
                    }
                    if window.iter().flatten().any(|days| !(-MAX_DAYS..=MAX_DAYS).contains(days)) {
                        return wrong("expected days between -54750 and 54750");
                    }
                    if let [Some(from), Some(to)] = window
                        && from > to
                    {
                        return wrong("the window ends before it begins");
                    }
                    if events.take.is_of_values() && !events.domain.has_values() {
                        return wrong("only measurements and observations have values; `any` and `count` are for all");
                    }
                }
                CohortColumn::Age(_) | CohortColumn::Person(_) => {}
            }
        }
        Ok(Self { raw })
    }
}

impl From<Cohort> for RawCohort {
    fn from(cohort: Cohort) -> Self {
        cohort.raw
    }
}

impl Cohort {
    /// The columns that the statement gives.
    pub fn schema(&self) -> Result<Schema, DataError> {
        let kind = |column: &CohortColumn| match column {
            CohortColumn::Events(events) if events.take.is_of_values() => ColumnKind::Real,
            _ => ColumnKind::Integer,
        };
        let columns = self.raw.columns.iter();
        Schema::new(columns.map(|(name, column)| ColumnFace { name: name.clone(), kind: kind(column) }).collect())
    }

    /// The tables that are read.
    pub(crate) fn tables(&self) -> Vec<Table> {
        let mut tables = vec![Table::Person];
        let mut add = |domain: Domain, has_descendants: bool| {
            tables.push(domain.table());
            if has_descendants {
                tables.push(Table::ConceptAncestor);
            }
        };
        if let Some(index) = &self.raw.index {
            add(index.domain, index.descendants);
        }
        for column in self.raw.columns.values() {
            if let CohortColumn::Events(events) = column {
                add(events.domain, events.descendants);
            }
        }
        tables.sort_unstable();
        tables.dedup();
        tables
    }

    /// A table's name in this database.
    pub(crate) fn name_of(&self, table: Table) -> &str {
        self.raw.tables.get(&table).map_or(table.columns().name, Name::as_str)
    }
}

/// How an `omop` dataset is to be read: its folder holds a CSV or TSV file for each table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OmopParameters {
    pub cohort: Cohort,
}
