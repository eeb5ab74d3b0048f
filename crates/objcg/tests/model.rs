//! The reference model: random operations on the whole public surface against plain vectors (I1 to I4, I8).
//!
//! Objects of all sizes are allocated, zeroed, resized and freed, in any group and on another thread; per-CPU memory, counters
//! and objects of a typed cache likewise; groups are created, limited, killed, revived and deleted under them. Each answer is one
//! that the model allows: what is refused, what a reserve grants, and who is marked for it. At quiet points every group's counter and
//! heap are held against the model. Sequences are proptest's, so a failure is shown as a short one.
//!
//! `OBJCG_MODEL_OPERATIONS` sets how many operations are run, `OBJCG_SEED` picks them.

use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::mpsc;
use std::thread;

use objcg::{
    CpuId, CreateError, DeleteError, Memcg, MemcgStat, Objcg, OomPolicy, OomScope, PerCpuCounter, ReviveError,
};
use objcg_core::kmem_cache::{CacheConfig, KmemCache};
use objcg_core::{kmalloc, percpu};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[path = "support/object.rs"]
mod object;
#[path = "support/random.rs"]
mod random;
use object::Object;
use random::Random;

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const NR_OPERATIONS: usize = 200_000;
/// Operations of one sequence, and between its quiet points.
const SEQUENCE: usize = 400;
const CHECK_EVERY: usize = 80;
const NR_NAMES: usize = 6;
const OWNER_BYTES: u64 = 4;
const MAX_SLAB_OBJECT: usize = 32 << 10;
const MAX_SLAB_ALIGN: usize = 4 << 10;
const MAX_LARGE_OBJECT: usize = 4 << 20;
const TYPED_BYTES: usize = 200;

/// One call of the surface. Groups and objects are picked by number, modulo how many there are.
#[derive(Clone, Debug)]
enum Operation {
    Create { parent: usize, name: usize },
    Delete { group: usize, by_drop: bool },
    SetMax { group: usize, max: Option<u64> },
    SetHigh { group: usize, high: Option<u64> },
    SetPolicy { group: usize, policy: Option<OomPolicy> },
    SetScope { group: usize, scope: OomScope },
    SetReserve { group: usize, reserve: Option<u64> },
    Kill { group: usize },
    Revive { group: usize },
    Alloc { group: usize, nr_bytes: usize, align_log2: u32, zeroed: bool },
    Resize { object: usize, group: usize, nr_bytes: usize },
    Free { object: usize, how: Free },
    AllocPercpu { group: usize, nr_bytes: usize },
    FreePercpu { which: usize },
    NewCounter { group: usize },
    Count { which: usize, delta: i64 },
    DropCounter { which: usize },
    AllocTyped { group: usize, on: Option<usize> },
    FreeTyped { which: usize, on: Option<usize> },
    Drain { group: usize },
    Trim,
}

/// Who frees an object.
#[derive(Clone, Debug)]
enum Free {
    Here,
    Inside(usize),
    OnAnotherThread,
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        80 => 0..1024usize,
        15 => 0..40usize << 10,
        4 => (32usize << 10)..2 << 20,
        1 => (4usize << 20)..12 << 20,
    ]
}

fn limit() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![Just(None), (0..100_000u64).prop_map(Some), (0..20u64 << 20).prop_map(Some)]
}

