//! The columns of a regression, out of a formula: treatment coding of categories, interactions, and the rows that are complete.

use protocol::{Category, Expression, Factor, Formula, Level, Term};

use crate::analysis::{AnalysisError, Batch, Column, Input, OTHER};

/// The name of the intercept, as statsmodels writes it.
pub(crate) const INTERCEPT: &str = "const";
/// The most columns of a regression.
pub(crate) const MAX_COLUMNS: usize = 512;
/// Rows that are worked on at once, so that their columns stay in the cache.
pub(crate) const CHUNK: usize = 2048;

/// The inputs of a statistic, each once.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Inputs(Vec<Input>);

impl Inputs {
    /// The position of a number.
    pub(crate) fn number(&mut self, expression: &Expression) -> usize {
        self.position(Input::Number(expression.clone()))
    }

    /// The position of a column with levels.
    pub(crate) fn category(&mut self, category: &Category) -> usize {
        self.position(Input::Levels(category.clone()))
    }

    fn position(&mut self, input: Input) -> usize {
        self.0.iter().position(|other| *other == input).unwrap_or_else(|| {
            self.0.push(input);
            self.0.len() - 1
        })
    }

    pub(crate) fn all(&self) -> &[Input] {
        &self.0
    }

    pub(crate) fn numeric(&self) -> usize {
        self.0.iter().filter(|input| matches!(input, Input::Number(_))).count()
    }

    /// Which of the numeric inputs an input is.
    pub(crate) fn numeric_index(&self, input: usize) -> usize {
        self.0[..input].iter().filter(|input| matches!(input, Input::Number(_))).count()
    }
}

/// The rows of a range that have a value in every input.
pub(crate) fn complete(batch: &Batch, range: std::ops::Range<usize>) -> Vec<usize> {
    let mut rows: Vec<usize> = range.collect();
    for column in &batch.columns {
        match column {
            Column::Numbers(values) => rows.retain(|row| values[*row].is_finite()),
            Column::Levels(codes) => rows.retain(|row| codes[*row] < OTHER),
        }
    }
    rows
}

/// The ranges of a batch that are worked on at once.
pub(crate) fn chunks(batch: &Batch) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
    let rows = batch.rows;
    (0..rows).step_by(CHUNK).map(move |start| start..rows.min(start + CHUNK))
}

/// The numbers of a numeric input in some rows.
pub(crate) fn numbers(batch: &Batch, input: usize, rows: &[usize]) -> Vec<f64> {
    match &batch.columns[input] {
        Column::Numbers(values) => rows.iter().map(|row| values[*row]).collect(),
        Column::Levels(_) => vec![f64::NAN; rows.len()],
    }
}

/// The levels of an input in some rows.
pub(crate) fn levels(batch: &Batch, input: usize, rows: &[usize]) -> Vec<usize> {
    match &batch.columns[input] {
        Column::Levels(codes) => rows.iter().map(|row| usize::try_from(codes[*row]).unwrap_or(usize::MAX)).collect(),
        Column::Numbers(_) => vec![0; rows.len()],
    }
}

/// The columns of a regression, without the intercept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Design {
    columns: Vec<DesignColumn>,
}

/// A product of numbers and indicators.
#[derive(Debug, Clone, PartialEq)]
struct DesignColumn {
    name: String,
    /// Inputs that are multiplied.
    numbers: Vec<usize>,
    /// Inputs that must have this level for the product not to be 0.
    levels: Vec<(usize, usize)>,
}

/// What each column is shifted and divided by before it is used, so that its numbers are about 1: z = (x - center) / 2^bits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) center: Vec<f64>,
    pub(crate) bits: Vec<i32>,
}

impl Frame {
    /// x itself.
    pub(crate) fn none(columns: usize) -> Self {
        Self { center: vec![0.0; columns], bits: vec![0; columns] }
    }

