//! What an expression gives for the rows of a batch, by Arrow's kernels.
//!
//! Missing cells are nulls, and every real is finite: what is not becomes null, be it a cell or a result. The kinds of the parts are
//! known to fit ([`Expression::kind`]) before anything is evaluated.

use std::cmp::Ordering;
use std::collections::HashMap;

use arrow_arith::boolean::{and_kleene, is_null, not, or_kleene};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayAccessor, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_schema::DataType as ArrowType;
use protocol::Expression;
use protocol::expression::{Arithmetic, Comparison, Function, Literal, Node};

/// A batch, and where its columns are.
pub(crate) struct Rows<'a> {
    pub(crate) batch: &'a RecordBatch,
    pub(crate) positions: &'a HashMap<String, usize>,
}

/// What an expression gives: a value for each row, or the same for all.
pub(crate) enum Value {
    Integers(Int64Array),
    /// All finite where they are not null.
    Reals(Float64Array),
    Integer(i64),
    Real(f64),
    Texts(StringArray),
    Text(String),
    Truths(BooleanArray),
}

const CHECKED: &str = "kinds are checked before rows are read";

impl Rows<'_> {
    fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Evaluates an expression whose kinds fit the batch's columns.
    pub(crate) fn value(&self, expression: &Expression) -> Value {
        match expression.node() {
            Node::Literal(Literal::Integer(integer)) => Value::Integer(*integer),
            Node::Literal(Literal::Real(real)) => Value::Real(*real),
            Node::Literal(Literal::Text(text)) => Value::Text(text.clone()),
            Node::Column(name) => self.column(name),
            Node::Negate(operand) => self.mapped(operand, |x| -x),
            Node::Call(function, argument) => match function {
                Function::Log => self.mapped(argument, f64::ln),
                Function::Exp => self.mapped(argument, f64::exp),
                Function::Sqrt => self.mapped(argument, f64::sqrt),
                Function::Abs => self.mapped(argument, f64::abs),
                Function::Floor => self.mapped(argument, f64::floor),
            },
            Node::Power(argument, exponent) => {
                let exponent = *exponent;
                match whole(exponent) {
                    Some(exponent) => self.mapped(argument, move |x| x.powi(exponent)),
                    None => self.mapped(argument, move |x| x.powf(exponent)),
                }
            }
            Node::Arithmetic(arithmetic, left, right) => {
                let (left, right) = (self.value(left), self.value(right));
                match arithmetic {
                    Arithmetic::Add => self.combined(&left, &right, |x, y| x + y),
                    Arithmetic::Subtract => self.combined(&left, &right, |x, y| x - y),
                    Arithmetic::Multiply => self.combined(&left, &right, |x, y| x * y),
                    Arithmetic::Divide => self.combined(&left, &right, |x, y| x / y),
                }
            }
            _ => Value::Truths(self.truths(expression)),
        }
    }

    /// Evaluates an expression that is true or false.
    pub(crate) fn truths(&self, expression: &Expression) -> BooleanArray {
        let same_length = "both have a value for each row";
        match expression.node() {
            Node::Compare(comparison, left, right) => self.compared(*comparison, &self.value(left), &self.value(right)),
            Node::In(value, list) => self.contained(&self.value(value), list),
            Node::IsMissing(operand) => self.missing(&self.value(operand)),
            Node::Not(operand) => not(&self.truths(operand)).expect(same_length),
            Node::And(left, right) => and_kleene(&self.truths(left), &self.truths(right)).expect(same_length),
            Node::Or(left, right) => or_kleene(&self.truths(left), &self.truths(right)).expect(same_length),
            _ => unreachable!("{CHECKED}"),
        }
    }

    fn column(&self, name: &str) -> Value {
        let column: &ArrayRef = self.batch.column(self.positions[name]);
        match column.data_type() {
            ArrowType::Int64 => Value::Integers(column.as_primitive::<Int64Type>().clone()),
            ArrowType::Float64 => Value::Reals(finite(column.as_primitive::<Float64Type>().clone())),
            ArrowType::Utf8 => Value::Texts(column.as_string::<i32>().clone()),
            other => unreachable!("sources give integers, reals and texts, and not {other}"),
        }
    }

    fn mapped(&self, operand: &Expression, function: impl Fn(f64) -> f64) -> Value {
        match self.value(operand).into_reals() {
            Reals::Each(reals) => Value::Reals(finite(reals.unary(function))),
            Reals::Same(real) => self.same(function(real)),
        }
    }

    fn combined(&self, left: &Value, right: &Value, function: impl Fn(f64, f64) -> f64) -> Value {
        let reals = match (left.reals(), right.reals()) {
            (Reals::Same(left), Reals::Same(right)) => return self.same(function(left, right)),
            (Reals::Each(left), Reals::Same(right)) => left.unary(|left| function(left, right)),
            (Reals::Same(left), Reals::Each(right)) => right.unary(|right| function(left, right)),
            (Reals::Each(left), Reals::Each(right)) => {
                arrow_arith::arity::binary(&left, &right, function).expect("both have a value for each row")
            }
        };
        Value::Reals(finite(reals))
    }

    /// A number for all rows, or missing in all.
    fn same(&self, real: f64) -> Value {
        if real.is_finite() { Value::Real(real) } else { Value::Reals(Float64Array::new_null(self.len())) }
    }

    fn constant(&self, truth: bool) -> BooleanArray {
        BooleanArray::new(
            if truth { BooleanBuffer::new_set(self.len()) } else { BooleanBuffer::new_unset(self.len()) },
            None,
        )
    }

    fn compared(&self, comparison: Comparison, left: &Value, right: &Value) -> BooleanArray {
        let flipped = match comparison {
            Comparison::Less => Comparison::Greater,
            Comparison::LessOrEqual => Comparison::GreaterOrEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterOrEqual => Comparison::LessOrEqual,
            Comparison::Equal | Comparison::NotEqual => comparison,
        };
        let c = comparison;
        match (left, right) {
            (Value::Integers(left), Value::Integers(right)) => pairs(c, left, right, |x, y| x.cmp(&y)),
            (Value::Integers(left), Value::Integer(right)) => each(c, left, |x| x.cmp(right)),
            (Value::Integers(left), Value::Reals(right)) => pairs(c, left, right, exactly),
            (Value::Integers(left), Value::Real(right)) => each(c, left, |x| exactly(x, *right)),
            (Value::Reals(left), Value::Reals(right)) => pairs(c, left, right, reals),
            (Value::Reals(left), Value::Real(right)) => each(c, left, |x| reals(x, *right)),
            (Value::Reals(left), Value::Integer(right)) => each(c, left, |x| exactly(*right, x).reverse()),
            (Value::Reals(left), Value::Integers(right)) => pairs(flipped, right, left, exactly),
            (Value::Texts(left), Value::Texts(right)) => pairs(c, left, right, str::cmp),
            (Value::Texts(left), Value::Text(right)) => each(c, left, |x| x.cmp(right.as_str())),
            (Value::Integer(left), Value::Integer(right)) => self.constant(holds(c, left.cmp(right))),
            (Value::Integer(left), Value::Real(right)) => self.constant(holds(c, exactly(*left, *right))),
            (Value::Real(left), Value::Integer(right)) => self.constant(holds(c, exactly(*right, *left).reverse())),
            (Value::Real(left), Value::Real(right)) => self.constant(holds(c, reals(*left, *right))),
            (Value::Text(left), Value::Text(right)) => self.constant(holds(c, left.cmp(right))),
            (Value::Integer(_) | Value::Real(_) | Value::Text(_), _) => self.compared(flipped, right, left),
            _ => unreachable!("{CHECKED}"),
        }
    }

    fn contained(&self, value: &Value, list: &[Literal]) -> BooleanArray {
        match value {
            Value::Integers(integers) => {
                let list = sorted(list.iter().filter_map(integer), i64::cmp);
                BooleanArray::from_unary(integers, |integer| list.binary_search(&integer).is_ok())
            }
            Value::Reals(values) => {
                let list = sorted(list.iter().filter_map(real), |x, y| reals(*x, *y));
                BooleanArray::from_unary(values, |value| list.binary_search_by(|known| reals(*known, value)).is_ok())
            }
            Value::Texts(texts) => {
                let list = sorted(list.iter().filter_map(text), Ord::cmp);
                BooleanArray::from_unary(texts, |text| list.binary_search(&text).is_ok())
            }
            Value::Integer(value) => self.constant(list.iter().any(|known| integer(known) == Some(*value))),
            Value::Real(value) => self.constant(list.iter().any(|known| real(known) == Some(*value))),
            Value::Text(value) => self.constant(list.iter().any(|known| text(known) == Some(value))),
            Value::Truths(_) => unreachable!("{CHECKED}"),
        }
    }

    fn missing(&self, value: &Value) -> BooleanArray {
        let array: &dyn Array = match value {
            Value::Integers(integers) => integers,
            Value::Reals(reals) => reals,
            Value::Texts(texts) => texts,
            Value::Truths(truths) => truths,
            Value::Integer(_) | Value::Real(_) | Value::Text(_) => return self.constant(false),
        };
        is_null(array).expect("whether a value is null can always be said")
    }
}