fn operation() -> impl Strategy<Value = Operation> {
    let nth = || any::<u16>().prop_map(usize::from);
    let maybe = || prop_oneof![Just(None), nth().prop_map(Some)];
    let align_log2 = prop_oneof![7 => Just(3u32), 1 => 0..15u32];
    let policy = prop_oneof![2 => Just(None), 1 => Just(Some(OomPolicy::Fail)), 1 => Just(Some(OomPolicy::Kill))];
    let scope = prop_oneof![Just(OomScope::Memcg), Just(OomScope::Subtree)];
    let how = prop_oneof![Just(Free::Here), nth().prop_map(Free::Inside), Just(Free::OnAnotherThread)];
    prop_oneof![
        6 => (nth(), 0..NR_NAMES).prop_map(|(parent, name)| Operation::Create { parent, name }),
        4 => (nth(), any::<bool>()).prop_map(|(group, by_drop)| Operation::Delete { group, by_drop }),
        3 => (nth(), limit()).prop_map(|(group, max)| Operation::SetMax { group, max }),
        1 => (nth(), limit()).prop_map(|(group, high)| Operation::SetHigh { group, high }),
        1 => (nth(), policy).prop_map(|(group, policy)| Operation::SetPolicy { group, policy }),
        1 => (nth(), scope).prop_map(|(group, scope)| Operation::SetScope { group, scope }),
        1 => (nth(), limit()).prop_map(|(group, reserve)| Operation::SetReserve { group, reserve }),
        1 => nth().prop_map(|group| Operation::Kill { group }),
        3 => nth().prop_map(|group| Operation::Revive { group }),
        40 => (nth(), size(), align_log2, any::<bool>()).prop_map(|(group, nr_bytes, align_log2, zeroed)| {
            Operation::Alloc { group, nr_bytes, align_log2, zeroed }
        }),
        12 => (nth(), nth(), size())
            .prop_map(|(object, group, nr_bytes)| Operation::Resize { object, group, nr_bytes }),
        25 => (nth(), how).prop_map(|(object, how)| Operation::Free { object, how }),
        3 => (nth(), 1..4000usize).prop_map(|(group, nr_bytes)| Operation::AllocPercpu { group, nr_bytes }),
        3 => nth().prop_map(|which| Operation::FreePercpu { which }),
        1 => nth().prop_map(|group| Operation::NewCounter { group }),
        3 => (nth(), any::<i32>()).prop_map(|(which, delta)| Operation::Count { which, delta: i64::from(delta) }),
        1 => nth().prop_map(|which| Operation::DropCounter { which }),
        4 => (nth(), maybe()).prop_map(|(group, on)| Operation::AllocTyped { group, on }),
        4 => (nth(), maybe()).prop_map(|(which, on)| Operation::FreeTyped { which, on }),
        1 => nth().prop_map(|group| Operation::Drain { group }),
        1 => Just(Operation::Trim),
    ]
}

/// Something that is charged, and the group that it was charged to.
struct Charged<T> {
    what: T,
    owner: usize,
    bytes: Bytes,
}

/// What it is counted as.
#[derive(Clone, Copy)]
enum Bytes {
    /// With an owner slot of its own.
    Slab(u64),
    /// Of pages.
    Large(u64),
    /// On all CPUs, with an owner slot.
    Percpu(u64),
}

impl Bytes {
    fn price(self) -> u64 {
        match self {
            Bytes::Slab(nr_bytes) | Bytes::Percpu(nr_bytes) => nr_bytes + OWNER_BYTES,
            Bytes::Large(nr_bytes) => nr_bytes,
        }
    }

    fn add_to(self, stat: &mut MemcgStat) {
        match self {
            Bytes::Slab(nr_bytes) => {
                stat.slab_objects += 1;
                stat.slab_bytes += nr_bytes;
                stat.owner_bytes += OWNER_BYTES;
            }
            Bytes::Large(nr_bytes) => {
                stat.large_objects += 1;
                stat.large_bytes += nr_bytes;
            }
            Bytes::Percpu(nr_bytes) => {
                stat.percpu_objects += 1;
                stat.percpu_bytes += nr_bytes;
                stat.owner_bytes += OWNER_BYTES;
            }
        }
    }
}

struct Group {
    /// `None` once it was deleted.
    memcg: Option<Memcg>,
    parent: usize,
    name: usize,
    /// Its own.
    policy: Option<OomPolicy>,
    scope: OomScope,
    /// Whether it was marked to end, and how much of the tree with it.
    mark: Option<OomScope>,
    nr_kills: u64,
}

impl Group {
    fn new(memcg: Memcg, parent: usize, name: usize) -> Group {
        Group { memcg: Some(memcg), parent, name, policy: None, scope: OomScope::Memcg, mark: None, nr_kills: 0 }
    }

    fn mark(&mut self, scope: OomScope) {
        self.nr_kills += u64::from(self.mark.is_none());
        if self.mark != Some(OomScope::Subtree) {
            self.mark = Some(scope);
        }
    }
}

