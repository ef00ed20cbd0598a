//! Loading plans, and dataset files that hold them.

use std::path::Path;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use data::{DataError, DatasetFile, Loaded, LoadingPlan, Parameters, Place, Source, refusal};
use protocol::ColumnKind::{self, Integer, Real, Text};
use protocol::RefusalCode;

use crate::{Folder, describe_csv};

const TABLE: &str = "sex,cholesterol,age,site\nmale,5.0,63,7\nfemale,,41,9\nmale,6.5,,7\n";

const PLAN: &str = r#"
[[loading_plan]]
step = "rename"
from = "cholesterol"
to = "chol"
[[loading_plan]]
step = "units"
column = "chol"
factor = 40.0
[[loading_plan]]
step = "map"
column = "sex"
to = { male = 1, female = 0 }
[[loading_plan]]
step = "map"
column = "site"
to = { 7 = "north" }
others = "missing"
[[loading_plan]]
step = "impute"
column = "age"
value = 52
[[loading_plan]]
step = "derive"
column = "old"
expression = "age > 50 and sex = 1"
[[loading_plan]]
step = "standardise"
column = "chol"
mean = 230.0
sd = 30.0
"#;

fn plan(text: &str) -> LoadingPlan {
    #[derive(serde::Deserialize)]
    struct File {
        loading_plan: LoadingPlan,
    }
    toml::from_str::<File>(text).unwrap().loading_plan
}

fn load(text: &str) -> Result<(Folder, Loaded<Box<dyn Source>>), DataError> {
    let folder = Folder::new();
    let description = describe_csv(&folder.write("secret.csv", TABLE));
    let scan = data::scan(&description, None, &crate::GO_ON).unwrap();
    let loaded = Loaded::new(data::open(&description, &scan).unwrap(), plan(text))?;
    Ok((folder, loaded))
}

#[test]
fn steps_are_taken_in_their_order() {
    let (_folder, loaded) = load(PLAN).unwrap();
    let columns: Vec<(&str, ColumnKind)> =
        loaded.schema().columns().iter().map(|column| (column.name.as_str(), column.kind)).collect();
    assert_eq!(columns, [("sex", Integer), ("chol", Real), ("age", Integer), ("site", Text), ("old", Real)]);
    let batch = loaded.batches(&["old", "chol", "age", "site"]).unwrap().next().unwrap().unwrap();
    assert_eq!(batch.column(0).as_primitive::<Float64Type>().values().to_vec(), [1.0, 0.0, 1.0]);
    let chol = batch.column(1).as_primitive::<Float64Type>();
    assert!((chol.value(0) + 1.0).abs() < 1e-12 && chol.is_null(1) && (chol.value(2) - 1.0).abs() < 1e-12);
    assert_eq!(batch.column(2).as_primitive::<Int64Type>().values().to_vec(), [63, 41, 52]);
    assert_eq!(batch.column(3).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("north"), None, Some("north")]);
    // Only what is needed is read and made.
    let batch = loaded.batches(&["old"]).unwrap().next().unwrap().unwrap();
    assert_eq!((batch.num_columns(), batch.num_rows()), (1, 3));
}

#[test]
fn plans_that_do_not_fit_are_refused_and_name_the_step() {
    let check = |step: &str, message: &str| {
        let error = load(&format!("[[loading_plan]]\n{step}")).err().unwrap();
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(refusal(&error).code, RefusalCode::PlanInvalid, "{error}");
    };
    check("step = \"rename\"\nfrom = \"agee\"\nto = \"x\"", "step 1: there is no column \"agee\"");
    check("step = \"rename\"\nfrom = \"age\"\nto = \"sex\"", "step 1: there is already a column \"sex\"");
    check("step = \"units\"\ncolumn = \"sex\"\nfactor = 2.0", "column \"sex\": a unit is of numbers");
    check("step = \"impute\"\ncolumn = \"sex\"\nvalue = 1", "texts are filled with a text");
    check("step = \"standardise\"\ncolumn = \"age\"\nmean = 1.0\nsd = 0.0", "a standard deviation above 0");
    check("step = \"derive\"\ncolumn = \"x\"\nexpression = \"nothing + 1\"", "step 1: ");
    check("step = \"map\"\ncolumn = \"sex\"\nto = { male = 1, female = \"f\" }", "numbers or texts, not both");
}

