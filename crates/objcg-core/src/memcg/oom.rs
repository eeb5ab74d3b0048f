//! What happens when a charge breaks a limit: refused, or granted and somebody marked.
//!
//! The *refusing* group is the one whose `max` the charge does not fit. Its policy decides, its own or the nearest ancestor's
//! that has one. Under [`OomPolicy::Kill`] a charge that fits `max` and the *reserve* is granted, and the victim is marked: the
//! refusing group itself if the charge was made in it, else the largest path below it, as the kernel's OOM killer picks; with
//! [`OomScope::Subtree`] all that is below the first group on that path that has it, the refusing one included. A mark ends
//! nothing by itself: futures and code that ask end at the next occasion.
//!
//! # Marks
//!
//! Mark, grant and usage are one word (`page_counter`).
//!
//! | state of a group | bits | ends |
//! |---|---|---|
//! | marked | `MARKED`, `GRANTED`, `SUBTREE` if its descendants are as well | by [`revive`], within `max` |
//! | granted for a victim below | `GRANTED` | when usage is within `max`, or a victim below is deleted or revived |
//!
//! The bytes are charged first, above `max`, and the marks set then; a charge that fails at a level above takes its bytes back
//! and has marked nobody. Between the two an observer sees usage in the reserve without a mark.

use core::fmt;
use core::time::Duration;

use super::charge::{self, PinnedNode, ancestors};
use super::events::{self, Event};
use super::node::{ROOT, node};
use super::objcg::Target;
use super::page_counter::{GRANTED, MARKED, SUBTREE};
use super::signal::Signal;
use super::{ROOT_VESSEL, current, tree, walk};
use crate::os::Instant;
use crate::sync::{AtomicU32, Ordering};

/// Changed by every mark that is set, wherever.
static MARKS: Signal = Signal::new();

/// What becomes of a charge that breaks a limit, once reclaim could not make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomPolicy {
    /// It is refused: the allocation returns null.
    Fail,
    /// It is granted from the reserve, and a group is marked to end; a null past the reserve.
    Kill,
}

/// How much of the tree a mark covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomScope {
    /// The group.
    Memcg,
    /// The group and its descendants, which end together: the kernel's `memory.oom.group`.
    Subtree,
}

/// The current group was marked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomKilled {
    group: u32,
}

/// Why a group cannot be revived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviveError {
    /// It is not marked itself.
    NotKilled,
    /// Its usage is still that many bytes over `max`.
    OverMax(u64),
}

/// Marks of subtrees in the whole process, or more: while there are none nobody need look at its ancestors.
static NR_SUBTREE_MARKS: AtomicU32 = AtomicU32::new(0);

const POLICY_MASK: u32 = 3;
const POLICY_FAIL: u32 = 1;
const POLICY_KILL: u32 = 2;
const SCOPE_SUBTREE: u32 = 4;

impl OomKilled {
    /// The [`Memcg::id`](super::Memcg::id) of the group that was marked: the current one, or an ancestor with its subtree.
    #[must_use]
    pub fn group(self) -> u32 {
        self.group
    }
}

fn settings(group: u32) -> &'static AtomicU32 {
    &node(group).oom_settings
}

/// The policy that was set at the group itself.
pub(super) fn own_policy(group: u32) -> Option<OomPolicy> {
    match settings(group).load(Ordering::Relaxed) & POLICY_MASK {
        POLICY_FAIL => Some(OomPolicy::Fail),
        POLICY_KILL => Some(OomPolicy::Kill),
        _ => None,
    }
}

/// The group's policy, its own or the nearest ancestor's. The group is pinned.
pub(super) fn policy(group: u32) -> OomPolicy {
    ancestors(group).find_map(own_policy).unwrap_or(OomPolicy::Fail)
}

pub(super) fn set_policy(group: u32, policy: Option<OomPolicy>) {
    let bits = match policy {
        None => 0,
        Some(OomPolicy::Fail) => POLICY_FAIL,
        Some(OomPolicy::Kill) => POLICY_KILL,
    };
    replace_bits(group, POLICY_MASK, bits);
}

/// Sets the root's policy, which is the process's, unless it was set.
pub(super) fn set_default_policy(policy: OomPolicy) {
    if own_policy(ROOT).is_none() {
        set_policy(ROOT, Some(policy));
    }
}

pub(super) fn scope(group: u32) -> OomScope {
    match settings(group).load(Ordering::Relaxed) & SCOPE_SUBTREE {
        0 => OomScope::Memcg,
        _ => OomScope::Subtree,
    }
}

pub(super) fn set_scope(group: u32, scope: OomScope) {
    replace_bits(group, SCOPE_SUBTREE, if scope == OomScope::Subtree { SCOPE_SUBTREE } else { 0 });
}