/// What becomes of a charge that breaks a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnLimit {
    /// The call has an error for it: nobody is killed.
    Refused,
    /// The policy decides.
    AskPolicy,
}

/// The thread that frees what others allocated.
struct Other {
    objects: mpsc::Sender<Object>,
    done: mpsc::Receiver<()>,
}

struct Model<'a> {
    other: &'a Other,
    cache: &'a KmemCache,
    /// 0 is the sequence's top group, which is never deleted.
    groups: Vec<Group>,
    objects: Vec<Charged<Object>>,
    typed: Vec<Charged<NonNull<u8>>>,
    percpu: Vec<Charged<NonNull<u8>>>,
    counters: Vec<(Charged<PerCpuCounter>, i64)>,
    nr_groups_before: usize,
}

impl Model<'_> {
    fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Create { parent, name } => self.create(parent, name),
            Operation::Delete { group, by_drop } => self.delete(group, by_drop),
            Operation::SetMax { group, max } => self.set_max(group, max),
            Operation::SetHigh { group, high } => {
                let group = self.living(group);
                self.memcg(group).set_high(high).expect("no root");
                assert_eq!(self.memcg(group).high(), high);
            }
            Operation::SetPolicy { group, policy } => {
                let group = self.living(group);
                self.memcg(group).set_oom_policy(policy).expect("alive");
                self.groups[group].policy = policy;
                assert_eq!(self.memcg(group).oom_policy(), self.policy(group));
            }
            Operation::SetScope { group, scope } => self.set_scope(group, scope),
            Operation::SetReserve { group, reserve } => {
                let group = self.living(group);
                self.memcg(group).set_reserve(reserve).expect("no root");
                assert!(reserve.is_none_or(|reserve| self.memcg(group).reserve() == reserve));
            }
            Operation::Kill { group } => {
                let group = self.living(group);
                self.memcg(group).kill().expect("no root");
                self.groups[group].mark(OomScope::Subtree);
            }
            Operation::Revive { group } => self.revive(group),
            Operation::Alloc { group, nr_bytes, align_log2, zeroed } => {
                self.alloc(group, nr_bytes, 1 << align_log2, zeroed);
            }
            Operation::Resize { object, group, nr_bytes } => self.resize(object, group, nr_bytes),
            Operation::Free { object, how } => self.free(object, &how),
            Operation::AllocPercpu { group, nr_bytes } => self.alloc_percpu(group, nr_bytes),
            Operation::FreePercpu { which } => {
                if let Some(memory) = take(&mut self.percpu, which) {
                    // SAFETY: live, and nothing uses it.
                    unsafe { percpu::free(memory.what) };
                }
            }
            Operation::NewCounter { group } => self.new_counter(group),
            Operation::Count { which, delta } => {
                let nr_counters = self.counters.len();
                if let Some((counter, sum)) = self.counters.get_mut(which % nr_counters.max(1)) {
                    counter.what.add(delta);
                    *sum += delta;
                    assert_eq!(counter.what.sum(), *sum);
                }
            }
            Operation::DropCounter { which } => drop(take(&mut self.counters, which)),
            Operation::AllocTyped { group, on } => self.alloc_typed(group, on),
            Operation::FreeTyped { which, on } => {
                if let Some(object) = take(&mut self.typed, which) {
                    free_typed(self.cache, object.what, on);
                }
            }
            Operation::Drain { group } => {
                let group = self.living(group);
                self.memcg(group).drain();
            }
            Operation::Trim => {
                kmalloc::trim();
                percpu::trim();
            }
        }
        assert_eq!(objcg::nr_dying(), 0, "I4");
        self.check_marks();
    }

    /// A living group by number.
    fn living(&self, nth: usize) -> usize {
        let living: Vec<_> = (0..self.groups.len()).filter(|group| self.groups[*group].memcg.is_some()).collect();
        living[nth % living.len()]
    }

    fn memcg(&self, group: usize) -> &Memcg {
        self.groups[group].memcg.as_ref().expect("a living group")
    }

    fn parent_of(&self, group: usize) -> Option<usize> {
        (group != 0).then(|| self.groups[group].parent)
    }

    /// The group and its ancestors, up to the sequence's top.
    fn ancestors(&self, group: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(group), |group| self.parent_of(*group))
    }

    /// The living group that an owner's objects belong to now.
    fn heir(&self, owner: usize) -> usize {
        self.ancestors(owner).find(|group| self.groups[*group].memcg.is_some()).expect("the top lives")
    }

    fn has_children(&self, group: usize) -> bool {
        self.groups.iter().skip(1).any(|child| child.memcg.is_some() && child.parent == group)
    }

    fn create(&mut self, parent: usize, name: usize) {
        let parent = self.living(parent);
        let is_taken = self
            .groups
            .iter()
            .skip(1)
            .any(|group| group.memcg.is_some() && (group.parent, group.name) == (parent, name));
        let created = self.memcg(parent).create(&format!("g{name}"));
        match created {
            Ok(memcg) => {
                assert!(!is_taken, "two of a name");
                self.groups.push(Group::new(memcg, parent, name));
            }
            Err(CreateError::Exists) => assert!(is_taken),
            // The smallest name's group costs as much as any: short names are in the node.
            Err(CreateError::Limit(refused)) => self.check_refusal(parent, refused.nr_bytes(), OnLimit::Refused),
            Err(error) => panic!("{error}"),
        }
    }

    fn delete(&mut self, group: usize, by_drop: bool) {
        let group = self.living(group);
        if group == 0 {
            return;
        }
        if self.has_children(group) {
            return assert_eq!(self.memcg(group).delete(), Err(DeleteError::HasChildren));
        }
        let is_killed = self.killed_by(group).is_some();
        let memcg = self.groups[group].memcg.take().expect("a living group");
        if !by_drop {
            memcg.delete().expect("alive, and without children");
            assert_eq!(memcg.delete(), Err(DeleteError::Deleted));
            assert!(memcg.is_deleted());
            assert_eq!(memcg.is_oom_killed(), is_killed, "a deleted group stays as it was");
        }
        drop(memcg);
        let parent = self.memcg(self.groups[group].parent);
        assert!(parent.child(&format!("g{}", self.groups[group].name)).is_none(), "I4: gone at once");
    }

    fn set_max(&mut self, group: usize, max: Option<u64>) {
        let group = self.living(group);
        self.memcg(group).set_max(max).expect("no root");
        assert_eq!(self.memcg(group).max(), max);
    }

    fn set_scope(&mut self, group: usize, scope: OomScope) {
        let group = self.living(group);
        // The scope of a group that is marked already would say of a second mark what cannot be seen from outside.
        if self.groups[group].mark.is_none() {
            self.memcg(group).set_oom_scope(scope).expect("no root");
            self.groups[group].scope = scope;
        }
    }

    fn revive(&mut self, group: usize) {
        let group = self.living(group);
        let memcg = self.memcg(group);
        let revived = memcg.revive();
        let over = memcg.usage().checked_sub(memcg.max().unwrap_or(u64::MAX)).filter(|over| *over > 0);
        match (self.groups[group].mark, over) {
            (None, _) => assert_eq!(revived, Err(ReviveError::NotKilled)),
            (Some(_), Some(over)) => assert_eq!(revived, Err(ReviveError::OverMax(over))),
            (Some(_), None) => {
                assert_eq!(revived, Ok(()));
                self.groups[group].mark = None;
            }
        }
    }

    /// The group's own policy, or the nearest ancestor's; the root's is to kill.
    fn policy(&self, group: usize) -> OomPolicy {
        self.ancestors(group).find_map(|at| self.groups[at].policy).unwrap_or(OomPolicy::Kill)
    }

    /// Who ends a group: itself, or the nearest ancestor that was marked with all below it.
    fn killed_by(&self, group: usize) -> Option<usize> {
        let ends = |at: &usize| self.groups[*at].mark.is_some_and(|scope| *at == group || scope == OomScope::Subtree);
        self.ancestors(group).find(ends)
    }

    fn all_living(&self) -> impl Iterator<Item = (usize, &Memcg)> {
        self.groups.iter().enumerate().filter_map(|(group, of)| Some((group, of.memcg.as_ref()?)))
    }

    /// Each group is marked that should be, and no other.
    fn check_marks(&self) {
        for (group, memcg) in self.all_living() {
            let expected = self.killed_by(group).map(|at| self.memcg(at).id());
            assert_eq!(memcg.check().err().map(|killed| killed.group()), expected, "group {group}");
            assert_eq!(memcg.events_local().oom_kill, self.groups[group].nr_kills, "group {group}");
        }
    }

    /// Groups that are marked themselves and were not known to be.
    fn newly_marked(&self) -> Vec<usize> {
        let is_marked = |memcg: &Memcg| memcg.check().is_err_and(|killed| killed.group() == memcg.id());
        let new = self.all_living().filter(|(group, memcg)| self.groups[*group].mark.is_none() && is_marked(memcg));
        new.map(|(group, _)| group).collect()
    }

    /// Somebody was killed by a charge of `charging`: each victim for a limit above it, or at it, that may cost it.
    fn note_kills(&mut self, charging: usize, is_still_over: impl Fn(&Self, usize) -> bool) {
        let victims = self.newly_marked();
        if victims.is_empty() {
            return;
        }
        // What stocks keep is no reason to kill.
        self.memcg(0).drain();
        for victim in &victims {
            let costs_it = |limit: usize| is_still_over(self, limit) && self.may_cost(limit, charging, *victim);
            assert!(self.ancestors(charging).any(costs_it), "group {victim} was killed for a charge of {charging}");
        }
        for victim in victims {
            let scope = self.groups[victim].scope;
            self.groups[victim].mark(scope);
        }
    }

    /// Whether `victim` may be marked for a charge of `charging` that breaks the limit of the group `limit`.
    fn may_cost(&self, limit: usize, charging: usize, victim: usize) -> bool {
        if self.policy(limit) == OomPolicy::Fail {
            return false;
        }
        if charging == limit || self.groups[limit].scope == OomScope::Subtree {
            return victim == limit;
        }
        let path: Vec<_> = self.ancestors(victim).take_while(|at| *at != limit).collect();
        let is_below = self.ancestors(victim).any(|at| at == limit) && !path.is_empty();
        // The way down ends at the first that ends together, and no group with `Fail` of its own is on it.
        is_below
            && path.iter().all(|at| self.groups[*at].policy != Some(OomPolicy::Fail))
            && path.iter().skip(1).all(|at| self.groups[*at].scope == OomScope::Memcg)
    }

    fn is_over(&self, group: usize) -> bool {
        self.memcg(group).max().is_some_and(|max| self.memcg(group).usage() > max)
    }

    /// Runs what charges `group`. I3: what was charged fits; I8: what was refused did not, and left nothing.
    fn charging<T>(
        &mut self,
        group: usize,
        price: u64,
        on_limit: OnLimit,
        work: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        let levels: Vec<_> = self.ancestors(group).collect();
        let usage = |level: &usize| self.memcg(*level).usage();
        let before: Vec<_> = levels.iter().map(usage).collect();
        let peaks: Vec<_> = levels.iter().map(|level| self.memcg(*level).peak()).collect();
        let done = self.memcg(group).scope(work);
        if done.is_none() {
            let peaks_now: Vec<_> = levels.iter().map(|level| self.memcg(*level).peak()).collect();
            assert_eq!(peaks, peaks_now, "I8: peaks");
            assert!(self.newly_marked().is_empty(), "I8: marks");
            self.check_refusal(group, price, on_limit);
            return None;
        }
        for (level, before) in levels.iter().zip(before) {
            let (after, max) = (usage(level), self.memcg(*level).max().unwrap_or(u64::MAX));
            let is_granted = || self.somebody_ends_below(*level) && after <= max + self.memcg(*level).reserve();
            assert!(after <= max || after <= before || is_granted(), "I3: {after} charged of {max}, {before} before");
        }
        if on_limit == OnLimit::AskPolicy {
            self.note_kills(group, Self::is_over);
        }
        done
    }

    /// Whether the group is marked, or somebody below it.
    fn somebody_ends_below(&self, group: usize) -> bool {
        let is_marked = |memcg: &Memcg| memcg.check().is_err_and(|killed| killed.group() == memcg.id());
        self.all_living().any(|(at, memcg)| is_marked(memcg) && self.ancestors(at).any(|above| above == group))
    }

    /// With nothing kept ready anywhere, some level has no room, and no way to make it by a kill if the call may kill.
    fn check_refusal(&self, group: usize, price: u64, on_limit: OnLimit) {
        let is_full = |level: usize| {
            let memcg = self.memcg(level);
            memcg.drain();
            let Some(max) = memcg.max() else { return false };
            let may_kill = on_limit == OnLimit::AskPolicy
                && self.policy(level) == OomPolicy::Kill
                && memcg.usage() + price <= max + memcg.reserve()
                && self.has_victim(level, group);
            memcg.usage() + price > max && !may_kill
        };
        let levels = || {
            self.ancestors(group).map(|at| {
                let memcg = self.memcg(at);
                let of = &self.groups[at];
                (at, memcg.usage(), memcg.max(), memcg.reserve(), self.policy(at), of.policy, of.mark, of.scope)
            })
        };
        assert!(
            self.ancestors(group).any(is_full),
            "{price} bytes refused, but they fit at every level: {:?}",
            levels().collect::<Vec<_>>()
        );
    }

    /// Whether anybody can be marked for a charge of `charging` that breaks the limit of the group `limit`.
    fn has_victim(&self, limit: usize, charging: usize) -> bool {
        let may_end =
            |child: usize| self.groups[child].parent == limit && self.groups[child].policy != Some(OomPolicy::Fail);
        let has_child = || self.all_living().any(|(child, _)| child != 0 && may_end(child));
        charging == limit || self.groups[limit].scope == OomScope::Subtree || has_child()
    }

    fn alloc(&mut self, group: usize, nr_bytes: usize, align: usize, zeroed: bool) {
        let group = self.living(group);
        let bytes = bytes_of(nr_bytes, align);
        let tag = (self.objects.len() % 255) as u8 + 1;
        let object =
            self.charging(group, bytes.price(), OnLimit::AskPolicy, || Object::alloc(nr_bytes, align, tag, zeroed));
        self.objects.extend(object.map(|what| Charged { what, owner: group, bytes }));
    }

    fn resize(&mut self, object: usize, group: usize, nr_bytes: usize) {
        if self.objects.is_empty() {
            return;
        }
        let nth = object % self.objects.len();
        let mut object = self.objects.swap_remove(nth);
        // By what it occupies: one whose shrinking found no room elsewhere has stayed where it was, as large as it was.
        let was_huge = matches!(object.bytes, Bytes::Large(nr_bytes) if nr_bytes > MAX_LARGE_OBJECT as u64);
        // A huge object that grows takes its owner along if that is alive and has room, else it moves: it is its heir's then.
        let is_either_way = was_huge && nr_bytes > MAX_LARGE_OBJECT;
        let current = if is_either_way { self.heir(object.owner) } else { self.living(group) };
        let memcg = self.memcg(current).clone();
        if let Some(has_moved) = memcg.scope(|| object.what.resize(nr_bytes)) {
            if has_moved && !is_either_way {
                object.owner = current;
            }
            let usable = object.what.usable() as u64;
            let stays_in_slab = !has_moved && matches!(object.bytes, Bytes::Slab(_));
            object.bytes = if stays_in_slab || (has_moved && is_in_slab(nr_bytes, object.what.align)) {
                Bytes::Slab(usable)
            } else {
                Bytes::Large(usable)
            };
        }
        self.objects.push(object);
        // What it had before was free at the end: no limit need be broken any more.
        self.note_kills(current, |_, _| true);
    }

    /// Frees here, in a stranger's group, or on another thread.
    fn free(&mut self, object: usize, how: &Free) {
        let Some(object) = take(&mut self.objects, object) else { return };
        match how {
            Free::Here => object.what.free(),
            Free::Inside(stranger) => self.memcg(self.living(*stranger)).scope(|| object.what.free()),
            Free::OnAnotherThread => {
                self.other.objects.send(object.what).expect("the other thread runs");
                self.other.done.recv().expect("the other thread runs");
            }
        }
    }

    fn alloc_percpu(&mut self, group: usize, nr_bytes: usize) {
        let group = self.living(group);
        let granules = nr_bytes.next_multiple_of(percpu::GRANULE_BYTES).next_multiple_of(8);
        let bytes = Bytes::Percpu((granules * objcg::nr_cpus()) as u64);
        let memory = self.charging(group, bytes.price(), OnLimit::Refused, || percpu::alloc(granules, 8).ok());
        self.percpu.extend(memory.map(|what| Charged { what, owner: group, bytes }));
    }

    fn new_counter(&mut self, group: usize) {
        let group = self.living(group);
        let bytes = bytes_of_counter();
        let counter = self.charging(group, bytes.price(), OnLimit::Refused, || PerCpuCounter::new().ok());
        self.counters.extend(counter.map(|what| (Charged { what, owner: group, bytes }, 0)));
    }

    fn alloc_typed(&mut self, group: usize, on: Option<usize>) {
        let group = self.living(group);
        let bytes = Bytes::Slab(self.cache.object_size() as u64);
        let cache = self.cache;
        let alloc = || match on {
            Some(cpu) => cache.alloc_on(CpuId::fold(cpu)),
            None => cache.alloc(),
        };
        let object = self.charging(group, bytes.price(), OnLimit::AskPolicy, alloc);
        self.typed.extend(object.map(|what| Charged { what, owner: group, bytes }));
    }

    /// A quiet point: everything that is charged, group by group, against what is known of it.
    fn check(&self) {
        let mut expected: Vec<_> = self.groups.iter().map(|_| MemcgStat::default()).collect();
        let mut add = |owner: usize, bytes: Bytes| {
            self.ancestors(self.heir(owner)).for_each(|group| bytes.add_to(&mut expected[group]));
        };
        self.objects.iter().for_each(|object| add(object.owner, object.bytes));
        self.typed.iter().for_each(|object| add(object.owner, object.bytes));
        self.percpu.iter().for_each(|memory| add(memory.owner, memory.bytes));
        self.counters.iter().for_each(|(counter, _)| add(counter.owner, counter.bytes));
        let mut distinct = HashSet::new();
        assert!(self.objects.iter().all(|object| distinct.insert(object.what.address)), "no address is two objects'");
        self.memcg(0).drain();
        for (group, mut expected) in expected.into_iter().enumerate() {
            let Some(memcg) = &self.groups[group].memcg else { continue };
            let found = memcg.stat();
            // The groups' own memory is a function of them and of the vessels that were left; the counter has it too.
            expected.group_bytes = found.group_bytes;
            assert_eq!(found, expected, "I1, I2: group {group}");
            assert_eq!(memcg.usage(), found.total_bytes(), "I1: group {group}, counter against heap");
            assert!(memcg.peak() >= memcg.usage());
        }
        let nr_living = self.groups.iter().filter(|group| group.memcg.is_some()).count();
        assert_eq!(objcg::nr_groups(), self.nr_groups_before + nr_living, "I4");
    }

    /// Frees everything: nothing is left, not even a vessel.
    fn end(mut self) {
        self.check();
        self.objects.drain(..).for_each(|object| object.what.free());
        self.typed.drain(..).for_each(|object| free_typed(self.cache, object.what, None));
        // SAFETY: each is live, and nothing uses it.
        self.percpu.drain(..).for_each(|memory| unsafe { percpu::free(memory.what) });
        self.counters.clear();
        let top = self.memcg(0).clone();
        self.groups.clear();
        top.drain();
        assert_eq!((top.usage(), top.stat()), (0, MemcgStat::default()));
        drop(top);
        assert_eq!((objcg::nr_groups(), objcg::nr_vessels()), (self.nr_groups_before, 0));
    }
}

