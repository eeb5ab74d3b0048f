//! Random trees with random limits against a plain model: what is refused and by whom, events, peaks, protection, reclaim.
//!
//! Bytes are external charges, which are exact and wait in no stock; the groups' own memory is the only thing beside them.

use std::sync::{Arc, Mutex};

use objcg::{Events, ExternalCharge, ExternalError, Memcg, Objcg, Shrinker};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;

#[global_allocator]
static GLOBAL: Objcg = Objcg;

/// What a group costs its parent.
const GROUP_BYTES: u64 = 288;
const MOST: u64 = 10_000;

#[derive(Clone, Debug)]
enum Operation {
    Charge { group: usize, nr_bytes: u64 },
    Release { charge: usize },
    Resize { charge: usize, nr_bytes: u64 },
    Move { charge: usize, group: usize },
    SetMax { group: usize, max: Option<u64> },
    SetHigh { group: usize, high: Option<u64> },
    SetLow { group: usize, low: u64 },
}

fn limit() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![Just(None), (0..3 * MOST).prop_map(Some)]
}

fn operation() -> impl Strategy<Value = Operation> {
    let (group, charge, nr_bytes) = (any::<usize>(), any::<usize>(), 0..MOST);
    prop_oneof![
        4 => (group, nr_bytes.clone()).prop_map(|(group, nr_bytes)| Operation::Charge { group, nr_bytes }),
        2 => charge.prop_map(|charge| Operation::Release { charge }),
        2 => (charge, nr_bytes).prop_map(|(charge, nr_bytes)| Operation::Resize { charge, nr_bytes }),
        2 => (charge, group).prop_map(|(charge, group)| Operation::Move { charge, group }),
        2 => (group, limit()).prop_map(|(group, max)| Operation::SetMax { group, max }),
        1 => (group, limit()).prop_map(|(group, high)| Operation::SetHigh { group, high }),
        2 => (group, 0..MOST).prop_map(|(group, low)| Operation::SetLow { group, low }),
    ]
}

/// The parent of each group but the first, by its place before it.
fn tree() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(any::<usize>(), 1..8)
        .prop_map(|picks| picks.iter().enumerate().map(|(nth, pick)| pick % (nth + 1)).collect())
}

#[derive(Default)]
struct Level {
    parent: Option<usize>,
    usage: u64,
    peak: u64,
    max: Option<u64>,
    high: Option<u64>,
    low: u64,
    local: Events,
    all: Events,
}

/// The plain model: the same rules without stocks, words and races.
#[derive(Default)]
struct Model(Vec<Level>);

impl Model {
    fn path(&self, group: usize) -> Vec<usize> {
        std::iter::successors(Some(group), |at| self.0[*at].parent).collect()
    }

    /// The levels from a group up to the first that is on the other path as well.
    fn below_common(&self, group: usize, other: usize) -> Vec<usize> {
        let others = self.path(other);
        self.path(group).into_iter().take_while(|at| !others.contains(at)).collect()
    }

    fn count(&mut self, group: usize, count: impl Fn(&mut Events)) {
        count(&mut self.0[group].local);
        for at in self.path(group) {
            count(&mut self.0[at].all);
        }
    }

    /// Charges levels, lowest first: all, or none and the refusing one.
    fn charge(&mut self, levels: &[usize], nr_bytes: u64) -> Result<(), usize> {
        let refuses = |at: &&usize| self.0[**at].max.is_some_and(|max| self.0[**at].usage + nr_bytes > max);
        if let Some(refusing) = levels.iter().find(refuses).copied() {
            self.count(refusing, |events| events.max += 1);
            self.count(refusing, |events| events.oom += 1);
            return Err(refusing);
        }
        for at in levels {
            self.0[*at].usage += nr_bytes;
        }
        for at in levels {
            let level = &mut self.0[*at];
            level.peak = level.peak.max(level.usage);
            if level.high.is_some_and(|high| level.usage > high) {
                self.count(*at, |events| events.high += 1);
            }
        }
        Ok(())
    }

    fn uncharge(&mut self, levels: &[usize], nr_bytes: u64) {
        levels.iter().for_each(|at| self.0[*at].usage -= nr_bytes);
    }

