//! FHIR bulk exports.

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use data::fhir::FhirParameters;
use data::{DataError, Description, Parameters, Scan, refusal};

use crate::nifti::packed;
use crate::{Folder, describe};

const MAPPING: &str = r#"
resource = "Observation"
only = { path = "code.coding[*].code", values = ["85354-9"] }
[columns]
subject = { path = "subject.reference", kind = "text" }
systolic = { path = "component[code.coding.code=8480-6].valueQuantity.value", kind = "real" }
year = { path = "effectiveDateTime", kind = "year" }
fasting = { path = "extension[url='http://example.org/fasting'].valueBoolean", kind = "integer" }
"#;

const EXPORT: &str = r#"{"resourceType":"Observation","subject":{"reference":"Patient/1"},"code":{"coding":[{"code":"x"},{"code":"85354-9"}]},"effectiveDateTime":"2020-05-01T10:00:00Z","component":[{"code":{"coding":[{"code":"8480-6"}]},"valueQuantity":{"value":120.5}},{"code":{"coding":[{"code":"8462-4"}]},"valueQuantity":{"value":80}}],"extension":[{"url":"http://example.org/fasting","valueBoolean":true}]}
{"resourceType":"Patient","id":"1"}

{"resourceType":"Observation","subject":{"reference":"Patient/2"},"code":{"coding":[{"code":"other"}]}}
{"resourceType":"Observation","subject":{"reference":"Patient/3"},"code":{"coding":[{"code":"85354-9"}]},"effectiveDateTime":"2021"}
"#;

fn scan(folder: &Folder) -> Result<(Description, Scan), DataError> {
    let parameters: FhirParameters = toml::from_str(MAPPING).unwrap();
    let description = describe(folder.path(), Parameters::Fhir(parameters));
    let scan = data::scan(&description, None, &crate::GO_ON)?;
    Ok((description, scan))
}

#[test]
fn resources_are_flattened_by_the_mapping() {
    for is_packed in [false, true] {
        let folder = Folder::new();
        if is_packed {
            folder.write("Observation.000.ndjson.gz", packed(EXPORT.as_bytes()));
        } else {
            folder.write("Observation.000.ndjson", EXPORT);
        }
        folder.write("manifest.json", "{}");
        let (description, scan) = scan(&folder).unwrap();
        assert_eq!((scan.rows, scan.missing.clone()), (2, vec![1, 0, 1, 0]));
        let source = data::open(&description, &scan).unwrap();
        let batch = source.batches(&["systolic", "subject", "year", "fasting"]).unwrap().next().unwrap().unwrap();
        let reals = batch.column(0).as_primitive::<Float64Type>();
        assert!(reals.value(0) == 120.5 && reals.is_null(1));
        assert_eq!(batch.column(1).as_string::<i32>().value(1), "Patient/3");
        assert_eq!(batch.column(2).as_primitive::<Int64Type>().values().to_vec(), [2020, 2021]);
        assert!(batch.column(3).as_primitive::<Int64Type>().value(0) == 1 && batch.column(3).is_null(1));
    }
}

#[test]
fn errors_name_file_and_line_on_the_node_and_neither_outside() {
    let check = |line: &str, message: &str| {
        let folder = Folder::new();
        folder.write("secret.ndjson", format!("{{\"resourceType\":\"Patient\"}}\n{line}\n"));
        let error = scan(&folder).unwrap_err();
        let found = error.to_string();
        assert!(found.contains("secret.ndjson: line 2: ") && found.contains(message), "{found}");
        assert_eq!(refusal(&error).code, protocol::RefusalCode::DatasetUnreadable);
        assert!(!refusal(&error).sentence.contains("secret"));
    };
    check("{\"resourceType\":", "not valid JSON");
    check("{\"id\": 1}", "expected a resource with a `resourceType`");
    let observation = |rest: &str| {
        format!("{{\"resourceType\":\"Observation\",\"code\":{{\"coding\":[{{\"code\":\"85354-9\"}}]}},{rest}}}")
    };
    check(&observation("\"effectiveDateTime\":\"May\""), "column \"year\": expected a date, found \"May\"");
    check(
        &observation("\"subject\":[{\"reference\":\"a\"},{\"reference\":\"b\"}]"),
        "expected one value at subject.reference, found 2",
    );
    check(&observation("\"subject\":{\"reference\":{}}"), "column \"subject\": expected a text, found {}");
}

#[test]
fn a_mapping_with_an_unknown_key_or_path_is_refused() {
    let wrong = |text: &str| toml::from_str::<FhirParameters>(text).unwrap_err().to_string();
    assert!(
        wrong("resource = \"P\"\n[columns]\na = { path = \"a[\", kind = \"text\" }")
            .contains("character 3: expected a name")
    );
    assert!(wrong("resource = \"P\"\n[columns]\na = { pfad = \"a\", kind = \"text\" }").contains("pfad"));
}
