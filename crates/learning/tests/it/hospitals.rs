//! The four hospitals' files in `examples/heart-disease`.

use learning::{Standardisation, Table};
use protocol::TrainingPlan;

/// One hospital's complete rows.
pub(crate) struct Hospital {
    pub(crate) columns: Vec<Vec<f64>>,
    pub(crate) targets: Vec<f64>,
    pub(crate) split: Vec<String>,
}

impl Hospital {
    pub(crate) fn table(&self, plan: &TrainingPlan, rows: &[u32], standardisation: Option<&Standardisation>) -> Table {
        let columns: Vec<&[f64]> = self.columns.iter().map(Vec::as_slice).collect();
        let kind = (plan.model().outcome(), plan.precision());
        Table::from_columns(kind, &columns, &self.targets, rows, standardisation).unwrap()
    }
}

/// The number of features.
const FEATURES: usize = 13;

pub(crate) fn hospitals() -> Vec<Hospital> {
    ["cleveland", "hungarian", "switzerland", "va"].map(read).into_iter().collect()
}

fn read(name: &str) -> Hospital {
    let path = format!("{}/../../examples/heart-disease/{name}.csv", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!((header[0], header[14], header.len()), ("split", "target", FEATURES + 2));
    let mut hospital = Hospital { columns: vec![Vec::new(); FEATURES], targets: Vec::new(), split: Vec::new() };
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        hospital.split.push(cells[0].to_owned());
        for (column, cell) in hospital.columns.iter_mut().zip(&cells[1..]) {
            column.push(cell.parse().unwrap());
        }
        hospital.targets.push(cells[14].parse().unwrap());
    }
    hospital
}

/// Mean and deviation (divisor n) of each column over all hospitals.
pub(crate) fn standardisation(hospitals: &[Hospital]) -> Standardisation {
    let column = |index: usize| -> Vec<f64> { hospitals.iter().flat_map(|it| it.columns[index].clone()).collect() };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let columns: Vec<Vec<f64>> = (0..FEATURES).map(column).collect();
    let means: Vec<f64> = columns.iter().map(|values| mean(values)).collect();
    let deviation = |values: &[f64], center: f64| {
        mean(&values.iter().map(|value| (value - center).powi(2)).collect::<Vec<f64>>()).sqrt()
    };
    let deviations: Vec<f64> = columns.iter().zip(&means).map(|(values, center)| deviation(values, *center)).collect();
    Standardisation::new(means, &deviations).unwrap()
}
