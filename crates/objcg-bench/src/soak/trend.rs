//! Whether a series of figures grows, or only goes to and fro.
//!
//! The growth is the Theil–Sen slope (the median of the slopes between all pairs of samples, which a few wild ones do not
//! move) times the time that the series covers. It is held against what a series without a trend would show by chance: the
//! residuals' spread `s` (1.4826 × their median absolute deviation) gives a slope times time of about `s × √(12 / n)`, where `n`
//! is the number of samples that are independent of each other: `nr_samples × (1 − r) / (1 + r)` with `r` the
//! correlation of neighbours. A few samples tell little of their own spread and correlation: `r` has the bias of a fitted line
//! taken out (Marriott and Pope's, about `(2 + 4r) / nr_samples`), and as many times `s × √(12 / n)` are let pass as Student's
//! distribution with `(n − 2) / 2` degrees of freedom exceeds once in [`ONCE_IN`]; half of them, for a median deviation knows
//! less than a standard deviation does. Growth below [`FLOOR`] of the median is let pass in any case.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::statistics::median;

/// A series without a trend is taken for one that grows about once in so many.
const ONCE_IN: f64 = 10_000.0;
/// Growth below this share of the median over the time of the series is none.
const FLOOR: f64 = 0.01;
/// The makers of median absolute deviations call it so: the ratio to the standard deviation of normal figures.
const MAD_TO_SIGMA: f64 = 1.4826;
/// With fewer samples nothing is said.
pub(crate) const MIN_SAMPLES: usize = 20;
/// More samples than this are put together, neighbours by their median: all pairs are looked at.
const MAX_SAMPLES: usize = 600;

/// What a series does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Trend {
    /// The value in the middle.
    pub(crate) median: f64,
    /// From the first sample to the last, by the slope.
    pub(crate) growth: f64,
    /// Growth up to this may be chance.
    pub(crate) allowed: f64,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    None,
    Grows,
    /// There are not enough samples to say.
    TooShort,
}

impl Trend {
    /// Of samples at equal distances.
    pub(crate) fn of(samples: &[f64]) -> Trend {
        let samples = thinned(samples);
        let nr_samples = samples.len() as f64;
        let (Some(middle), Some(slope)) = (median(&samples), slope(&samples)) else {
            return Trend { median: 0.0, growth: 0.0, allowed: 0.0, verdict: Verdict::TooShort };
        };
        let growth = slope * (nr_samples - 1.0);
        let residuals: Vec<f64> = samples.iter().enumerate().map(|(at, value)| value - slope * at as f64).collect();
        let level = median(&residuals).unwrap_or_default();
        let residuals: Vec<f64> = residuals.iter().map(|value| value - level).collect();
        let spread = median(&residuals.iter().map(|value| value.abs()).collect::<Vec<_>>()).unwrap_or_default();
        let correlation = correlation_of_neighbours(&residuals);
        let correlation = (correlation + (2.0 + 4.0 * correlation) / nr_samples).clamp(0.0, 0.95);
        let nr_independent = nr_samples * (1.0 - correlation) / (1.0 + correlation);
        let chance = MAD_TO_SIGMA * spread * (12.0 / nr_independent).sqrt();
        let allowed = (most_by_chance(nr_independent) * chance).max(FLOOR * middle.abs());
        let verdict = match growth > allowed {
            _ if samples.len() < MIN_SAMPLES => Verdict::TooShort,
            true => Verdict::Grows,
            false => Verdict::None,
        };
        Trend { median: middle, growth, allowed, verdict }
    }
}

/// How many standard errors a slope is off once in [`ONCE_IN`], as far as so many samples can tell what their error is.
fn most_by_chance(nr_independent: f64) -> f64 {
    let freedom = ((nr_independent - 2.0) / 2.0).max(1.0);
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::INFINITY, |chance| chance.inverse_cdf(1.0 - 1.0 / ONCE_IN))
}

/// The same series in at most [`MAX_SAMPLES`].
fn thinned(samples: &[f64]) -> Vec<f64> {
    let block = samples.len().div_ceil(MAX_SAMPLES).max(1);
    samples.chunks_exact(block).filter_map(median).collect()
}

/// The median of the slopes between all pairs; `None` with less than two.
fn slope(samples: &[f64]) -> Option<f64> {
    let slopes: Vec<f64> = samples
        .iter()
        .enumerate()
        .flat_map(|(at, first)| {
            samples[at + 1..].iter().enumerate().map(move |(behind, second)| (second - first) / (behind + 1) as f64)
        })
        .collect();
    median(&slopes)
}

