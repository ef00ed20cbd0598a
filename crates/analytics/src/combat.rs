//! Harmonisation of measurements over sites: ComBat (Johnson, Li and Rabinovic 2007), whose pooled estimates come from sums, as in Fed-ComBat
//! (Silva and others 2023) with a linear model of the covariates.
//!
//! A measure y of site i is α + xβ + σ(γᵢ + δᵢε). The effects β are those within sites: cross-products around each site's own means are
//! summed, so that no site's mean leaves it. Then α is the mean of the sites' intercepts, weighted by their rows, and σ² the mean
//! square of the residuals. A site's γ and δ, and the priors by which they are drawn towards what its measures have in common, need nothing of
//! other sites: [`Combat::apply`] finds them where the data are.
//!
//! Passes: `survey`; `moments`, for centring and scale; `within`, the cross-products; `level`, the intercepts and residuals.

mod effects;

use protocol::statistic::Combat as Plan;
use protocol::{Expression, Formula, Pass, VectorSpec};
use serde::{Deserialize, Serialize};

use crate::analysis::{
    Analysis, AnalysisError, Answered, Batch, Cell, CellKind, Input, Next, Tallied, Tally, at_least, same_pass,
};
use crate::design::{Design, Frame, Inputs, chunks, complete, numbers};
use crate::linear::{Symmetric, dot};
use crate::sum::Sum;
use crate::survey::{self, Scales, Survey, Surveyed, counts, vector, whole};

pub use effects::{Harmonised, SiteEffects};

const MOMENTS: &str = "moments";
const WITHIN: &str = "within";
const LEVEL: &str = "level";

/// Terms of the sums are about 1.
const BITS: i32 = 24;

/// ComBat over the sites.
#[derive(Debug, Clone, PartialEq)]
pub struct Combat {
    plan: Plan,
    inputs: Inputs,
    survey: Survey,
    design: Design,
    measures: Vec<usize>,
}

/// What all sites have in common; with it a site harmonises its rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CombatAnswer {
    /// Complete rows.
    pub n: u64,
    /// Names of the covariates' columns, in the order of `coefficients`.
    pub covariates: Vec<String>,
    pub measures: Vec<CombatMeasure>,
    /// Covariates that are combinations of others within sites, and have the coefficient 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliased: Vec<String>,
}

/// A measure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CombatMeasure {
    pub name: String,
    /// The mean over sites where every covariate is 0.
    pub intercept: f64,
    pub coefficients: Vec<f64>,
    /// The standard deviation around the sites' means, with divisor n.
    pub deviation: f64,
}

impl Combat {
    /// Fails unless each measure occurs once, and is no covariate; with empirical Bayes there must be two.
    pub fn new(plan: Plan) -> Result<Self, AnalysisError> {
        let refuse = |why: &str| Err(AnalysisError::Plan(why.to_owned()));
        for (index, measure) in plan.measures.iter().enumerate() {
            if plan.measures[..index].contains(measure) || plan.covariates.contains(measure) {
                return Err(AnalysisError::Plan(format!("{measure:?} is named twice")));
            }
        }
        if plan.measures.is_empty() {
            return refuse("there is nothing to harmonise");
        }
        if plan.empirical_bayes && plan.measures.len() < 2 {
            return refuse("empirical Bayes needs two measures at least: what they have in common is its prior");
        }
        let quoted = |name: &String| format!("\"{}\"", name.replace('"', "\"\""));
        let terms: Vec<String> = plan.covariates.iter().map(quoted).collect();
        let terms = if terms.is_empty() { "1".to_owned() } else { terms.join(" + ") };
        let formula: Formula = format!("{} ~ {terms}", quoted(&plan.measures[0]))
            .parse()
            .map_err(|error: protocol::ExpressionError| AnalysisError::Plan(error.to_string()))?;
        let mut inputs = Inputs::default();
        let design = Design::new(&formula, true, &plan.categories, &mut inputs)?;
        let measures = plan.measures.iter().map(|measure| inputs.number(&Expression::column(measure))).collect();
        Ok(Self { survey: Survey::new(inputs.all().to_vec()), plan, inputs, design, measures })
    }

    fn scales(&self, pass: &Pass) -> Result<Scales, AnalysisError> {
        Scales::of(pass, self.inputs.numeric())
    }

    /// Columns of the covariates, then measures.
    fn columns(&self) -> usize {
        self.design.len() + self.measures.len()
    }

