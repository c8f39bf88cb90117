//! Samples of durations, their statistics, and how figures are printed.

use std::time::{Duration, Instant};

use serde::Serialize;

/// Durations of one repeated operation.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<Duration>);

/// Summary of samples. Units are part of the names.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Summary {
    /// Number of samples.
    pub samples: usize,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
}

impl Samples {
    /// Measures `job` for `times` times.
    ///
    /// # Errors
    /// The first error of `job`.
    pub fn take<E>(times: usize, mut job: impl FnMut() -> Result<(), E>) -> Result<Self, E> {
        let mut samples = Vec::with_capacity(times);
        for _ in 0..times {
            let begun = Instant::now();
            job()?;
            samples.push(begun.elapsed());
        }
        Ok(Self(samples))
    }

    /// Adds a sample.
    pub fn push(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// Adds the samples of another round.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns the quantile `part` in microseconds, or 0 without samples.
    pub fn quantile(&self, part: f64) -> f64 {
        let micros: Vec<_> = self.0.iter().map(|duration| duration.as_secs_f64() * 1e6).collect();
        quantile(&micros, part)
    }

    /// Returns the median in microseconds.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Summarises the samples.
    pub fn summary(&self) -> Summary {
        Summary { samples: self.0.len(), p50_us: self.median(), p99_us: self.quantile(0.99) }
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        Self(durations.into_iter().collect())
    }
}

/// Returns the quantile `part` of figures, or 0 if there are none.
fn quantile(figures: &[f64], part: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Returns the median of figures, or 0 if there are none.
pub fn median(figures: &[f64]) -> f64 {
    quantile(figures, 0.5)
}

/// Returns the first and third quartile of figures.
pub fn quartiles(figures: &[f64]) -> (f64, f64) {
    (quantile(figures, 0.25), quantile(figures, 0.75))
}

/// Returns the smallest and the largest figure.
pub fn range(figures: &[f64]) -> (f64, f64) {
    let fold = |pick: fn(f64, f64) -> f64| figures.iter().copied().reduce(pick).unwrap_or_default();
    (fold(f64::min), fold(f64::max))
}

/// Returns the largest difference of two numbers at the same place. It is infinite for a NaN, and
/// for lists of different lengths.
pub fn difference_max(expected: &[f32], found: &[f32]) -> f32 {
    let distance = |(a, b): (&f32, &f32)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() };
    let pairs = expected.iter().zip(found);
    if expected.len() == found.len() { pairs.map(distance).fold(0.0, f32::max) } else { f32::INFINITY }
}

/// Ratio of two contestants that took turns in each round.
///
/// Noise of the machine affects all contestants of a round, so the ratio is computed for each
/// round.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Ratio {
    /// Median of the ratios of all rounds.
    pub ratio: f64,
    /// Quartiles of these ratios.
    pub ratio_quartiles: (f64, f64),
}

impl Ratio {
    /// Divides `figures` by `unit`, round by round.
    pub fn of(figures: &[f64], unit: &[f64]) -> Self {
        let quotients: Vec<_> = figures.iter().zip(unit).map(|(figure, unit)| figure / unit).collect();
        Self { ratio: median(&quotients), ratio_quartiles: quartiles(&quotients) }
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (low, high) = self.ratio_quartiles;
        write!(f, "{:.2}x {low:.2}..{high:.2}", self.ratio)
    }
}

/// Formats microseconds with a suitable unit.
pub fn time(micros: f64) -> String {
    match micros {
        m if m < 1.0 => format!("{:.0} ns", m * 1e3),
        m if m < 100.0 => format!("{m:.1} µs"),
        m if m < 1000.0 => format!("{m:.0} µs"),
        m if m < 1e5 => format!("{:.2} ms", m / 1e3),
        m => format!("{:.0} ms", m / 1e3),
    }
}

/// Converts bytes to MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Ratio, Samples, difference_max, median, mib, quartiles, range, time};

    #[test]
    fn quantiles_are_samples() {
        let samples = Samples((1..=100).rev().map(Duration::from_micros).collect());
        let summary = samples.summary();
        assert_eq!((summary.samples, summary.p50_us.round(), summary.p99_us.round()), (100, 50.0, 99.0));
        assert_eq!(Samples::default().median(), 0.0);
        assert_eq!((median(&[3.0, 1.0, 2.0]), range(&[3.0, 1.0, 2.0])), (2.0, (1.0, 3.0)));
        assert_eq!(quartiles(&[4.0, 1.0, 3.0, 2.0]), (1.0, 3.0));
    }

    #[test]
    fn nan_is_an_infinite_difference() {
        assert_eq!(difference_max(&[1.0, 2.0], &[1.5, 2.25]), 0.5);
        assert_eq!(difference_max(&[1.0], &[f32::NAN]), f32::INFINITY);
        assert_eq!(difference_max(&[1.0], &[1.0, 1.0]), f32::INFINITY);
        assert_eq!(difference_max(&[], &[]), 0.0);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let ratio = Ratio::of(&[2.0, 20.0, 300.0], &[1.0, 10.0, 100.0]);
        assert_eq!((ratio.ratio, ratio.ratio_quartiles), (2.0, (2.0, 3.0)));
        assert_eq!(ratio.to_string(), "2.00x 2.00..3.00");
    }

    #[test]
    fn units_fit_the_figures() {
        assert_eq!([time(0.25), time(12.34), time(456.7), time(4567.0)], ["250 ns", "12.3 µs", "457 µs", "4.57 ms"]);
        assert_eq!([mib(0), mib(3 << 19)], [0.0, 1.5]);
    }
}
