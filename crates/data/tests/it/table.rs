//! Columns in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use data::{Batches, ColumnChoice, DataError, Schema, Source, Table};
use proptest::prelude::*;
use protocol::{ColumnFace, ColumnKind, Missing};

use crate::{Folder, describe_csv};

fn load(text: &str, features: &[&str], target: &str, split: Option<&str>, missing: Missing) -> Result<Table, DataError> {
    let folder = Folder::new();
    let description = describe_csv(&folder.write("table.csv", text));
    let source = data::open(&description, &data::scan(&description, None, &crate::GO_ON)?)?;
    let features: Vec<String> = features.iter().map(|name| (*name).to_owned()).collect();
    Table::load(&*source, ColumnChoice { features: &features, target: Some(target), split, missing }, &crate::GO_ON)
}

const TEXT: &str =
    "set,age,chol,sex,y\ntrain,63,233.5,male,0\ntest,67,,female,1\n,41,204,female,1\ntrain,NA,1,male,0\ntrain,5,6,male,1\n";

#[test]
fn features_come_row_by_row_in_the_order_of_their_names() {
    let table = load("a,b,y\n1,2,3\n4,5,6\n", &["b", "a"], "y", None, Missing::Refuse).unwrap();
    assert_eq!(table.features(), [2.0, 1.0, 5.0, 4.0]);
    assert_eq!(table.row(1), [5.0, 4.0]);
    assert_eq!(table.target(), [3.0, 6.0]);
    assert_eq!(table.split(), None);
    assert_eq!(table.into_parts(), (vec![2.0, 1.0, 5.0, 4.0], vec![3.0, 6.0]));
}

#[test]
fn without_names_every_numeric_column_but_the_target_is_a_feature() {
    let table = load(TEXT, &[], "y", None, Missing::Drop).unwrap();
    assert_eq!(table.names(), ["age", "chol"]);
    let error = load("x,y\na,1\nb,2\n", &[], "y", None, Missing::Refuse).unwrap_err();
    assert!(matches!(error, DataError::NoFeatures));
}

#[test]
fn rows_with_a_missing_cell_are_refused_or_dropped_and_reported() {
    let table = load(TEXT, &["age", "chol"], "y", None, Missing::Drop).unwrap();
    assert_eq!((table.rows(), table.dropped()), (3, &[1, 3][..]));
    assert_eq!(table.features(), [63.0, 233.5, 41.0, 204.0, 5.0, 6.0]);
    let error = load(TEXT, &["chol", "age"], "y", None, Missing::Refuse).unwrap_err();
    let DataError::MissingValues { rows: 2, columns } = error else { panic!("{error}") };
    assert_eq!(columns, ["chol", "age"]);
    // Only the chosen columns matter.
    assert!(load("a,b,y\n1,,0\n", &["a"], "y", None, Missing::Refuse).is_ok());
}

#[test]
fn a_split_column_keeps_its_texts_and_a_blank_in_it_is_missing() {
    let table = load(TEXT, &["age"], "y", Some("set"), Missing::Drop).unwrap();
    assert_eq!(table.dropped(), [2, 3]);
    let split = table.split().unwrap();
    assert_eq!(split.levels(), ["train", "test"]);
    assert_eq!(split.iter().collect::<Vec<_>>(), ["train", "test", "train"]);
    assert_eq!(split.get(1), "test");
    let by_number = load("a,s,y\n1,0,0\n2,1,1\n", &["a"], "y", Some("s"), Missing::Refuse).unwrap();
    assert_eq!(by_number.split().unwrap().levels(), ["0", "1"]);
}

#[test]
fn unknown_and_text_columns_are_typed_errors() {
    let error = load(TEXT, &["agee"], "y", None, Missing::Drop).unwrap_err();
    assert_eq!(error.to_string(), "the dataset has no column \"agee\"; did you mean \"age\"?");
    let error = load(TEXT, &["sex"], "y", None, Missing::Drop).unwrap_err();
    assert!(matches!(error, DataError::ColumnNotNumeric { name } if name == "sex"));
    let error = load(TEXT, &["age"], "sex", None, Missing::Drop).unwrap_err();
    assert!(matches!(error, DataError::ColumnNotNumeric { .. }));
    let error = load(TEXT, &["age"], "y", Some("nowhere"), Missing::Drop).unwrap_err();
    assert!(matches!(error, DataError::ColumnUnknown { .. }));
}

