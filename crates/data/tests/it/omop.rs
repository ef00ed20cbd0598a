//! OMOP cohorts of a folder, against the numbers that pandas found.

use std::fs;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use data::omop::{Cohort, OmopParameters};
use data::{DataError, Parameters, Source, refusal};

use crate::nifti::testdata;
use crate::{Folder, describe};

/// One row for each person, as in reference.json's `omop`.
pub(crate) const PERSONS: &str = r#"
tables = { measurement = "measurement_synthetic" }
[columns]
age_2018 = { age = { in_year = 2018 } }
man = { person = "gender_concept_id", is = [8507] }
conditions = { domain = "condition", take = "count" }
drugs = { domain = "drug", take = "count" }
gi_bleed = { domain = "condition", concepts = [192671], take = "any" }
celecoxib = { domain = "drug", concepts = [1118084], take = "any" }
systolic = { domain = "measurement", concepts = [3004249], take = "first" }
weight = { domain = "measurement", concepts = [3025315], take = "mean" }
"#;

/// Sums over all persons of all sites: reference.json, `omop.describe_per_person.numeric.*.pooled.sum`.
pub(crate) const SUMS: [(&str, f64); 8] = [
    ("age_2018", 39_933.0),
    ("man", 334.0),
    ("conditions", 16_122.0),
    ("drugs", 16_983.0),
    ("gi_bleed", 121.0),
    ("celecoxib", 467.0),
    ("systolic", 85_750.0),
    ("weight", 49_226.5),
];

pub(crate) fn cohort(text: &str) -> Cohort {
    toml::from_str(text).unwrap()
}

pub(crate) fn sum(source: &dyn Source, column: &str) -> (f64, u64) {
    let (mut sum, mut count) = (0.0, 0);
    for batch in source.batches(&[column]).unwrap() {
        let batch = batch.unwrap();
        let values = batch.column(0);
        count += (values.len() - values.null_count()) as u64;
        sum += match values.as_primitive_opt::<Int64Type>() {
            Some(integers) => integers.iter().flatten().map(|integer| integer as f64).sum::<f64>(),
            None => values.as_primitive::<Float64Type>().iter().flatten().sum(),
        };
    }
    (sum, count)
}

fn open(folder: &std::path::Path, definition: &str) -> Result<(data::Scan, Box<dyn Source>), DataError> {
    let description = describe(folder, Parameters::Omop(OmopParameters { cohort: cohort(definition) }));
    let scan = data::scan(&description, None, &crate::GO_ON)?;
    let source = data::open(&description, &scan)?;
    Ok((scan, source))
}

#[test]
fn a_row_for_each_person_gives_the_reference_numbers() {
    let mut totals = [0.0; SUMS.len()];
    let mut rows = Vec::new();
    for site in ["site_a", "site_b", "site_c"] {
        let (scan, source) = open(&testdata("omop").join(site), PERSONS).unwrap();
        rows.push(scan.rows);
        for (total, (column, _)) in totals.iter_mut().zip(SUMS) {
            *total += sum(&*source, column).0;
        }
    }
    assert_eq!(rows, [338, 224, 112]);
    for ((column, expected), total) in SUMS.into_iter().zip(totals) {
        assert!((total - expected).abs() <= 1e-12 * expected, "{column}: {total}");
    }
}

#[test]
fn an_index_event_chooses_persons_and_opens_windows() {
    let definition = r#"
[index]
domain = "condition"
concepts = [192671]
[columns]
age = { age = "at_index" }
nsaid_before = { domain = "drug", concepts = [1118084, 1124300], take = "any", from_days = -36500, to_days = -1 }
nsaid_ever = { domain = "drug", concepts = [1118084, 1124300], take = "any" }
days = { domain = "condition", concepts = [192671], take = "days_to_first" }
after = { domain = "condition", concepts = [192671], take = "count", from_days = 1 }
"#;
    let (scan, source) = open(&testdata("omop/site_a"), definition).unwrap();
    // Computed again here, from the files, without SQL.
    let rows = |file: &str| -> Vec<Vec<String>> {
        let text = fs::read_to_string(testdata("omop/site_a").join(file)).unwrap();
        text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
    };
    let mut first = std::collections::BTreeMap::new();
    for row in rows("condition_occurrence.csv").iter().filter(|row| row[2] == "192671") {
        let date = first.entry(row[1].parse::<i64>().unwrap()).or_insert_with(|| row[3].clone());
        *date = date.clone().min(row[3].clone());
    }
    assert_eq!(scan.rows, first.len() as u64);
    let drugs = rows("drug_exposure.csv");
    let before = first.iter().filter(|(person, index)| {
        drugs.iter().any(|row| {
            row[1] == person.to_string() && (row[2] == "1118084" || row[2] == "1124300") && row[3].as_str() < index.as_str()
        })
    });
    assert_eq!(sum(&*source, "nsaid_before").0, before.count() as f64);
    assert!(sum(&*source, "nsaid_ever").0 >= sum(&*source, "nsaid_before").0);
    assert_eq!(sum(&*source, "days"), (0.0, scan.rows));
    let births: std::collections::BTreeMap<i64, f64> =
        rows("person.csv").iter().map(|row| (row[0].parse().unwrap(), row[2].parse().unwrap())).collect();
    let ages: f64 = first.iter().map(|(person, date)| date[..4].parse::<f64>().unwrap() - births[person]).sum();
    assert_eq!(sum(&*source, "age").0, ages);
}

