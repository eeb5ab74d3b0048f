//! Statistics of latencies: percentiles of all requests of a kind of round together, and how the p99s of two kinds
//! compare.

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

/// The p99 of a round in parts of that of another round in the same turn: the median of all turns, and between what the median is
/// in 95 of 100 draws of as many turns as there were, each drawn any number of times (the bootstrap). What makes a whole turn
/// slow is in neither; nor is a pause of the machine in some round, of which there are always some, and which may be all that a
/// percentile of all rounds together shows.
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
    /// `None` without turns that have latencies.
    pub(crate) fn of_p99s(of: &Turns, against: &Turns) -> Option<Ratio> {
        let ratio_of = |(of, against): (&Vec<Duration>, &Vec<Duration>)| {
            let p99 = |round: &Vec<Duration>| percentile(&mut round.clone(), 99).as_nanos() as f64;
            (p99(against) > 0.0).then(|| p99(of) / p99(against))
        };
        let mut ratios = of.iter().zip(against).filter_map(ratio_of).collect::<Vec<_>>();
        let value = median(&mut ratios)?;
        let mut random = fastrand::Rng::with_seed(1);
        let mut draw = |_| {
            let mut drawn = ratios.iter().map(|_| ratios[random.usize(..ratios.len())]).collect::<Vec<_>>();
            median(&mut drawn)
        };
        let mut medians = (0..NR_DRAWS).filter_map(&mut draw).collect::<Vec<_>>();
        medians.sort_unstable_by(f64::total_cmp);
        let last = medians.len() - 1;
        Some(Ratio { value, low: medians[last * 25 / 1_000], high: medians[last * 975 / 1_000] })
    }
}

/// The value in the middle, or between the two in the middle; `None` of nothing.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let (upper, lower) = (values.get(values.len() / 2)?, values.get(values.len().checked_sub(1)? / 2)?);
    Some(f64::midpoint(*lower, *upper))
}

/// The nearest rank; 0 of nothing. Changes the order.
fn percentile(latencies: &mut [Duration], percent: usize) -> Duration {
    let Some(rank) = (latencies.len() * percent).div_ceil(100).checked_sub(1) else { return Duration::ZERO };
    *latencies.select_nth_unstable(rank).1
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
    fn the_interval_holds_what_the_turns_say() {
        let ratio = Ratio::of_p99s(&turns(&[4, 6, 6, 9, 100]), &turns(&[1, 2, 1, 1, 1])).unwrap();
        assert_eq!(ratio.value, 6.0, "the median of 4, 3, 6, 9 and 100");
        assert_eq!((ratio.low, ratio.high), (3.0, 100.0), "five turns say little");
        let surer = Ratio::of_p99s(&turns(&[4, 6, 6, 9, 100].repeat(20)), &turns(&[1, 2, 1, 1, 1].repeat(20))).unwrap();
        assert!(surer.low >= 4.0 && surer.high <= 9.0, "{surer:?}");
        let even = Ratio::of_p99s(&turns(&[2, 4]), &turns(&[1, 1])).unwrap();
        assert_eq!(even.value, 3.0);
    }

    #[test]
    fn there_is_no_ratio_without_latencies() {
        assert_eq!(Ratio::of_p99s(&Vec::new(), &Vec::new()), None);
        assert_eq!(Ratio::of_p99s(&turns(&[1]), &vec![Vec::new()]), None);
    }
}