    /// One that makes columns of these means and mean squares, given as x / 2^bits, have a mean of about 0 (if they are centred) and a mean
    /// square of at most about 1.
    pub(crate) fn of_moments(bits: &[i32], means: &[f64], mean_squares: &[f64], is_centred: bool) -> Self {
        let mut frame = Self::none(bits.len());
        for (j, bits) in bits.iter().enumerate() {
            // Below 1e-10 of the mean square the variance may be rounding.
            let variance = if is_centred {
                (mean_squares[j] - means[j] * means[j]).max(1e-10 * mean_squares[j])
            } else {
                mean_squares[j]
            };
            frame.center[j] = if is_centred { means[j] * f64::from(*bits).exp2() } else { 0.0 };
            frame.bits[j] = if variance > 0.0 { bits + bits_of(variance.sqrt()) } else { *bits };
        }
        frame
    }

    /// What a coefficient of z is divided by to be one of x.
    pub(crate) fn unit(&self, column: usize) -> f64 {
        f64::from(self.bits[column]).exp2()
    }

    /// The rows of the matrix that turns coefficients of (1, z) into those of (1, x); without the intercept if there is none.
    pub(crate) fn back(&self, has_intercept: bool) -> Vec<Vec<f64>> {
        let first = usize::from(has_intercept);
        let n = first + self.bits.len();
        let mut rows = Vec::with_capacity(n);
        if has_intercept {
            let mut row = vec![1.0];
            row.extend((0..self.bits.len()).map(|j| -self.center[j] / self.unit(j)));
            rows.push(row);
        }
        for j in 0..self.bits.len() {
            let mut row = vec![0.0; n];
            row[first + j] = 1.0 / self.unit(j);
            rows.push(row);
        }
        rows
    }
}

/// The smallest power of two that is at least a positive number, as its exponent.
pub(crate) fn bits_of(value: f64) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "the logarithm of an f64 is below 1100")]
    let bits = value.log2().ceil() as i32;
    bits.clamp(-500, 500)
}

impl Design {
    /// Fails where the formula names a category whose levels are not among `categories`, or has too many columns. A bare column
    /// among `categories` is taken as categories.
    pub(crate) fn new(
        formula: &Formula,
        has_intercept: bool,
        categories: &[Category],
        inputs: &mut Inputs,
    ) -> Result<Self, AnalysisError> {
        let mut columns = Vec::new();
        for (index, term) in formula.terms().iter().enumerate() {
            columns.extend(columns_of(term, &formula.terms()[..index], has_intercept, categories, inputs)?);
            if columns.len() > MAX_COLUMNS {
                return Err(AnalysisError::Plan(format!("the formula has more than {MAX_COLUMNS} columns")));
            }
        }
        Ok(Self { columns })
    }

    pub(crate) fn len(&self) -> usize {
        self.columns.len()
    }

    pub(crate) fn name(&self, column: usize) -> &str {
        &self.columns[column].name
    }

    /// Every absolute value of a column is at most two to this power, given that of its numeric inputs.
    pub(crate) fn bits(&self, column: usize, inputs: &Inputs, bits: impl Fn(usize) -> i32) -> i32 {
        self.columns[column].numbers.iter().map(|input| bits(inputs.numeric_index(*input))).sum()
    }

    /// The largest absolute value of a column, out of those of its numeric inputs; infinite where one has none.
    pub(crate) fn bound(&self, column: usize, inputs: &Inputs, ranges: &[Option<f64>]) -> f64 {
        let bound = |input: &usize| ranges.get(inputs.numeric_index(*input)).copied().flatten().unwrap_or(f64::INFINITY);
        self.columns[column].numbers.iter().map(bound).product()
    }

