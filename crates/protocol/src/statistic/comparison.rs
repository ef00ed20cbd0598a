//! Comparisons of means: t-tests and the analysis of variance.

use serde::{Deserialize, Serialize};

use super::{Category, Confidence};
use crate::expression::Expression;
use crate::plan::{PlanError, value};

/// A t-test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawTTest")]
pub struct TTest {
    value: Expression,
    against: Against,
    confidence: Confidence,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTTest {
    value: Expression,
    against: Against,
    #[serde(default)]
    confidence: Confidence,
}

/// What a mean is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Against {
    /// A number. The mean of differences `a - b` with 0 is the paired test.
    Mean(f64),
    /// The means of two groups with one another, whose variances may differ (Welch 1947).
    Welch(Category),
    /// The same if they are equal (Student 1908).
    Student(Category),
}

impl Against {
    /// The groups, if there are any.
    pub fn groups(&self) -> Option<&Category> {
        match self {
            Self::Mean(_) => None,
            Self::Welch(groups) | Self::Student(groups) => Some(groups),
        }
    }
}

impl TTest {
    pub fn new(value: Expression, against: Against, confidence: Confidence) -> Result<Self, PlanError> {
        if let Against::Mean(mean) = against
            && !mean.is_finite()
        {
            return Err(self::value("mean", "a finite number", mean));
        }
        if let Some(groups) = against.groups()
            && groups.levels().len() != 2
        {
            return Err(self::value("levels", "two levels", groups.levels().len()));
        }
        Ok(Self { value, against, confidence })
    }

    pub fn value(&self) -> &Expression {
        &self.value
    }

    pub fn against(&self) -> &Against {
        &self.against
    }

    pub fn confidence(&self) -> Confidence {
        self.confidence
    }

    pub(super) fn names(&self) -> Vec<&str> {
        let mut names = self.value.columns();
        names.extend(self.against.groups().map(Category::column));
        names
    }
}

impl TryFrom<RawTTest> for TTest {
    type Error = PlanError;

    fn try_from(raw: RawTTest) -> Result<Self, PlanError> {
        Self::new(raw.value, raw.against, raw.confidence)
    }
}

/// A one-way analysis of variance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawAnova")]
pub struct Anova {
    value: Expression,
    by: Category,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAnova {
    value: Expression,
    by: Category,
}

impl Anova {
    pub fn new(value: Expression, by: Category) -> Result<Self, PlanError> {
        if by.levels().len() < 2 {
            return Err(self::value("levels", "two levels or more", by.levels().len()));
        }
        Ok(Self { value, by })
    }

    pub fn value(&self) -> &Expression {
        &self.value
    }

    pub fn by(&self) -> &Category {
        &self.by
    }

    pub(super) fn names(&self) -> Vec<&str> {
        let mut names = self.value.columns();
        names.push(self.by.column());
        names
    }
}

impl TryFrom<RawAnova> for Anova {
    type Error = PlanError;

    fn try_from(raw: RawAnova) -> Result<Self, PlanError> {
        Self::new(raw.value, raw.by)
    }
}
