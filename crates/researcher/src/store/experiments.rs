//! Experiments, their closed rounds and small models.

use component::database::{Durability, millis};
use protocol::{Digest, ExperimentId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::{RECORD_SCHEMA, STATE_SCHEMA, Store, StoreError, from_json, to_json};
use crate::command::{Ended, RoundRecord};
use crate::experiment::{Experiment, KeptAnswer, SecureChange};

/// The fewest digits that name an experiment.
pub(super) const FEWEST_DIGITS: usize = 4;

/// What a step of one experiment writes.
#[derive(Debug, Clone)]
pub struct Saved {
    id: ExperimentId,
    created: Timestamp,
    requester: String,
    /// The experiment as JSON, in [`STATE_SCHEMA`], without the state of hidden sums.
    state: String,
    secure: SavedSecure,
    is_over: bool,
    /// The rounds that the step closed.
    pub records: Vec<RoundRecord>,
    /// The new model, if it is small: its file is then not forced to the disk, which takes longer than all the rest.
    model: Option<SmallModel>,
}

/// What a step writes of the state of hidden sums.
#[derive(Debug, Clone)]
enum SavedSecure {
    /// All of it, where there is one.
    Whole(Option<String>),
    /// Answers as JSON.
    Answers(Vec<String>),
}

/// A model that is kept in the database as well as in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallModel {
    pub digest: Digest,
    pub bytes: Vec<u8>,
}

impl Saved {
    /// Writes all of an experiment.
    pub fn new(experiment: &Experiment, records: Vec<RoundRecord>, model: Option<SmallModel>) -> Self {
        Self::changed(experiment, &SecureChange::Whole, records, model)
    }

    /// Writes an experiment, of the state of hidden sums only what has changed.
    pub fn changed(
        experiment: &Experiment,
        change: &SecureChange,
        records: Vec<RoundRecord>,
        model: Option<SmallModel>,
    ) -> Self {
        let secure = match change {
            SecureChange::Whole => SavedSecure::Whole(experiment.secure_state()),
            SecureChange::Answers(answers) => SavedSecure::Answers(answers.iter().map(to_json).collect()),
        };
        Self {
            secure,
            id: experiment.id().clone(),
            created: experiment.created(),
            requester: experiment.requester().user.clone(),
            state: to_json(experiment),
            is_over: experiment.is_over(),
            records,
            model,
        }
    }
}

impl Store {
    /// Writes what steps of some experiments changed, all or nothing. An experiment that goes on has not ended.
    pub fn save(&mut self, steps: &[Saved], durability: Durability) -> Result<(), StoreError> {
        self.database.write(durability, |connection| steps.iter().try_for_each(|step| write_step(connection, step)))
    }

    /// The experiments that are not over.
    pub fn unfinished(&self) -> Result<Vec<Experiment>, StoreError> {
        self.states("SELECT id, schema, state FROM experiments WHERE is_over = 0 ORDER BY created, id")
    }

    /// All experiments, newest first.
    pub fn experiments(&self) -> Result<Vec<Experiment>, StoreError> {
        self.states("SELECT id, schema, state FROM experiments ORDER BY created DESC, id")
    }

    pub fn experiment(&self, id: &ExperimentId) -> Result<Experiment, StoreError> {
        let mut query = self.connection().prepare_cached("SELECT id, schema, state FROM experiments WHERE id = ?")?;
        let row = query.query_row([id.as_str()], Row::read)?;
        self.read_state(&row)
    }

    fn states(&self, sql: &str) -> Result<Vec<Experiment>, StoreError> {
        let mut query = self.connection().prepare_cached(sql)?;
        let rows = query.query_map([], Row::read)?;
        rows.map(|row| self.read_state(&row?)).collect()
    }

    fn read_state(&self, row: &Row) -> Result<Experiment, StoreError> {
        match row.schema {
            // The state of hidden sums is in it.
            1 => from_json("experiment", &row.state),
            STATE_SCHEMA => self.with_secure_state(&row.id, from_json("experiment", &row.state)?),
            found => Err(StoreError::Newer { what: "experiment", found, known: STATE_SCHEMA }),
        }
    }

    /// Adds the state of hidden sums, if there is one, and the answers since.
    fn with_secure_state(&self, id: &str, experiment: Experiment) -> Result<Experiment, StoreError> {
        let mut query = self.connection().prepare_cached("SELECT state FROM secure_states WHERE experiment = ?")?;
        let Some(state) = query.query_row([id], |row| row.get::<_, String>(0)).optional()? else { return Ok(experiment) };
        let mut query =
            self.connection().prepare_cached("SELECT answer FROM secure_answers WHERE experiment = ? ORDER BY position")?;
        let answers = query.query_map([id], |row| row.get::<_, String>(0))?;
        let answers = answers.map(|answer| from_json::<KeptAnswer>("answer", &answer?));
        let answers = answers.collect::<Result<Vec<_>, StoreError>>()?;
        let failed = |source| StoreError::Content { what: "state of hidden sums", source };
        experiment.with_secure_state(&state, answers).map_err(failed)
    }

