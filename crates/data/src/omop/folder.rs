//! A cohort of a folder of CSV files, through a SQLite database that lives as long as the source: a file without a name that
//! SQLite makes, spills into where memory is short, and that is gone when it is closed.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch};
use protocol::ColumnKind;
use rusqlite::types::{Null, ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::{Cohort, Table, push_cohort};
use crate::csv::{CsvSource, ScanOptions, delimiter_of};
use crate::error::DataError;
use crate::fingerprint::{FileFingerprint, Fingerprint};
use crate::image_folder::end_after_error;
use crate::scan::{Layout, Scan, go_on, scan_csv};
use crate::schema::Schema;
use crate::source::{Batches, Source, batch, rows_per_batch};
use crate::sql::{Builder, Dialect, Parameter, quoted};

/// The files of a dataset, in the order of its tables.
pub(crate) fn files(folder: &Path, cohort: &Cohort) -> Result<Vec<PathBuf>, DataError> {
    cohort.tables().into_iter().map(|table| file(folder, cohort.name_of(table))).collect()
}

fn file(folder: &Path, table: &str) -> Result<PathBuf, DataError> {
    // A table's name may not lead out of the folder.
    let is_plain = !table.contains(['/', '\\']) && !table.starts_with('.');
    let names = ["csv", "tsv"].map(|ending| folder.join(format!("{table}.{ending}")));
    names.into_iter().find(|path| is_plain && path.is_file()).ok_or_else(|| DataError::Folder {
        path: folder.to_owned(),
        expected: "a .csv or .tsv file for each OMOP table that the cohort reads",
        found: format!("no {table}.csv"),
    })
}

fn database(folder: &Path) -> impl Fn(rusqlite::Error) -> DataError {
    move |source| DataError::Sqlite { path: folder.to_owned(), source }
}

/// Reads the tables into a database and the cohort into its table `cohort`.
fn load(folder: &Path, cohort: &Cohort, stop: &AtomicBool) -> Result<(Connection, Vec<FileFingerprint>), DataError> {
    let error = database(folder);
    // An empty name: a database on disk that SQLite deletes itself.
    let mut connection = Connection::open("").map_err(&error)?;
    let mut fingerprints = Vec::new();
    for table in cohort.tables() {
        fingerprints.push(load_table(folder, cohort, table, &mut connection, stop)?);
    }
    go_on(stop)?;
    let mut builder = Builder::new(Dialect::Sqlite);
    builder.push("CREATE TABLE temp.cohort AS ");
    push_cohort(&mut builder, cohort, None);
    let statement = builder.finish();
    let values = statement.parameters.into_iter().map(|parameter| match parameter {
        Parameter::Integer(integer) => Value::Integer(integer),
        Parameter::Real(real) => Value::Real(real),
        Parameter::Text(text) => Value::Text(text),
    });
    connection.execute(&statement.text, params_from_iter(values)).map_err(&error)?;
    Ok((connection, fingerprints))
}

fn load_table(
    folder: &Path,
    cohort: &Cohort,
    table: Table,
    connection: &mut Connection,
    stop: &AtomicBool,
) -> Result<FileFingerprint, DataError> {
    let error = database(folder);
    let path = file(folder, cohort.name_of(table))?;
    let columns = table.columns().columns;
    let declared: BTreeMap<String, ColumnKind> = columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
    let options = ScanOptions { delimiter: delimiter_of(&path), declared, previous: BTreeMap::new() };
    let scan = scan_csv(&path, &options, stop)?;
    let Layout::Csv { delimiter } = scan.layout else { unreachable!("a CSV file was scanned") };
    let source = CsvSource { path: path.clone(), delimiter, schema: scan.schema, rows: scan.rows, marks: Vec::new() };
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let transaction = connection.transaction().map_err(&error)?;
    let name = quoted(cohort.name_of(table));
    transaction.execute_batch(&format!("CREATE TABLE {name} ({})", names.join(", "))).map_err(&error)?;
    {
        let places = vec!["?"; names.len()].join(", ");
        let mut insert = transaction.prepare(&format!("INSERT INTO {name} VALUES ({places})")).map_err(&error)?;
        let mut people = HashSet::new();
        for batch in source.batches(&names)? {
            go_on(stop)?;
            let batch = batch?;
            for row in 0..batch.num_rows() {
                if table == Table::Person {
                    one_person(&path, batch.column(0).as_primitive::<Int64Type>(), row, &mut people)?;
                }
                let cells = batch.columns().iter().map(|column| cell(column, row));
                insert.execute(params_from_iter(cells)).map_err(&error)?;
            }
        }
    }
    if names.contains(&"person_id") {
        transaction
            .execute_batch(&format!(
                "CREATE INDEX {} ON {name} (person_id)",
                quoted(&format!("of_{}", table.columns().name))
            ))
            .map_err(&error)?;
    }
    transaction.commit().map_err(&error)?;
    Ok(scan.fingerprint.files[0])
}

/// Checks that a person has one row.
fn one_person(path: &Path, ids: &Int64Array, row: usize, people: &mut HashSet<Option<i64>>) -> Result<(), DataError> {
    let id = ids.is_valid(row).then(|| ids.value(row));
    if people.insert(id) {
        return Ok(());
    }
    let id = id.map_or_else(String::new, |id| id.to_string());
    Err(DataError::IdTwice { path: path.to_owned(), column: "person_id".to_owned(), id })
}

fn cell(column: &ArrayRef, row: usize) -> ToSqlOutput<'_> {
    if column.is_null(row) {
        return ToSqlOutput::from(Null);
    }
    if let Some(integers) = column.as_primitive_opt::<Int64Type>() {
        ToSqlOutput::from(integers.value(row))
    } else if let Some(reals) = column.as_primitive_opt::<Float64Type>() {
        ToSqlOutput::from(reals.value(row))
    } else {
        ToSqlOutput::Borrowed(ValueRef::Text(column.as_string::<i32>().value(row).as_bytes()))
    }
}

