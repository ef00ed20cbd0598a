//! A cohort as SQL.

use super::{Age, Cohort, CohortColumn, Domain, EventsColumn, PersonColumn, PersonField, Table, Take, Which};
use crate::sql::{Builder, Dialect, Name, Parameter};

/// The name of a domain's column of dates.
fn date_of(domain: Domain) -> &'static str {
    match domain {
        Domain::Condition => "condition_start_date",
        Domain::Measurement => "measurement_date",
        Domain::Drug => "drug_exposure_start_date",
        Domain::Procedure => "procedure_date",
        Domain::Observation => "observation_date",
        Domain::Visit => "visit_start_date",
    }
}

fn concept_of(domain: Domain) -> &'static str {
    match domain {
        Domain::Condition => "condition_concept_id",
        Domain::Measurement => "measurement_concept_id",
        Domain::Drug => "drug_concept_id",
        Domain::Procedure => "procedure_concept_id",
        Domain::Observation => "observation_concept_id",
        Domain::Visit => "visit_concept_id",
    }
}

struct Statement<'a> {
    builder: &'a mut Builder,
    cohort: &'a Cohort,
    schema: Option<&'a Name>,
}

/// Appends the statement of a cohort: its columns in their order, a row for each person, in the order of their ids.
pub(crate) fn push_cohort(builder: &mut Builder, cohort: &Cohort, schema: Option<&Name>) {
    Statement { builder, cohort, schema }.push_all();
}