    /// The experiment that a person means: its id, or enough of the beginning of its digits to be no slip of the hand.
    pub fn find_experiment(&self, text: &str) -> Result<ExperimentId, StoreError> {
        let digits = text.strip_prefix(ExperimentId::PREFIX).unwrap_or(text);
        if digits.len() < FEWEST_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(StoreError::ShortExperiment(text.to_owned()));
        }
        let mut query =
            self.connection().prepare_cached("SELECT id FROM experiments WHERE substr(id, 1, length(?1)) = ?1 LIMIT 2")?;
        let rows = query.query_map([format!("{}{digits}", ExperimentId::PREFIX)], |row| row.get::<_, String>(0))?;
        let mut found = rows.collect::<Result<Vec<_>, _>>()?;
        if found.len() > 1 {
            return Err(StoreError::SeveralExperiments(text.to_owned()));
        }
        let found = found.pop().and_then(|id| id.parse().ok());
        found.ok_or_else(|| StoreError::NoExperiment(text.to_owned()))
    }

    /// The present model of an experiment, if it is small.
    pub fn small_model(&self, id: &ExperimentId) -> Result<Option<SmallModel>, StoreError> {
        let mut query = self.connection().prepare_cached("SELECT digest, bytes FROM models WHERE experiment = ?")?;
        let row =
            query.query_row([id.as_str()], |row| Ok((row.get::<_, String>("digest")?, row.get("bytes")?))).optional()?;
        Ok(row.and_then(|(digest, bytes)| Some(SmallModel { digest: digest.parse().ok()?, bytes })))
    }

    /// How many rounds of an experiment are closed.
    pub fn record_count(&self, id: &ExperimentId) -> Result<usize, StoreError> {
        let count: i64 =
            self.connection()
                .query_row("SELECT count(*) FROM records WHERE experiment = ?", [id.as_str()], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// The closed rounds of an experiment from a position on, oldest first.
    pub fn records(&self, id: &ExperimentId, from: usize) -> Result<Vec<RoundRecord>, StoreError> {
        let mut query = self
            .connection()
            .prepare_cached("SELECT schema, record FROM records WHERE experiment = ? AND position >= ? ORDER BY position")?;
        let from = i64::try_from(from).unwrap_or(i64::MAX);
        let rows =
            query.query_map(params![id.as_str(), from], |row| Ok((row.get("schema")?, row.get::<_, String>("record")?)))?;
        rows.map(|row| match row? {
            (RECORD_SCHEMA, record) => from_json("record", &record),
            (found, _) => Err(StoreError::Newer { what: "record", found, known: RECORD_SCHEMA }),
        })
        .collect()
    }

    /// Notes where the artefacts of an experiment that is over lie.
    pub fn set_ended(&mut self, ended: &Ended) -> Result<(), StoreError> {
        self.write(|connection| {
            let row = params![to_json(ended), ended.experiment_id.as_str()];
            connection.execute("UPDATE experiments SET ended = ? WHERE id = ?", row)?;
            Ok(())
        })
    }

    pub fn ended(&self, id: &ExperimentId) -> Result<Option<Ended>, StoreError> {
        let text: Option<String> =
            self.connection().query_row("SELECT ended FROM experiments WHERE id = ?", [id.as_str()], |row| row.get(0))?;
        text.map(|text| from_json("end", &text)).transpose()
    }

    /// Experiments that are over, but whose artefacts a crash kept from being written.
    pub fn over_without_end(&self) -> Result<Vec<Experiment>, StoreError> {
        self.states("SELECT id, schema, state FROM experiments WHERE is_over = 1 AND ended IS NULL")
    }
}

fn write_step(connection: &Connection, step: &Saved) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO experiments (id, schema, created, requester, is_over, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (id) DO UPDATE SET schema = ?2, is_over = ?5, state = ?6, ended = iif(?5, ended, NULL)",
        )?
        .execute(params![step.id.as_str(), STATE_SCHEMA, millis(step.created), step.requester, step.is_over, step.state])?;
    write_secure(connection, step)?;
    for record in &step.records {
        connection
            .prepare_cached(
                "INSERT INTO records (experiment, position, schema, record)
                 VALUES (?1, (SELECT count(*) FROM records WHERE experiment = ?1), ?2, ?3)",
            )?
            .execute(params![step.id.as_str(), RECORD_SCHEMA, to_json(record)])?;
    }
    if let Some(SmallModel { digest, bytes }) = &step.model {
        connection
            .prepare_cached("INSERT OR REPLACE INTO models (experiment, digest, bytes) VALUES (?, ?, ?)")?
            .execute(params![step.id.as_str(), digest.to_string(), bytes])?;
    }
    Ok(())
}

fn write_secure(connection: &Connection, step: &Saved) -> Result<(), StoreError> {
    let id = step.id.as_str();
    match &step.secure {
        SavedSecure::Whole(None) => {}
        SavedSecure::Whole(Some(state)) => {
            let sql = "INSERT OR REPLACE INTO secure_states (experiment, state) VALUES (?, ?)";
            connection.prepare_cached(sql)?.execute([id, state])?;
            connection.prepare_cached("DELETE FROM secure_answers WHERE experiment = ?")?.execute([id])?;
        }
        SavedSecure::Answers(answers) => {
            let sql = "INSERT INTO secure_answers (experiment, answer) VALUES (?, ?)";
            let mut insert = connection.prepare_cached(sql)?;
            answers.iter().try_for_each(|answer| insert.execute([id, answer]).map(|_| ()))?;
        }
    }
    Ok(())
}

/// An experiment as it is stored.
struct Row {
    id: String,
    schema: u32,
    state: String,
}

impl Row {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { id: row.get("id")?, schema: row.get("schema")?, state: row.get("state")? })
    }
}
