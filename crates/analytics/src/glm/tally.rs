//! What a node adds up for a generalised linear model.

use protocol::statistic::Errors;
use protocol::{GlmFamily, Pass, Response};

use super::{At, ERRORS, FIXED_MOMENTS, Glm, HEADROOM_BITS};
use crate::analysis::{AnalysisError, Batch, Cell, CellKind, Tallied, Tally, same_pass};
use crate::design::{Frame, chunks, complete, levels, numbers};
use crate::fit::fitting;
use crate::linear::{Symmetric, dot, dot3};
use crate::sum::Sum;
use crate::survey::{Scales, vector};

/// Some complete rows.
struct Rows {
    /// In the batch.
    positions: Vec<usize>,
    response: Vec<f64>,
    weights: Vec<f64>,
    offsets: Vec<f64>,
    /// z of each unknown, 1 for the intercept.
    columns: Vec<Vec<f64>>,
}

impl Glm {
    /// The complete rows of a range whose weight is not 0.
    fn rows(&self, batch: &Batch, range: std::ops::Range<usize>, frame: &Frame) -> Rows {
        let mut rows = complete(batch, range);
        if let Some(weights) = self.weights {
            let values = numbers(batch, weights, &rows);
            let mut values = values.iter();
            rows.retain(|_| values.next().is_none_or(|weight| *weight != 0.0));
        }
        let mut offsets = vec![0.0; rows.len()];
        for offset in &self.offsets {
            for (sum, value) in offsets.iter_mut().zip(numbers(batch, *offset, &rows)) {
                *sum += value;
            }
        }
        let mut columns = self.design.columns(batch, &rows, frame);
        if self.has_intercept() {
            columns.insert(0, vec![1.0; rows.len()]);
        }
        Rows {
            response: numbers(batch, self.response, &rows),
            weights: self.weights.map_or_else(|| vec![1.0; rows.len()], |weights| numbers(batch, weights, &rows)),
            offsets,
            columns,
            positions: rows,
        }
    }

    fn cells(&self, rows: u64, ones: Option<u64>) -> Vec<Cell> {
        let mut cells = vec![Cell { kind: CellKind::Rows, of: "complete rows".to_owned(), count: rows }];
        if let (GlmFamily::Binomial, Some(ones)) = (self.plan.family, ones) {
            let Response::Value(response) = self.plan.formula.response() else { return cells };
            let of = |value: u32| format!("{response} = {value}");
            cells.push(Cell { kind: CellKind::Events, of: of(1), count: ones });
            cells.push(Cell { kind: CellKind::Events, of: of(0), count: rows.saturating_sub(ones) });
        }
        cells
    }
}

pub(super) struct MomentsTally {
    glm: Glm,
    /// What brings x of each column below 1, and the bits of the response, the weights and the offsets.
    frame: Frame,
    response_unit: f64,
    weight_unit: f64,
    offset_unit: f64,
    /// Rows, responses of 1, responses of 0 or 1, responses or weights that cannot be.
    counts: [u64; 4],
    sums: Vec<Sum>,
}

impl MomentsTally {
    pub(super) fn new(glm: &Glm, scales: &Scales) -> Self {
        let unit = |bits: i32| f64::from(-bits).exp2();
        Self {
            frame: Frame { center: vec![0.0; glm.design.len()], bits: glm.column_bits(scales) },
            response_unit: unit(glm.input_bits(scales, glm.response)),
            weight_unit: unit(glm.weight_bits(scales)),
            offset_unit: unit(glm.offset_bits(scales)),
            counts: [0; 4],
            sums: vec![Sum::default(); FIXED_MOMENTS + 2 * glm.design.len()],
            glm: glm.clone(),
        }
    }
}

