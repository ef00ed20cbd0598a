//! What kind of value an expression gives, by the kinds of its columns.

use thiserror::Error;

use super::{Expression, Literal, Node};
use crate::dataset::ColumnKind;

/// What an expression gives for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueKind {
    Number,
    Text,
    /// True or false.
    Truth,
}

impl ValueKind {
    fn words(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Text => "a text",
            Self::Truth => "true or false",
        }
    }
}

/// Why an expression does not fit a dataset. The parts are shown as they were written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KindError {
    #[error("the dataset has no column {name:?}")]
    ColumnUnknown { name: String },
    #[error("`{part}` is {}, {needed} is needed", found.words())]
    Kind { part: String, found: ValueKind, needed: &'static str },
    #[error("`{whole}` compares {} with {}", left.words(), right.words())]
    Compared { whole: String, left: ValueKind, right: ValueKind },
}

impl Expression {
    /// Says what the expression gives. `kind_of` knows the dataset's columns.
    pub fn kind(&self, kind_of: &impl Fn(&str) -> Option<ColumnKind>) -> Result<ValueKind, KindError> {
        let need = |part: &Self, needed: ValueKind| match part.kind(kind_of)? {
            found if found == needed => Ok(()),
            found => Err(KindError::Kind { part: part.to_string(), found, needed: needed.words() }),
        };
        match self.node() {
            Node::Literal(Literal::Text(_)) => Ok(ValueKind::Text),
            Node::Literal(_) => Ok(ValueKind::Number),
            Node::Column(name) => match kind_of(name) {
                Some(ColumnKind::Text) => Ok(ValueKind::Text),
                Some(ColumnKind::Integer | ColumnKind::Real) => Ok(ValueKind::Number),
                None => Err(KindError::ColumnUnknown { name: name.clone() }),
            },
            Node::Negate(operand) | Node::Call(_, operand) | Node::Power(operand, _) => {
                need(operand, ValueKind::Number).map(|()| ValueKind::Number)
            }
            Node::Arithmetic(_, left, right) => {
                need(left, ValueKind::Number)?;
                need(right, ValueKind::Number).map(|()| ValueKind::Number)
            }
            Node::Compare(_, left, right) => self.compared(left.kind(kind_of)?, right.kind(kind_of)?),
            Node::In(value, list) => {
                let is_text = matches!(list.first(), Some(Literal::Text(_)));
                self.compared(value.kind(kind_of)?, if is_text { ValueKind::Text } else { ValueKind::Number })
            }
            Node::IsMissing(operand) => operand.kind(kind_of).map(|_| ValueKind::Truth),
            Node::Not(operand) => need(operand, ValueKind::Truth).map(|()| ValueKind::Truth),
            Node::And(left, right) | Node::Or(left, right) => {
                need(left, ValueKind::Truth)?;
                need(right, ValueKind::Truth).map(|()| ValueKind::Truth)
            }
        }
    }

    fn compared(&self, left: ValueKind, right: ValueKind) -> Result<ValueKind, KindError> {
        if left == right && left != ValueKind::Truth {
            Ok(ValueKind::Truth)
        } else {
            Err(KindError::Compared { whole: self.to_string(), left, right })
        }
    }
}
