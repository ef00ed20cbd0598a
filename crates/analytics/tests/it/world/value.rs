//! What an expression gives for a row, as the grammar says it: slowly and plainly.

use protocol::Expression;
use protocol::expression::{Arithmetic, Comparison, Function, Literal, Node};

use crate::world::frame::{Cells, Frame};

/// A value; NaN and `None` are missing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Number(f64),
    Text(Option<String>),
    Truth(Option<bool>),
}

impl Value {
    /// The number; 1 and 0 for true and false.
    pub(crate) fn number(&self) -> f64 {
        match self {
            Self::Number(number) => *number,
            Self::Truth(truth) => truth.map_or(f64::NAN, f64::from),
            Self::Text(_) => panic!("a text is no number"),
        }
    }

    fn truth(&self) -> Option<bool> {
        match self {
            Self::Truth(truth) => *truth,
            _ => panic!("{self:?} is not true or false"),
        }
    }

    fn is_missing(&self) -> bool {
        match self {
            Self::Number(number) => number.is_nan(),
            Self::Text(text) => text.is_none(),
            Self::Truth(truth) => truth.is_none(),
        }
    }
}

fn literal(literal: &Literal) -> Value {
    match literal {
        Literal::Integer(integer) => Value::Number(*integer as f64),
        Literal::Real(real) => Value::Number(*real),
        Literal::Text(text) => Value::Text(Some(text.clone())),
    }
}

fn finite(value: f64) -> Value {
    Value::Number(if value.is_finite() { value } else { f64::NAN })
}

fn compare(comparison: Comparison, left: &Value, right: &Value) -> Value {
    if left.is_missing() || right.is_missing() {
        return Value::Truth(None);
    }
    let order = match (left, right) {
        (Value::Text(left), Value::Text(right)) => left.cmp(right),
        (left, right) => left.number().total_cmp(&right.number()),
    };
    Value::Truth(Some(match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    }))
}

/// The value of an expression in a row.
pub(crate) fn evaluate(expression: &Expression, frame: &Frame, row: usize) -> Value {
    let value = |part: &Expression| evaluate(part, frame, row);
    match expression.node() {
        Node::Literal(written) => literal(written),
        Node::Column(name) => match frame.cells(name) {
            Cells::Numbers(numbers) => Value::Number(numbers[row]),
            Cells::Texts(texts) => Value::Text(texts[row].clone()),
        },
        Node::Negate(part) => Value::Number(-value(part).number()),
        Node::Arithmetic(operator, left, right) => {
            let (left, right) = (value(left).number(), value(right).number());
            finite(match operator {
                Arithmetic::Add => left + right,
                Arithmetic::Subtract => left - right,
                Arithmetic::Multiply => left * right,
                Arithmetic::Divide => left / right,
            })
        }
        Node::Call(function, part) => {
            let number = value(part).number();
            finite(match function {
                Function::Log => number.ln(),
                Function::Exp => number.exp(),
                Function::Sqrt => number.sqrt(),
                Function::Abs => number.abs(),
                Function::Floor => number.floor(),
            })
        }
        Node::Power(part, power) => finite(value(part).number().powf(*power)),
        Node::Compare(comparison, left, right) => compare(*comparison, &value(left), &value(right)),
        Node::In(part, list) => {
            let part = value(part);
            if part.is_missing() {
                return Value::Truth(None);
            }
            let is_in =
                list.iter().any(|item| compare(Comparison::Equal, &part, &literal(item)) == Value::Truth(Some(true)));
            Value::Truth(Some(is_in))
        }
        Node::IsMissing(part) => Value::Truth(Some(value(part).is_missing())),
        Node::Not(part) => Value::Truth(value(part).truth().map(|truth| !truth)),
        Node::And(left, right) => Value::Truth(match (value(left).truth(), value(right).truth()) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        }),
        Node::Or(left, right) => Value::Truth(match (value(left).truth(), value(right).truth()) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        }),
    }
}
