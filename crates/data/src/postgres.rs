//! A table, a view, a query or an OMOP cohort of a database that speaks PostgreSQL's protocol.
//!
//! No socket is opened here: a [`Connector`] hands in connected streams, over TLS where that is declared ([`request_tls`] asks the
//! server for it). Every session is one transaction that can only read, with a timeout for each statement, and uses the
//! extended protocol alone, which takes one statement at a time. A query stands as a sub-query, where the database accepts nothing
//! but a SELECT.

mod parameters;
mod session;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use protocol::{ColumnFace, ColumnKind, Expression};
use thiserror::Error;

pub use parameters::{
    Password, PasswordPlace, PasswordPlaceError, PostgresParameters, Relation, Select, SelectError, Server, ServerError, Tls,
};
use session::Session;
pub use session::request_tls;

use crate::error::DataError;
use crate::fingerprint::Fingerprint;
use crate::image_folder::end_after_error;
use crate::omop::push_cohort;
use crate::scan::{Layout, Scan};
use crate::schema::Schema;
use crate::source::{Batches, Source, batch, rows_per_batch};
use crate::sql::sums::{self, Sum, SumsError};
use crate::sql::{Builder, Dialect, Statement, quoted};

/// A connected stream; reads and writes on it time out as its opener says.
pub trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// Bytes behind which a batch ends; rows of texts come in steps of [`TEXT_ROWS`], each of at most 4 MiB.
const BATCH_BYTES: usize = 8 << 20;
const TEXT_ROWS: usize = 64;

/// Connects to the dataset's server; called once for each reading.
pub type Connector = Arc<dyn Fn() -> io::Result<Box<dyn Stream>> + Send + Sync>;

/// Why a database gives no rows.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PostgresError {
    #[error("cannot be reached: {0}")]
    Connect(io::Error),
    #[error("the connection broke: {0}")]
    Io(io::Error),
    #[error("the server closed the connection")]
    Closed,
    /// What the server says; may hold values.
    #[error("{message} (SQLSTATE {code})")]
    Server { code: String, message: String },
    #[error("the server asks for a password, and none is declared")]
    PasswordMissing,
    #[error(
        "the server asks for the password in clear or hashed with MD5 on a connection that others can read; set up scram-sha-256 or TLS"
    )]
    PasswordExposed,
    #[error("the server asks for a way to log in that is not supported; set up scram-sha-256")]
    LoginMethod,
    #[error("{}: {reason}", path.display())]
    PasswordFile { path: PathBuf, reason: String },
    #[error("the variable {0:?} with the password is not set")]
    PasswordVariable(String),
    #[error("the server does not speak PostgreSQL's protocol as expected: {0}")]
    Protocol(&'static str),
    #[error("a row is longer than {0} bytes")]
    RowTooLong(usize),
    #[error(
        "column {column:?} has a type (OID {oid}) that is neither number, text, truth nor time; cast it in the query or a view"
    )]
    ColumnType { column: String, oid: u32 },
    #[error(transparent)]
    Sums(#[from] SumsError),
}

/// A dataset's database.
pub struct Database {
    parameters: PostgresParameters,
    password: Option<Password>,
    connector: Connector,
}

/// A column as the server describes it.
struct Described {
    face: ColumnFace,
    oid: u32,
}

const BOOL: u32 = 16;

/// The kind of a type, by its object identifier in every database (`pg_type.dat`).
fn kind(oid: u32) -> Option<ColumnKind> {
    match oid {
        // bool, int8, int2, int4, oid
        BOOL | 20 | 21 | 23 | 26 => Some(ColumnKind::Integer),
        // float4, float8, numeric
        700 | 701 | 1700 => Some(ColumnKind::Real),
        // "char", name, text, unknown, bpchar, varchar, date, time, timestamp, timestamptz, uuid
        18 | 19 | 25 | 705 | 1042 | 1043 | 1082 | 1083 | 1114 | 1184 | 2950 => Some(ColumnKind::Text),
        _ => None,
    }
}

impl Database {
    pub fn new(parameters: PostgresParameters, password: Option<Password>, connector: Connector) -> Self {
        Self { parameters, password, connector }
    }

    fn error(&self, source: PostgresError) -> DataError {
        DataError::Postgres { server: self.parameters.server.to_string(), source }
    }

    /// The statement of the dataset's rows.
    fn relation(&self) -> Statement {
        let mut builder = Builder::new(Dialect::Postgres);
        match &self.parameters.rows {
            Relation::Table { schema, name } => {
                builder.push("SELECT * FROM ");
                if let Some(schema) = schema {
                    builder.name(schema.as_str()).push(".");
                }
                builder.name(name.as_str());
            }
            Relation::Query(select) => {
                builder.push(select.as_str());
            }
            Relation::Cohort { schema, definition } => push_cohort(&mut builder, definition, schema.as_ref()),
        }
        builder.finish()
    }