#[test]
fn many_batches_make_one_table() {
    let rows = 30_000_u32;
    let lines: Vec<String> = (0..rows).map(|row| format!("{row},{}.5,{}", row % 7, row % 2)).collect();
    let text = format!("a,b,y\n{}\n", lines.join("\n"));
    let table = load(&text, &[], "y", None, Missing::Refuse).unwrap();
    assert_eq!(table.rows(), rows as usize);
    for row in (0..rows).step_by(997) {
        assert_eq!(table.row(row as usize), [f64::from(row), f64::from(row % 7) + 0.5]);
        assert_eq!(table.target()[row as usize], f64::from(row % 2));
    }
}

/// A source of one real column, with values that no file gives.
struct Reals(Schema, Vec<f64>);

impl Source for Reals {
    fn schema(&self) -> &Schema {
        &self.0
    }

    fn rows(&self) -> u64 {
        self.1.len() as u64
    }

    fn batches(&self, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        self.0.positions(columns)?;
        let field = arrow_schema::Field::new("x", arrow_schema::DataType::Float64, true);
        let column: arrow_array::ArrayRef = Arc::new(arrow_array::Float64Array::from(self.1.clone()));
        let schema = Arc::new(arrow_schema::Schema::new(vec![field]));
        Ok(Box::new(std::iter::once(Ok(arrow_array::RecordBatch::try_new(schema, vec![column]).unwrap()))))
    }
}

#[test]
fn values_that_are_no_finite_numbers_count_as_missing() {
    let schema = Schema::new(vec![ColumnFace { name: "x".to_owned(), kind: ColumnKind::Real }]).unwrap();
    let source = Reals(schema, vec![1.0, f64::NAN, 2.0, f64::INFINITY]);
    let choice = ColumnChoice { features: &["x".to_owned()], target: None, split: None, missing: Missing::Drop };
    let table = Table::load(&source, choice, &crate::GO_ON).unwrap();
    assert_eq!((table.features(), table.dropped(), table.target()), (&[1.0, 2.0][..], &[1, 3][..], &[][..]));
    let error = Table::load(&source, ColumnChoice { missing: Missing::Refuse, ..choice }, &crate::GO_ON).unwrap_err();
    assert!(matches!(error, DataError::MissingValues { rows: 2, .. }));
}

/// A source without end: somebody stops the reading while it gives its second batch.
struct Endless<'a>(Reals, &'a AtomicBool);

impl Source for Endless<'_> {
    fn schema(&self) -> &Schema {
        self.0.schema()
    }

    fn rows(&self) -> u64 {
        1
    }

    fn batches(&self, columns: &[&str]) -> Result<Batches<'_>, DataError> {
        let batch = self.0.batches(columns)?.next().unwrap()?;
        Ok(Box::new((0..).map(move |index| {
            assert!(index < 2, "a batch is read after the stop");
            self.1.store(index == 1, Ordering::Relaxed);
            Ok(batch.clone())
        })))
    }
}

#[test]
fn a_load_that_is_stopped_reads_no_further_batch() {
    let schema = Schema::new(vec![ColumnFace { name: "x".to_owned(), kind: ColumnKind::Real }]).unwrap();
    let stop = AtomicBool::new(false);
    let source = Endless(Reals(schema, vec![1.0, 2.0]), &stop);
    let choice = ColumnChoice { features: &[], target: None, split: None, missing: Missing::Refuse };
    assert!(matches!(Table::load(&source, choice, &stop), Err(DataError::Stopped)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Numbers written with all their digits come back bit for bit, and rows with a blank are those dropped.
    #[test]
    fn tables_read_back_as_they_were_written(cells in prop::collection::vec(prop::option::weighted(0.9, any::<f64>()), 3..120)) {
        let finite = |cell: &Option<f64>| cell.filter(|value| value.is_finite());
        let rows: Vec<Vec<Option<f64>>> = cells.chunks_exact(3).map(|row| row.iter().map(finite).collect()).collect();
        let write = |cell: &Option<f64>| cell.map_or_else(String::new, |value| format!("{value:?}"));
        let lines: Vec<String> = rows.iter().map(|row| row.iter().map(write).collect::<Vec<_>>().join(",")).collect();
        let table = load(&format!("a,b,y\n{}\n", lines.join("\n")), &["a", "b"], "y", None, Missing::Drop).unwrap();
        let kept: Vec<Vec<f64>> = rows.iter().filter_map(|row| row.iter().copied().collect()).collect();
        let features: Vec<u64> = kept.iter().flat_map(|row| [row[0].to_bits(), row[1].to_bits()]).collect();
        prop_assert_eq!(table.features().iter().map(|value| value.to_bits()).collect::<Vec<_>>(), features);
        prop_assert_eq!(table.rows() + table.dropped().len(), rows.len());
    }
}