/// Numbers as float64, in which arithmetic is done.
enum Reals {
    Each(Float64Array),
    Same(f64),
}

impl Value {
    fn reals(&self) -> Reals {
        match self {
            Self::Integers(integers) => Reals::Each(integers.unary(|integer| integer as f64)),
            Self::Reals(reals) => Reals::Each(reals.clone()),
            Self::Integer(integer) => Reals::Same(*integer as f64),
            Self::Real(real) => Reals::Same(*real),
            Self::Texts(_) | Self::Text(_) | Self::Truths(_) => unreachable!("{CHECKED}"),
        }
    }

    fn into_reals(self) -> Reals {
        match self {
            Self::Reals(reals) => Reals::Each(reals),
            other => other.reals(),
        }
    }
}

/// Makes null what is not finite.
pub(crate) fn finite(reals: Float64Array) -> Float64Array {
    // Without a branch, so that several are looked at at once.
    if reals.values().iter().fold(true, |are_finite, value| are_finite & value.is_finite()) {
        return reals;
    }
    let (_, values, nulls) = reals.into_parts();
    let are_finite = NullBuffer::new(BooleanBuffer::collect_bool(values.len(), |row| values[row].is_finite()));
    let nulls = NullBuffer::union(nulls.as_ref(), Some(&are_finite));
    Float64Array::new(values, nulls)
}