/// Reads the tables and builds the cohort.
pub(crate) fn scan(folder: &Path, cohort: &Cohort, stop: &AtomicBool) -> Result<Scan, DataError> {
    let schema = cohort.schema()?;
    let (connection, files) = load(folder, cohort, stop)?;
    let counts: Vec<String> =
        schema.columns().iter().map(|column| format!(", count(*) - count({})", quoted(&column.name))).collect();
    let statement = format!("SELECT count(*){} FROM temp.cohort", counts.concat());
    let count = |number: i64| u64::try_from(number).expect("SQLite counts upwards");
    let numbers: Vec<u64> = connection
        .query_row(&statement, [], |row| (0..=schema.len()).map(|at| row.get(at).map(count)).collect())
        .map_err(database(folder))?;
    let (rows, missing) = (numbers[0], numbers[1..].to_vec());
    Ok(Scan {
        layout: Layout::Omop,
        schema,
        rows,
        missing,
        levels: BTreeMap::new(),
        marks: Vec::new(),
        fingerprint: Fingerprint { files },
    })
}

/// A cohort whose scan is known, in its database.
#[derive(Debug)]
pub(crate) struct OmopSource {
    folder: PathBuf,
    connection: Mutex<Connection>,
    schema: Schema,
    rows: u64,
}

impl OmopSource {
    pub(crate) fn open(folder: &Path, cohort: &Cohort, schema: Schema, rows: u64) -> Result<Self, DataError> {
        let (connection, _) = load(folder, cohort, &AtomicBool::new(false))?;
        Ok(Self { folder: folder.to_owned(), connection: Mutex::new(connection), schema, rows })
    }

    /// Reads the rows behind a number.
    fn read(&self, positions: &[usize], after: i64, at_once: usize) -> Result<Option<RecordBatch>, DataError> {
        let error = database(&self.folder);
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<String> =
            positions.iter().map(|at| format!(", {}", quoted(&self.schema.columns()[*at].name))).collect();
        let statement = format!("SELECT rowid{} FROM temp.cohort WHERE rowid > ?1 ORDER BY rowid LIMIT ?2", names.concat());
        let mut statement = connection.prepare_cached(&statement).map_err(&error)?;
        let at_once = i64::try_from(at_once).expect("at most 8,192");
        let mut rows = statement.query([after, at_once]).map_err(&error)?;
        let mut cells: Vec<Vec<Value>> = vec![Vec::new(); positions.len()];
        let mut count = 0;
        while let Some(row) = rows.next().map_err(&error)? {
            count += 1;
            for (at, cells) in cells.iter_mut().enumerate() {
                cells.push(row.get(at + 1).map_err(&error)?);
            }
        }
        if count == 0 {
            return Ok(None);
        }
        let arrays = cells.iter().zip(positions).map(|(cells, at)| array(cells, self.schema.columns()[*at].kind)).collect();
        Ok(Some(batch(&self.schema.arrow(positions), arrays, count)))
    }
}

fn array(cells: &[Value], kind: ColumnKind) -> ArrayRef {
    match kind {
        ColumnKind::Real => {
            let number = |cell: &Value| match cell {
                Value::Real(real) => Some(*real),
                Value::Integer(integer) => Some(*integer as f64),
                _ => None,
            };
            Arc::new(cells.iter().map(number).collect::<Float64Array>())
        }
        _ => Arc::new(
            cells.iter().map(|cell| if let Value::Integer(i) = cell { Some(*i) } else { None }).collect::<Int64Array>(),
        ),
    }
}

impl Source for OmopSource {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn batches(&self, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        let positions = self.schema.positions(columns)?;
        let at_once = rows_per_batch(positions.len());
        let mut read = 0;
        let next = move || -> Result<Option<RecordBatch>, DataError> {
            let after = i64::try_from(read).expect("SQLite numbers rows with 63 bits");
            let batch = self.read(&positions, after, at_once)?;
            read += batch.as_ref().map_or(0, |batch| batch.num_rows() as u64);
            let is_right = if batch.is_none() { read == self.rows } else { read <= self.rows };
            if is_right { Ok(batch) } else { Err(DataError::Changed { path: self.folder.clone() }) }
        };
        let mut next = next;
        Ok(Box::new(std::iter::from_fn(move || next().transpose()).scan(false, end_after_error)))
    }
}
