//! The load: good requests at one rate, in rounds of each kind in turn: with nobody bad, and with some of the bad tenants.
//!
//! Each client is a thread that blocks, so that what it takes of the CPUs is little, and the same in every round. A good request has
//! a time at which it is due ([`crate::arrivals`]), whatever became of those before, and the same in all rounds of a turn. It counts from when it is sent; where its connection waits for
//! an answer at that time, from when it was due: a server that stands still is not asked less, and what a client's own
//! thread oversleeps is not the server's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::AnyError;
use crate::arrivals::Arrivals;
use crate::client::{Client, Epoch};

/// Connections of good clients. So many that a request seldom waits for the one before it on its connection, with what the client's own
/// thread oversleeps.
const NR_CONNECTIONS: u32 = 192;
/// Values that a good tenant asks for: about half of them fit its cache.
const NR_KEYS: u64 = 256;
/// Between the start of a round's clients and the first request, and after the last one.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two requests of a bad tenant.
const RETRY: Duration = Duration::from_millis(1);

/// What the bad tenants do, in the order of their numbers; the good ones come after them. The last one is bad to nobody: it does the work
/// of the one that leaks, and keeps nothing, so that there is something to compare with.
pub(crate) const BAD: [&str; 4] = ["leak", "huge", "spawn", "busy"];

/// A kind of round: which of the bad tenants do what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) bad: &'static [usize],
}

pub(crate) const NONE: Kind = Kind { name: "none", bad: &[] };
pub(crate) const LEAK: Kind = Kind { name: "leak", bad: &[0] };
pub(crate) const BUSY: Kind = Kind { name: "busy", bad: &[3] };
pub(crate) const ALL: Kind = Kind { name: "all", bad: &[0, 1, 2] };
/// What `--bad` can say.
pub(crate) const KINDS: [Kind; 5] =
    [LEAK, Kind { name: "huge", bad: &[1] }, Kind { name: "spawn", bad: &[2] }, BUSY, ALL];

pub(crate) struct Plan {
    pub(crate) nr_tenants: usize,
    /// Kinds of rounds; the first is what the others are compared with.
    pub(crate) kinds: Vec<Kind>,
    /// Turns of one round of each kind.
    pub(crate) nr_turns: usize,
    pub(crate) round: Duration,
    /// Of the good requests, and how far they are apart on a connection, on the mean.
    pub(crate) arrivals: Arrivals,
    pub(crate) interval: Duration,
}

/// How many answers there were of each status.
pub(crate) type Answers = BTreeMap<u16, u64>;

/// A good request that was answered.
pub(crate) struct Answer {
    pub(crate) tenant: usize,
    pub(crate) status: u16,
    /// Until the server had made the answer.
    pub(crate) served: Duration,
    /// Until the client had read it.
    pub(crate) read: Duration,
}

/// What the good tenants were answered in each round of a kind, turn by turn.
pub(crate) type Rounds = Vec<Vec<Answer>>;

pub(crate) struct Outcome {
    /// Of each kind of the plan.
    pub(crate) rounds: Vec<Rounds>,
    /// What the process took of the CPUs, and how long, in all rounds of each kind.
    pub(crate) used: Vec<Used>,
    /// Of each bad tenant.
    pub(crate) bad: [Answers; BAD.len()],
}

/// CPU time of the whole process in a time.
#[derive(Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) cpu: Duration,
    pub(crate) time: Duration,
}

struct Load<'a> {
    plan: &'a Plan,
    address: SocketAddr,
    epoch: Epoch,
    nr_asked: AtomicU64,
    /// Whether the bad clients of the round are to end.
    is_over: AtomicBool,
    /// Of the times of the good requests.
    seed: u64,
}