    /// Opens a session and asks what columns the rows have.
    fn describe(&self) -> Result<(Session, Vec<Described>), PostgresError> {
        let stream = (self.connector)().map_err(PostgresError::Connect)?;
        let PostgresParameters { database, user, statement_timeout_s, tls, server, .. } = &self.parameters;
        let is_private = *tls == Tls::Verify || server.is_local();
        let mut session = Session::start(stream, user, database, self.password.as_ref().map(Password::bytes), is_private)?;
        session.begin(*statement_timeout_s)?;
        let mut statement = self.relation();
        // Behind a line of its own, a comment at the end of the query comments nothing out.
        statement.text = format!("SELECT * FROM (\n{}\n) AS r", statement.text);
        let columns = session.describe(&statement)?.into_iter().map(|(name, oid)| {
            let kind = kind(oid).ok_or_else(|| PostgresError::ColumnType { column: name.clone(), oid })?;
            Ok(Described { face: ColumnFace { name, kind }, oid })
        });
        let columns = columns.collect::<Result<_, PostgresError>>()?;
        Ok((session, columns))
    }

    /// The rows with 64-bit integers, finite float64s and texts: the columns at these positions.
    fn normalised(&self, columns: &[Described], positions: &[usize]) -> Statement {
        let cast = |position: &usize| {
            let Described { face, oid } = &columns[*position];
            let name = quoted(&face.name);
            let value = match face.kind {
                ColumnKind::Integer if *oid == BOOL => format!("CAST(CAST({name} AS integer) AS bigint)"),
                ColumnKind::Integer => format!("CAST({name} AS bigint)"),
                ColumnKind::Real => {
                    format!("NULLIF(NULLIF(NULLIF(CAST({name} AS double precision), 'NaN'), 'Infinity'), '-Infinity')")
                }
                ColumnKind::Text => format!("CAST({name} AS text)"),
            };
            format!("{value} AS {name}")
        };
        let mut statement = self.relation();
        let list: Vec<String> = positions.iter().map(cast).collect();
        statement.text = format!("SELECT {} FROM (\n{}\n) AS r", list.join(", "), statement.text);
        statement
    }

    /// Asks for columns, rows and missing cells.
    pub fn scan(&self) -> Result<Scan, DataError> {
        let (mut session, columns) = self.describe().map_err(|source| self.error(source))?;
        let schema = Schema::new(columns.iter().map(|column| column.face.clone()).collect())?;
        let all: Vec<usize> = (0..schema.len()).collect();
        let mut asked = vec![Sum::Rows];
        asked.extend(schema.columns().iter().map(|column| Sum::Present(vec![Expression::column(column.name.as_str())])));
        let mut counts = Vec::with_capacity(asked.len());
        for asked in asked.chunks(sums::MAX_SUMS) {
            let relation = self.normalised(&columns, &all);
            let answered =
                Self::answer(&mut session, relation, &schema, None, asked).map_err(|source| self.error(source))?;
            counts.extend(answered.into_iter().map(|count| as_count(count.unwrap_or(0.0))));
        }
        let rows = counts[0];
        let missing = counts[1..].iter().map(|present| rows.saturating_sub(*present)).collect();
        let fingerprint = Fingerprint { files: Vec::new() };
        Ok(Scan { layout: Layout::Postgres, schema, rows, missing, levels: BTreeMap::new(), marks: Vec::new(), fingerprint })
    }

    /// Lets the database compute sums over the rows where the filter is true: one number for each, none where nothing was summed.
    pub fn sums(&self, schema: &Schema, filter: Option<&Expression>, sums: &[Sum]) -> Result<Vec<Option<f64>>, DataError> {
        let (mut session, columns) = self.describe().map_err(|source| self.error(source))?;
        self.check(schema, &columns)?;
        let all: Vec<usize> = (0..columns.len()).collect();
        let relation = self.normalised(&columns, &all);
        Self::answer(&mut session, relation, schema, filter, sums).map_err(|source| self.error(source))
    }

    fn answer(
        session: &mut Session,
        relation: Statement,
        schema: &Schema,
        filter: Option<&Expression>,
        sums: &[Sum],
    ) -> Result<Vec<Option<f64>>, PostgresError> {
        let kind_of = |name: &str| schema.columns().iter().find(|column| column.name == name).map(|column| column.kind);
        let statement = sums::compile(relation, filter, sums, &kind_of)?;
        session.run(&statement)?;
        let mut numbers = Vec::with_capacity(sums.len());
        session.fetch(1, &mut |cells| {
            for cell in cells {
                numbers.push(cell.map(real).transpose()?);
            }
            Ok(())
        })?;
        if numbers.len() == sums.len() { Ok(numbers) } else { Err(PostgresError::Protocol("another number of sums")) }
    }

