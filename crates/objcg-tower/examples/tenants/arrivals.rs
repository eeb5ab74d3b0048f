//! When the requests of a good client are due.

use std::time::{Duration, Instant};

use fastrand::Rng;

/// How far apart requests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrivals {
    /// As those of many who know nothing of each other: the time to the next one is exponential, so that requests meet by chance.
    Random,
    /// All the same: good requests meet only if one takes longer than it is to the next.
    Even,
}

impl Arrivals {
    pub(crate) fn of_name(name: &str) -> Option<Arrivals> {
        [Arrivals::Random, Arrivals::Even].into_iter().find(|arrivals| arrivals.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Arrivals::Random => "random",
            Arrivals::Even => "even",
        }
    }

    /// The times from `start` to `end` that are `interval` apart on the mean. One seed gives the same times again; clients of
    /// different `share`s of an interval, from 0 to 1, do not all begin at once.
    pub(crate) fn times(
        self,
        start: Instant,
        end: Instant,
        interval: Duration,
        seed: u64,
        share: f64,
    ) -> impl Iterator<Item = Instant> {
        let mut random = Rng::with_seed(seed);
        let mut to_next = move || match self {
            // 1 - f64 is above 0, so its logarithm is finite.
            Arrivals::Random => interval.mul_f64(-(1.0 - random.f64()).ln()),
            Arrivals::Even => interval,
        };
        let first = match self {
            Arrivals::Random => start + to_next(),
            Arrivals::Even => start + interval.mul_f64(share),
        };
        std::iter::successors(Some(first), move |last| Some(*last + to_next())).take_while(move |due| *due < end)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Arrivals;

    const INTERVAL: Duration = Duration::from_millis(2);

    fn times(arrivals: Arrivals, seed: u64) -> Vec<Duration> {
        let start = Instant::now();
        let times = arrivals.times(start, start + Duration::from_secs(20), INTERVAL, seed, 0.5);
        times.map(|due| due - start).collect()
    }

    #[test]
    fn even_ones_are_an_interval_apart() {
        let times = times(Arrivals::Even, 1);
        assert_eq!(times.len(), 10_000);
        assert_eq!(times[0], INTERVAL / 2);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == INTERVAL));
    }

    #[test]
    fn random_ones_are_an_interval_apart_on_the_mean_and_as_far_from_it() {
        let times = times(Arrivals::Random, 1);
        let gaps = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect::<Vec<_>>();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Of 10,000: five standard errors.
        let wanted = INTERVAL.as_secs_f64();
        assert!((mean / wanted - 1.0).abs() < 0.05, "{mean}");
        assert!((variance.sqrt() / wanted - 1.0).abs() < 0.1, "{variance}");
    }

    #[test]
    fn a_seed_gives_the_same_again_and_another_seed_others() {
        assert_eq!(times(Arrivals::Random, 7), times(Arrivals::Random, 7));
        assert_ne!(times(Arrivals::Random, 7), times(Arrivals::Random, 8));
    }
}