/// Runs the whole plan, and tells `progress` of each round. Blocks.
pub(crate) fn run(
    plan: &Plan,
    address: SocketAddr,
    epoch: Epoch,
    mut progress: impl FnMut(usize),
) -> Result<Outcome, AnyError> {
    let (nr_asked, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let load = Load { plan, address, epoch, nr_asked, is_over, seed: fastrand::u64(..) };
    let mut outcome = Outcome {
        rounds: plan.kinds.iter().map(|_| Rounds::new()).collect(),
        used: vec![Used::default(); plan.kinds.len()],
        bad: Default::default(),
    };
    // Fills the caches.
    load.round(NONE, 0, &mut outcome.bad)?;
    let nr_kinds = plan.kinds.len();
    for number in 0..plan.nr_turns * nr_kinds {
        progress(number);
        let turn = number / nr_kinds;
        let kind = kind_of(number, nr_kinds);
        let (cpu, start) = (cpu_time()?, Instant::now());
        let answers = load.round(plan.kinds[kind], turn, &mut outcome.bad)?;
        outcome.used[kind].cpu += cpu_time()? - cpu;
        outcome.used[kind].time += start.elapsed();
        outcome.rounds[kind].push(answers);
    }
    Ok(outcome)
}

impl Load<'_> {
    fn round(&self, kind: Kind, turn: usize, bad: &mut [Answers; BAD.len()]) -> Result<Vec<Answer>, AnyError> {
        self.is_over.store(false, Ordering::Relaxed);
        let start = Instant::now() + PAUSE;
        thread::scope(|scope| {
            let good = (0..NR_CONNECTIONS).map(|number| {
                let nth = turn as u64 * u64::from(NR_CONNECTIONS) + u64::from(number);
                let seed = self.seed.wrapping_add(nth);
                let share = f64::from(number) / f64::from(NR_CONNECTIONS);
                let times = self.plan.arrivals.times(start, start + self.plan.round, self.plan.interval, seed, share);
                scope.spawn(move || self.good_client(times))
            });
            let good = good.collect::<Vec<_>>();
            let others = kind.bad.iter().map(|number| (*number, scope.spawn(|| self.bad_client(*number, start))));
            let others = others.collect::<Vec<_>>();
            let answers = good.into_iter().map(|client| client.join().map_err(|_| "a client panicked")?);
            let answers = answers.collect::<Result<Vec<_>, AnyError>>();
            // Whatever happened: they would go on.
            self.is_over.store(true, Ordering::Relaxed);
            for (number, client) in others {
                for (status, nr_answers) in client.join().map_err(|_| "a client panicked")?? {
                    *bad[number].entry(status).or_default() += nr_answers;
                }
            }
            sleep_until(Instant::now() + PAUSE);
            Ok(answers?.into_iter().flatten().collect())
        })
    }

    /// Asks for values of one good tenant after the other, on one connection.
    fn good_client(&self, times: impl Iterator<Item = Instant>) -> Result<Vec<Answer>, AnyError> {
        let mut client = Client::connect(self.address, self.epoch)?;
        // Half as many again as on the mean: it does not grow while it measures.
        let nr_expected = (self.plan.round.as_micros() * 3 / 2).div_ceil(self.plan.interval.as_micros());
        let mut answers = Vec::with_capacity(nr_expected as usize);
        for due in times {
            let number = self.nr_asked.fetch_add(1, Ordering::Relaxed);
            let nr_good = (self.plan.nr_tenants - BAD.len()) as u64;
            let tenant = BAD.len() + (number % nr_good) as usize;
            // Scattered over the keys, in the same order each time.
            let key = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32 & (NR_KEYS - 1);
            let path = format!("/{tenant}/serve/{key}");
            let start = sleep_until(due);
            let response = client.ask(&path)?;
            let served = response.answered_at.saturating_duration_since(start);
            answers.push(Answer { tenant, status: response.status, served, read: start.elapsed() });
        }
        Ok(answers)
    }

    /// Does the same over and over until the round is over.
    fn bad_client(&self, number: usize, start: Instant) -> Result<Answers, AnyError> {
        let mut client = Client::connect(self.address, self.epoch)?;
        let mut answers = Answers::new();
        sleep_until(start);
        while !self.is_over.load(Ordering::Relaxed) {
            let response = client.ask(&format!("/{number}/{}", BAD[number]))?;
            *answers.entry(response.status).or_default() += 1;
            sleep_until(Instant::now() + RETRY);
        }
        Ok(answers)
    }
}

/// The kind of a round. The turns of kinds, as many as there are kinds, are a square of Williams's: each kind follows each other one
/// as often, so that what a round leaves behind meets all of them. Of an odd number of kinds it takes twice as many turns.
fn kind_of(number: usize, nr_kinds: usize) -> usize {
    let (turn, place) = (number / nr_kinds, number % nr_kinds);
    let is_mirrored = nr_kinds % 2 == 1 && turn / nr_kinds % 2 == 1;
    let place = if is_mirrored { nr_kinds - 1 - place } else { place };
    // 0, 1, n - 1, 2, n - 2, …
    let first = if place % 2 == 1 { place.div_ceil(2) } else { (nr_kinds - place / 2) % nr_kinds };
    (first + turn) % nr_kinds
}

/// What the process has taken of the CPUs, to a hundredth of a second: `utime` and `stime` in `/proc/self/stat`.
fn cpu_time() -> Result<Duration, AnyError> {
    const TICKS_PER_SEC: u32 = 100;
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is a name in parentheses, which may contain anything.
    let (_, fields) = text.rsplit_once(')').ok_or("no name in stat")?;
    let times = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
    let nr_ticks = times.sum::<Result<u32, _>>()?;
    Ok(Duration::from_secs(1) * nr_ticks / TICKS_PER_SEC)
}

/// Returns when it woke up; `due` at once if that has passed.
fn sleep_until(due: Instant) -> Instant {
    let mut woken_at = due;
    while let Some(left) = due.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
        woken_at = Instant::now();
    }
    woken_at
}

#[cfg(test)]
mod tests {
    use super::kind_of;

    #[test]
    fn each_kind_follows_each_other_one_as_often() {
        for nr_kinds in 2..=6 {
            let nr_turns = if nr_kinds % 2 == 0 { nr_kinds } else { 2 * nr_kinds };
            let turns =
                (0..nr_turns).map(|turn| (0..nr_kinds).map(move |place| kind_of(turn * nr_kinds + place, nr_kinds)));
            let turns = turns.map(Iterator::collect::<Vec<_>>).collect::<Vec<_>>();
            for turn in &turns {
                let mut sorted = turn.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..nr_kinds).collect::<Vec<_>>());
            }
            let follows = |first: usize, second: usize| {
                turns.iter().flat_map(|turn| turn.windows(2)).filter(|pair| **pair == [first, second]).count()
            };
            for first in 0..nr_kinds {
                for second in (0..nr_kinds).filter(|second| *second != first) {
                    assert_eq!(follows(first, second), nr_turns / nr_kinds, "{nr_kinds}: {second} after {first}");
                }
            }
        }
    }
}
