//! Expressions and formulas.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use data::{Inputs, Schema};
use protocol::expression::MAX_EXPRESSION_BYTES;
use protocol::statistic::Input;
use protocol::{ColumnFace, ColumnKind, Expression, Formula};

/// Reads a text as an expression: what was read is written and read as the same, and what fits a table is evaluated on it.
pub fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match text.parse::<Expression>() {
        Ok(expression) => {
            let written = expression.to_string();
            // Parentheses and spaces make a text longer; one that became too long is refused when it is read again.
            if written.len() <= MAX_EXPRESSION_BYTES {
                assert_eq!(written.parse::<Expression>().as_ref(), Ok(&expression), "{written}");
            }
            for shift in 0..3 {
                evaluate(&expression, shift);
            }
        }
        Err(error) => assert!(error.to_string().len() < 500, "a complaint is short"),
    }
}

/// Evaluates an expression on a few rows, if it fits columns of its names whose kinds take turns.
fn evaluate(expression: &Expression, shift: usize) {
    let columns: [(ColumnKind, ArrayRef); 3] = [
        (ColumnKind::Integer, Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(1)]))),
        (ColumnKind::Real, Arc::new(Float64Array::from(vec![Some(-0.0), Some(f64::NAN), Some(1e300)]))),
        (ColumnKind::Text, Arc::new(StringArray::from(vec![Some("a"), None, Some("é")]))),
    ];
    let names = expression.columns();
    let turn = |position: usize| &columns[(position + shift) % columns.len()];
    let faces = names.iter().enumerate().map(|(at, name)| ColumnFace { name: (*name).to_owned(), kind: turn(at).0 });
    let Ok(schema) = Schema::new(faces.collect()) else { return };
    let cells = names.iter().enumerate().map(|(at, name)| (*name, Arc::clone(&turn(at).1)));
    let Ok(batch) = RecordBatch::try_from_iter(cells) else { return };
    if let Ok(inputs) = Inputs::new(&schema, &[Input::Number(expression.clone())], None) {
        assert_eq!(inputs.read(&batch).rows, 3, "no row is left out without a filter");
    }
    if let Ok(inputs) = Inputs::new(&schema, &[], Some(expression)) {
        assert!(inputs.read(&batch).rows <= 3, "a filter adds no rows");
    }
}

/// Reads a text as a formula: what was read is written and read as the same.
pub fn check_formula(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match text.parse::<Formula>() {
        Ok(formula) => {
            let written = formula.to_string();
            if written.len() <= MAX_EXPRESSION_BYTES {
                assert_eq!(written.parse::<Formula>().as_ref(), Ok(&formula), "{written}");
            }
        }
        Err(error) => assert!(error.to_string().len() < 500, "a complaint is short"),
    }
}