/// An exponent that multiplication can reach.
fn whole(exponent: f64) -> Option<i32> {
    #[expect(clippy::cast_possible_truncation, reason = "a whole number of at most 64")]
    (exponent.fract() == 0.0 && exponent.abs() <= 64.0).then_some(exponent as i32)
}

/// The order of finite reals; 0 and -0 are equal.
fn reals(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).unwrap_or(Ordering::Equal)
}

/// The order of an integer and a finite real, without rounding.
pub(crate) fn exactly(left: i64, right: f64) -> Ordering {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if right >= LIMIT {
        return Ordering::Less;
    }
    if right < -LIMIT {
        return Ordering::Greater;
    }
    let below = right.floor();
    #[expect(clippy::cast_possible_truncation, reason = "a whole number from -2^63 to below 2^63")]
    let integer = below as i64;
    left.cmp(&integer).then(if right > below { Ordering::Less } else { Ordering::Equal })
}

/// The integer that a number is.
fn integer(literal: &Literal) -> Option<i64> {
    match literal {
        Literal::Integer(integer) => Some(*integer),
        Literal::Real(real) => as_integer(*real),
        Literal::Text(_) => None,
    }
}

/// The integer that a finite real is, if it is one.
pub(crate) fn as_integer(real: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "compared with what it came from")]
    let integer = real as i64;
    (exactly(integer, real) == Ordering::Equal).then_some(integer)
}

/// The real that a number is, if it is one exactly.
fn real(literal: &Literal) -> Option<f64> {
    match literal {
        Literal::Integer(integer) => Some(*integer as f64).filter(|real| exactly(*integer, *real) == Ordering::Equal),
        Literal::Real(real) => Some(*real),
        Literal::Text(_) => None,
    }
}

fn text(literal: &Literal) -> Option<&str> {
    match literal {
        Literal::Text(text) => Some(text),
        Literal::Integer(_) | Literal::Real(_) => None,
    }
}

fn sorted<T>(items: impl Iterator<Item = T>, order: impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_by(order);
    items
}

fn holds(comparison: Comparison, ordering: Ordering) -> bool {
    match comparison {
        Comparison::Equal => ordering.is_eq(),
        Comparison::NotEqual => ordering.is_ne(),
        Comparison::Less => ordering.is_lt(),
        Comparison::LessOrEqual => ordering.is_le(),
        Comparison::Greater => ordering.is_gt(),
        Comparison::GreaterOrEqual => ordering.is_ge(),
    }
}

fn each<A: ArrayAccessor>(comparison: Comparison, left: A, order: impl Fn(A::Item) -> Ordering) -> BooleanArray {
    match comparison {
        Comparison::Equal => BooleanArray::from_unary(left, |x| order(x).is_eq()),
        Comparison::NotEqual => BooleanArray::from_unary(left, |x| order(x).is_ne()),
        Comparison::Less => BooleanArray::from_unary(left, |x| order(x).is_lt()),
        Comparison::LessOrEqual => BooleanArray::from_unary(left, |x| order(x).is_le()),
        Comparison::Greater => BooleanArray::from_unary(left, |x| order(x).is_gt()),
        Comparison::GreaterOrEqual => BooleanArray::from_unary(left, |x| order(x).is_ge()),
    }
}

fn pairs<A: ArrayAccessor, B: ArrayAccessor>(
    comparison: Comparison,
    left: A,
    right: B,
    order: impl Fn(A::Item, B::Item) -> Ordering,
) -> BooleanArray {
    BooleanArray::from_binary(left, right, |x, y| holds(comparison, order(x, y)))
}

#[cfg(test)]
mod tests;
