//! Random trees with random limits against a plain model: what is refused and by whom, what is granted and who is marked for it,
//! events, peaks, protection, reclaim.
//!
//! Bytes are external charges, which are refused at a limit, and objects so large that nothing of them waits in a stock, for which
//! groups are killed; the groups' own memory is the only thing beside them.

use std::sync::{Arc, Mutex};

use objcg::{Events, ExternalCharge, ExternalError, Memcg, Objcg, OomPolicy, OomScope, ReviveError, Shrinker};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;

#[global_allocator]
static GLOBAL: Objcg = Objcg;

/// What a group costs its parent.
const GROUP_BYTES: u64 = 288;
const MOST: u64 = 10_000;
/// Objects of so many pages are charged as they are: past what a stock keeps.
const PAGE_BYTES: u64 = 4096;
const FEWEST_PAGES: u64 = (128 << 10) / PAGE_BYTES + 1;
const MOST_PAGES: u64 = 200;
/// The default reserve: this share of the limit, at least so many bytes.
const RESERVE_SHARE: u64 = 8;
const MIN_RESERVE: u64 = 64 << 10;

#[derive(Clone, Debug)]
enum Operation {
    Charge { group: usize, nr_bytes: u64 },
    Release { charge: usize },
    Resize { charge: usize, nr_bytes: u64 },
    Move { charge: usize, group: usize },
    SetMax { group: usize, max: Option<u64> },
    SetHigh { group: usize, high: Option<u64> },
    SetLow { group: usize, low: u64 },
    Alloc { group: usize, nr_pages: u64 },
    Free { object: usize },
    SetPolicy { group: usize, policy: Option<OomPolicy> },
    SetScope { group: usize, scope: OomScope },
    SetReserve { group: usize, reserve: Option<u64> },
    Kill { group: usize },
    Revive { group: usize },
    Delete { group: usize },
}

fn limit() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![Just(None), (0..3 * MOST).prop_map(Some)]
}

/// Limits and reserves that objects of pages meet.
fn large_limit() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![1 => Just(None), 4 => (0..3 * MOST_PAGES * PAGE_BYTES).prop_map(Some)]
}

/// What is done about a broken limit, of groups picked by number.
fn killing() -> impl Strategy<Value = Operation> {
    let group = any::<usize>();
    let policy = prop_oneof![2 => Just(None), 1 => Just(Some(OomPolicy::Fail)), 1 => Just(Some(OomPolicy::Kill))];
    let scope = prop_oneof![Just(OomScope::Memcg), Just(OomScope::Subtree)];
    prop_oneof![
        12 => (group, FEWEST_PAGES..MOST_PAGES).prop_map(|(group, nr_pages)| Operation::Alloc { group, nr_pages }),
        6 => group.prop_map(|object| Operation::Free { object }),
        5 => (group, large_limit()).prop_map(|(group, max)| Operation::SetMax { group, max }),
        2 => (group, policy).prop_map(|(group, policy)| Operation::SetPolicy { group, policy }),
        2 => (group, scope).prop_map(|(group, scope)| Operation::SetScope { group, scope }),
        2 => (group, large_limit()).prop_map(|(group, reserve)| Operation::SetReserve { group, reserve }),
        1 => group.prop_map(|group| Operation::Kill { group }),
        3 => group.prop_map(|group| Operation::Revive { group }),
        1 => group.prop_map(|group| Operation::Delete { group }),
        4 => operation(),
    ]
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
    is_deleted: bool,
    policy: Option<OomPolicy>,
    /// Whether a mark is the subtree's.
    is_together: bool,
    reserve: Option<u64>,
    mark: Mark,
    usage: u64,
    peak: u64,
    max: Option<u64>,
    high: Option<u64>,
    low: u64,
    local: Events,
    all: Events,
}

/// The state of a broken limit.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// The group is to end, and so is what is below it.
    is_marked: bool,
    is_subtree: bool,
    /// Charges may use the reserve.
    is_granted: bool,
}

impl Level {
    fn reserve(&self) -> Option<u64> {
        self.reserve.or_else(|| Some((self.max? / RESERVE_SHARE).max(MIN_RESERVE)))
    }

