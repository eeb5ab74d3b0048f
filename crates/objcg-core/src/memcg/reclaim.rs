//! Reclaim: memory of a group and its descendants taken back through their shrinkers, as far as `low` leaves it.
//!
//! # Protection
//!
//! Seen from the group that memory is wanted of, the *effective* protection of a descendant is the least of its `low` and its usage;
//! and if its parent is protected too, the children of that parent share the parent's effective protection, by what each would have.
//! The group itself is not protected from its own limit. As in the kernel's `mem_cgroup_calculate_protection`, without
//! `memory_recursiveprot`.
//!
//! # Order
//!
//! The registration whose group has the largest excess over its protection goes first, then the next one, down to the last
//! or until enough came back. A group without excess is left alone; only for an allocation that would be refused there is a second
//! pass which takes what is protected, as the kernel's does. A callback runs while a visit keeps its registration, under
//! no lock.

use super::charge::ancestors;
use super::in_reclaim;
use super::node::node;
use super::shrinker::{self, ReclaimContext, ShrinkControl, Visit};
use super::{charge, tree};
use crate::sync::Ordering;

/// A charge asks for at least this much, so that the next one need not ask again;
const MIN_WANTED: u64 = 64 << 10;
/// but at most this share of the limit, unless it needs more itself.
const LIMIT_SHARE: u64 = 32;
/// A pass runs a registration this often on average, if it keeps freeing and keeps being the largest.
const RUNS_EACH: usize = 4;

/// When a pass has drained what shrinkers have freed into stocks and sheaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Drains {
    /// After each run: the same registration may be asked again, by what is left.
    EachRun,
    /// Once enough was freed, if ever: each registration is asked once.
    IfEnough,
}

/// Has memory of the group and its descendants taken back; returns how many bytes usage fell by. 0 in a shrinker. The group is
/// pinned.
pub(super) fn reclaim(top: u32, nr_wanted: u64, context: ReclaimContext) -> u64 {
    if in_reclaim::reclaims() {
        return 0;
    }
    let before = node(top).counter.usage();
    charge::drain_subtree(top);
    run_shrinkers(top, nr_wanted, context, Drains::EachRun);
    // tidy: allow(saturating_sub): others may have charged meanwhile
    before.saturating_sub(node(top).counter.usage())
}

/// Has memory taken back for a charge that `refusing` has no room for. Whether any registration said that it freed something.
#[cold]
pub(super) fn make_room(refusing: u32, nr_bytes: u64) -> bool {
    let counter = &node(refusing).counter;
    let max = counter.max();
    if nr_bytes > max {
        // Nothing that could be freed would be enough: caches need not suffer for it.
        return false;
    }
    // tidy: allow(saturating_sub): there was no room a moment ago, and may be now
    let missing = (counter.usage() + nr_bytes).saturating_sub(max);
    let nr_wanted = missing.max(MIN_WANTED.min(max / LIMIT_SHARE));
    run_shrinkers(refusing, nr_wanted, ReclaimContext::Allocation, Drains::EachRun) > 0
}

/// Has shrinkers run; returns how much they say that they freed. The group was drained, so that what stocks and free objects keep is no
/// excess over anybody's protection; at a throttle point it may have been some milliseconds ago: what it has freed since then counts.
pub(super) fn run_shrinkers(top: u32, nr_wanted: u64, context: ReclaimContext, drains: Drains) -> u64 {
    if shrinker::all().is_empty() || nr_wanted == 0 {
        return 0;
    }
    let passes = || {
        let mut freed = pass(top, nr_wanted, context, drains, effective_low);
        if freed == 0 && context == ReclaimContext::Allocation {
            freed = pass(top, nr_wanted, context, drains, |_, _| 0);
        }
        freed
    };
    in_reclaim::reclaiming(passes).unwrap_or(0)
}

/// The place of a registration in the order: by excess, then by number. A pass goes down it.
type Rank = (u64, u32);

fn pass(top: u32, nr_wanted: u64, context: ReclaimContext, drains: Drains, protection: fn(u32, u32) -> u64) -> u64 {
    let mut freed: u64 = 0;
    // Of that, what is in stocks and sheaves: it must not look like an excess that is still there.
    let mut undrained: u64 = 0;
    let mut last: Option<Rank> = None;
    for _ in 0..shrinker::all().len() * RUNS_EACH {
        let Some((rank, visit)) = next_below(top, last, protection) else { break };
        last = Some(rank);
        let Some(excess @ 1..) = rank.0.checked_sub(undrained) else { continue };
        let wanted = nr_wanted - freed;
        let freed_now = visit.run(&ShrinkControl { nr_bytes: wanted.min(excess), context });
        drop(visit);
        freed = freed.checked_add(freed_now).unwrap_or(nr_wanted);
        if freed_now > 0 && (drains == Drains::EachRun || freed >= nr_wanted) {
            charge::drain_subtree(top);
        } else {
            // Less than is wanted.
            undrained += freed_now;
        }
        if freed >= nr_wanted {
            break;
        }
    }
    freed
}

/// The registration below `top` that comes next after `last`. A thread has one visit at a time, and none while the data of a registration
/// is dropped that has ended meanwhile.
fn next_below(top: u32, last: Option<Rank>, protection: fn(u32, u32) -> u64) -> Option<(Rank, Visit)> {
    let rank_of = |visit: &Visit| {
        let group = visit.group();
        if node(group).pin.is_dead() || !ancestors(group).any(|at| at == top) {
            return None;
        }
        let excess = node(group).counter.usage().checked_sub(protection(group, top))?;
        let rank = (excess, visit.idx());
        (excess > 0 && last.is_none_or(|last| rank < last)).then_some(rank)
    };
    loop {
        let best = shrinker::all().filter_map(|idx| rank_of(&Visit::begin(idx)?)).max()?;
        // It may have ended meanwhile, or lost its excess: another one then. The place in the order is that of the look at all of them.
        if let Some(visit) = Visit::begin(best.1)
            && rank_of(&visit).is_some()
        {
            return Some((best, visit));
        }
    }
}

/// Bytes of a group that are protected when memory of `top`, itself or an ancestor, is wanted.
pub(super) fn effective_low(group: u32, top: u32) -> u64 {
    let path = || ancestors(group).take_while(|at| *at != top);
    if path().any(|at| protected(at) == 0) {
        // Nothing is shared out below.
        return 0;
    }
    // From the top down, each level found by a walk from below: a tree may be deeper than the stack of whoever allocates.
    let levels = (0..path().count()).rev().filter_map(|height| path().nth(height));
    let effective =
        levels.fold(None, |of_parent, at| Some(of_parent.map_or_else(|| protected(at), |of| share(at, of))));
    effective.unwrap_or(0)
}

/// A group's part of its parent's effective protection.
fn share(group: u32, of_parent: u64) -> u64 {
    let own = protected(group);
    let mut of_siblings: u64 = 0;
    tree::for_each_child(node(group).parent.load(Ordering::Relaxed), |sibling| of_siblings += protected(sibling));
    if of_siblings <= of_parent {
        return own;
    }
    // Usages have 48 bits. Not 0: the group is one of them, unless it was deleted just now.
    (u128::from(of_parent) * u128::from(own) / u128::from(of_siblings.max(1))) as u64
}

fn protected(group: u32) -> u64 {
    let counter = &node(group).counter;
    counter.low().min(counter.usage())
}