    fn bits(&self, scales: &Scales) -> Vec<i32> {
        let covariates = (0..self.design.len()).map(|j| self.design.bits(j, &self.inputs, |numeric| scales.bits(numeric)));
        let measures = self.measures.iter().map(|measure| scales.bits(self.inputs.numeric_index(*measure)));
        covariates.chain(measures).collect()
    }

    /// Covariates and measures of the complete rows of a range, in a frame.
    fn rows(&self, batch: &Batch, range: std::ops::Range<usize>, frame: &Frame) -> Vec<Vec<f64>> {
        let rows = complete(batch, range);
        let p = self.design.len();
        let covariates = Frame { center: frame.center[..p].to_vec(), bits: frame.bits[..p].to_vec() };
        let mut columns = self.design.columns(batch, &rows, &covariates);
        for (index, measure) in self.measures.iter().enumerate() {
            let (center, unit) = (frame.center[p + index], 1.0 / frame.unit(p + index));
            columns.push(numbers(batch, *measure, &rows).into_iter().map(|value| (value - center) * unit).collect());
        }
        columns
    }

    fn frame(&self, pass: &Pass) -> Result<Frame, AnalysisError> {
        let wrong = || AnalysisError::Pass(pass.step.clone());
        let numbers = |name: &str| pass.get(name).filter(|values| values.len() == self.columns()).ok_or_else(wrong);
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        let one = |value: &f64| (value.fract() == 0.0 && value.abs() <= 5000.0).then_some(*value as i32).ok_or_else(wrong);
        let bits = numbers("frame")?.iter().map(one).collect::<Result<_, _>>()?;
        Ok(Frame { center: numbers("center")?.to_vec(), bits })
    }

    /// β of each measure, covariate by covariate, in the frame.
    fn effects(&self, pass: &Pass) -> Result<Vec<Vec<f64>>, AnalysisError> {
        let p = self.design.len();
        if p == 0 {
            return Ok(vec![Vec::new(); self.measures.len()]);
        }
        let effects = pass.get("effects").filter(|effects| effects.len() == p * self.measures.len());
        Ok(effects.ok_or_else(|| AnalysisError::Pass(pass.step.clone()))?.chunks(p).map(<[f64]>::to_vec).collect())
    }

    fn pass(surveyed: &Surveyed, frame: &Frame, step: &str) -> Pass {
        let bits = frame.bits.iter().map(|bits| f64::from(*bits)).collect();
        surveyed.pass(step).with("center", frame.center.clone()).with("frame", bits)
    }

    fn within_len(&self) -> usize {
        Symmetric::packed_len(self.design.len()) + self.design.len() * self.measures.len()
    }

    fn read_moments(&self, answered: &Answered) -> Result<(u64, Frame), AnalysisError> {
        let wrong = || AnalysisError::Sums(MOMENTS.to_owned());
        let [counts, sums] = answered.sums.as_slice() else { return Err(wrong()) };
        let rows = counts.first().and_then(|rows| whole(*rows)).ok_or_else(wrong)?;
        if sums.len() != 2 * self.columns() || !sums.iter().all(|sum| sum.is_finite()) {
            return Err(wrong());
        }
        if rows == 0 {
            return Err(AnalysisError::Data("no row has a value in every column".to_owned()));
        }
        let n = rows as f64;
        let (means, squares): (Vec<f64>, Vec<f64>) = sums.chunks(2).map(|pair| (pair[0] / n, pair[1] / n)).unzip();
        Ok((rows, Frame::of_moments(&self.bits(&self.scales(&answered.pass)?), &means, &squares, true)))
    }

    /// β of each measure and the covariates that are left out.
    fn read_within(&self, answered: &Answered) -> Result<(Vec<f64>, Vec<String>), AnalysisError> {
        let p = self.design.len();
        let sums = match answered.sums.as_slice() {
            [_, sums] if sums.len() == self.within_len() => sums,
            [_] if p == 0 => return Ok((Vec::new(), Vec::new())),
            _ => return Err(AnalysisError::Sums(WITHIN.to_owned())),
        };
        let (xx, xy) = sums.split_at(Symmetric::packed_len(p));
        let factor = Symmetric::from_packed(p, xx).factor(&vec![true; p]);
        let effects = xy.chunks(p).flat_map(|xy| factor.solve(xy)).collect();
        Ok((effects, factor.aliased.iter().map(|column| self.design.name(*column).to_owned()).collect()))
    }