fn small() -> Folder {
    let folder = Folder::new();
    folder.write(
        "person.csv",
        "person_id,year_of_birth,gender_concept_id,race_concept_id,ethnicity_concept_id\n1,1950,8507,0,0\n2,1960,8532,0,0\n",
    );
    folder.write(
        "measurement.csv",
        "measurement_id,person_id,measurement_concept_id,measurement_date,value_as_number\n\
         1,1,7,2020-01-01,10\n2,1,7,2020-03-01,30\n3,1,8,2020-02-01,20\n4,1,7,2020-04-01,\n",
    );
    folder.write("concept_ancestor.csv", "ancestor_concept_id,descendant_concept_id\n5,7\n5,8\n9,9\n");
    folder
}

#[test]
fn values_are_taken_as_declared_and_descendants_are_found() {
    let of = |take: &str| {
        format!("{take} = {{ domain = \"measurement\", concepts = [5], descendants = true, take = \"{take}\" }}\n")
    };
    let takes = ["first", "last", "mean", "smallest", "largest", "count"];
    let (scan, source) = open(small().path(), &format!("[columns]\n{}", takes.map(of).concat())).unwrap();
    assert_eq!(scan.rows, 2);
    for (take, expected) in takes.into_iter().zip([(10.0, 1), (30.0, 1), (20.0, 1), (10.0, 1), (30.0, 1), (4.0, 2)]) {
        assert_eq!(sum(&*source, take), expected, "{take}");
    }
}

#[test]
fn a_person_in_two_rows_is_refused() {
    let folder = small();
    let person = "person_id,year_of_birth,gender_concept_id,race_concept_id,ethnicity_concept_id\n12345,1950,1,0,0\n12345,1950,1,0,0\n";
    folder.write("person.csv", person);
    let error = open(folder.path(), "columns = { born = { person = \"year_of_birth\" } }").err().unwrap();
    assert!(
        error.to_string().contains("person.csv: the id \"12345\" occurs in several rows of column \"person_id\""),
        "{error}"
    );
    assert!(!refusal(&error).sentence.contains("12345"));
}

#[test]
fn a_missing_table_is_named() {
    let folder = small();
    let definition = "columns = { n = { domain = \"visit\", take = \"count\" } }";
    let error = open(folder.path(), definition).err().unwrap();
    assert!(error.to_string().contains("no visit_occurrence.csv"), "{error}");
}

#[test]
fn impossible_definitions_are_refused() {
    let wrong = |text: &str| toml::from_str::<Cohort>(text).unwrap_err().to_string();
    for (text, message) in [
        ("columns = {}", "expected 1 to 200 columns, found 0"),
        ("columns = { a = { age = \"at_index\" } }", "an age at the index date needs `index`"),
        ("columns = { a = { domain = \"drug\", take = \"mean\" } }", "only measurements and observations have values"),
        ("columns = { a = { domain = \"drug\", take = \"any\", from_days = 1 } }", "days from the index date need `index`"),
        ("columns = { a = { domain = \"drug\", take = \"any\", concept = [1] } }", "did not match any variant"),
        ("index = { domain = \"drug\", concepts = [] }\ncolumns = { a = { age = \"at_index\" } }", "index: expected 1 to"),
        ("tables = { person = \"\" }\ncolumns = { a = { person = \"year_of_birth\" } }", "expected a name"),
    ] {
        assert!(wrong(text).contains(message), "{text}: {}", wrong(text));
    }
}
