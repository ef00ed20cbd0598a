//! How fast count, sum and sum of squares of all numeric columns are read from a CSV or Parquet file.
//! `cargo run --release -p data --example throughput -- FILE [THREADS] [MEMORY_MB]`
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "it measures, and says what it measured")]

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use data::{CsvParameters, Description, Effort, Folding, Inputs, Parameters, Place, RawDescription};
use protocol::statistic::{Batch, Column, Input};
use protocol::{Expression, Tags};

/// Count, sum and sum of squares.
#[derive(Clone, Copy, Default)]
struct Sums {
    count: u64,
    sum: f64,
    squares: f64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("expected a file")?;
    let threads = arguments.next().map_or(Ok(2), |threads| threads.parse())?;
    let memory_mb: u64 = arguments.next().map_or(Ok(256), |memory| memory.parse())?;
    let is_parquet = Path::new(&path).extension().is_some_and(|extension| extension == "parquet");
    let parameters = if is_parquet { Parameters::Parquet } else { Parameters::Csv(CsvParameters::default()) };
    let raw = RawDescription {
        name: "throughput".to_owned(),
        path,
        tags: Tags::new(["throughput"])?,
        description: String::new(),
        parameters,
    };
    let description = Description::new(raw, Place { root: Path::new("/"), lookup: &|_| None })?;
    let stop = AtomicBool::new(false);
    let begun = Instant::now();
    let scan = data::scan(&description, None, &stop)?;
    println!("scan {:.3} s, {} rows, {} columns", begun.elapsed().as_secs_f64(), scan.rows, scan.schema.len());
    let source = data::open(&description, &scan)?;
    let numeric = scan.schema.columns().iter().filter(|column| column.kind.is_numeric());
    let inputs: Vec<Input> = numeric.map(|column| Input::Number(Expression::column(&column.name))).collect();
    let inputs = Inputs::new(&scan.schema, &inputs, None)?;
    for _ in 0..3 {
        let begun = Instant::now();
        let columns = inputs.columns().len();
        let folding = Folding {
            make: || vec![Sums::default(); columns],
            add: |sums: &mut Vec<Sums>, block: Batch| {
                sums.iter_mut().zip(&block.columns).for_each(|(sums, values)| add(sums, values));
            },
            merge: |sums: &mut Vec<Sums>, more: Vec<Sums>| {
                sums.iter_mut().zip(more).for_each(|(sums, more)| join(sums, more));
            },
        };
        let effort = Effort { threads, memory_bytes: memory_mb << 20 };
        let sums = inputs.fold(&*source, effort, &stop, folding)?;
        let first = sums.first().copied().unwrap_or_default();
        let (count, mean) = (first.count as f64, first.sum / first.count as f64);
        println!(
            "read {:.3} s in {} parts; the first column: {} values, mean {mean}, variance {}",
            begun.elapsed().as_secs_f64(),
            source.parts(),
            first.count,
            (first.squares - count * mean * mean) / (count - 1.0)
        );
    }
    Ok(())
}

/// Adds in eight lanes, so that additions do not wait for each other.
fn add(sums: &mut Sums, values: &Column) {
    let Column::Numbers(numbers) = values else { return };
    let (mut count, mut sum, mut squares) = ([0_u64; 8], [0.0; 8], [0.0; 8]);
    let (chunks, rest) = numbers.as_chunks::<8>();
    for chunk in chunks {
        for lane in 0..8 {
            let (value, is_there) = if chunk[lane].is_nan() { (0.0, 0) } else { (chunk[lane], 1) };
            count[lane] += is_there;
            sum[lane] += value;
            squares[lane] += value * value;
        }
    }
    for value in rest.iter().filter(|value| !value.is_nan()) {
        count[0] += 1;
        sum[0] += value;
        squares[0] += value * value;
    }
    let more = Sums { count: count.iter().sum(), sum: sum.iter().sum(), squares: squares.iter().sum() };
    join(sums, more);
}

fn join(sums: &mut Sums, more: Sums) {
    sums.count += more.count;
    sums.sum += more.sum;
    sums.squares += more.squares;
}
