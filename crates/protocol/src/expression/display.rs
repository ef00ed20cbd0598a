//! Expressions as text, which reads back as the same.

use std::fmt::{self, Display, Formatter, Write as _};

use super::lexer::is_plain;
use super::parser::power;
use super::{Arithmetic, Expression, Literal, Node};

/// A column's name as expressions and formulas write it.
pub(crate) struct Name<'a>(pub(crate) &'a str);

impl Display for Name<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        if is_plain(self.0) { formatter.write_str(self.0) } else { write!(formatter, "\"{}\"", self.0.replace('"', "\"\"")) }
    }
}

impl Display for Literal {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(integer) => write!(formatter, "{integer}"),
            // The shortest digits that read back as the same, with a point or an exponent.
            Self::Real(real) => write!(formatter, "{real:?}"),
            Self::Text(text) => write!(formatter, "'{}'", text.replace('\'', "''")),
        }
    }
}

/// A number, without a point if it is whole.
pub(crate) struct Short(pub(crate) f64);

impl Display for Short {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        if self.0.fract() == 0.0 && self.0.abs() < 1e15 {
            write!(formatter, "{:.0}", self.0 + 0.0)
        } else {
            write!(formatter, "{:?}", self.0)
        }
    }
}

impl Expression {
    /// How strongly it binds as text.
    fn power(&self) -> u8 {
        match self.node() {
            Node::Or(..) => power::OR,
            Node::And(..) => power::AND,
            Node::Not(operand) if matches!(operand.node(), Node::In(..) | Node::IsMissing(_)) => power::COMPARE,
            Node::Not(_) => power::NOT,
            Node::Compare(..) | Node::In(..) | Node::IsMissing(_) => power::COMPARE,
            Node::Arithmetic(Arithmetic::Add | Arithmetic::Subtract, ..) => power::ADD,
            Node::Arithmetic(Arithmetic::Multiply | Arithmetic::Divide, ..) => power::MULTIPLY,
            Node::Negate(_) => power::NEGATE,
            Node::Literal(_) | Node::Column(_) | Node::Call(..) | Node::Power(..) => power::PRIMARY,
        }
    }

    fn write(&self, formatter: &mut Formatter<'_>, weakest: u8) -> fmt::Result {
        if self.power() < weakest {
            return write!(formatter, "({self})");
        }
        write!(formatter, "{self}")
    }
}

impl Display for Expression {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let binary = |formatter: &mut Formatter<'_>, left: &Self, sign: &str, right: &Self, powers: (u8, u8)| {
            left.write(formatter, powers.0)?;
            write!(formatter, " {sign} ")?;
            right.write(formatter, powers.1)
        };
        match self.node() {
            Node::Literal(literal) => write!(formatter, "{literal}"),
            Node::Column(name) => write!(formatter, "{}", Name(name)),
            Node::Negate(operand) => {
                // A minus before a number would be read as a part of it.
                let is_literal = matches!(operand.node(), Node::Literal(_));
                formatter.write_char('-')?;
                operand.write(formatter, if is_literal { u8::MAX } else { power::NEGATE })
            }
            Node::Arithmetic(arithmetic, left, right) => {
                let power = self.power();
                binary(formatter, left, arithmetic.symbol(), right, (power, power + 1))
            }
            Node::Call(function, argument) => write!(formatter, "{}({argument})", function.name()),
            Node::Power(argument, exponent) => write!(formatter, "pow({argument}, {})", Short(*exponent)),
            Node::Compare(comparison, left, right) => {
                binary(formatter, left, comparison.symbol(), right, (power::ADD, power::ADD))
            }
            Node::In(value, list) => write_in(formatter, value, "in", list),
            Node::IsMissing(operand) => {
                operand.write(formatter, power::ADD)?;
                formatter.write_str(" is missing")
            }
            Node::Not(operand) => match operand.node() {
                Node::In(value, list) => write_in(formatter, value, "not in", list),
                Node::IsMissing(inner) => {
                    inner.write(formatter, power::ADD)?;
                    formatter.write_str(" is not missing")
                }
                _ => {
                    formatter.write_str("not ")?;
                    operand.write(formatter, power::NOT)
                }
            },
            Node::And(left, right) => binary(formatter, left, "and", right, (power::AND, power::NOT)),
            Node::Or(left, right) => binary(formatter, left, "or", right, (power::OR, power::AND)),
        }
    }
}

fn write_in(formatter: &mut Formatter<'_>, value: &Expression, word: &str, list: &[Literal]) -> fmt::Result {
    value.write(formatter, power::ADD)?;
    write!(formatter, " {word} (")?;
    for (index, literal) in list.iter().enumerate() {
        write!(formatter, "{}{literal}", if index > 0 { ", " } else { "" })?;
    }
    formatter.write_char(')')
}