impl Statement<'_> {
    fn push(&mut self, sql: &str) {
        self.builder.push(sql);
    }

    fn table(&mut self, table: Table) {
        if let Some(schema) = self.schema {
            self.builder.name(schema.as_str()).push(".");
        }
        self.builder.name(self.cohort.name_of(table));
    }

    /// ` AND e.concept IN (…)`, with what is below the concepts if that is meant.
    fn concepts(&mut self, domain: Domain, concepts: &[i64], has_descendants: bool) {
        if concepts.is_empty() {
            return;
        }
        let concept = concept_of(domain);
        let numbers = || concepts.iter().map(|concept| Parameter::Integer(*concept));
        self.builder.push(" AND (e.").name(concept).push(" IN (").bind_all(numbers()).push(")");
        if has_descendants {
            self.builder.push(" OR e.").name(concept).push(" IN (SELECT descendant_concept_id FROM ");
            self.table(Table::ConceptAncestor);
            self.builder.push(" WHERE ancestor_concept_id IN (").bind_all(numbers()).push("))");
        }
        self.push(")");
    }

    /// Days from the index date to a domain's event.
    fn days(&self, domain: Domain) -> String {
        let date = date_of(domain);
        match self.builder.dialect {
            Dialect::Postgres => format!("(CAST(e.{date} AS date) - i.at)"),
            Dialect::Sqlite => format!("CAST(julianday(e.{date}) - julianday(i.at) AS INTEGER)"),
        }
    }

    /// `FROM events e, with the index date where one is needed`.
    fn push_source(&mut self, events: &EventsColumn) {
        self.push(" FROM ");
        self.table(events.domain.table());
        self.push(" e");
        let needs_index = events.from_days.is_some() || events.to_days.is_some() || events.take == Take::DaysToFirst;
        if needs_index {
            self.push(" JOIN i ON i.person_id = e.person_id");
        }
        self.push(" WHERE 1 = 1");
        self.concepts(events.domain, &events.concepts, events.descendants);
        for (days, operator) in [(events.from_days, " >= "), (events.to_days, " <= ")] {
            if let Some(days) = days {
                let from_index = self.days(events.domain);
                self.builder.push(" AND ").push(&from_index).push(operator).bind(Parameter::Integer(days));
            }
        }
        if events.take.is_of_values() {
            self.push(" AND e.value_as_number IS NOT NULL");
        }
    }

    /// A sub-query with a row for each person who has such events: the person and the value `v`.
    fn events(&mut self, events: &EventsColumn) {
        let real = self.builder.real();
        let value = format!("CAST(e.value_as_number AS {real})");
        let simple = match events.take {
            Take::Any => Some("1".to_owned()),
            Take::Count => Some("count(*)".to_owned()),
            Take::DaysToFirst => Some(format!("min({})", self.days(events.domain))),
            Take::Mean => Some(format!("avg({value})")),
            Take::Smallest => Some(format!("min({value})")),
            Take::Largest => Some(format!("max({value})")),
            Take::First | Take::Last => None,
        };
        if let Some(value) = simple {
            self.builder.push("SELECT e.person_id, ").push(&value).push(" AS v");
            self.push_source(events);
            self.push(" GROUP BY e.person_id");
            return;
        }
        // Of several on one day the one with the smaller or larger number: the same on every engine.
        let table = events.domain.table().columns().name;
        let order = if events.take == Take::First { "" } else { " DESC" };
        let date = date_of(events.domain);
        self.builder.push("SELECT person_id, v FROM (SELECT e.person_id, ").push(&value).push(" AS v, ");
        let ranked = format!(
            "row_number() OVER (PARTITION BY e.person_id ORDER BY e.{date}{order}, e.{table}_id{order}, \
             e.value_as_number{order}) AS rank"
        );
        self.push(&ranked);
        self.push_source(events);
        self.push(") r WHERE rank = 1");
    }

    fn push_all(&mut self) {
        if let Some(index) = &self.cohort.raw.index {
            let date = match self.builder.dialect {
                Dialect::Postgres => format!("CAST(e.{} AS date)", date_of(index.domain)),
                Dialect::Sqlite => format!("e.{}", date_of(index.domain)),
            };
            let which = if index.which == Which::First { "min" } else { "max" };
            self.push(&format!("WITH i AS (SELECT e.person_id, {which}({date}) AS at FROM "));
            self.table(index.domain.table());
            self.push(&format!(" e WHERE {date} IS NOT NULL"));
            self.concepts(index.domain, &index.concepts, index.descendants);
            self.push(" GROUP BY e.person_id) ");
        }
        self.push("SELECT ");
        for (at, (name, column)) in self.cohort.raw.columns.iter().enumerate() {
            if at > 0 {
                self.push(", ");
            }
            self.value(at, column);
            self.builder.push(" AS ").name(name);
        }
        self.push(" FROM ");
        self.table(Table::Person);
        self.push(" p");
        if self.cohort.raw.index.is_some() {
            self.push(" JOIN i ON i.person_id = p.person_id");
        }
        for (at, column) in self.cohort.raw.columns.values().enumerate() {
            if let CohortColumn::Events(events) = column {
                self.push(" LEFT JOIN (");
                self.events(events);
                self.push(&format!(") c{at} ON c{at}.person_id = p.person_id"));
            }
        }
        self.push(" ORDER BY p.person_id");
    }

    /// The value of the column at a position.
    fn value(&mut self, at: usize, column: &CohortColumn) {
        let (integer, real) = (self.builder.integer(), self.builder.real());
        match column {
            CohortColumn::Age(age) => {
                let year = match age.age {
                    Age::InYear(year) => year.to_string(),
                    Age::AtIndex => match self.builder.dialect {
                        Dialect::Postgres => "extract(year FROM i.at)".to_owned(),
                        Dialect::Sqlite => "strftime('%Y', i.at)".to_owned(),
                    },
                };
                self.push(&format!("CAST({year} AS {integer}) - CAST(p.year_of_birth AS {integer})"));
            }
            CohortColumn::Person(PersonColumn { person, is }) => {
                let field = field_name(*person);
                match is {
                    None => self.push(&format!("CAST(p.{field} AS {integer})")),
                    Some(numbers) => {
                        self.push(&format!("CAST(CASE WHEN p.{field} IN ("));
                        self.builder.bind_all(numbers.iter().map(|number| Parameter::Integer(*number)));
                        self.push(&format!(") THEN 1 WHEN p.{field} IS NULL THEN NULL ELSE 0 END AS {integer})"));
                    }
                }
            }
            CohortColumn::Events(events) => {
                let value = match events.take {
                    Take::Any | Take::Count => format!("CAST(coalesce(c{at}.v, 0) AS {integer})"),
                    Take::DaysToFirst => format!("CAST(c{at}.v AS {integer})"),
                    _ => format!("CAST(c{at}.v AS {real})"),
                };
                self.push(&value);
            }
        }
    }
}

fn field_name(field: PersonField) -> &'static str {
    match field {
        PersonField::PersonId => "person_id",
        PersonField::YearOfBirth => "year_of_birth",
        PersonField::GenderConceptId => "gender_concept_id",
        PersonField::RaceConceptId => "race_concept_id",
        PersonField::EthnicityConceptId => "ethnicity_concept_id",
    }
}