    fn protected(&self, group: usize) -> u64 {
        self.0[group].low.min(self.0[group].usage)
    }

    fn effective_low(&self, group: usize, top: usize) -> u64 {
        let (own, parent) = (self.protected(group), self.0[group].parent);
        match parent {
            _ if group == top => 0,
            None => 0,
            Some(parent) if parent == top => own,
            Some(parent) => {
                let of_parent = self.effective_low(parent, top);
                let siblings = (0..self.0.len()).filter(|at| self.0[*at].parent == Some(parent));
                let sum: u64 = siblings.map(|at| self.protected(at)).sum();
                if sum <= of_parent { own } else { (u128::from(of_parent) * u128::from(own) / u128::from(sum)) as u64 }
            }
        }
    }
}

struct World {
    groups: Vec<Memcg>,
    model: Model,
    charges: Vec<(ExternalCharge, usize)>,
}

impl World {
    fn new(name: &str, parents: &[usize]) -> World {
        let mut groups = vec![Memcg::root().create(name).expect("a new name")];
        let mut model = Model(vec![Level::default()]);
        for (nth, parent) in parents.iter().enumerate() {
            groups.push(groups[*parent].create(&nth.to_string()).expect("a new name"));
            model.0.push(Level { parent: Some(*parent), ..Level::default() });
            for at in model.path(*parent) {
                model.0[at].usage += GROUP_BYTES;
            }
        }
        groups[0].drain();
        for (level, group) in model.0.iter_mut().zip(&groups) {
            // Batches that were charged ahead for the groups' own memory.
            level.peak = group.peak();
        }
        World { groups, model, charges: Vec::new() }
    }

    fn group(&self, pick: usize) -> usize {
        pick % self.groups.len()
    }

    fn run(&mut self, operation: &Operation) -> Result<(), TestCaseError> {
        match *operation {
            Operation::Charge { group, nr_bytes } => {
                let group = self.group(group);
                let expected = self.model.charge(&self.model.path(group), nr_bytes);
                let refused = match self.groups[group].charge_external(nr_bytes) {
                    Ok(charge) => {
                        self.charges.push((charge, group));
                        None
                    }
                    Err(ExternalError::Limit(refused)) => Some(refused.refused_by()),
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                };
                prop_assert_eq!(refused, expected.err().map(|at| self.groups[at].id()));
            }
            Operation::Release { charge } if !self.charges.is_empty() => {
                let (charge, group) = self.charges.swap_remove(charge % self.charges.len());
                self.model.uncharge(&self.model.path(group), charge.nr_bytes());
            }
            Operation::Resize { charge, nr_bytes } if !self.charges.is_empty() => {
                let nth = charge % self.charges.len();
                let (charge, group) = &mut self.charges[nth];
                let path = self.model.path(*group);
                match nr_bytes.checked_sub(charge.nr_bytes()) {
                    Some(more) => {
                        let expected = self.model.charge(&path, more);
                        prop_assert_eq!(charge.resize(nr_bytes).is_ok(), expected.is_ok());
                    }
                    None => {
                        self.model.uncharge(&path, charge.nr_bytes() - nr_bytes);
                        prop_assert!(charge.resize(nr_bytes).is_ok());
                    }
                }
            }
            Operation::Move { charge, group } if !self.charges.is_empty() => {
                let (nth, to) = (charge % self.charges.len(), self.group(group));
                let (charge, from) = &mut self.charges[nth];
                let expected = self.model.charge(&self.model.below_common(to, *from), charge.nr_bytes());
                let moved = self.groups[to].adopt_external(charge);
                prop_assert_eq!(
                    moved.err().map(|refused| refused.refused_by()),
                    expected.err().map(|at| self.groups[at].id())
                );
                if expected.is_ok() {
                    self.model.uncharge(&self.model.below_common(*from, to), charge.nr_bytes());
                    *from = to;
                }
            }
            Operation::SetMax { group, max } => {
                let group = self.group(group);
                self.model.0[group].max = max;
                let over = max.map_or(0, |max| self.model.0[group].usage.saturating_sub(max));
                prop_assert_eq!(self.groups[group].set_max(max), Ok(over));
            }
            Operation::SetHigh { group, high } => {
                let group = self.group(group);
                self.model.0[group].high = high;
                let over = high.map_or(0, |high| self.model.0[group].usage.saturating_sub(high));
                prop_assert_eq!(self.groups[group].set_high(high), Ok(over));
            }
            Operation::SetLow { group, low } => {
                let group = self.group(group);
                self.model.0[group].low = low;
                prop_assert_eq!(self.groups[group].set_low(low), Ok(()));
            }
            _ => {}
        }
        self.compare()
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        for (nth, (group, level)) in self.groups.iter().zip(&self.model.0).enumerate() {
            prop_assert_eq!((group.usage(), group.peak()), (level.usage, level.peak), "group {}", nth);
            prop_assert_eq!((group.events(), group.events_local()), (level.all, level.local), "group {}", nth);
            for (top, above) in self.groups.iter().enumerate() {
                let expected = if self.model.path(nth).contains(&top) { self.model.effective_low(nth, top) } else { 0 };
                prop_assert_eq!(group.effective_low(above), expected, "low of {} under {}", nth, top);
            }
        }
        Ok(())
    }
}