fn is_in_slab(nr_bytes: usize, align: usize) -> bool {
    nr_bytes <= MAX_SLAB_OBJECT && align <= MAX_SLAB_ALIGN
}

/// What an object of this size is counted as, seen of one that is nobody's.
fn bytes_of(nr_bytes: usize, align: usize) -> Bytes {
    let probe = Object::alloc(nr_bytes, align, 1, false).expect("no limit");
    let usable = probe.usable() as u64;
    probe.free();
    if is_in_slab(nr_bytes, align) { Bytes::Slab(usable) } else { Bytes::Large(usable) }
}

fn bytes_of_counter() -> Bytes {
    let probe = Memcg::root().create("probe").expect("a new name");
    let counter = probe.scope(PerCpuCounter::new).expect("no limit");
    let bytes = Bytes::Percpu(probe.stat().percpu_bytes);
    drop(counter);
    bytes
}

fn take<T>(from: &mut Vec<T>, nth: usize) -> Option<T> {
    (!from.is_empty()).then(|| from.swap_remove(nth % from.len()))
}

fn free_typed(cache: &KmemCache, object: NonNull<u8>, on: Option<usize>) {
    match on {
        // SAFETY: live, of this cache, and nothing uses it.
        Some(cpu) => unsafe { cache.free_on(CpuId::fold(cpu), object) },
        // SAFETY: as above.
        None => unsafe { cache.free(object) },
    }
}