fn replace_bits(group: u32, mask: u32, bits: u32) {
    let replace = |settings| Some(settings & !mask | bits);
    // It always has a value to store.
    let _ = settings(group).fetch_update(Ordering::Relaxed, Ordering::Relaxed, replace);
}

/// Charges a pinned group under the policies of the groups that refuse: into their reserves, with marks. Room was made up to `drained`,
/// the group or an ancestor; levels above that refuse as well have room made first. The error is the refusing group; then nothing
/// was marked and nothing is charged.
#[cold]
pub(super) fn charge_or_kill(group: u32, drained: u32, nr_bytes: u64) -> Result<(), u32> {
    for at in ancestors(group) {
        let counter = &node(at).counter;
        if counter.try_charge(nr_bytes) {
            continue;
        }
        // What stocks and caches keep is no reason to end anybody, nor to refuse.
        if at != ROOT && charge::is_above(at, drained) && charge::charge_with_room(at, nr_bytes) {
            continue;
        }
        let granted = at != ROOT && policy(at) == OomPolicy::Kill && counter.try_charge_reserve(nr_bytes);
        if !granted {
            charge::uncharge_below(group, Some(at), nr_bytes);
            return Err(at);
        }
        if choose_victim(at, group).is_none() {
            charge::uncharge_below(group, Some(at), nr_bytes);
            // The level itself was charged as well.
            charge::uncharge_level(at, nr_bytes);
            return Err(at);
        }
    }
    for at in ancestors(group).take_while(|at| *at != ROOT) {
        let counter = &node(at).counter;
        if counter.usage() > counter.max() && counter.marks() & GRANTED == 0 {
            let victim = choose_victim(at, group).unwrap_or_else(|| Victim::of(at));
            grant_and_mark(at, &victim);
        }
    }
    Ok(())
}

/// Opens the reserve of `at` for a victim, itself or one below.
fn grant_and_mark(at: u32, victim: &Victim) {
    let counter = &node(at).counter;
    if victim.group.idx != at {
        // Before the mark: as soon as that is seen the victim may be deleted or revived, which ends the grant.
        counter.mark(GRANTED);
    }
    mark(victim);
    if tree::is_deleted(victim.group.idx) {
        // Perhaps before it was marked: then its deletion has ended no grant.
        counter.withdraw_grant();
    }
}

/// Who is to be marked, and how far. Pinned: the slot of a victim that is deleted meanwhile does not become a stranger's.
struct Victim {
    group: PinnedNode,
    scope: OomScope,
}

impl Victim {
    /// A group that is pinned, as far as it says.
    fn of(group: u32) -> Victim {
        Victim { group: PinnedNode::of_pinned(group), scope: scope(group) }
    }
}

/// Whom to mark when a charge of `charging` breaks the limit of `refusing`. `None` if all who could be are under
/// [`OomPolicy::Fail`].
fn choose_victim(refusing: u32, charging: u32) -> Option<Victim> {
    if charging == refusing || scope(refusing) == OomScope::Subtree {
        return Some(Victim::of(refusing));
    }
    let mut at = PinnedNode::of_pinned(refusing);
    loop {
        let mut largest: Option<(u64, PinnedNode)> = None;
        let mut children_bytes = 0;
        let nr_children = tree::for_each_child(at.idx, |child| {
            let usage = node(child).counter.usage();
            children_bytes += usage;
            if own_policy(child) != Some(OomPolicy::Fail) && largest.as_ref().is_none_or(|(most, _)| usage > *most) {
                // Children are alive, and so pinned, until this returns: the pin that this replaces is not the last.
                largest = Some((usage, PinnedNode::of_pinned(child)));
            }
        });
        // tidy: allow(saturating_sub): children are read one after the other, while they change
        let own_bytes = node(at.idx).counter.usage().saturating_sub(children_bytes);
        match largest {
            Some((usage, child)) if at.idx == refusing || usage > own_bytes => at = child,
            // The charging group was deleted meanwhile.
            None if at.idx == refusing && nr_children == 0 => return Some(Victim::of(refusing)),
            None if at.idx == refusing => return None,
            _ => return Some(Victim { group: at, scope: OomScope::Memcg }),
        }
        if scope(at.idx) == OomScope::Subtree {
            return Some(Victim { group: at, scope: OomScope::Subtree });
        }
    }
}

fn mark(victim: &Victim) {
    let with_subtree = victim.scope == OomScope::Subtree;
    let bits = MARKED | GRANTED | if with_subtree { SUBTREE } else { 0 };
    if with_subtree {
        // Before it is set: who looks at ancestors too often is only late. Release pairs with the Acquire in `killed_by`.
        NR_SUBTREE_MARKS.fetch_add(1, Ordering::Release);
    }
    let group = victim.group.idx;
    let new = node(group).counter.mark(bits);
    if with_subtree && new & SUBTREE == 0 {
        NR_SUBTREE_MARKS.fetch_sub(1, Ordering::Relaxed);
    }
    if new & MARKED != 0 {
        events::count(group, Event::OomKill);
    }
    if new & SUBTREE != 0 {
        events::announce_below(group);
        events::announce(ROOT);
    }
    if new & (MARKED | SUBTREE) != 0 && MARKS.change().sleepers {
        MARKS.wake();
    }
}

