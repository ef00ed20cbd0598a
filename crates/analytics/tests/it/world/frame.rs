//! Tables of the tests: read from CSV, filtered and split.

use std::path::{Path, PathBuf};

use protocol::Expression;

use crate::world::value::{Value, evaluate};

/// The cells of a column; NaN or `None` where blank.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cells {
    Numbers(Vec<f64>),
    Texts(Vec<Option<String>>),
}

/// Rows with named columns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) rows: usize,
    pub(crate) columns: Vec<(String, Cells)>,
}

/// Folders of data, and their sites in the order of the reference.
const SETS: [(&str, &str, &[&str]); 11] = [
    ("heart", "../../examples/heart-disease", &["cleveland", "hungarian", "switzerland", "va"]),
    ("heart_raw", "testdata/heart-disease-raw", &["cleveland", "hungarian", "switzerland", "va"]),
    ("opt", "testdata/opt-birthweight", &["ny", "mn", "ky", "ms"]),
    ("diabetes", "testdata/diabetes-regression", &["site_a", "site_b", "site_c"]),
    ("breast", "testdata/breast-survival", &["rotterdam", "gbsg"]),
    ("tcga", "testdata/tcga-brca", &["northeast", "south", "west", "midwest", "europe", "canada"]),
    ("cnsim", "testdata/datashield-sim", &["cnsim1", "cnsim2", "cnsim3"]),
    ("survival", "testdata/datashield-sim", &["survival1", "survival2", "survival3"]),
    ("pseudo_adni", "testdata/pseudo-adni", &["site_a", "site_b", "site_c"]),
    ("omop", "testdata/omop-persons", &["site_a", "site_b", "site_c"]),
    ("digits", "testdata/digits", &["site_0", "site_1", "site_2", "site_3"]),
];

/// The names of a set's sites.
pub(crate) fn site_names(set: &str) -> &'static [&'static str] {
    SETS.iter().find(|(name, ..)| *name == set).expect("a set of the list").2
}

/// A set by its sites, each with a column `site` at the end.
pub(crate) fn sites(set: &str) -> Vec<Frame> {
    let (_, folder, names) = SETS.iter().find(|(name, ..)| *name == set).expect("a set of the list");
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let read = |name: &&str| {
        let mut frame = Frame::read(&folder.join(format!("{name}.csv")));
        frame.columns.push(("site".to_owned(), Cells::Texts(vec![Some((*name).to_owned()); frame.rows])));
        frame
    };
    names.iter().map(read).collect()
}

impl Frame {
    pub(crate) fn new(columns: Vec<(&str, Vec<f64>)>) -> Self {
        let rows = columns.first().map_or(0, |(_, values)| values.len());
        let columns = columns.into_iter().map(|(name, values)| (name.to_owned(), Cells::Numbers(values))).collect();
        Self { rows, columns }
    }

    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut lines = text.lines();
        let names = cells(lines.next().expect("a header"));
        let lines: Vec<Vec<String>> = lines.map(cells).collect();
        let column = |at: usize| {
            let cells = lines.iter().map(|line| line[at].as_str());
            let is_number = |cell: &str| cell.is_empty() || cell.parse::<f64>().is_ok();
            if cells.clone().all(is_number) {
                Cells::Numbers(cells.map(|cell| cell.parse().unwrap_or(f64::NAN)).collect())
            } else {
                Cells::Texts(cells.map(|cell| (!cell.is_empty()).then(|| cell.to_owned())).collect())
            }
        };
        let columns = names.into_iter().enumerate().map(|(at, name)| (name, column(at))).collect();
        Self { rows: lines.len(), columns }
    }

    pub(crate) fn cells(&self, name: &str) -> &Cells {
        &self.columns.iter().find(|column| column.0 == name).unwrap_or_else(|| panic!("no column {name}")).1
    }

    pub(crate) fn numbers(&self, name: &str) -> &[f64] {
        match self.cells(name) {
            Cells::Numbers(numbers) => numbers,
            Cells::Texts(_) => panic!("{name} is text"),
        }
    }

    /// The rows at these positions.
    pub(crate) fn take(&self, rows: &[usize]) -> Self {
        let take = |cells: &Cells| match cells {
            Cells::Numbers(numbers) => Cells::Numbers(rows.iter().map(|row| numbers[*row]).collect()),
            Cells::Texts(texts) => Cells::Texts(rows.iter().map(|row| texts[*row].clone()).collect()),
        };
        let columns = self.columns.iter().map(|(name, cells)| (name.clone(), take(cells))).collect();
        Self { rows: rows.len(), columns }
    }

    /// The rows for which a condition holds.
    pub(crate) fn filter(&self, condition: &str) -> Self {
        let condition: Expression = condition.parse().expect("a condition");
        let rows: Vec<usize> =
            (0..self.rows).filter(|row| evaluate(&condition, self, *row) == Value::Truth(Some(true))).collect();
        self.take(&rows)
    }

    /// Adds a column that an expression gives.
    pub(crate) fn derive(mut self, name: &str, expression: &str) -> Self {
        let expression: Expression = expression.parse().expect("an expression");
        let values = (0..self.rows).map(|row| evaluate(&expression, &self, row).number()).collect();
        self.columns.push((name.to_owned(), Cells::Numbers(values)));
        self
    }

    /// One table out of several with the same columns.
    pub(crate) fn stack(frames: &[Self]) -> Self {
        let mut all = frames[0].clone();
        for frame in &frames[1..] {
            for ((name, cells), (other, theirs)) in all.columns.iter_mut().zip(&frame.columns) {
                assert_eq!(name, other);
                match (cells, theirs) {
                    (Cells::Numbers(numbers), Cells::Numbers(theirs)) => numbers.extend(theirs),
                    (Cells::Texts(texts), Cells::Texts(theirs)) => texts.extend(theirs.iter().cloned()),
                    _ => panic!("{name} is text at one site only"),
                }
            }
            all.rows += frame.rows;
        }
        all
    }
}

/// The cells of a line, which may be quoted.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut is_quoted) = (vec![String::new()], false);
    for character in line.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(String::new()),
            character => cells.last_mut().expect("one at least").push(character),
        }
    }
    cells
}