    fn answer(
        &self,
        frame: &Frame,
        rows: u64,
        level: &Answered,
        aliased: Vec<String>,
    ) -> Result<CombatAnswer, AnalysisError> {
        let [_, sums] = level.sums.as_slice() else { return Err(AnalysisError::Sums(LEVEL.to_owned())) };
        if sums.len() != 2 * self.measures.len() || sums.chunks(2).any(|pair| pair[1] < 0.0) {
            return Err(AnalysisError::Sums(LEVEL.to_owned()));
        }
        let p = self.design.len();
        let measures =
            self.effects(&level.pass)?.into_iter().zip(sums.chunks(2)).enumerate().map(|(index, (effects, pair))| {
                let (center, unit) = (frame.center[p + index], frame.unit(p + index));
                let coefficients: Vec<f64> = (0..p).map(|j| effects[j] * unit / frame.unit(j)).collect();
                let n = rows as f64;
                CombatMeasure {
                    name: self.plan.measures[index].clone(),
                    intercept: center + pair[0] / n * unit - dot(&coefficients, &frame.center[..p]),
                    deviation: (pair[1] / n).sqrt() * unit,
                    coefficients,
                }
            });
        let covariates = (0..p).map(|j| self.design.name(j).to_owned()).collect();
        Ok(CombatAnswer { n: rows, covariates, measures: measures.collect(), aliased })
    }
}

impl Analysis for Combat {
    type Answer = CombatAnswer;

    fn inputs(&self) -> Vec<Input> {
        self.inputs.all().to_vec()
    }

    fn layout(&self, pass: &Pass) -> Result<Vec<VectorSpec>, AnalysisError> {
        if pass.step == survey::STEP {
            return Ok(self.survey.layout());
        }
        let scales = self.scales(pass)?;
        let sums = match pass.step.as_str() {
            MOMENTS => scales.sums("sums", vec![2 * self.columns()], 0),
            WITHIN if self.within_len() == 0 => return Ok(vec![counts("counts", vec![1])]),
            WITHIN => scales.sums("sums", vec![self.within_len()], BITS),
            LEVEL => scales.sums("sums", vec![2 * self.measures.len()], BITS),
            _ => return Err(AnalysisError::Pass(pass.step.clone())),
        };
        Ok(vec![counts("counts", vec![1]), sums])
    }

    fn tally(&self, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        if pass.step == survey::STEP {
            return Ok(self.survey.tally());
        }
        let (frame, kind) = match pass.step.as_str() {
            MOMENTS => {
                let bits = self.bits(&self.scales(pass)?);
                (Frame { center: vec![0.0; bits.len()], bits }, Kind::Moments)
            }
            WITHIN => (self.frame(pass)?, Kind::Within),
            LEVEL => (self.frame(pass)?, Kind::Level(self.effects(pass)?)),
            _ => return Err(AnalysisError::Pass(pass.step.clone())),
        };
        let columns = self.columns();
        let products = vec![Sum::default(); Symmetric::packed_len(columns)];
        Ok(Box::new(CombatTally {
            combat: self.clone(),
            frame,
            kind,
            rows: 0,
            sums: vec![Sum::default(); columns],
            products,
        }))
    }

    fn next(&self, history: &[Answered]) -> Result<Next<CombatAnswer>, AnalysisError> {
        let Some(first) = history.first() else { return Ok(Next::Ask(Pass::new(survey::STEP))) };
        let surveyed = self.survey.read(&first.sums)?;
        if surveyed.rows == 0 {
            return Err(AnalysisError::Data("there are no rows".to_owned()));
        }
        let Some(moments) = history.get(1) else { return Ok(Next::Ask(surveyed.pass(MOMENTS))) };
        let (rows, frame) = self.read_moments(moments)?;
        let Some(within) = history.get(2) else { return Ok(Next::Ask(Self::pass(&surveyed, &frame, WITHIN))) };
        let (effects, aliased) = self.read_within(within)?;
        let Some(level) = history.get(3) else {
            let pass = Self::pass(&surveyed, &frame, LEVEL);
            return Ok(Next::Ask(if effects.is_empty() { pass } else { pass.with("effects", effects) }));
        };
        Ok(Next::Done(self.answer(&frame, rows, level, aliased)?))
    }

    /// A site's means move with each of its rows, whose number is not bounded from below.
    fn limited(answer: CombatAnswer, minimum: u64) -> Result<CombatAnswer, AnalysisError> {
        at_least(minimum, answer.n, "complete rows")?;
        Ok(answer)
    }