fn correlation_of_neighbours(residuals: &[f64]) -> f64 {
    let variance: f64 = residuals.iter().map(|value| value * value).sum();
    let product: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
    if variance > 0.0 { product / variance } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::{MAX_SAMPLES, MIN_SAMPLES, Trend, Verdict};

    const NR_SEEDS: u64 = 12;

    /// Figures between -0.5 and 0.5 that look random.
    fn noise(seed: u64) -> impl Iterator<Item = f64> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        })
    }

    fn series(nr_samples: usize, value: impl Fn(f64, f64) -> f64, seed: u64) -> Vec<f64> {
        noise(seed).take(nr_samples).enumerate().map(|(at, noise)| value(at as f64, noise)).collect()
    }

    fn verdicts(nr_samples: usize, value: impl Fn(f64, f64) -> f64) -> Vec<Verdict> {
        (1..=NR_SEEDS).map(|seed| Trend::of(&series(nr_samples, &value, seed)).verdict).collect()
    }

    #[test]
    fn noise_is_no_trend() {
        assert_eq!(verdicts(240, |_, noise| 100.0 + 20.0 * noise), [Verdict::None; NR_SEEDS as usize]);
        assert_eq!(verdicts(60, |_, noise| 100.0 + 20.0 * noise), [Verdict::None; NR_SEEDS as usize]);
    }

    #[test]
    fn noise_of_which_neighbours_are_alike_is_no_trend() {
        for seed in 1..=NR_SEEDS {
            let mut level = 0.0;
            let wander: Vec<f64> = noise(seed)
                .take(240)
                .map(|step| {
                    level = 0.9 * level + step;
                    100.0 + 5.0 * level
                })
                .collect();
            assert_eq!(Trend::of(&wander).verdict, Verdict::None, "seed {seed}");
        }
    }

    #[test]
    fn short_series_are_not_taken_for_growing() {
        // As long as the second half of 2 minutes, and as alike as what a server holds from one second to the next.
        for alike in [0.0, 0.5, 0.8] {
            let grows = |seed: u64| {
                let mut level = 0.0;
                let wander = noise(1 + 7919 * seed).map(|step| {
                    level = alike * level + step;
                    100.0 + 5.0 * level
                });
                Trend::of(&wander.skip(50).take(60).collect::<Vec<_>>()).verdict == Verdict::Grows
            };
            let nr_alarms = (0u64..4000).filter(|seed| grows(*seed)).count();
            assert!(nr_alarms <= 2, "{nr_alarms} of 4000 series that only wander, neighbours alike by {alike}");
        }
    }

    #[test]
    fn a_leak_under_noise_is_found() {
        // Over four minutes 29 % more, under noise of 20 % up and down.
        assert_eq!(verdicts(240, |at, noise| 100.0 + 0.12 * at + 40.0 * noise), [Verdict::Grows; NR_SEEDS as usize]);
        assert_eq!(verdicts(60, |at, noise| 100.0 + 0.8 * at + 40.0 * noise), [Verdict::Grows; NR_SEEDS as usize]);
    }

    #[test]
    fn steps_that_are_never_taken_back_are_a_trend() {
        assert_eq!(
            verdicts(240, |at, noise| 100.0 + (at / 40.0).floor() * 4.0 + 4.0 * noise),
            [Verdict::Grows; NR_SEEDS as usize]
        );
    }

    #[test]
    fn without_noise_the_floor_decides() {
        let line = |growth: f64| (0..101).map(|at| 1000.0 + growth * f64::from(at) / 100.0).collect::<Vec<_>>();
        assert_eq!(Trend::of(&line(9.0)).verdict, Verdict::None);
        let trend = Trend::of(&line(11.0));
        assert_eq!(trend.verdict, Verdict::Grows);
        assert!((trend.growth - 11.0).abs() < 1e-9, "{trend:?}");
    }

    #[test]
    fn what_falls_is_no_leak_and_wild_samples_move_nothing() {
        assert_eq!(verdicts(240, |at, noise| 100.0 - 0.02 * at + noise), [Verdict::None; NR_SEEDS as usize]);
        let spikes = |at: f64, noise: f64| 100.0 + noise + if at % 10.0 == 9.0 { 10.0 * at } else { 0.0 };
        assert_eq!(verdicts(240, spikes), [Verdict::None; NR_SEEDS as usize]);
    }

    #[test]
    fn short_and_long_series() {
        let short = series(MIN_SAMPLES - 1, |at, _| at, 1);
        assert_eq!(Trend::of(&short).verdict, Verdict::TooShort);
        assert_eq!(Trend::of(&[]).verdict, Verdict::TooShort);
        assert_eq!(Trend::of(&[1.0]).verdict, Verdict::TooShort);
        // A day's worth.
        let long = series(144 * MAX_SAMPLES, |at, noise| 100.0 + at / 10_000.0 + noise, 1);
        assert_eq!(Trend::of(&long).verdict, Verdict::Grows);
    }
}
