//! A researcher's expression as SQL of PostgreSQL: what the module `evaluate` does with rows, done by the database.
//!
//! PostgreSQL stops with an error where float64 would give an infinity or no number; so every operation is kept away from that,
//! and gives null instead, as the grammar says. Only sums, differences, products, powers and negated values that overflow
//! (beyond 1.8e308) still stop the statement.

use protocol::expression::{Arithmetic, Comparison, Function, Literal, Node};
use protocol::{ColumnKind, Expression, Level};

use super::{Builder, Parameter};

/// Two to the power of 63.
const BEYOND_INTEGERS: f64 = 9_223_372_036_854_775_808.0;

/// Appends expressions whose kinds were checked with the same columns.
pub(super) struct Compiler<'a, K> {
    pub(super) builder: &'a mut Builder,
    pub(super) kind_of: &'a K,
}

/// What a comparison with a real becomes for an integer.
enum AsInteger {
    Compare(Comparison, i64),
    Always(bool),
}

impl<K: Fn(&str) -> Option<ColumnKind>> Compiler<'_, K> {
    fn push(&mut self, sql: &str) {
        self.builder.push(sql);
    }

    /// Whether a part is an integer as it stands.
    fn is_integer(&self, expression: &Expression) -> bool {
        match expression.node() {
            Node::Literal(Literal::Integer(_)) => true,
            Node::Column(name) => (self.kind_of)(name) == Some(ColumnKind::Integer),
            _ => false,
        }
    }

    fn is_text(&self, expression: &Expression) -> bool {
        match expression.node() {
            Node::Literal(Literal::Text(_)) => true,
            Node::Column(name) => (self.kind_of)(name) == Some(ColumnKind::Text),
            _ => false,
        }
    }

    fn is_truth(expression: &Expression) -> bool {
        matches!(
            expression.node(),
            Node::Compare(..) | Node::In(..) | Node::IsMissing(_) | Node::Not(_) | Node::And(..) | Node::Or(..)
        )
    }

    /// An integer, exactly.
    fn integer(&mut self, expression: &Expression) {
        match expression.node() {
            Node::Literal(Literal::Integer(integer)) => {
                self.builder.bind(Parameter::Integer(*integer));
            }
            Node::Column(name) => {
                self.builder.push("CAST(").name(name).push(" AS bigint)");
            }
            _ => unreachable!("only literals and columns are integers"),
        }
    }

    /// A text, compared by code points.
    fn text(&mut self, expression: &Expression) {
        match expression.node() {
            Node::Literal(Literal::Text(text)) => {
                self.builder.push("(").bind(Parameter::Text(text.clone())).push(" COLLATE \"C\")");
            }
            Node::Column(name) => {
                self.builder.push("(CAST(").name(name).push(" AS text) COLLATE \"C\")");
            }
            _ => unreachable!("only literals and columns are texts"),
        }
    }

    /// A finite float64, or null. What is true counts 1, what is false 0.
    pub(super) fn number(&mut self, expression: &Expression) {
        match expression.node() {
            Node::Literal(Literal::Integer(integer)) => {
                self.builder.bind(Parameter::Real(*integer as f64));
            }
            Node::Literal(Literal::Real(real)) => {
                self.builder.bind(Parameter::Real(*real));
            }
            Node::Literal(Literal::Text(_)) => unreachable!("kinds were checked"),
            // The relation's reals are finite or null.
            Node::Column(name) => {
                self.builder.push("CAST(").name(name).push(" AS double precision)");
            }
            Node::Negate(operand) => {
                self.push("(- ");
                self.number(operand);
                self.push(")");
            }
            Node::Arithmetic(operator, left, right) => {
                self.push("(");
                self.number(left);
                self.push(match operator {
                    Arithmetic::Add => " + ",
                    Arithmetic::Subtract => " - ",
                    Arithmetic::Multiply => " * ",
                    Arithmetic::Divide => " / NULLIF(",
                });
                self.number(right);
                self.push(if *operator == Arithmetic::Divide { ", 0))" } else { ")" });
            }
            Node::Call(Function::Abs, argument) => self.call("abs(", argument, ")"),
            Node::Call(Function::Floor, argument) => self.call("floor(", argument, ")"),
            Node::Call(Function::Log, argument) => self.guarded(argument, "WHEN v > 0 THEN ln(v)"),
            Node::Call(Function::Sqrt, argument) => self.guarded(argument, "WHEN v >= 0 THEN sqrt(v)"),
            Node::Call(Function::Exp, argument) => {
                self.guarded(argument, "WHEN v > 709.782712893384 THEN NULL WHEN v < -745.1 THEN 0 ELSE exp(v)");
            }
            Node::Power(argument, exponent) => {
                self.push("(SELECT CASE ");
                if *exponent < 0.0 {
                    self.push("WHEN v = 0 THEN NULL ");
                }
                if exponent.fract() != 0.0 {
                    self.push("WHEN v < 0 THEN NULL ");
                }
                self.push("WHEN v IS NULL THEN NULL ELSE power(v, ");
                self.builder.bind(Parameter::Real(*exponent));
                self.push(") END FROM (SELECT ");
                self.number(argument);
                self.push(" AS v OFFSET 0) AS s)");
            }
            _ => {
                self.push("CAST(CAST(");
                self.truth(expression);
                self.push(" AS integer) AS double precision)");
            }
        }
    }

    fn call(&mut self, open: &str, argument: &Expression, close: &str) {
        self.push(open);
        self.number(argument);
        self.push(close);
    }

    /// A case over the argument `v`. OFFSET keeps the database from copying the argument into each place of `v`, which would double
    /// the statement with each nested function.
    fn guarded(&mut self, argument: &Expression, cases: &str) {
        self.push("(SELECT CASE ");
        self.push(cases);
        self.push(" END FROM (SELECT ");
        self.number(argument);
        self.push(" AS v OFFSET 0) AS s)");
    }

    /// True, false or null.
    pub(super) fn truth(&mut self, expression: &Expression) {
        match expression.node() {
            Node::Compare(operator, left, right) => self.compare(*operator, left, right),
            Node::In(part, literals) => {
                self.push("(");
                for (at, literal) in literals.iter().enumerate() {
                    if at > 0 {
                        self.push(" OR ");
                    }
                    self.compare_literal(Comparison::Equal, part, literal);
                }
                self.push(")");
            }
            Node::IsMissing(part) => self.is_missing(part),
            Node::Not(part) => {
                self.push("(NOT ");
                self.truth(part);
                self.push(")");
            }
            Node::And(left, right) => self.both(left, " AND ", right),
            Node::Or(left, right) => self.both(left, " OR ", right),
            _ => unreachable!("kinds were checked"),
        }
    }

    /// Whether there is no value; true or false, never null.
    pub(super) fn is_missing(&mut self, part: &Expression) {
        self.push("(");
        if self.is_text(part) {
            self.text(part);
        } else if Self::is_truth(part) {
            self.truth(part);
        } else {
            self.number(part);
        }
        self.push(" IS NULL)");
    }

    /// Whether a column has this value.
    pub(super) fn is_level(&mut self, column: &Expression, level: &Level) {
        match level {
            Level::Number(number) => self.compare_literal(Comparison::Equal, column, &Literal::Real(*number)),
            Level::Text(text) => self.compare_literal(Comparison::Equal, column, &Literal::Text(text.clone())),
        }
    }

    fn both(&mut self, left: &Expression, between: &str, right: &Expression) {
        self.push("(");
        self.truth(left);
        self.push(between);
        self.truth(right);
        self.push(")");
    }

    fn compare(&mut self, operator: Comparison, left: &Expression, right: &Expression) {
        if let Node::Literal(literal) = right.node() {
            return self.compare_literal(operator, left, literal);
        }
        if let Node::Literal(literal) = left.node() {
            return self.compare_literal(turned(operator), right, literal);
        }
        self.push("(");
        if self.is_text(left) {
            self.text(left);
            self.push(symbol(operator));
            self.text(right);
        } else if Self::is_truth(left) {
            self.truth(left);
            self.push(symbol(operator));
            self.truth(right);
        } else if self.is_integer(left) && self.is_integer(right) {
            self.integer(left);
            self.push(symbol(operator));
            self.integer(right);
        } else {
            self.number(left);
            self.push(symbol(operator));
            self.number(right);
        }
        self.push(")");
    }

    fn compare_literal(&mut self, operator: Comparison, part: &Expression, literal: &Literal) {
        self.push("(");
        match literal {
            Literal::Text(text) => {
                self.text(part);
                self.builder.push(symbol(operator)).push("(").bind(Parameter::Text(text.clone())).push(" COLLATE \"C\")");
            }
            Literal::Integer(integer) if self.is_integer(part) => {
                self.integer(part);
                self.builder.push(symbol(operator)).bind(Parameter::Integer(*integer));
            }
            Literal::Real(real) if self.is_integer(part) => match as_integer(operator, *real) {
                AsInteger::Compare(operator, integer) => {
                    self.integer(part);
                    self.builder.push(symbol(operator)).bind(Parameter::Integer(integer));
                }
                AsInteger::Always(truth) => {
                    self.push("CASE WHEN ");
                    self.integer(part);
                    self.push(if truth { " IS NULL THEN NULL ELSE TRUE END" } else { " IS NULL THEN NULL ELSE FALSE END" });
                }
            },
            Literal::Integer(integer) => {
                self.number(part);
                self.builder.push(symbol(operator)).bind(Parameter::Real(*integer as f64));
            }
            Literal::Real(real) => {
                self.number(part);
                self.builder.push(symbol(operator)).bind(Parameter::Real(*real));
            }
        }
        self.push(")");
    }
}

