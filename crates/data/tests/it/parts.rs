//! Reading the parts of a source at once.

use std::fmt::Write as _;
use std::sync::atomic::AtomicBool;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use data::{DataError, Effort, Folding, Inputs, Source, fold};
use protocol::Level;
use protocol::statistic::{Batch, Column, Input};

use crate::{Folder, GO_ON, describe_csv};

/// A table of about 10 MB whose rows hold line ends and quotes, with its row number in the first column.
fn table() -> String {
    let mut text = String::from("row,note,value\n");
    for row in 0..90_000 {
        let note = if row % 3 == 0 { "\"two\nlines, \"\"quoted\"\"\n\"".to_owned() } else { "x".repeat(row % 200) };
        let _ = writeln!(text, "{row},{note},{}", if row % 11 == 0 { String::new() } else { format!("{}.5", row % 7) });
    }
    text
}

fn open(folder: &Folder) -> Box<dyn Source> {
    let description = describe_csv(&folder.write("table.csv", table()));
    let scan = data::scan(&description, None, &GO_ON).unwrap();
    assert_eq!(scan.levels["value"].len(), 7);
    assert!(!scan.levels.contains_key("row"));
    let again = serde_json::from_str(&serde_json::to_string(&scan).unwrap()).unwrap();
    assert_eq!(scan, again);
    data::open(&description, &again).unwrap()
}

fn rows(source: &dyn Source, threads: usize) -> Result<Vec<i64>, DataError> {
    let folding = Folding {
        make: Vec::new,
        add: |rows: &mut Vec<i64>, batch: RecordBatch| rows.extend(batch.column(0).as_primitive::<Int64Type>().values()),
        merge: |rows: &mut Vec<i64>, more: Vec<i64>| rows.extend(more),
    };
    fold(source, &["row"], Effort { threads, memory_bytes: 1 << 30 }, &GO_ON, folding)
}

#[test]
fn parts_hold_every_row_once_and_in_order_whatever_the_threads() {
    let folder = Folder::new();
    let source = open(&folder);
    assert!(source.parts() > 1, "{}", source.parts());
    let expected: Vec<i64> = (0..90_000).collect();
    for threads in [1, 2, 7] {
        assert_eq!(rows(&*source, threads).unwrap(), expected);
    }
}

#[test]
fn inputs_are_read_in_parts_with_a_filter() {
    let folder = Folder::new();
    let source = open(&folder);
    let filter = "value > 3 and note is not missing".parse().unwrap();
    let inputs = Inputs::new(source.schema(), &[Input::Number("value * 2".parse().unwrap())], Some(&filter)).unwrap();
    let sums = |memory_bytes| {
        let folding = Folding {
            make: || (0_usize, 0.0),
            add: |(rows, sum): &mut (usize, f64), block: Batch| {
                let [Column::Numbers(numbers)] = &block.columns[..] else { panic!("one input") };
                *rows += block.rows;
                *sum += numbers.iter().sum::<f64>();
            },
            merge: |sums: &mut (usize, f64), more: (usize, f64)| *sums = (sums.0 + more.0, sums.1 + more.1),
        };
        inputs.fold(&*source, Effort { threads: 3, memory_bytes }, &GO_ON, folding).unwrap()
    };
    let is_kept =
        |row: &usize| !row.is_multiple_of(11) && row % 7 >= 3 && (row.is_multiple_of(3) || !row.is_multiple_of(200));
    let kept: Vec<usize> = (0..90_000).filter(is_kept).collect();
    let sum = kept.iter().map(|row| (row % 7) as f64 * 2.0 + 1.0).sum::<f64>();
    assert_eq!(sums(1 << 30), (kept.len(), sum));
    // Too little memory for two threads is enough for one.
    assert_eq!(sums(1), (kept.len(), sum));
}

#[test]
fn a_file_that_changed_and_a_reading_that_is_stopped_are_said() {
    let folder = Folder::new();
    let source = open(&folder);
    let mut text = table();
    text.replace_range(1_000_000..1_000_500, "");
    folder.write("table.csv", text);
    for threads in [1, 3] {
        assert!(matches!(rows(&*source, threads), Err(DataError::Csv { .. } | DataError::Changed { .. })));
    }
    let folding = Folding { make: || (), add: |(): &mut (), _: RecordBatch| (), merge: |(): &mut (), ()| () };
    let stopped = fold(&*source, &["row"], Effort { threads: 2, memory_bytes: 1 << 30 }, &AtomicBool::new(true), folding);
    assert!(matches!(stopped, Err(DataError::Stopped)));
}

#[test]
fn levels_are_the_values_of_columns_that_have_few() {
    let scan = crate::scan_csv("i,r,t,m\n1,1.0,a,\n01,1,NA,\n2,-0,a,\n,0.0, ,\n").unwrap();
    let shown: Vec<String> = scan
        .levels
        .iter()
        .map(|(name, levels)| {
            let levels: Vec<String> = levels.iter().map(|level| format!("{}×{}", level.level, level.rows)).collect();
            format!("{name}: {}", levels.join(" "))
        })
        .collect();
    assert_eq!(shown, ["i: 1×2 2×1", "r: 0×2 1×2", "t: NA×1 a×2"]);
    assert_eq!(scan.levels["t"][0].level, Level::Text("NA".to_owned()));
}