    fn fits(&self, nr_bytes: u64, with_reserve: bool) -> bool {
        let Some(max) = self.max else { return true };
        let reserve = self.reserve().filter(|_| with_reserve).unwrap_or(0);
        self.usage + nr_bytes <= max + reserve
    }

    fn is_over(&self) -> bool {
        self.max.is_some_and(|max| self.usage > max)
    }
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
        if let Err((refusing, _)) = self.meet_limits(levels, nr_bytes) {
            self.count(refusing, |events| events.oom += 1);
            return Err(refusing);
        }
        self.note_peaks(levels);
        Ok(())
    }

    /// A refused charge is tried again after a drain. The first try may have closed a reserve below, and that level refuses then. The
    /// error is who refused last and who was drained.
    fn meet_limits(&mut self, levels: &[usize], nr_bytes: u64) -> Result<(), (usize, usize)> {
        let Err(first) = self.try_charge(levels, nr_bytes) else { return Ok(()) };
        self.count(first, |events| events.max += 1);
        let second = self.try_charge(levels, nr_bytes);
        if let Err(other) = second
            && other != first
        {
            self.count(other, |events| events.max += 1);
        }
        second.map_err(|refusing| (refusing, first))
    }

    /// A refused charge has been at the levels below, and was taken back there.
    fn try_charge(&mut self, levels: &[usize], nr_bytes: u64) -> Result<(), usize> {
        for (nth, at) in levels.iter().copied().enumerate() {
            if !self.0[at].fits(nr_bytes, self.0[at].mark.is_granted) {
                self.uncharge(&levels[..nth], nr_bytes);
                return Err(at);
            }
            self.0[at].usage += nr_bytes;
        }
        Ok(())
    }

    /// Charges an object of a group: within the limits, or into the reserves, with marks.
    fn charge_or_kill(&mut self, group: usize, nr_bytes: u64) -> Result<(), usize> {
        let levels = self.path(group);
        if let Err((_, drained)) = self.meet_limits(&levels, nr_bytes)
            && let Err(refusing) = self.grant(&levels, drained, nr_bytes)
        {
            self.count(refusing, |events| events.oom += 1);
            return Err(refusing);
        }
        self.note_peaks(&levels);
        Ok(())
    }

    fn grant(&mut self, levels: &[usize], drained: usize, nr_bytes: u64) -> Result<(), usize> {
        let charging = levels[0];
        let mut is_above_drained = false;
        for (nth, at) in levels.iter().copied().enumerate() {
            let fits = self.0[at].fits(nr_bytes, self.0[at].mark.is_granted);
            if !fits && is_above_drained {
                self.count(at, |events| events.max += 1);
            }
            is_above_drained |= at == drained;
            let is_granted = fits || self.policy(at) == OomPolicy::Kill && self.0[at].fits(nr_bytes, true);
            if !is_granted {
                self.uncharge(&levels[..nth], nr_bytes);
                return Err(at);
            }
            self.0[at].usage += nr_bytes;
            if !fits && self.victim(at, charging).is_none() {
                self.uncharge(&levels[..=nth], nr_bytes);
                return Err(at);
            }
        }
        for at in levels.iter().copied() {
            if self.0[at].is_over() && !self.0[at].mark.is_granted {
                let (victim, is_subtree) = self.victim(at, charging).unwrap_or((at, self.0[at].is_together));
                self.mark(victim, is_subtree);
                self.0[at].mark.is_granted = true;
            }
        }
        Ok(())
    }

    /// Living children, oldest first.
    fn children(&self, group: usize) -> impl Iterator<Item = usize> {
        (0..self.0.len()).filter(move |child| self.0[*child].parent == Some(group) && !self.0[*child].is_deleted)
    }

    /// Whom a broken limit ends, and whether with all below it: who broke it, if it is his own; else the end of the path of the
    /// largest children, or the first on it that ends together.
    fn victim(&self, refusing: usize, charging: usize) -> Option<(usize, bool)> {
        if charging == refusing || self.0[refusing].is_together {
            return Some((refusing, self.0[refusing].is_together));
        }
        let mut at = refusing;
        loop {
            let children = || self.children(at);
            let own = self.0[at].usage - children().map(|child| self.0[child].usage).sum::<u64>();
            // The newest of equals.
            let largest = children()
                .filter(|child| self.0[*child].policy != Some(OomPolicy::Fail))
                .max_by_key(|child| self.0[*child].usage);
            match largest {
                Some(child) if at == refusing || self.0[child].usage > own => at = child,
                None if at == refusing => return None,
                _ => return Some((at, false)),
            }
            if self.0[at].is_together {
                return Some((at, true));
            }
        }
    }

    /// The group's own policy, or the nearest ancestor's; the root's is to kill.
    fn policy(&self, group: usize) -> OomPolicy {
        self.path(group).into_iter().find_map(|at| self.0[at].policy).unwrap_or(OomPolicy::Kill)
    }

    fn mark(&mut self, group: usize, is_subtree: bool) {
        let mark = &mut self.0[group].mark;
        let was_marked = mark.is_marked;
        *mark = Mark { is_marked: true, is_granted: true, is_subtree: mark.is_subtree || is_subtree };
        if !was_marked {
            self.count(group, |events| events.oom_kill += 1);
        }
    }

    fn revive(&mut self, group: usize) -> Result<(), ReviveError> {
        let level = &mut self.0[group];
        if !level.mark.is_marked {
            return Err(ReviveError::NotKilled);
        }
        if level.is_over() {
            return Err(ReviveError::OverMax(level.usage - level.max.unwrap_or(0)));
        }
        level.mark = Mark::default();
        self.end_grants_above(group);
        Ok(())
    }

    /// A victim is gone: the next charge over the limits above it costs the next one.
    fn end_grants_above(&mut self, group: usize) {
        for at in self.path(group).into_iter().skip(1) {
            let mark = &mut self.0[at].mark;
            mark.is_granted &= mark.is_marked;
        }
    }

    /// Who ends a group: itself, or the nearest ancestor that was marked with all below it.
    fn killed_by(&self, group: usize) -> Option<usize> {
        if self.0[group].mark.is_marked {
            return Some(group);
        }
        self.path(group).into_iter().find(|at| self.0[*at].mark.is_subtree)
    }

    fn note_peaks(&mut self, levels: &[usize]) {
        for at in levels {
            let level = &mut self.0[*at];
            level.peak = level.peak.max(level.usage);
            if level.high.is_some_and(|high| level.usage > high) {
                self.count(*at, |events| events.high += 1);
            }
        }
    }

    /// A return that leaves a granted group within its limit closes its reserve, unless it is marked itself.
    fn uncharge(&mut self, levels: &[usize], nr_bytes: u64) {
        for at in levels {
            let level = &mut self.0[*at];
            level.usage -= nr_bytes;
            level.mark.is_granted &= level.mark.is_marked || level.is_over();
        }
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

fn try_vec(nr_bytes: usize) -> Option<Vec<u8>> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(nr_bytes).ok()?;
    Some(vec)
}

