//! Statistics of latencies: percentiles of all requests of a kind of round together, and the ratio of two p99s with its interval.

use std::time::Duration;

/// Of each turn the latencies of one kind of round.
pub(crate) type Turns = Vec<Vec<Duration>>;

/// How often the turns are drawn anew for an interval.
const NR_DRAWS: usize = 1_000;

#[derive(Clone, Copy, Default)]
pub(crate) struct Latencies {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// A p99 in parts of another one, and between what it is in 95 of 100 draws of as many turns as there were, each drawn
/// any number of times: the bootstrap. Both are of the same turns in each draw, so what makes a turn slow for both is in neither.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Latencies {
    pub(crate) fn of(latencies: impl Iterator<Item = Duration>) -> Latencies {
        let mut all = latencies.collect::<Vec<_>>();
        Latencies { p50: percentile(&mut all, 50), p99: percentile(&mut all, 99) }
    }
}

impl Ratio {
    /// `None` without turns, or without latencies.
    pub(crate) fn of_p99s(of: &Turns, against: &Turns) -> Option<Ratio> {
        let nr_turns = of.len().min(against.len());
        let mut buffer = Vec::new();
        let mut ratio = |turns: &[usize]| {
            let mut p99 = |all: &Turns| {
                buffer.clear();
                turns.iter().for_each(|turn| buffer.extend_from_slice(&all[*turn]));
                percentile(&mut buffer, 99).as_secs_f64()
            };
            let (of, against) = (p99(of), p99(against));
            (against > 0.0).then(|| of / against)
        };
        let value = ratio(&(0..nr_turns).collect::<Vec<_>>())?;
        let mut random = Random(1);
        let mut drawn = (0..NR_DRAWS)
            .filter_map(|_| ratio(&(0..nr_turns).map(|_| random.below(nr_turns)).collect::<Vec<_>>()))
            .collect::<Vec<_>>();
        drawn.sort_unstable_by(f64::total_cmp);
        let last = drawn.len().checked_sub(1)?;
        Some(Ratio { value, low: drawn[last * 25 / 1_000], high: drawn[last * 975 / 1_000] })
    }
}

/// The nearest rank; 0 of nothing. Changes the order.
fn percentile(latencies: &mut [Duration], percent: usize) -> Duration {
    let Some(rank) = (latencies.len() * percent).div_ceil(100).checked_sub(1) else { return Duration::ZERO };
    *latencies.select_nth_unstable(rank).1
}

/// Marsaglia's xorshift: the same draws in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Latencies, Ratio, Turns};

    /// Turns of 1 to 200 µs, in each turn so many times as long.
    fn turns(factors: &[u64]) -> Turns {
        let turn = |factor: &u64| (1..=200).rev().map(|micros| Duration::from_micros(micros * factor)).collect();
        factors.iter().map(turn).collect()
    }

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let latencies = Latencies::of(turns(&[1]).concat().into_iter());
        assert_eq!((latencies.p50, latencies.p99), (Duration::from_micros(100), Duration::from_micros(198)));
        let one = Latencies::of([Duration::from_secs(7)].into_iter());
        assert_eq!((one.p50, one.p99), (Duration::from_secs(7), Duration::from_secs(7)));
        assert_eq!(Latencies::of(std::iter::empty()).p99, Duration::ZERO);
    }

    #[test]
    fn a_turn_that_is_slow_for_both_is_not_in_the_interval() {
        let ratio = Ratio::of_p99s(&turns(&[2, 2, 20, 2]), &turns(&[1, 1, 10, 1]));
        assert_eq!(ratio, Some(Ratio { value: 2.0, low: 2.0, high: 2.0 }));
    }

    #[test]
    fn a_turn_that_is_slow_for_one_is_in_the_interval() {
        let ratio = Ratio::of_p99s(&turns(&[1, 1, 1, 9]), &turns(&[1, 1, 1, 1])).unwrap();
        assert_eq!(ratio.low, 1.0, "of some draws it is no part");
        assert!(ratio.low < ratio.value && ratio.value <= ratio.high, "{ratio:?}");
        assert_eq!(ratio.high, 9.0);
    }

    #[test]
    fn there_is_no_ratio_without_latencies() {
        assert_eq!(Ratio::of_p99s(&Vec::new(), &Vec::new()), None);
        assert_eq!(Ratio::of_p99s(&turns(&[1]), &vec![Vec::new()]), None);
    }
}