    /// z of each column in some complete rows.
    pub(crate) fn columns(&self, batch: &Batch, rows: &[usize], frame: &Frame) -> Vec<Vec<f64>> {
        let z = |(j, column): (usize, &DesignColumn)| {
            let mut values = match column.numbers.split_first() {
                Some((first, _)) => numbers(batch, *first, rows),
                None => vec![1.0; rows.len()],
            };
            for input in column.numbers.iter().skip(1) {
                for (value, factor) in values.iter_mut().zip(numbers(batch, *input, rows)) {
                    *value *= factor;
                }
            }
            for (input, level) in &column.levels {
                for (value, found) in values.iter_mut().zip(levels(batch, *input, rows)) {
                    if found != *level {
                        *value = 0.0;
                    }
                }
            }
            let (center, unit) = (frame.center[j], 1.0 / frame.unit(j));
            for value in &mut values {
                *value = (*value - center) * unit;
            }
            values
        };
        self.columns.iter().enumerate().map(z).collect()
    }
}

/// A term's columns: one for each combination of its categories' levels, without the reference where the term without that category
/// is in the model already (R's rule; Chambers and Hastie 1992, §2.4.1).
fn columns_of(
    term: &Term,
    before: &[Term],
    has_intercept: bool,
    categories: &[Category],
    inputs: &mut Inputs,
) -> Result<Vec<DesignColumn>, AnalysisError> {
    let mut columns = vec![DesignColumn { name: String::new(), numbers: Vec::new(), levels: Vec::new() }];
    for factor in term.factors() {
        let coded = match factor {
            Factor::Value(value) => Coded::Number { input: inputs.number(value), name: factor.to_string() },
            Factor::Column(column) => match categories.iter().find(|category| category.column() == column) {
                Some(category) => {
                    let all = needs_all_levels(term, factor, before, has_intercept, categories);
                    coded(category, None, column, all, inputs)?
                }
                None => Coded::Number { input: inputs.number(&Expression::column(column)), name: column.clone() },
            },
            Factor::Category { column, reference } => {
                let category = categories
                    .iter()
                    .find(|category| category.column() == column)
                    .ok_or_else(|| AnalysisError::Plan(format!("the levels of {column:?} are not known")))?;
                let all = needs_all_levels(term, factor, before, has_intercept, categories);
                coded(category, reference.as_ref(), &format!("C({column})"), all, inputs)?
            }
        };
        columns = columns.into_iter().flat_map(|column| column.times(&coded)).collect();
    }
    Ok(columns)
}

enum Coded {
    Number { input: usize, name: String },
    Levels { input: usize, levels: Vec<(usize, String)> },
}

fn coded(
    category: &Category,
    reference: Option<&Level>,
    name: &str,
    all_levels: bool,
    inputs: &mut Inputs,
) -> Result<Coded, AnalysisError> {
    let reference =
        match reference {
            None => 0,
            Some(level) => category.levels().iter().position(|other| other == level).ok_or_else(|| {
                AnalysisError::Plan(format!("the reference {level} is no level of {:?}", category.column()))
            })?,
        };
    let levels = category.levels().iter().enumerate().filter(|(index, _)| all_levels || *index != reference);
    let name = |level: &Level| if all_levels { format!("{name}[{level}]") } else { format!("{name}[T.{level}]") };
    Ok(Coded::Levels {
        input: inputs.category(category),
        levels: levels.map(|(index, level)| (index, name(level))).collect(),
    })
}

/// Whether the term without this factor is absent from the model.
fn needs_all_levels(term: &Term, factor: &Factor, before: &[Term], has_intercept: bool, categories: &[Category]) -> bool {
    let rest: Vec<&Factor> = term.factors().iter().filter(|other| *other != factor).collect();
    if rest.is_empty() {
        // Without an intercept the first categories take its place.
        let is_category = |factor: &Factor| match factor {
            Factor::Category { .. } => true,
            Factor::Column(column) => categories.iter().any(|category| category.column() == column),
            Factor::Value(_) => false,
        };
        return !has_intercept && !before.iter().any(|term| term.factors().iter().all(is_category));
    }
    !before
        .iter()
        .any(|other| other.factors().len() == rest.len() && rest.iter().all(|factor| other.factors().contains(factor)))
}