/// A cache of external charges that gives back the last ones first.
fn cache_of(memcg: &Memcg, sizes: &[u64]) -> (Arc<Mutex<Vec<ExternalCharge>>>, Shrinker) {
    let entries: Vec<_> = sizes.iter().map(|size| memcg.charge_external(*size).expect("no limit")).collect();
    let entries = Arc::new(Mutex::new(entries));
    let shrinking = Arc::clone(&entries);
    let shrinker = memcg.register_shrinker(move |control| {
        let Ok(mut entries) = shrinking.lock() else { return 0 };
        let mut freed = 0;
        while freed < control.nr_bytes
            && let Some(entry) = entries.pop()
        {
            freed += entry.nr_bytes();
        }
        freed
    });
    (entries, shrinker)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i1_i3_i8_every_operation_does_what_the_model_says(
        parents in tree(),
        operations in proptest::collection::vec(operation(), 1..60),
    ) {
        let mut world = World::new("model", &parents);
        for operation in &operations {
            world.run(operation)?;
        }
        world.charges.clear();
        prop_assert_eq!(world.groups[0].usage(), world.groups[0].stat().total_bytes());
        while let Some(leaf) = world.groups.pop() {
            // Children come after their parents: it has none left.
            leaf.drain();
            prop_assert_eq!(leaf.usage(), 0);
        }
    }

    #[test]
    fn reclaim_goes_down_to_what_is_protected_and_stops_when_it_has_enough(
        parents in tree(),
        sizes in proptest::collection::vec(proptest::collection::vec(1..1000u64, 0..20), 8),
        lows in proptest::collection::vec(0..6000u64, 8),
        wanted in 1..20_000u64,
    ) {
        let groups = World::new("reclaim", &parents).groups;
        let caches: Vec<_> = groups.iter().zip(&sizes).map(|(group, sizes)| cache_of(group, sizes)).collect();
        for (group, low) in groups.iter().zip(&lows) {
            group.set_low(*low).expect("alive");
        }
        let top = &groups[0];
        let usages: Vec<u64> = groups.iter().map(Memcg::usage).collect();
        let freed = top.reclaim(wanted);
        prop_assert_eq!(freed, usages[0] - top.usage());
        let is_done = |nth: usize| {
            let is_empty = caches[nth].0.lock().is_ok_and(|entries| entries.is_empty());
            is_empty || groups[nth].usage() <= groups[nth].effective_low(top)
        };
        prop_assert!(freed >= wanted || (0..groups.len()).all(is_done), "{} of {} freed", freed, wanted);
        if freed >= wanted {
            // At most one entry too much.
            prop_assert!(freed < wanted + 1000);
        }
        for (nth, group) in groups.iter().enumerate().skip(1).filter(|(nth, _)| parents[nth - 1] == 0) {
            let own = sizes[nth].iter().sum::<u64>();
            if usages[nth] <= lows[nth] && own == usages[nth] {
                prop_assert_eq!(group.usage(), usages[nth], "it was protected, and has nobody below");
            }
        }
    }
}