fn symbol(operator: Comparison) -> &'static str {
    match operator {
        Comparison::Equal => " = ",
        Comparison::NotEqual => " <> ",
        Comparison::Less => " < ",
        Comparison::LessOrEqual => " <= ",
        Comparison::Greater => " > ",
        Comparison::GreaterOrEqual => " >= ",
    }
}

/// The operator for the sides exchanged.
fn turned(operator: Comparison) -> Comparison {
    match operator {
        Comparison::Less => Comparison::Greater,
        Comparison::LessOrEqual => Comparison::GreaterOrEqual,
        Comparison::Greater => Comparison::Less,
        Comparison::GreaterOrEqual => Comparison::LessOrEqual,
        same => same,
    }
}

/// The comparison of an integer with a real, exactly.
fn as_integer(operator: Comparison, real: f64) -> AsInteger {
    let is_whole = real.fract() == 0.0;
    match operator {
        Comparison::Equal | Comparison::NotEqual if !is_whole => AsInteger::Always(operator == Comparison::NotEqual),
        _ if real >= BEYOND_INTEGERS => {
            AsInteger::Always(matches!(operator, Comparison::NotEqual | Comparison::Less | Comparison::LessOrEqual))
        }
        _ if real < -BEYOND_INTEGERS => {
            AsInteger::Always(matches!(operator, Comparison::NotEqual | Comparison::Greater | Comparison::GreaterOrEqual))
        }
        _ => {
            #[expect(clippy::cast_possible_truncation, reason = "between the smallest and the largest integer")]
            let floor = real.floor() as i64;
            // Between two whole numbers, less means at most the lower one, and so does at most.
            let operator = match operator {
                Comparison::Less if !is_whole => Comparison::LessOrEqual,
                Comparison::GreaterOrEqual if !is_whole => Comparison::Greater,
                same => same,
            };
            AsInteger::Compare(operator, floor)
        }
    }
}