/// How often a mark was set in the process, for [`wait_for_marks`].
#[must_use]
pub fn marks_version() -> u32 {
    MARKS.version()
}

/// Sleeps until the version is not `seen` any more; returns what it is then. Whatever was marked before is seen by who looks now.
#[must_use]
pub fn wait_for_marks(seen: u32) -> u32 {
    loop {
        let prepared = MARKS.prepare_to_sleep();
        let version = MARKS.version();
        if version != seen {
            return version;
        }
        MARKS.sleep(prepared, Instant::now().after(Duration::MAX));
    }
}

/// Marks a group, which is pinned, and all its descendants.
pub(super) fn kill(group: u32) {
    mark(&Victim { group: PinnedNode::of_pinned(group), scope: OomScope::Subtree });
}

/// Takes a group's own mark off, within its limit.
pub(super) fn revive(group: u32) -> Result<(), ReviveError> {
    let counter = &node(group).counter;
    if counter.marks() & MARKED == 0 {
        return Err(ReviveError::NotKilled);
    }
    let cleared = counter.unmark().map_err(ReviveError::OverMax)?;
    note_cleared(cleared);
    end_grants_above(group);
    events::announce_below(group);
    Ok(())
}

/// A group's slot is released with the mark that it has.
pub(super) fn forget_mark(group: u32) {
    note_cleared(node(group).counter.take_marks());
}

fn note_cleared(marks: u64) {
    if marks & SUBTREE != 0 {
        NR_SUBTREE_MARKS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A victim is gone: those above who were granted a reserve for it may look for the next one. The group is pinned.
pub(super) fn end_grants_above(group: u32) {
    ancestors(group).skip(1).for_each(|at| node(at).counter.withdraw_grant());
}

/// The marked group that ends this one: itself, or an ancestor with its subtree. The group's slot is pinned, or reads are of
/// whatever the slot holds.
#[inline]
pub(super) fn killed_by(group: u32) -> Option<u32> {
    if node(group).counter.marks() & MARKED != 0 {
        return Some(group);
    }
    if NR_SUBTREE_MARKS.load(Ordering::Acquire) == 0 { None } else { killed_above(group) }
}

#[cold]
#[inline(never)]
fn killed_above(group: u32) -> Option<u32> {
    ancestors(group).skip(1).find(|at| node(*at).counter.marks() & SUBTREE != 0)
}

/// Whether the current group was marked: a few loads, and one for each ancestor while any subtree of the process is marked.
///
/// # Errors
/// [`OomKilled`] if it was, or an ancestor with its subtree.
#[inline]
pub fn checkpoint() -> Result<(), OomKilled> {
    match current() {
        ROOT_VESSEL => Ok(()),
        vessel => check(vessel),
    }
}

#[inline(never)]
fn check(vessel: u32) -> Result<(), OomKilled> {
    let group = match charge::VESSELS.target(vessel) {
        // The thread's handle pins the slot.
        Target::Node { idx, .. } => idx,
        _ => walk::group_of(vessel).unwrap_or(ROOT),
    };
    check_group(group)
}

pub(super) fn check_group(group: u32) -> Result<(), OomKilled> {
    killed_by(group).map_or(Ok(()), |group| Err(OomKilled { group }))
}

impl fmt::Display for OomKilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {} was ended: it broke a limit, or somebody ended it", self.group)
    }
}

impl fmt::Display for ReviveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReviveError::NotKilled => f.write_str("the group itself is not marked"),
            ReviveError::OverMax(nr_bytes) => write!(f, "the group still uses {nr_bytes} bytes more than its limit"),
        }
    }
}

impl core::error::Error for OomKilled {}
impl core::error::Error for ReviveError {}

#[cfg(test)]
mod tests {
    use super::{GRANTED, Victim, grant_and_mark, node};
    use crate::memcg::Memcg;

    #[test]
    fn a_victim_that_is_deleted_before_its_mark_leaves_no_grant() {
        let server = Memcg::root().create("grants").expect("a new name");
        let victims = ["first", "second"].map(|name| server.create(name).expect("a new name"));
        let [first, second] = victims.each_ref().map(|group| Victim::of(group.id()));
        let marks = || node(server.id()).counter.marks();
        grant_and_mark(server.id(), &first);
        assert_eq!(marks(), GRANTED);
        victims.iter().for_each(|group| group.delete().expect("alive, and without children"));
        assert_eq!(marks(), 0, "the first one is gone");
        grant_and_mark(server.id(), &second);
        assert_eq!(marks(), 0, "the second one was gone already");
    }
}