impl Tally for MomentsTally {
    fn add(&mut self, batch: &Batch) {
        let is_gaussian = self.glm.plan.family == GlmFamily::Gaussian;
        for range in chunks(batch) {
            let rows = self.glm.rows(batch, range, &self.frame);
            for ((y, weight), offset) in rows.response.iter().zip(&rows.weights).zip(&rows.offsets) {
                self.counts[0] += 1;
                self.counts[1] += u64::from(*y == 1.0);
                self.counts[2] += u64::from(*y == 0.0 || *y == 1.0);
                if !self.glm.model.allows(*y) || *weight < 0.0 {
                    self.counts[3] += 1;
                    continue;
                }
                let (w, y_scaled) = (weight * self.weight_unit, y * self.response_unit);
                self.sums[0].add(w);
                self.sums[1].add(w * y_scaled);
                self.sums[2].add(w * y_scaled * y_scaled);
                self.sums[3].add(self.glm.model.saturated(*y, *weight) * if is_gaussian { 1.0 } else { self.weight_unit });
                self.sums[4].add(offset * self.offset_unit);
            }
            let columns = &rows.columns[usize::from(self.glm.has_intercept())..];
            for (sums, column) in self.sums[FIXED_MOMENTS..].chunks_mut(2).zip(columns) {
                sums[0].add_all(column, |z| z);
                sums[1].add_all(column, |z| z * z);
            }
        }
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        let other = same_pass::<Self>(other);
        for (count, theirs) in self.counts.iter_mut().zip(other.counts) {
            *count += theirs;
        }
        for (sum, theirs) in self.sums.iter_mut().zip(other.sums) {
            sum.merge(theirs);
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        let counts = self.counts.iter().map(|count| *count as f64).collect();
        let sums = self.sums.iter().map(|sum| sum.value()).collect();
        Ok(Tallied {
            vectors: vec![vector("counts", counts), vector("sums", sums)],
            rows: self.counts[0],
            cells: self.glm.cells(self.counts[0], Some(self.counts[1])),
        })
    }
}

pub(super) struct NewtonTally {
    glm: Glm,
    at: At,
    /// Sums are below two to this power.
    limit_bits: i32,
    rows: u64,
    /// Deviance, Pearson's statistic, score, information.
    sums: Vec<Sum>,
}

impl NewtonTally {
    pub(super) fn new(glm: &Glm, scales: &Scales, at: At) -> Self {
        let k = glm.unknowns();
        Self {
            limit_bits: HEADROOM_BITS + scales.row_bits(),
            rows: 0,
            sums: vec![Sum::default(); 2 + k + Symmetric::packed_len(k)],
            at,
            glm: glm.clone(),
        }
    }
}

/// η = offset + Σ coefficient · z.
fn predictor(at: &[f64], rows: &Rows) -> Vec<f64> {
    let mut eta = rows.offsets.clone();
    for (coefficient, column) in at.iter().zip(&rows.columns) {
        for (eta, z) in eta.iter_mut().zip(column) {
            *eta += coefficient * z;
        }
    }
    eta
}

impl Tally for NewtonTally {
    fn add(&mut self, batch: &Batch) {
        let model = self.glm.model;
        for range in chunks(batch) {
            let rows = self.glm.rows(batch, range, &self.at.frame);
            self.rows += rows.positions.len() as u64;
            let eta = predictor(&self.at.coefficients, &rows);
            let (mut deviance, mut pearson) = (Vec::with_capacity(eta.len()), Vec::with_capacity(eta.len()));
            let (mut residuals, mut weights) = (Vec::with_capacity(eta.len()), Vec::with_capacity(eta.len()));
            for ((y, weight), eta) in rows.response.iter().zip(&rows.weights).zip(&eta) {
                let terms = model.row(*y, *eta);
                deviance.push(weight * terms.deviance);
                pearson.push(weight * terms.pearson);
                residuals.push(weight * terms.residual);
                weights.push(weight * terms.weight);
            }
            let (fixed, rest) = self.sums.split_at_mut(2);
            fixed[0].add_all(&deviance, |value| value);
            fixed[1].add_all(&pearson, |value| value);
            let (score, information) = rest.split_at_mut(rows.columns.len());
            for (sum, column) in score.iter_mut().zip(&rows.columns) {
                sum.add(dot(&residuals, column));
            }
            let mut information = information.iter_mut();
            for (j, first) in rows.columns.iter().enumerate() {
                for second in &rows.columns[j..] {
                    if let Some(sum) = information.next() {
                        sum.add(dot3(&weights, first, second));
                    }
                }
            }
        }
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        let other = same_pass::<Self>(other);
        self.rows += other.rows;
        for (sum, theirs) in self.sums.iter_mut().zip(other.sums) {
            sum.merge(theirs);
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        let k = self.glm.unknowns();
        let units = self.at.units;
        let scaled = |(index, sum): (usize, &Sum)| {
            let bits = match index {
                0 | 1 => units.deviance,
                _ if index < 2 + k => units.score,
                _ => units.information,
            };
            sum.value() * f64::from(-bits).exp2()
        };
        let (sums, fits) = fitting(self.sums.iter().enumerate().map(scaled).collect(), self.limit_bits);
        Ok(Tallied {
            vectors: vec![vector("counts", vec![self.rows as f64, f64::from(u8::from(!fits))]), vector("sums", sums)],
            rows: self.rows,
            cells: self.glm.cells(self.rows, None),
        })
    }
}

/// What a node adds up for robust errors.
pub(super) struct ErrorsTally {
    glm: Glm,
    at: At,
    /// (Σ weight z zᵀ)⁻¹.
    inverse: Symmetric,
    limit_bits: i32,
    rows: u64,
    /// Rows of each cluster, if there are clusters of a column.
    cluster_rows: Vec<u64>,
    /// The meat, the score of each cluster, or the site's own score.
    sums: Vec<Sum>,
}

impl ErrorsTally {
    pub(super) fn boxed(glm: &Glm, pass: &Pass) -> Result<Box<dyn Tally>, AnalysisError> {
        let wrong = || AnalysisError::Pass(ERRORS.to_owned());
        let k = glm.unknowns();
        let inverse = pass.get("inverse").filter(|inverse| inverse.len() == Symmetric::packed_len(k)).ok_or_else(wrong)?;
        let scales = glm.scales(pass)?;
        let clusters = glm.cluster.as_ref().map_or(0, |(_, category)| category.levels().len());
        let (sums, more_bits) = match glm.plan.errors {
            Errors::ClusterBy(_) => (clusters * k, 0),
            Errors::ClusterBySite => (k, scales.row_bits()),
            _ => (Symmetric::packed_len(k), 0),
        };
        Ok(Box::new(Self {
            at: glm.at(pass)?,
            inverse: Symmetric::from_packed(k, inverse),
            limit_bits: HEADROOM_BITS + scales.row_bits() + more_bits,
            rows: 0,
            cluster_rows: vec![0; clusters],
            sums: vec![Sum::default(); sums],
            glm: glm.clone(),
        }))
    }

