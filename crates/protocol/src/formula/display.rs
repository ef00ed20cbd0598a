//! Formulas as text, which reads back as the same, and the names of terms.

use std::fmt::{Display, Formatter, Result};

use super::{Factor, Formula, Response, Term};
use crate::expression::Node;
use crate::expression::display::Name;

impl Display for Formula {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        match &self.response {
            Response::Value(value) => write_value(formatter, value)?,
            Response::Survival { time, event } => write!(formatter, "Surv({time}, {event})")?,
        }
        formatter.write_str(" ~ ")?;
        let mut separator = "";
        for term in &self.terms {
            write!(formatter, "{separator}{term}")?;
            separator = " + ";
        }
        for offset in &self.offsets {
            write!(formatter, "{separator}offset({offset})")?;
            separator = " + ";
        }
        match (separator.is_empty(), self.has_intercept) {
            (true, true) => formatter.write_str("1"),
            (true, false) => formatter.write_str("0"),
            (false, true) => Ok(()),
            (false, false) => formatter.write_str(" - 1"),
        }
    }
}

impl Display for Term {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        for (index, factor) in self.factors.iter().enumerate() {
            write!(formatter, "{}{factor}", if index > 0 { ":" } else { "" })?;
        }
        Ok(())
    }
}

impl Display for Factor {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        match self {
            Self::Column(column) => write!(formatter, "{}", Name(column)),
            Self::Category { column, reference: None } => write!(formatter, "C({})", Name(column)),
            Self::Category { column, reference: Some(level) } => {
                write!(formatter, "C({}, ref={})", Name(column), level.written())
            }
            Self::Value(value) => write_value(formatter, value),
        }
    }
}

fn write_value(formatter: &mut Formatter<'_>, value: &crate::expression::Expression) -> Result {
    match value.node() {
        Node::Column(_) | Node::Call(..) | Node::Power(..) => write!(formatter, "{value}"),
        _ => write!(formatter, "I({value})"),
    }
}
