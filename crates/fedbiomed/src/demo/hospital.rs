//! The four hospitals of the demo and their rows (UCI heart disease; origin and licence in examples/heart-disease).

/// A hospital: its name for people and its CSV file.
pub(super) struct Hospital {
    pub name: &'static str,
    pub file: &'static str,
    pub csv: &'static str,
}

/// In the order of the data's description.
pub(super) const HOSPITALS: [Hospital; 4] = [
    Hospital {
        name: "Cleveland",
        file: "cleveland.csv",
        csv: include_str!("../../../../examples/heart-disease/cleveland.csv"),
    },
    Hospital {
        name: "Budapest",
        file: "hungarian.csv",
        csv: include_str!("../../../../examples/heart-disease/hungarian.csv"),
    },
    Hospital {
        name: "Zurich/Basel",
        file: "switzerland.csv",
        csv: include_str!("../../../../examples/heart-disease/switzerland.csv"),
    },
    Hospital { name: "Long Beach", file: "va.csv", csv: include_str!("../../../../examples/heart-disease/va.csv") },
];

/// What the model looks at, in the order of its weights.
pub(super) const FEATURES: [&str; 13] = [
    "age",
    "sex",
    "trestbps",
    "chol",
    "fbs",
    "thalach",
    "exang",
    "oldpeak",
    "cp_2",
    "cp_3",
    "cp_4",
    "restecg_1",
    "restecg_2",
];

/// What it predicts: heart disease, 0 or 1.
pub(super) const TARGET: &str = "target";

/// The column that says which rows are held out.
pub(super) const SPLIT: &str = "split";
