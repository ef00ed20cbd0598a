//! Parquet files of other programs.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringDictionaryBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int64Array,
    LargeStringArray, NullArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use data::{Comparison, DataError, Depth, Parameters, Scan, Source};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use protocol::ColumnKind;

use crate::{Folder, GO_ON, describe};

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>, group: usize) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)));
    let batch = batch.unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn open(path: &Path) -> Result<(Scan, Box<dyn Source>), DataError> {
    let description = describe(path, Parameters::Parquet);
    let scan = data::scan(&description, None, &GO_ON)?;
    assert_eq!(scan.compare(&description, Depth::Full, &GO_ON).unwrap(), Comparison::Same);
    let source = data::open(&description, &scan)?;
    Ok((scan, source))
}

fn column(source: &dyn Source, name: &str) -> ArrayRef {
    let batches: Vec<RecordBatch> = source.batches(&[name]).unwrap().map(Result::unwrap).collect();
    let columns: Vec<&dyn Array> = batches.iter().map(|batch| &**batch.column(0)).collect();
    arrow_select::concat::concat(&columns).unwrap()
}

#[test]
fn types_of_other_programs_are_integers_reals_and_texts() {
    let folder = Folder::new();
    let path = folder.path().join("table.parquet");
    let mut words = StringDictionaryBuilder::<Int32Type>::new();
    words.append_option(Some("b"));
    words.append_option(None::<&str>);
    words.append_option(Some("b"));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("small", Arc::new(Int8Array::from(vec![-1, 2, 2]))),
        ("large", Arc::new(UInt64Array::from(vec![0, 1, 1 << 62]))),
        ("float", Arc::new(Float32Array::from(vec![Some(0.5), Some(f32::NAN), None]))),
        ("real", Arc::new(Float64Array::from(vec![f64::INFINITY, 1.5, -0.0]))),
        ("decimal", Arc::new(Decimal128Array::from(vec![125, -50, 0]).with_precision_and_scale(10, 2).unwrap())),
        ("text", Arc::new(LargeStringArray::from(vec!["é", " ", ""]))),
        ("words", Arc::new(words.finish())),
        ("day", Arc::new(Date32Array::from(vec![0, 19_000, -1]))),
        ("time", Arc::new(TimestampMicrosecondArray::from(vec![0, 1_700_000_000_000_000, 500_000]))),
        ("zoned", Arc::new(TimestampMicrosecondArray::from(vec![0, 1, 2]).with_timezone("Europe/Paris"))),
        ("nothing", Arc::new(NullArray::new(3))),
    ];
    write(&path, columns, 2);
    let (scan, source) = open(&path).unwrap();
    let kinds: Vec<ColumnKind> = scan.schema.columns().iter().map(|column| column.kind).collect();
    let (integer, real, text) = (ColumnKind::Integer, ColumnKind::Real, ColumnKind::Text);
    assert_eq!(kinds, [integer, integer, integer, real, real, real, text, text, text, text, text, real]);
    assert_eq!((scan.rows, &scan.missing[..]), (3, &[1, 0, 0, 2, 1, 0, 2, 1, 0, 0, 0, 3][..]));
    let check = |name: &str, expected: ArrayRef| assert_eq!(&column(&*source, name), &expected, "{name}");
    check("bool", Arc::new(Int64Array::from(vec![Some(1), None, Some(0)])));
    check("large", Arc::new(Int64Array::from(vec![0, 1, 1 << 62])));
    check("float", Arc::new(Float64Array::from(vec![Some(0.5), None, None])));
    check("real", Arc::new(Float64Array::from(vec![None, Some(1.5), Some(-0.0)])));
    check("decimal", Arc::new(Float64Array::from(vec![1.25, -0.5, 0.0])));
    check("text", Arc::new(StringArray::from(vec![Some("é"), None, None])));
    check("words", Arc::new(StringArray::from(vec![Some("b"), None, Some("b")])));
    check("day", Arc::new(StringArray::from(vec!["1970-01-01", "2022-01-08", "1969-12-31"])));
    check(
        "time",
        Arc::new(StringArray::from(vec!["1970-01-01T00:00:00", "2023-11-14T22:13:20", "1970-01-01T00:00:00.500"])),
    );
    assert_eq!(column(&*source, "zoned").as_string::<i32>().value(1), "1970-01-01T00:00:00.000001Z");
    assert_eq!(scan.levels["words"].len(), 1);
    assert_eq!(scan.levels["bool"].len(), 2);
    // Parts are groups of rows; columns come in the order that was asked for.
    assert_eq!(source.parts(), 2);
    let part = source.part(1, &["words", "small"]).unwrap().next().unwrap().unwrap();
    assert_eq!(part.column(1).as_ref(), &Int64Array::from(vec![2]) as &dyn Array);
    assert_eq!(source.batches(&[]).unwrap().map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 3);
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = Folder::new();
    let path = folder.path().join("table.parquet");
    let mut lists = ListBuilder::new(arrow_array::builder::Int64Builder::new());
    lists.append_value([Some(1)]);
    write(&path, vec![("fine", Arc::new(Int8Array::from(vec![1]))), ("visits", Arc::new(lists.finish()))], 10);
    let Err(DataError::ParquetColumn { column, .. }) = open(&path) else { panic!("a list is no column") };
    assert_eq!(column, "visits");
    write(&path, vec![("big", Arc::new(UInt64Array::from(vec![u64::MAX])))], 10);
    let error = open(&path).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("column \"big\""), "{error}");
    write(&path, vec![("empty", Arc::new(Int8Array::from(Vec::<i8>::new())))], 10);
    assert!(matches!(open(&path), Err(DataError::Parquet { .. })));
    folder.write("table.parquet", "a,b\n1,2\n");
    assert!(matches!(open(&path), Err(DataError::Parquet { .. })));
}

#[test]
fn a_damaged_file_is_an_error_or_other_values_but_never_a_panic() {
    let folder = Folder::new();
    let path = folder.path().join("table.parquet");
    let texts: Vec<String> = (0..300).map(|row| format!("text {}", row % 40)).collect();
    let numbers: Vec<f64> = (0..300).map(f64::from).collect();
    write(&path, vec![("t", Arc::new(StringArray::from(texts))), ("x", Arc::new(Float64Array::from(numbers)))], 100);
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(23) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        folder.write("table.parquet", &damaged);
        drop(open(&path).map(|_| ()));
        folder.write("table.parquet", &whole[..at]);
        assert!(open(&path).is_err());
    }
}
