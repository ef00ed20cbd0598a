//! The journal of tasks: what was accepted, where it stands, and what it gave.

use protocol::{Pass, Plan, ResearcherId, SecureMessage, StatisticPlan, Task, TaskId, Timestamp, Work};
use rusqlite::{OptionalExtension, Row};

use super::{Durability, Store, StoreError, converted, from_json, millis, timestamp, to_json, unsigned};
use crate::participant::{Participant, State};

/// A task as it came in.
#[derive(Debug, Clone)]
pub struct NewTask<'a> {
    pub researcher: &'a ResearcherId,
    pub task: &'a Task,
    pub signature: &'a [u8],
}

/// A task of the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRecord {
    pub researcher: ResearcherId,
    pub task: Task,
    pub signature: Vec<u8>,
    pub state: State,
    pub accepted: Timestamp,
    pub updated: Timestamp,
}

fn record(row: &Row<'_>) -> rusqlite::Result<TaskRecord> {
    Ok(TaskRecord {
        researcher: converted(row, "researcher", |id: String| id.parse())?,
        task: from_json(row, "document")?,
        signature: row.get("signature")?,
        state: from_json(row, "state")?,
        accepted: timestamp(row, "accepted")?,
        updated: timestamp(row, "updated")?,
    })
}

/// The state as it is stored: running work is accepted work.
fn stored(state: &State) -> Result<(String, bool), StoreError> {
    let state = if *state == State::Running { &State::Accepted } else { state };
    Ok((to_json(state)?, *state != State::Settled))
}

/// Whether nothing will be computed any more.
fn is_over(state: &State) -> bool {
    matches!(state, State::Refused(_) | State::Settled)
}

/// What is kept of a task that is over: who asked for what kind of work, and when. Its plan and its layout go.
fn emptied(task: Task) -> Task {
    let work = match task.work {
        Work::SquaredDifferences { .. } => Work::SquaredDifferences { means: Vec::new() },
        Work::Pass { pass } => Work::Pass { pass: Pass::new(&pass.step) },
        Work::Secure { step, .. } => {
            Work::Secure { step, message: SecureMessage::new(Vec::new()).expect("nothing is short enough") }
        }
        work => work,
    };
    let plan = Plan::Statistic(StatisticPlan::Moments { columns: vec!["forgotten".to_owned()] });
    Task { plan, work, model: None, layout: Vec::new(), masking: None, ..task }
}