#[test]
fn a_value_that_no_map_names_is_shown_to_the_owner_only() {
    let (_folder, loaded) = load("[[loading_plan]]\nstep = \"map\"\ncolumn = \"sex\"\nto = { male = 1 }").unwrap();
    let error = loaded.batches(&["sex"]).unwrap().next().unwrap().unwrap_err();
    assert!(error.to_string().contains("\"female\" is not among the categories"), "{error}");
    let refusal = refusal(&error);
    assert!(!refusal.sentence.contains("female") && refusal.sentence.contains("\"sex\""), "{refusal:?}");
}

#[test]
fn a_toml_file_describes_a_dataset_of_any_kind() {
    let place = Place { root: Path::new("/srv/node"), lookup: &|_| None };
    let head = "name = \"Heart\"\ntags = [\"heart\"]\ndescription = \"\"\n";
    let file = DatasetFile::from_toml(&format!("{head}data_type = \"csv\"\npath = \"heart.csv\"\n{PLAN}"), place).unwrap();
    assert_eq!(file.description.path, Path::new("/srv/node/heart.csv"));
    assert_eq!(file.loading_plan.steps.len(), 7);
    let of = |kind: &str, parameters: &str| {
        let text = format!("{head}data_type = \"{kind}\"\npath = \"x\"\n[dataset_parameters]\n{parameters}");
        DatasetFile::from_toml(&text, place).map(|file| file.description.parameters)
    };
    assert!(matches!(of("images", "size = [64, 64]"), Ok(Parameters::Images(_))));
    assert!(matches!(of("mednist", ""), Ok(Parameters::Images(_))));
    let folders = "tabular_file = \"p.csv\"\nindex_col = \"ID\"\n[dataset_parameters.modalities_to_folders]\nT1 = [\"T1\", \"anat/T1w\"]";
    assert!(matches!(of("medical-folder", folders), Ok(Parameters::MedicalFolder(_))));
    assert!(matches!(of("dicom", "steps = [{ step = \"reorient\" }]"), Ok(Parameters::Dicom(_))));
    let mapping = "resource = \"Patient\"\ncolumns = { born = { path = \"birthDate\", kind = \"year\" } }";
    assert!(matches!(of("fhir", mapping), Ok(Parameters::Fhir(_))));
    let cohort = "cohort = { columns = { born = { person = \"year_of_birth\" } } }";
    assert!(matches!(of("omop", cohort), Ok(Parameters::Omop(_))));
    let postgres = "server = \"db:5432\"\ndatabase = \"cdm\"\nuser = \"reader\"\nrows = { table = { name = \"person\" } }";
    let parameters = of("postgres", postgres).unwrap();
    assert!(matches!(parameters, Parameters::Postgres(_)));
    // What is stored reads back.
    let stored = serde_json::to_string(&parameters).unwrap();
    assert_eq!(serde_json::from_str::<Parameters>(&stored).unwrap(), parameters);
    for (kind, parameters, message) in [
        ("images", "sise = [1, 1]", "`dataset_parameters`: unknown field `sise`"),
        ("omop", "cohort = { columns = {} }", "expected 1 to 200 columns"),
        ("postgres", "server = \"x:1\"", "missing field `database`"),
        ("imagess", "", "did you mean \"images\"?"),
    ] {
        let error = of(kind, parameters).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let error = DatasetFile::from_toml("name = ", place).unwrap_err().to_string();
    assert!(error.starts_with("line 1, column"), "{error}");
    let json = br#"{"name": "n", "data_type": "csv", "path": "x", "tags": ["a"], "description": "", "loading_plan": [{"step": "leap"}]}"#;
    assert!(DatasetFile::from_json(json, place).unwrap_err().to_string().contains("`loading_plan`: unknown variant `leap`"));
}