    /// Whether the columns are those that were registered.
    fn check(&self, schema: &Schema, columns: &[Described]) -> Result<(), DataError> {
        if schema.columns().iter().eq(columns.iter().map(|column| &column.face)) {
            return Ok(());
        }
        Err(DataError::Changed { path: PathBuf::from(self.parameters.server.to_string()) })
    }

    /// Opens the rows of a scan.
    pub fn open(self, scan: &Scan) -> PostgresSource {
        PostgresSource { database: self, schema: scan.schema.clone(), rows: scan.rows }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count that a database could count, as float64"
)]
fn as_count(number: f64) -> u64 {
    number.max(0.0) as u64
}

fn integer(cell: &[u8]) -> Result<i64, PostgresError> {
    Ok(i64::from_be_bytes(cell.try_into().map_err(|_| PostgresError::Protocol("an integer of another width"))?))
}

fn real(cell: &[u8]) -> Result<f64, PostgresError> {
    Ok(f64::from_be_bytes(cell.try_into().map_err(|_| PostgresError::Protocol("a real of another width"))?))
}

/// The rows of a database whose scan is known. Rows come and go while a database lives: `rows` is what the scan found.
pub struct PostgresSource {
    database: Database,
    schema: Schema,
    rows: u64,
}

impl Source for PostgresSource {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn batches(&self, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        let positions = self.schema.positions(columns)?;
        let database = &self.database;
        let (mut session, described) = database.describe().map_err(|source| database.error(source))?;
        database.check(&self.schema, &described)?;
        session.run(&database.normalised(&described, &positions)).map_err(|source| database.error(source))?;
        let at_once = rows_per_batch(positions.len());
        let mut ended = false;
        let next = move || -> Result<Option<RecordBatch>, DataError> {
            if ended {
                return Ok(None);
            }
            let read = self.read(&mut session, &positions, at_once).map_err(|source| database.error(source))?;
            ended = read.is_last;
            Ok(Some(read.batch).filter(|batch| batch.num_rows() > 0))
        };
        let mut next = next;
        Ok(Box::new(std::iter::from_fn(move || next().transpose()).scan(false, end_after_error)))
    }
}

struct Block {
    batch: RecordBatch,
    is_last: bool,
}

/// The cells of one column, as they arrive.
enum Cells {
    Integers(Vec<Option<i64>>),
    Reals(Vec<Option<f64>>),
    Texts(StringBuilder),
}

impl Cells {
    fn push(&mut self, cell: Option<&[u8]>) -> Result<(), PostgresError> {
        match self {
            Self::Integers(cells) => cells.push(cell.map(integer).transpose()?),
            Self::Reals(cells) => cells.push(cell.map(real).transpose()?),
            Self::Texts(cells) => {
                let text = cell.map(std::str::from_utf8).transpose();
                cells.append_option(text.map_err(|_| PostgresError::Protocol("a text that is not UTF-8"))?);
            }
        }
        Ok(())
    }
}

impl PostgresSource {
    fn read(&self, session: &mut Session, positions: &[usize], at_once: usize) -> Result<Block, PostgresError> {
        let empty = |at: &usize| match self.schema.columns()[*at].kind {
            ColumnKind::Integer => Cells::Integers(Vec::new()),
            ColumnKind::Real => Cells::Reals(Vec::new()),
            ColumnKind::Text => Cells::Texts(StringBuilder::new()),
        };
        let mut columns: Vec<Cells> = positions.iter().map(empty).collect();
        // Texts are of any length: a few rows at a time bound what a batch holds.
        let has_texts = columns.iter().any(|column| matches!(column, Cells::Texts(_)));
        let step = if has_texts { TEXT_ROWS } else { at_once };
        let (mut rows, mut bytes, mut is_last) = (0, 0, false);
        while !is_last && rows < at_once && bytes < BATCH_BYTES {
            let fetched = session.fetch(step, &mut |cells| {
                let mut columns = columns.iter_mut();
                for cell in cells {
                    bytes += cell.map_or(0, <[u8]>::len);
                    columns.next().ok_or(PostgresError::Protocol("a row of another width"))?.push(cell)?;
                }
                if columns.next().is_some() { Err(PostgresError::Protocol("a row of another width")) } else { Ok(()) }
            })?;
            rows += fetched.rows;
            is_last = fetched.is_last;
        }
        let arrays = columns.into_iter().map(|column| -> ArrayRef {
            match column {
                Cells::Integers(cells) => Arc::new(Int64Array::from(cells)),
                Cells::Reals(cells) => Arc::new(Float64Array::from(cells)),
                Cells::Texts(mut cells) => Arc::new(cells.finish()),
            }
        });
        Ok(Block { batch: batch(&self.schema.arrow(positions), arrays.collect(), rows), is_last })
    }
}
