//! The closed grammar in which researchers say which rows are meant (`where`) and what is made of columns.
//!
//! ```text
//! age > 50 and sex = 1
//! log(chol) * 2 - pow(age, 2) >= -1.5 or "chest pain" in ('typical', 'other')
//! not (thal is missing)
//! ```
//!
//! Numbers; texts in single quotes, a quote in them doubled; columns, in double quotes where the name is no plain word; `+ - * /` and
//! unary `-`; `= != < <= > >=`, which do not chain; `and or not`; `in (…)` and `not in (…)` with numbers or texts; `is missing` and
//! `is not missing`; the functions `log exp sqrt abs floor pow(x, n)`. Nothing else: there are no sub-queries and no other functions,
//! so that a text of a researcher can be checked before anything is read, and never becomes SQL text.
//!
//! What an expression means is the same everywhere it is evaluated. Logic has three values, as in SQL: a comparison with a missing
//! cell is missing, `missing and false` is false, `missing or true` is true, and a row is kept only where `where` is true. A number
//! that is not finite is missing, be it a cell or the result of a division by 0 or of a logarithm of 0. Arithmetic is in float64;
//! integers are compared exactly, also with reals; texts are compared by code points.

pub(crate) mod display;
mod kind;
pub(crate) mod lexer;
pub(crate) mod parser;

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use kind::{KindError, ValueKind};

/// The longest text of an expression or formula, in bytes.
pub const MAX_EXPRESSION_BYTES: usize = 8_192;
/// How deeply an expression may be nested; a chain as `a + b + c` nests once for each operator.
pub const MAX_DEPTH: usize = 100;

/// Why a text is no expression or formula. Positions count characters from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExpressionError {
    #[error("expected at most {MAX_EXPRESSION_BYTES} bytes, found {found}")]
    TooLong { found: usize },
    #[error("character {at}: expected {expected}, found {found}")]
    Syntax { at: usize, expected: &'static str, found: String },
    #[error("character {at}: nested more than {MAX_DEPTH} deep; use `in (…)`, or fewer operators")]
    TooDeep { at: usize },
    #[error("expected at most {limit} {of}, found more")]
    TooMany { limit: usize, of: &'static str },
}

/// A number or text that is written out.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    Integer(i64),
    /// Finite.
    Real(f64),
    Text(String),
}

/// `+ - * /`, in float64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// `= != < <= > >=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Functions of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// The natural logarithm.
    Log,
    Exp,
    Sqrt,
    Abs,
    Floor,
}

impl Arithmetic {
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
        }
    }
}

impl Comparison {
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

impl Function {
    pub const ALL: [Self; 5] = [Self::Log, Self::Exp, Self::Sqrt, Self::Abs, Self::Floor];

    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Exp => "exp",
            Self::Sqrt => "sqrt",
            Self::Abs => "abs",
            Self::Floor => "floor",
        }
    }
}

/// What an expression consists of.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Literal(Literal),
    Column(String),
    Negate(Expression),
    Arithmetic(Arithmetic, Expression, Expression),
    Call(Function, Expression),
    /// `pow(x, n)`; n is finite.
    Power(Expression, f64),
    Compare(Comparison, Expression, Expression),
    /// `x in (…)`: numbers only or texts only, at least one.
    In(Expression, Vec<Literal>),
    IsMissing(Expression),
    Not(Expression),
    And(Expression, Expression),
    Or(Expression, Expression),
}

/// A number, text or truth for each row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expression {
    node: Box<Node>,
    depth: usize,
}

impl Expression {
    /// A column as it is.
    pub fn column(name: impl Into<String>) -> Self {
        Self { node: Box::new(Node::Column(name.into())), depth: 1 }
    }

    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The column that this is, if it is nothing more.
    pub fn as_column(&self) -> Option<&str> {
        match self.node() {
            Node::Column(name) => Some(name),
            _ => None,
        }
    }

    /// The columns that it reads, each once, in the order in which they first occur.
    pub fn columns(&self) -> Vec<&str> {
        let mut columns = Vec::new();
        self.collect(&mut columns);
        columns
    }

    fn collect<'a>(&'a self, columns: &mut Vec<&'a str>) {
        if let Node::Column(name) = self.node()
            && !columns.contains(&name.as_str())
        {
            columns.push(name);
        }
        for child in self.node.children().into_iter().flatten() {
            child.collect(columns);
        }
    }

    /// Puts a node together; `None` if it would be nested too deeply.
    pub(crate) fn new(node: Node) -> Option<Self> {
        let depth = 1 + node.children().into_iter().flatten().map(|child| child.depth).max().unwrap_or(0);
        (depth <= MAX_DEPTH).then(|| Self { node: Box::new(node), depth })
    }
}

impl Node {
    fn children(&self) -> [Option<&Expression>; 2] {
        match self {
            Self::Literal(_) | Self::Column(_) => [None, None],
            Self::Negate(a) | Self::Call(_, a) | Self::Power(a, _) | Self::In(a, _) | Self::IsMissing(a) | Self::Not(a) => {
                [Some(a), None]
            }
            Self::Arithmetic(_, a, b) | Self::Compare(_, a, b) | Self::And(a, b) | Self::Or(a, b) => [Some(a), Some(b)],
        }
    }
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        parser::expression(text)
    }
}

impl TryFrom<String> for Expression {
    type Error = ExpressionError;

    fn try_from(text: String) -> Result<Self, ExpressionError> {
        text.parse()
    }
}

impl From<Expression> for String {
    fn from(expression: Expression) -> Self {
        expression.to_string()
    }
}

#[cfg(test)]
mod tests;