fn run_sequence(operations: Vec<Operation>, other: &Other, cache: &KmemCache) {
    let nr_groups_before = objcg::nr_groups();
    // A sequence that failed, and is being shortened, has left its groups.
    let top = Memcg::root().create(&format!("top of {nr_groups_before}")).expect("a new name");
    let mut model = Model {
        other,
        cache,
        groups: vec![Group::new(top, 0, 0)],
        objects: Vec::new(),
        typed: Vec::new(),
        percpu: Vec::new(),
        counters: Vec::new(),
        nr_groups_before,
    };
    for (nth, operation) in operations.into_iter().enumerate() {
        model.run(operation);
        if nth % CHECK_EVERY == CHECK_EVERY - 1 {
            model.check();
        }
    }
    model.end();
}

#[test]
fn i1_to_i4_i8_random_operations_agree_with_the_model() {
    let nr_operations = std::env::var("OBJCG_MODEL_OPERATIONS")
        .map_or(NR_OPERATIONS, |text| text.parse().expect("OBJCG_MODEL_OPERATIONS is a number"));
    let mut random = Random::from_environment();
    let seed: [u8; 32] = std::array::from_fn(|_| random.below(256) as u8);
    let config = Config {
        cases: u32::try_from(nr_operations.div_ceil(SEQUENCE)).expect("fewer sequences than 4 thousand million"),
        failure_persistence: None,
        // A sequence that failed leaves its groups, so that each try takes longer than the one before.
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let result = with_other(|other, cache| {
        run_sequence(huge_that_stays_huge(), other, cache);
        runner.run(&vec(operation(), SEQUENCE), |operations| {
            run_sequence(operations, other, cache);
            Ok(())
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// A huge object finds no room to shrink into, stays where it is, and grows again: as its owner's. Counts are the process's: this is
/// no test of its own.
fn huge_that_stays_huge() -> Vec<Operation> {
    let huge = MAX_LARGE_OBJECT + 1;
    let resize = |nr_bytes| Operation::Resize { object: 0, group: 1, nr_bytes };
    vec![
        Operation::Create { parent: 0, name: 0 },
        Operation::Alloc { group: 0, nr_bytes: huge, align_log2: 3, zeroed: false },
        Operation::SetPolicy { group: 1, policy: Some(OomPolicy::Fail) },
        Operation::SetMax { group: 1, max: Some(0) },
        resize(100),
        Operation::SetMax { group: 1, max: None },
        resize(2 * huge),
    ]
}

/// With another thread that frees what it is sent, and a typed cache.
fn with_other<R>(run: impl FnOnce(&Other, &KmemCache) -> R) -> R {
    let (objects, inbox) = mpsc::channel::<Object>();
    let (report, done) = mpsc::channel();
    let frees = thread::spawn(move || {
        for object in inbox {
            object.free();
            report.send(()).expect("the test waits");
        }
    });
    let other = Other { objects, done };
    let cache = KmemCache::create(&CacheConfig::new(TYPED_BYTES)).expect("memory");
    let result = run(&other, &cache);
    drop(other);
    frees.join().expect("the other thread ends well");
    result
}