struct World {
    /// `None` once it was deleted.
    groups: Vec<Option<Memcg>>,
    model: Model,
    charges: Vec<(ExternalCharge, usize)>,
    objects: Vec<(Vec<u8>, usize)>,
}

impl World {
    fn new(name: &str, parents: &[usize]) -> World {
        let mut groups = vec![Some(Memcg::root().create(name).expect("a new name"))];
        let mut model = Model(vec![Level::default()]);
        for (nth, parent) in parents.iter().enumerate() {
            let created = groups[*parent].as_ref().map(|parent| parent.create(&nth.to_string()).expect("a new name"));
            groups.push(created);
            model.0.push(Level { parent: Some(*parent), ..Level::default() });
            for at in model.path(*parent) {
                model.0[at].usage += GROUP_BYTES;
            }
        }
        let world = World { groups, model, charges: Vec::new(), objects: Vec::new() };
        world.memcg(0).drain();
        let peaks = (0..world.groups.len()).map(|at| world.memcg(at).peak()).collect::<Vec<_>>();
        let mut world = world;
        for (level, peak) in world.model.0.iter_mut().zip(peaks) {
            // Batches that were charged ahead for the groups' own memory.
            level.peak = peak;
        }
        world
    }

    fn memcg(&self, group: usize) -> &Memcg {
        self.groups[group].as_ref().expect("alive")
    }

