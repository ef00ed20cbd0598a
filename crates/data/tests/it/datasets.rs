//! The hospitals' files of the demo.

use std::path::PathBuf;

use data::{ColumnChoice, Table};
use protocol::{ColumnKind, Missing};

use crate::describe_csv;

fn heart(site: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/heart-disease").join(format!("{site}.csv"))
}

#[test]
fn the_hospitals_have_their_published_sizes() {
    // Training and test rows: Ogier du Terrail et al., FLamby, NeurIPS 2022, table of Fed-Heart-Disease.
    for (site, train, test) in [("cleveland", 199, 104), ("hungarian", 172, 89), ("switzerland", 30, 16), ("va", 85, 45)] {
        let description = describe_csv(&heart(site));
        let scan = data::scan(&description, None, &crate::GO_ON).unwrap();
        assert_eq!(scan.rows, train + test);
        assert!(scan.missing.iter().all(|missing| *missing == 0));
        let kinds: Vec<ColumnKind> = scan.schema.columns().iter().map(|column| column.kind).collect();
        assert_eq!((kinds[0], kinds[1], kinds.len()), (ColumnKind::Text, ColumnKind::Integer, 15));
        let source = data::open(&description, &scan).unwrap();
        let choice = ColumnChoice { features: &[], target: Some("target"), split: Some("split"), missing: Missing::Refuse };
        let table = Table::load(&*source, choice, &crate::GO_ON).unwrap();
        assert_eq!((table.names().len(), table.rows() as u64), (13, train + test));
        let marked = |word: &str| table.split().unwrap().iter().filter(|text| *text == word).count() as u64;
        assert_eq!((marked("train"), marked("test")), (train, test));
    }
}

#[test]
fn columns_add_up_to_what_another_reader_finds() {
    // awk -F, '{age += $2; oldpeak += $9; target += $15} END {print age, oldpeak, target}' cleveland.csv
    let description = describe_csv(&heart("cleveland"));
    let source = data::open(&description, &data::scan(&description, None, &crate::GO_ON).unwrap()).unwrap();
    let features = ["age".to_owned(), "oldpeak".to_owned()];
    let choice = ColumnChoice { features: &features, target: Some("target"), split: None, missing: Missing::Refuse };
    let table = Table::load(&*source, choice, &crate::GO_ON).unwrap();
    assert_eq!(table.row(0), [63.0, 2.3]);
    assert_eq!(table.features().iter().step_by(2).sum::<f64>(), 16_495.0);
    assert!((table.features().iter().skip(1).step_by(2).sum::<f64>() - 315.0).abs() < 1e-9);
    assert_eq!(table.target().iter().sum::<f64>(), 139.0);
}