    fn sensitivity(&self, pass: &Pass, ranges: &[Option<f64>]) -> Result<Vec<f64>, AnalysisError> {
        match pass.step.as_str() {
            survey::STEP => Ok(self.survey.sensitivity()),
            MOMENTS => {
                let bits = self.bits(&self.scales(pass)?);
                let range =
                    |input: usize| ranges.get(self.inputs.numeric_index(input)).copied().flatten().unwrap_or(f64::INFINITY);
                let bounds = (0..self.design.len()).map(|j| self.design.bound(j, &self.inputs, ranges));
                let bounds = bounds.chain(self.measures.iter().map(|measure| range(*measure)));
                let squares = bounds.zip(bits).map(|(bound, bits)| {
                    let z = bound * f64::from(-bits).exp2();
                    z * z + z * z * z * z
                });
                Ok(vec![1.0, squares.sum::<f64>().sqrt()])
            }
            _ => Ok(self.layout(pass)?.iter().map(|spec| if spec.name == "counts" { 1.0 } else { f64::INFINITY }).collect()),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Moments,
    Within,
    /// With β of each measure.
    Level(Vec<Vec<f64>>),
}

/// Σ z and Σ z zᵀ of a site's covariates and measures, out of which every pass's values follow.
struct CombatTally {
    combat: Combat,
    frame: Frame,
    kind: Kind,
    rows: u64,
    sums: Vec<Sum>,
    products: Vec<Sum>,
}

impl Tally for CombatTally {
    fn add(&mut self, batch: &Batch) {
        for range in chunks(batch) {
            let columns = self.combat.rows(batch, range, &self.frame);
            self.rows += columns.first().map_or(0, |column| column.len() as u64);
            for (sum, column) in self.sums.iter_mut().zip(&columns) {
                sum.add_all(column, |z| z);
            }
            let mut products = self.products.iter_mut();
            for (j, first) in columns.iter().enumerate() {
                for second in &columns[j..] {
                    if let Some(sum) = products.next() {
                        sum.add(dot(first, second));
                    }
                }
            }
        }
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        let other = same_pass::<Self>(other);
        self.rows += other.rows;
        self.sums.iter_mut().zip(other.sums).for_each(|(sum, theirs)| sum.merge(theirs));
        self.products.iter_mut().zip(other.products).for_each(|(sum, theirs)| sum.merge(theirs));
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        let (p, columns, n) = (self.combat.design.len(), self.combat.columns(), self.rows as f64);
        let totals: Vec<f64> = self.sums.iter().map(|sum| sum.value()).collect();
        let products = Symmetric::from_packed(columns, &self.products.iter().map(|sum| sum.value()).collect::<Vec<_>>());
        // Around the site's own means.
        let centred = |i: usize, j: usize| if n > 0.0 { products.get(i, j) - totals[i] * totals[j] / n } else { 0.0 };
        let values: Vec<f64> = match &self.kind {
            Kind::Moments => (0..columns).flat_map(|j| [totals[j], products.get(j, j)]).collect(),
            Kind::Within => {
                let covariates = (0..p).flat_map(|i| (i..p).map(move |j| (i, j)));
                let with_measures = (p..columns).flat_map(|measure| (0..p).map(move |j| (j, measure)));
                covariates.chain(with_measures).map(|(i, j)| centred(i, j)).collect()
            }
            Kind::Level(effects) => (0..columns - p)
                .flat_map(|index| {
                    let (effects, measure) = (&effects[index], p + index);
                    // n times the site's intercept, and the squares around it: yy - 2 βxy + βxxβ.
                    let intercept = totals[measure] - dot(effects, &totals[..p]);
                    let xy: f64 = (0..p).map(|j| effects[j] * centred(j, measure)).sum();
                    let xx: f64 = (0..p).map(|i| effects[i] * (0..p).map(|j| effects[j] * centred(i, j)).sum::<f64>()).sum();
                    [intercept, (centred(measure, measure) - 2.0 * xy + xx).max(0.0)]
                })
                .collect(),
        };
        let mut vectors = vec![vector("counts", vec![n])];
        if !values.is_empty() {
            vectors.push(vector("sums", values));
        }
        let cells = vec![Cell { kind: CellKind::Rows, of: "complete rows".to_owned(), count: self.rows }];
        Ok(Tallied { vectors, rows: self.rows, cells })
    }
}