    fn id(&self, group: usize) -> u32 {
        self.memcg(group).id()
    }

    /// A living group by number.
    fn group(&self, pick: usize) -> usize {
        let living: Vec<_> = (0..self.groups.len()).filter(|at| self.groups[*at].is_some()).collect();
        living[pick % living.len()]
    }

    fn run(&mut self, operation: &Operation) -> Result<(), TestCaseError> {
        match *operation {
            Operation::Charge { group, nr_bytes } => {
                let group = self.group(group);
                let expected = self.model.charge(&self.model.path(group), nr_bytes);
                let refused = match self.memcg(group).charge_external(nr_bytes) {
                    Ok(charge) => {
                        self.charges.push((charge, group));
                        None
                    }
                    Err(ExternalError::Limit(refused)) => Some(refused.refused_by()),
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                };
                prop_assert_eq!(refused, expected.err().map(|at| self.id(at)));
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
                let moved = self.groups[to].as_ref().map(|to| to.adopt_external(charge)).expect("alive");
                let refused_by = expected.err().and_then(|at| self.groups[at].as_ref().map(Memcg::id));
                prop_assert_eq!(moved.err().map(|refused| refused.refused_by()), refused_by);
                if expected.is_ok() {
                    self.model.uncharge(&self.model.below_common(*from, to), charge.nr_bytes());
                    *from = to;
                }
            }
            Operation::SetMax { group, max } => {
                let group = self.group(group);
                self.model.0[group].max = max;
                let over = max.map_or(0, |max| self.model.0[group].usage.saturating_sub(max));
                prop_assert_eq!(self.memcg(group).set_max(max), Ok(over));
            }
            Operation::SetHigh { group, high } => {
                let group = self.group(group);
                self.model.0[group].high = high;
                let over = high.map_or(0, |high| self.model.0[group].usage.saturating_sub(high));
                prop_assert_eq!(self.memcg(group).set_high(high), Ok(over));
            }
            Operation::SetLow { group, low } => {
                let group = self.group(group);
                self.model.0[group].low = low;
                prop_assert_eq!(self.memcg(group).set_low(low), Ok(()));
            }
            _ => self.run_on_limit(operation)?,
        }
        self.compare()
    }

    /// What has to do with broken limits.
    fn run_on_limit(&mut self, operation: &Operation) -> Result<(), TestCaseError> {
        match *operation {
            Operation::Alloc { group, nr_pages } => {
                let (group, nr_bytes) = (self.group(group), nr_pages * PAGE_BYTES);
                let object = self.memcg(group).scope(|| try_vec(nr_bytes as usize));
                let expected = self.model.charge_or_kill(group, nr_bytes);
                prop_assert_eq!(
                    object.is_some(),
                    expected.is_ok(),
                    "{} bytes of group {}: {:?}",
                    nr_bytes,
                    group,
                    expected
                );
                self.objects.extend(object.map(|object| (object, group)));
            }
            Operation::Free { object } if !self.objects.is_empty() => {
                let (object, group) = self.objects.swap_remove(object % self.objects.len());
                self.model.uncharge(&self.model.path(group), object.capacity() as u64);
            }
            Operation::SetPolicy { group, policy } => {
                let group = self.group(group);
                self.model.0[group].policy = policy;
                prop_assert_eq!(self.memcg(group).set_oom_policy(policy), Ok(()));
            }
            Operation::SetScope { group, scope } => {
                let group = self.group(group);
                self.model.0[group].is_together = scope == OomScope::Subtree;
                prop_assert_eq!(self.memcg(group).set_oom_scope(scope), Ok(()));
                prop_assert_eq!(self.memcg(group).oom_scope(), scope);
            }
            Operation::SetReserve { group, reserve } => {
                let group = self.group(group);
                self.model.0[group].reserve = reserve;
                prop_assert_eq!(self.memcg(group).set_reserve(reserve), Ok(()));
            }
            Operation::Kill { group } => {
                let group = self.group(group);
                self.model.mark(group, true);
                prop_assert_eq!(self.memcg(group).kill(), Ok(()));
            }
            Operation::Revive { group } => {
                let group = self.group(group);
                prop_assert_eq!(self.memcg(group).revive(), self.model.revive(group));
            }
            Operation::Delete { group } => self.delete(group),
            // Nothing there to be released, resized, moved or freed.
            _ => {}
        }
        Ok(())
    }

