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

use super::charge::{self, ancestors};
use super::events::{self, Event};
use super::node::{ROOT, node};
use super::objcg::Target;
use super::page_counter::{GRANTED, MARKED, SUBTREE};
use super::{ROOT_VESSEL, current, tree, walk};
use crate::sync::{AtomicU32, Ordering};

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

/// Charges a pinned group under the policies of the groups that refuse: into their reserves, with marks. The error is the
/// refusing group; then nothing was marked and nothing is charged.
#[cold]
pub(super) fn charge_or_kill(group: u32, nr_bytes: u64) -> Result<(), u32> {
    for at in ancestors(group) {
        let counter = &node(at).counter;
        if counter.try_charge(nr_bytes) {
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
            let victim = choose_victim(at, group).unwrap_or(Victim { group: at, scope: scope(at) });
            mark(&victim);
            counter.mark(GRANTED);
        }
    }
    Ok(())
}

struct Victim {
    group: u32,
    scope: OomScope,
}

/// Whom to mark when a charge of `charging` breaks the limit of `refusing`. `None` if all who could be are under
/// [`OomPolicy::Fail`].
fn choose_victim(refusing: u32, charging: u32) -> Option<Victim> {
    if charging == refusing || scope(refusing) == OomScope::Subtree {
        return Some(Victim { group: refusing, scope: scope(refusing) });
    }
    let mut at = refusing;
    loop {
        let mut largest: Option<(u64, u32)> = None;
        let mut children_bytes = 0;
        let nr_children = tree::for_each_child(at, |child| {
            let usage = node(child).counter.usage();
            children_bytes += usage;
            if own_policy(child) != Some(OomPolicy::Fail) && largest.is_none_or(|(most, _)| usage > most) {
                largest = Some((usage, child));
            }
        });
        // tidy: allow(saturating_sub): children are read one after the other, while they change
        let own_bytes = node(at).counter.usage().saturating_sub(children_bytes);
        match largest {
            Some((usage, child)) if at == refusing || usage > own_bytes => at = child,
            // The charging group was deleted meanwhile.
            None if at == refusing && nr_children == 0 => return Some(Victim { group: at, scope: scope(at) }),
            None if at == refusing => return None,
            _ => return Some(Victim { group: at, scope: OomScope::Memcg }),
        }
        if scope(at) == OomScope::Subtree {
            return Some(Victim { group: at, scope: OomScope::Subtree });
        }
    }
}

fn mark(victim: &Victim) {
    let with_subtree = victim.scope == OomScope::Subtree;
    let bits = MARKED | GRANTED | if with_subtree { SUBTREE } else { 0 };
    let new = node(victim.group).counter.mark(bits);
    if new & MARKED != 0 {
        events::count(victim.group, Event::OomKill);
    }
    if new & SUBTREE != 0 {
        events::announce_below(victim.group);
        events::announce(ROOT);
    }
}

/// Marks a group and all its descendants.
pub(super) fn kill(group: u32) {
    mark(&Victim { group, scope: OomScope::Subtree });
}

/// Takes a group's own mark off, within its limit.
pub(super) fn revive(group: u32) -> Result<(), ReviveError> {
    let counter = &node(group).counter;
    if counter.marks() & MARKED == 0 {
        return Err(ReviveError::NotKilled);
    }
    counter.unmark().map_err(ReviveError::OverMax)?;
    end_grants_above(group);
    events::announce_below(group);
    Ok(())
}

/// A victim is gone: those above who were granted a reserve for it may look for the next one. The group is pinned.
pub(super) fn end_grants_above(group: u32) {
    ancestors(group).skip(1).for_each(|at| node(at).counter.withdraw_grant());
}

/// The marked group that ends this one: itself, or an ancestor with its subtree. The group's slot is pinned, or reads are of
/// whatever the slot holds.
pub(super) fn killed_by(group: u32) -> Option<u32> {
    if node(group).counter.marks() & MARKED != 0 {
        return Some(group);
    }
    ancestors(group).skip(1).find(|at| node(*at).counter.marks() & SUBTREE != 0)
}

/// Whether the current group was marked: a few loads, two and one for each ancestor.
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