    /// What the square of a row's score is multiplied by (MacKinnon and White 1985), for its leverage h.
    fn factor(&self, leverage: f64) -> f64 {
        match self.glm.plan.errors {
            Errors::Hc2 => 1.0 / (1.0 - leverage),
            Errors::Hc3 => 1.0 / ((1.0 - leverage) * (1.0 - leverage)),
            _ => 1.0,
        }
    }
}

impl Tally for ErrorsTally {
    fn add(&mut self, batch: &Batch) {
        let k = self.glm.unknowns();
        for range in chunks(batch) {
            let rows = self.glm.rows(batch, range, &self.at.frame);
            self.rows += rows.positions.len() as u64;
            let eta = predictor(&self.at.coefficients, &rows);
            let clusters = self.glm.cluster.as_ref().map(|(input, _)| levels(batch, *input, &rows.positions));
            let mut row = vec![0.0; k];
            let mut squares = Vec::with_capacity(eta.len());
            for (index, eta) in eta.iter().enumerate() {
                let terms = self.glm.model.row(rows.response[index], *eta);
                let weight = rows.weights[index];
                for (value, column) in row.iter_mut().zip(&rows.columns) {
                    *value = column[index];
                }
                let residual = weight * terms.residual;
                match (&self.glm.plan.errors, &clusters) {
                    (Errors::ClusterBy(_), Some(clusters)) => {
                        let cluster = clusters[index];
                        self.cluster_rows[cluster] += 1;
                        for (sum, value) in self.sums[cluster * k..(cluster + 1) * k].iter_mut().zip(&row) {
                            sum.add(residual * value);
                        }
                    }
                    (Errors::ClusterBySite, _) => {
                        for (sum, value) in self.sums.iter_mut().zip(&row) {
                            sum.add(residual * value);
                        }
                    }
                    _ => {
                        let leverage = weight * terms.weight * dot(&row, &self.inverse.times(&row));
                        squares.push(residual * residual * self.factor(leverage));
                    }
                }
            }
            if !squares.is_empty() {
                let mut sums = self.sums.iter_mut();
                for (j, first) in rows.columns.iter().enumerate() {
                    for second in &rows.columns[j..] {
                        if let Some(sum) = sums.next() {
                            sum.add(dot3(&squares, first, second));
                        }
                    }
                }
            }
        }
    }

    fn merge(&mut self, other: Box<dyn Tally>) {
        let other = same_pass::<Self>(other);
        self.rows += other.rows;
        for (rows, theirs) in self.cluster_rows.iter_mut().zip(other.cluster_rows) {
            *rows += theirs;
        }
        for (sum, theirs) in self.sums.iter_mut().zip(other.sums) {
            sum.merge(theirs);
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }

    fn finish(self: Box<Self>) -> Result<Tallied, AnalysisError> {
        let unit = f64::from(-self.at.units.score).exp2();
        let values: Vec<f64> = self.sums.iter().map(|sum| sum.value()).collect();
        let values = match self.glm.plan.errors {
            Errors::ClusterBy(_) => values.iter().map(|value| value * unit).collect(),
            Errors::ClusterBySite => {
                let mut outer = Symmetric::zeros(values.len());
                outer.add_outer(&values, unit * unit);
                outer.packed()
            }
            _ => values.iter().map(|value| value * unit * unit).collect(),
        };
        let (values, fits) = fitting(values, self.limit_bits);
        let mut cells = self.glm.cells(self.rows, None);
        if let Some((_, category)) = &self.glm.cluster {
            cells.extend(category.levels().iter().zip(&self.cluster_rows).map(|(level, count)| Cell {
                kind: CellKind::Rows,
                of: format!("{} = {level}", category.column()),
                count: *count,
            }));
        }
        // Clusters of sites are nodes that have rows.
        let counts = vec![self.rows as f64, f64::from(u8::from(!fits)), f64::from(u8::from(self.rows > 0))];
        Ok(Tallied { vectors: vec![vector("counts", counts), vector("sums", values)], rows: self.rows, cells })
    }
}
