//! Axes: a range that ends on round numbers, and marks that people can read.

use std::ops::RangeInclusive;

/// About as many steps as an axis is parted into.
const STEPS: f64 = 5.0;
/// Values beyond this are drawn at the edge: differences of larger ones could overflow.
const LARGEST: f64 = 1e300;

/// A number on an axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    pub(super) value: f64,
    pub(super) label: String,
}

/// A range of numbers, with marks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// An axis of whole numbers from the first to the last.
    pub(super) fn whole(first: u32, last: u32) -> Self {
        let (low, high) = (f64::from(first), f64::from(last));
        if first == last {
            return Self { low: low - 0.5, high: high + 0.5, step: 1.0 };
        }
        Self { low, high, step: step_for(high - low).max(1.0) }
    }

    /// An axis that holds all values, widened to round numbers within the bounds; 0 to 1 if there are no values.
    pub(super) fn real(values: impl Iterator<Item = f64>, bounds: (f64, f64)) -> Self {
        let clamped = values.map(|value| value.clamp(-LARGEST, LARGEST));
        let (mut low, mut high) = super::range(clamped);
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        // A line that is flat to the eye gets room above and below, so that it lies in the middle.
        let size = low.abs().max(high.abs());
        if high - low <= size * 1e-9 {
            let room = if size > 0.0 { size * 0.05 } else { 0.05 };
            (low, high) = (low - room, high + room);
        }
        let step = step_for(high - low);
        let (floor, ceiling) = ((low / step).floor() * step, (high / step).ceil() * step);
        // Bounds that the values themselves break are not kept.
        let low = if low >= bounds.0 { floor.max(bounds.0) } else { floor };
        let high = if high <= bounds.1 { ceiling.min(bounds.1) } else { ceiling };
        Self { low, high, step }
    }

    /// Where a value lies between two places on the page.
    pub(super) fn place(&self, value: f64, from: f64, to: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        from + share * (to - from)
    }

    pub(super) fn ticks(&self) -> Vec<Tick> {
        let first = (self.low / self.step - 1e-6).ceil();
        let values = (0..64_u32).map(|index| (first + f64::from(index)) * self.step);
        let end = self.high + self.step * 1e-6;
        let label = self.labels();
        values.take_while(|value| *value <= end).map(|value| Tick { value, label: label(value) }).collect()
    }

    /// How numbers are written so that neighbouring marks differ.
    fn labels(&self) -> impl Fn(f64) -> String + use<> {
        const PLAIN: RangeInclusive<i32> = -5..=5;
        let (largest, step) = (decimal_exponent(self.low.abs().max(self.high.abs())), decimal_exponent(self.step));
        let is_plain = largest <= *PLAIN.end() && step >= *PLAIN.start();
        let decimals = usize::try_from(-step).unwrap_or(0);
        let digits = usize::try_from(largest - step).unwrap_or(0).min(17);
        move |value| {
            // Without this, -0 would be written as such.
            let value = if value == 0.0 { 0.0 } else { value };
            match is_plain {
                true => format!("{value:.decimals$}"),
                false if value == 0.0 => "0".to_owned(),
                false => format!("{value:.digits$e}"),
            }
        }
    }
}

/// The step of 1, 2 or 5 times a power of ten that parts a range into about [`STEPS`] steps (Heckbert 1990, "Nice numbers for
/// graph labels", Graphics Gems).
fn step_for(span: f64) -> f64 {
    let raw = span / STEPS;
    let power = power_of_ten(decimal_exponent(raw));
    let lead = raw / power;
    let nice =
        [(1.5, 1.0), (3.5, 2.0), (7.5, 5.0)].into_iter().find(|(bound, _)| lead < *bound).map_or(10.0, |(_, nice)| nice);
    nice * power
}

/// The exponent of a number in scientific notation; 0 for what has none.
fn decimal_exponent(value: f64) -> i32 {
    let written = format!("{value:e}");
    written.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0)
}

/// Ten to a power, rounded to nearest; smallest positive number instead of 0.
fn power_of_ten(exponent: i32) -> f64 {
    format!("1e{exponent}").parse().map_or(1.0, |power: f64| power.max(f64::MIN_POSITIVE))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|tick| tick.label).collect()
    }

    fn real(values: &[f64], bounds: (f64, f64)) -> Axis {
        Axis::real(values.iter().copied(), bounds)
    }

    const NONE: (f64, f64) = (f64::MIN, f64::MAX);

    #[test]
    fn marks_are_round_numbers() {
        assert_eq!(labels(&real(&[0.512, 0.934], (0.0, 1.0))), ["0.5", "0.6", "0.7", "0.8", "0.9", "1.0"]);
        assert_eq!(labels(&real(&[0.31, 0.69], NONE)), ["0.3", "0.4", "0.5", "0.6", "0.7"]);
        assert_eq!(
            labels(&real(&[-3.0, 12.0], NONE)),
            ["-4", "-2", "0", "2", "4", "6", "8", "10", "12"].map(String::from)[..].to_vec()
        );
        assert_eq!(labels(&real(&[0.0, 2.5e-7], NONE)), ["0", "5.0e-8", "1.0e-7", "1.5e-7", "2.0e-7", "2.5e-7"]);
        assert_eq!(labels(&Axis::whole(0, 20)), ["0", "5", "10", "15", "20"]);
        assert_eq!(labels(&Axis::whole(0, 3)), ["0", "1", "2", "3"]);
        assert_eq!(labels(&Axis::whole(7, 7)), ["7"]);
    }

    #[test]
    fn a_flat_line_lies_in_the_middle() {
        let axis = real(&[0.25, 0.25], NONE);
        assert!((axis.place(0.25, 0.0, 1.0) - 0.5).abs() < 0.1);
        assert_eq!(labels(&real(&[], NONE)).len(), 6);
    }

    #[test]
    fn bounds_hold_unless_the_values_break_them() {
        assert_eq!(labels(&real(&[0.98, 1.0], (0.0, 1.0))).last().unwrap(), "1.000");
        assert_eq!(labels(&real(&[-0.5, 1.4], (0.0, 1.0))), ["-0.5", "0.0", "0.5", "1.0", "1.5"]);
    }

    proptest! {
        #[test]
        fn any_values_have_an_axis(values in proptest::collection::vec(any::<f64>(), 0..5)) {
            let finite: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
            let axis = real(&finite, NONE);
            prop_assert!((1..=16).contains(&axis.ticks().len()), "{:?}", axis);
            for value in finite {
                let place = axis.place(value, 0.0, 100.0);
                prop_assert!((0.0..=100.0).contains(&place), "{:?} {}", axis, place);
            }
        }

        #[test]
        fn neighbouring_marks_differ(low in -1e6_f64..1e6, span in 1e-3_f64..1e7) {
            let labels = labels(&real(&[low, low + span], NONE));
            prop_assert!(labels.windows(2).all(|pair| pair[0] != pair[1]), "{:?}", labels);
        }

        #[test]
        fn whole_axes_have_whole_marks(first in any::<u32>(), span in 0_u32..5_000) {
            let axis = Axis::whole(first, first.saturating_add(span));
            prop_assert!((1..=16).contains(&axis.ticks().len()));
            prop_assert!(axis.ticks().iter().all(|tick| tick.value.fract() == 0.0));
        }
    }
}