    /// Deletes a group that has nothing: what it cost its parent is given back.
    fn delete(&mut self, group: usize) {
        let group = self.group(group);
        let has_children = self.model.children(group).next().is_some();
        let Some(parent) = self.model.0[group].parent.filter(|_| !has_children && self.model.0[group].usage == 0)
        else {
            return;
        };
        let is_used = self.charges.iter().any(|(_, owner)| *owner == group);
        if is_used {
            // A charge of nothing.
            return;
        }
        self.groups[group] = None;
        self.memcg(0).drain();
        self.model.0[group].is_deleted = true;
        if self.model.0[group].mark.is_marked {
            self.model.end_grants_above(group);
        }
        self.model.uncharge(&self.model.path(parent), GROUP_BYTES);
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        let living = || self.groups.iter().enumerate().filter_map(|(nth, group)| Some((nth, group.as_ref()?)));
        for (nth, group) in living() {
            let level = &self.model.0[nth];
            prop_assert_eq!((group.usage(), group.peak()), (level.usage, level.peak), "group {}", nth);
            prop_assert_eq!((group.events(), group.events_local()), (level.all, level.local), "group {}", nth);
            let killed_by = self.model.killed_by(nth).map(|at| self.id(at));
            prop_assert_eq!(group.check().err().map(|killed| killed.group()), killed_by, "group {}", nth);
            prop_assert_eq!(group.oom_policy(), self.model.policy(nth));
            if let Some(reserve) = level.reserve() {
                prop_assert_eq!(group.reserve(), reserve);
            }
            for (top, above) in living() {
                let expected = if self.model.path(nth).contains(&top) { self.model.effective_low(nth, top) } else { 0 };
                prop_assert_eq!(group.effective_low(above), expected, "low of {} under {}", nth, top);
            }
        }
        Ok(())
    }
}

impl World {
    /// Gives everything back: nothing is left of it.
    fn end(mut self) -> Result<(), TestCaseError> {
        self.charges.clear();
        self.objects.clear();
        prop_assert_eq!(self.memcg(0).usage(), self.memcg(0).stat().total_bytes());
        while let Some(leaf) = self.groups.pop() {
            // Children come after their parents: it has none left.
            if let Some(leaf) = leaf {
                leaf.drain();
                prop_assert_eq!(leaf.usage(), 0);
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
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i1_i3_i8_every_operation_does_what_the_model_says(
        parents in tree(),
        operations in proptest::collection::vec(operation(), 1..60),
    ) {
        let mut world = World::new("model", &parents);
        for operation in &operations {
            world.run(operation)?;
        }
        world.end()?;
    }

    #[test]
    fn i1_i3_i8_who_is_killed_and_what_the_reserves_grant_is_what_the_model_says(
        parents in tree(),
        operations in proptest::collection::vec(killing(), 1..120),
    ) {
        let mut world = World::new("kills", &parents);
        for operation in &operations {
            world.run(operation)?;
        }
        world.end()?;
    }

    #[test]
    fn reclaim_goes_down_to_what_is_protected_and_stops_when_it_has_enough(
        parents in tree(),
        sizes in proptest::collection::vec(proptest::collection::vec(1..1000u64, 0..20), 8),
        lows in proptest::collection::vec(0..6000u64, 8),
        wanted in 1..20_000u64,
    ) {
        let groups: Vec<_> = World::new("reclaim", &parents).groups.into_iter().flatten().collect();
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