impl Store {
    /// Writes a task that is not in the journal yet.
    pub fn add_task(&self, new: &NewTask<'_>, participant: &Participant, durability: Durability) -> Result<(), StoreError> {
        let (state, is_open) = stored(participant.state())?;
        let updated = millis(participant.updated());
        let document = if is_over(participant.state()) { to_json(&emptied(new.task.clone()))? } else { to_json(new.task)? };
        self.write(durability, |connection| {
            let mut statement = connection.prepare_cached(
                "INSERT INTO task (researcher, id, format, experiment, document, signature, state, is_open, accepted, updated)
                 VALUES (?1, ?2, 2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
            )?;
            let task = new.task;
            let experiment = task.key.experiment.as_str();
            let researcher = new.researcher.as_str();
            statement.execute((
                researcher,
                task.id.as_str(),
                experiment,
                document,
                new.signature,
                state,
                is_open,
                updated,
            ))?;
            Ok(())
        })
    }

    /// Writes where a task stands. `content` is a contribution small enough to lie in the journal itself; what lay there
    /// before stays until the task is settled or refused.
    pub fn update_task(
        &self,
        researcher: &ResearcherId,
        participant: &Participant,
        content: Option<&[u8]>,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let (state, is_open) = stored(participant.state())?;
        let keeps_content = matches!(participant.state(), State::Computed(_) | State::Delivered(_));
        let updated = millis(participant.updated());
        self.write(durability, |connection| {
            let mut statement = connection.prepare_cached(
                "UPDATE task SET state = ?3, is_open = ?4, updated = ?5,
                     content = CASE WHEN ?6 THEN coalesce(?7, content) END
                 WHERE researcher = ?1 AND id = ?2",
            )?;
            let id = participant.task().as_str();
            statement.execute((researcher.as_str(), id, state, is_open, updated, keeps_content, content))?;
            if is_over(participant.state()) {
                let mut statement =
                    connection.prepare_cached("SELECT document FROM task WHERE researcher = ?1 AND id = ?2")?;
                let task = statement.query_row((researcher.as_str(), id), |row| from_json(row, "document")).optional()?;
                if let Some(task) = task {
                    let sql = "UPDATE task SET document = ?3 WHERE researcher = ?1 AND id = ?2";
                    connection.execute(sql, (researcher.as_str(), id, to_json(&emptied(task))?))?;
                }
            }
            Ok(())
        })
    }

    /// Counts one more start of a task's work; says how many there were since it last came to something.
    pub fn begin_task(&self, researcher: &ResearcherId, task: &TaskId) -> Result<u64, StoreError> {
        self.write(Durability::Lazy, |connection| {
            let sql = "UPDATE task SET starts = starts + 1 WHERE researcher = ?1 AND id = ?2 RETURNING starts";
            let mut statement = connection.prepare_cached(sql)?;
            let starts =
                statement.query_row((researcher.as_str(), task.as_str()), |row| unsigned(row, "starts")).optional()?;
            Ok(starts.unwrap_or(0))
        })
    }

    /// Begins to count the starts of a task anew: its work came to something, or ended without harm.
    pub fn forgive_starts(&self, researcher: &ResearcherId, task: &TaskId) -> Result<(), StoreError> {
        self.write(Durability::Lazy, |connection| {
            let sql = "UPDATE task SET starts = 0 WHERE researcher = ?1 AND id = ?2 AND starts > 0";
            connection.execute(sql, (researcher.as_str(), task.as_str()))?;
            Ok(())
        })
    }

    /// The same for all tasks: the daemon ends because it was told to.
    pub fn forgive_all_starts(&self) -> Result<(), StoreError> {
        self.write(Durability::Lazy, |connection| {
            connection.execute("UPDATE task SET starts = 0 WHERE starts > 0", ())?;
            Ok(())
        })
    }

    /// Finds one task.
    pub fn task(&self, researcher: &ResearcherId, task: &TaskId) -> Result<Option<TaskRecord>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT * FROM task WHERE researcher = ?1 AND id = ?2")?;
            Ok(statement.query_row((researcher.as_str(), task.as_str()), record).optional()?)
        })
    }

    /// The tasks of a researcher that are not settled, in the order in which they were accepted.
    pub fn open_tasks(&self, researcher: &ResearcherId) -> Result<Vec<TaskRecord>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT * FROM task WHERE researcher = ?1 AND is_open = 1 ORDER BY accepted, rowid";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([researcher.as_str()], record)?.collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    /// All tasks, newest last; settled ones too if asked for.
    pub fn tasks(&self, with_settled: bool) -> Result<Vec<TaskRecord>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT * FROM task WHERE ?1 OR is_open = 1 ORDER BY accepted, rowid";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([with_settled], record)?.collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    /// The contribution that lies in the journal itself, if one does.
    pub fn task_content(&self, researcher: &ResearcherId, task: &TaskId) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT content FROM task WHERE researcher = ?1 AND id = ?2")?;
            let content = statement.query_row((researcher.as_str(), task.as_str()), |row| row.get(0)).optional()?;
            Ok(content.flatten())
        })
    }

    /// Forgets settled tasks that were last touched before `before`.
    pub fn forget_settled_tasks(&self, before: Timestamp) -> Result<usize, StoreError> {
        self.write(Durability::Lazy, |connection| {
            let sql = "DELETE FROM task WHERE is_open = 0 AND updated < ?1";
            Ok(connection.execute(sql, [millis(before)])?)
        })
    }
}