impl DesignColumn {
    fn times(self, coded: &Coded) -> Vec<Self> {
        let joined = |name: &str| if self.name.is_empty() { name.to_owned() } else { format!("{}:{name}", self.name) };
        match coded {
            Coded::Number { input, name } => {
                let mut column = Self { name: joined(name), ..self.clone() };
                column.numbers.push(*input);
                vec![column]
            }
            Coded::Levels { input, levels } => levels
                .iter()
                .map(|(level, name)| {
                    let mut column = Self { name: joined(name), ..self.clone() };
                    column.levels.push((*input, *level));
                    column
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn category(column: &str, levels: &[f64]) -> Category {
        Category::new(column.to_owned(), levels.iter().map(|level| Level::Number(*level)).collect()).unwrap()
    }

    fn names(formula: &str) -> Result<Vec<String>, AnalysisError> {
        let formula: Formula = formula.parse().unwrap();
        let categories = [category("cp", &[1.0, 2.0, 3.0]), category("g", &[0.0, 1.0])];
        let design = Design::new(&formula, formula.has_intercept(), &categories, &mut Inputs::default())?;
        Ok(design.columns.into_iter().map(|column| column.name).collect())
    }

    #[test]
    fn names_are_those_of_patsy() {
        let check = |formula: &str, expected: &[&str]| assert_eq!(names(formula).unwrap(), expected, "{formula}");
        check("y ~ age + C(cp)", &["age", "C(cp)[T.2]", "C(cp)[T.3]"]);
        check("y ~ age + C(cp, ref=2)", &["age", "C(cp)[T.1]", "C(cp)[T.3]"]);
        check("y ~ cp", &["cp[T.2]", "cp[T.3]"]);
        check("y ~ C(cp) - 1", &["C(cp)[1]", "C(cp)[2]", "C(cp)[3]"]);
        check("y ~ C(cp) + C(g) - 1", &["C(cp)[1]", "C(cp)[2]", "C(cp)[3]", "C(g)[T.1]"]);
        check("y ~ age * C(g)", &["age", "C(g)[T.1]", "age:C(g)[T.1]"]);
        check("y ~ age:C(g)", &["age:C(g)[0]", "age:C(g)[1]"]);
        check(
            "y ~ C(cp) * C(g)",
            &["C(cp)[T.2]", "C(cp)[T.3]", "C(g)[T.1]", "C(cp)[T.2]:C(g)[T.1]", "C(cp)[T.3]:C(g)[T.1]"],
        );
        check("y ~ a:b + I(a * 2)", &["I(a * 2)", "a:b"]);
    }

    #[test]
    fn unknown_levels_are_refused() {
        assert_eq!(names("y ~ C(x)"), Err(AnalysisError::Plan("the levels of \"x\" are not known".to_owned())));
        assert_eq!(names("y ~ C(cp, ref=9)"), Err(AnalysisError::Plan("the reference 9 is no level of \"cp\"".to_owned())));
    }

    #[test]
    fn columns_are_products_in_their_frame() {
        let formula: Formula = "y ~ a:C(g) + a".parse().unwrap();
        let mut inputs = Inputs::default();
        let design = Design::new(&formula, true, &[category("g", &[0.0, 1.0])], &mut inputs).unwrap();
        assert_eq!(inputs.all().len(), 2);
        let nan = f64::NAN;
        let batch = Batch {
            rows: 4,
            columns: vec![Column::Numbers(vec![1.0, 2.0, nan, 5.0]), Column::Levels(vec![0, 1, 1, OTHER])],
        };
        let rows = complete(&batch, 0..4);
        assert_eq!(rows, [0, 1]);
        let frame = Frame { center: vec![1.0, 0.0], bits: vec![1, 0] };
        assert_eq!(design.columns(&batch, &rows, &frame), [vec![0.0, 0.5], vec![0.0, 2.0]]);
        assert_eq!(frame.back(true), [vec![1.0, -0.5, 0.0], vec![0.0, 0.5, 0.0], vec![0.0, 0.0, 1.0]]);
    }
}
