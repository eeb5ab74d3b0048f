//! Charging: from a stock word up the tree, and back.
//!
//! A *charge* takes bytes from this CPU's stock; on a miss a batch is charged at the group and every ancestor, or, if
//! that is refused, the exact amount. If that is refused too, the ladder of `charge_below`: drain, reclaim, the policy. A
//! *credit* is the way back: into the stock, and what the stock does not keep goes down the tree again. Who charges holds no
//! lock of the slab side, since a charge may run shrinkers, which are the program's; [`charge_refill`], which does not, is called with a
//! CPU's slot held.

#![expect(unsafe_code, reason = "a pointer to what lasts for ever, in an atomic")]

use super::events::{self, Event};
use super::node::{ROOT, node};
use super::objcg::{Owed, Target, Vessels};
use super::stock::NR_SLOTS;
use super::stocks;
use super::walk::leads_to;
use super::{ROOT_VESSEL, Refused, in_reclaim, oom, reclaim, tree};
use crate::cpu::nr_cpus;
use crate::report::die;
use crate::sync::{AtomicPtr, Lock, Ordering};

/// The smallest and the largest batch that is charged ahead, in bytes.
const MIN_BATCH: u64 = 4 << 10;
const MAX_BATCH: u64 = 64 << 10;
/// A batch is this share of what the group uses, within those bounds,
const USAGE_SHARE: u64 = 16;
/// and all CPUs' batches together at most this share of the smallest limit above it.
const LIMIT_SHARE: u64 = 32;
/// A CPU has a stock on each arm: for threads with rseq, and for those without.
const NR_ARMS: u64 = 2;
/// The most bytes that one stock word keeps: two batches.
pub(crate) const MAX_KEEP: u64 = 2 * MAX_BATCH;

/// A charge that is refused has shrinkers run this often at most, as the kernel's.
const MAX_RECLAIMS: usize = 16;

/// What a charge does that no reclaim made room for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnLimit {
    /// It is refused: the caller has an error to return.
    Refuse,
    /// As the policy of the refusing group says.
    AskPolicy,
}

pub(super) static VESSELS: Vessels = Vessels::new();

/// What takes charged bytes back from where the slab side keeps them: free objects that wait with their charge.
static KEPT_IN_KIND: Lock<Option<fn(u32)>> = Lock::new(None);

/// Has `discharge` called by drains, with a group: it gives back what the slab side keeps charged to the group and its
/// descendants. Called under no lock.
pub(crate) fn set_discharge(discharge: fn(u32)) {
    *KEPT_IN_KIND.lock() = Some(discharge);
}

/// Called whenever a charge has gone up the tree, or was refused: in the middle of allocations, out of which nothing may unwind. So
/// it is a function of C's, in which a panic aborts.
pub struct Watcher(pub extern "C" fn());

static WATCHER: AtomicPtr<Watcher> = AtomicPtr::new(core::ptr::null_mut());

/// Has `watcher` called from now on, under no lock, whenever a charge has gone up the tree, or was refused: once a batch, not once
/// an object. It must not allocate. One a process.
pub fn watch(watcher: &'static Watcher) {
    // Release pairs with the Acquire in `call_watcher`.
    WATCHER.store(core::ptr::from_ref(watcher).cast_mut(), Ordering::Release);
}

pub(super) fn call_watcher() {
    let watcher = WATCHER.load(Ordering::Acquire);
    // SAFETY: null, or from `watch`, which takes references that last for ever.
    if let Some(Watcher(call)) = unsafe { watcher.as_ref() } {
        call();
    }
}

pub(super) fn hold_for_fork() {
    VESSELS.hold_for_fork();
    KEPT_IN_KIND.hold_for_fork();
}

pub(super) fn release_after_fork() {
    KEPT_IN_KIND.force_unlock();
    VESSELS.release_after_fork();
}

/// Charges `nr_bytes` to a vessel's group. Returns the vessel that was charged: the same, or where it leads to after its
/// group was deleted. [`credit`] takes the bytes back.
#[inline]
pub(crate) fn charge(vessel: u32, nr_bytes: u64, on_limit: OnLimit) -> Result<u32, Refused> {
    if take_stock(vessel, nr_bytes) {
        return Ok(vessel);
    }
    charge_slow(vessel, nr_bytes, on_limit)
}

/// Charges an object to the group that a vessel leads to. Returns its owner: [`ROOT_VESSEL`] where the path ends at the
/// root, whose objects are not counted.
#[inline]
pub(crate) fn charge_object(vessel: u32, nr_bytes: u64) -> Result<u32, Refused> {
    let owner = charge(vessel, nr_bytes, OnLimit::AskPolicy)?;
    if owner == ROOT_VESSEL {
        credit(owner, nr_bytes);
    }
    Ok(owner)
}

/// Takes bytes out of this CPU's stock of a vessel, if it has so many. Takes no lock.
pub(crate) fn take_stock(vessel: u32, nr_bytes: u64) -> bool {
    u32::try_from(nr_bytes).is_ok_and(|nr_bytes| stocks::consume(vessel, nr_bytes))
}

/// Takes an object's price back from its owner.
#[inline]
pub(crate) fn uncharge_object(owner: u32, nr_bytes: u64) {
    if owner != ROOT_VESSEL {
        credit(owner, nr_bytes);
    }
}

/// Takes bytes back from their owner, up the tree at once.
pub(crate) fn uncharge_past_stocks(owner: u32, nr_bytes: u64) {
    give_back(Owed { vessel: owner, nr_bytes });
}

/// Takes back bytes that were charged to `vessel` and are still counted there.
#[inline(always)]
pub(crate) fn credit(vessel: u32, nr_bytes: u64) {
    if nr_bytes > MAX_KEEP {
        return give_back(Owed { vessel, nr_bytes });
    }
    let displaced = stocks::refill(vessel, nr_bytes as u32, || VESSELS.keep(vessel));
    displaced.into_iter().flatten().for_each(|residue| give_back(Owed::from(residue)));
}

/// Gives bytes back to their vessel's group, and then the memory of each vessel that this has freed to where it led.
/// Nothing of it goes into a stock.
#[cold]
#[inline(never)]
pub(super) fn give_back(owed: Owed) {
    let mut next = Some(owed);
    while let Some(Owed { vessel, nr_bytes }) = next {
        let Some(group) = PinnedNode::of_vessel(vessel) else { die!("vessel {vessel}: charged, but freed") };
        uncharge_below(group.idx, None, nr_bytes);
        drop(group);
        next = VESSELS.note_return(vessel, nr_bytes);
    }
}

/// Bytes that were charged to a vessel are not any more; its group's counters were changed already.
pub(super) fn forget(vessel: u32, nr_bytes: u64) {
    if let Some(owed) = VESSELS.note_return(vessel, nr_bytes) {
        give_back(owed);
    }
}

#[cold]
#[inline(never)]
fn charge_slow(vessel: u32, nr_bytes: u64, on_limit: OnLimit) -> Result<u32, Refused> {
    // A guard that was leaked outlives its group and its vessel: such a thread is in the root.
    let group = PinnedNode::of_vessel(vessel).unwrap_or_else(PinnedNode::of_root);
    let charged = charge_pinned(&group, nr_bytes, on_limit).map(|(live, rest)| {
        // Before others can have the rest: the peak is to have it, too.
        note_peak_below(group.idx, None);
        put_into_stock(live, rest);
        live
    });
    drop(group);
    call_watcher();
    charged
}

/// Bytes that were charged to a vessel for what is still to be had: no more than that, since nobody else can have them before. None of
/// them may come into a stock before it is there, or the peak would not have them when they come out of it: I8.
#[must_use = "either it is there, or the bytes are given back"]
pub(crate) struct Charged {
    pub(crate) vessel: u32,
    nr_bytes: u64,
    /// Not out of a stock, whose bytes the peak has.
    went_up: bool,
}

impl Charged {
    /// It is there: a batch is charged for what comes next, if no limit is in the way, and the peak is raised. Returns the vessel.
    pub(crate) fn settle(self) -> u32 {
        if self.went_up {
            if let Some(group) = PinnedNode::of_vessel(self.vessel) {
                let rest = if live_vessel(&group) == self.vessel { self.charge_rest(&group) } else { 0 };
                note_peak_below(group.idx, None);
                put_into_stock(self.vessel, rest);
            }
            call_watcher();
        }
        self.vessel
    }

    /// Charges what a batch is more; returns that.
    fn charge_rest(&self, group: &PinnedNode) -> u64 {
        let batch = batch(group.idx);
        VESSELS.set_keep(self.vessel, 2 * batch as u32);
        match batch.checked_sub(self.nr_bytes) {
            Some(rest) if rest > 0 && stocks::have_stock() && try_charge_below(group.idx, None, rest).is_ok() => {
                VESSELS.note_charge(self.vessel, rest);
                rest
            }
            _ => 0,
        }
    }

    /// Gives the bytes back: where they came from.
    pub(crate) fn give_up(self) {
        if self.went_up {
            give_back(Owed { vessel: self.vessel, nr_bytes: self.nr_bytes });
        } else {
            credit(self.vessel, self.nr_bytes);
        }
    }
}

fn put_into_stock(vessel: u32, nr_bytes: u64) {
    if nr_bytes > 0 {
        credit(vessel, nr_bytes);
    }
}

/// Charges what is still to be had.
pub(crate) fn charge_ahead(vessel: u32, nr_bytes: u64, on_limit: OnLimit) -> Result<Charged, Refused> {
    if take_stock(vessel, nr_bytes) {
        return Ok(Charged { vessel, nr_bytes, went_up: false });
    }
    charge_ahead_pinned(PinnedNode::of_vessel(vessel).unwrap_or_else(PinnedNode::of_root), nr_bytes, on_limit)
}

/// The same for more of what is charged to a vessel already; `None` if a limit refuses, or if the vessel's group was deleted.
pub(crate) fn charge_more_ahead(vessel: u32, nr_bytes: u64) -> Option<Charged> {
    let group = PinnedNode::of_vessel(vessel).filter(|group| live_vessel(group) == vessel)?;
    charge_ahead_pinned(group, nr_bytes, OnLimit::Refuse).ok()
}

fn charge_ahead_pinned(group: PinnedNode, nr_bytes: u64, on_limit: OnLimit) -> Result<Charged, Refused> {
    let vessel = live_vessel(&group);
    if take_stock(vessel, nr_bytes) {
        return Ok(Charged { vessel, nr_bytes, went_up: false });
    }
    let charged = charge_below(group.idx, None, nr_bytes, on_limit);
    if charged.is_ok() {
        VESSELS.note_charge(vessel, nr_bytes);
    }
    drop(group);
    if charged.is_err() {
        call_watcher();
    }
    charged.map(|()| Charged { vessel, nr_bytes, went_up: true })
}

/// Returns the vessel that was charged, and the rest of a batch that was.
fn charge_pinned(group: &PinnedNode, nr_bytes: u64, on_limit: OnLimit) -> Result<(u32, u64), Refused> {
    let live = live_vessel(group);
    if take_stock(live, nr_bytes) {
        return Ok((live, 0));
    }
    let batch = batch(group.idx);
    VESSELS.set_keep(live, 2 * batch as u32);
    if nr_bytes < batch && stocks::have_stock() && try_charge_below(group.idx, None, batch).is_ok() {
        VESSELS.note_charge(live, batch);
        return Ok((live, batch - nr_bytes));
    }
    charge_below(group.idx, None, nr_bytes, on_limit)?;
    VESSELS.note_charge(live, nr_bytes);
    Ok((live, 0))
}

/// A group's own vessel.
fn live_vessel(group: &PinnedNode) -> u32 {
    node(group.idx).objcg.load(Ordering::Relaxed)
}

/// Bytes that lead to a vessel.
pub(crate) fn charged(vessel: u32) -> u64 {
    VESSELS.charged(vessel)
}

/// Charges objects that are about to be taken for a vessel, as far as no limit is near: out of this CPU's stock, or up the tree, and
/// then a batch if that is more. Returns the bytes that were charged: none, or at least the price of an object. Asks nobody, and takes no lock
/// but those below a CPU's slot; [`note_peak`] is owed if it `went_up`.
pub(crate) fn charge_refill(vessel: u32, nr_bytes: u64, price: u64, went_up: &mut bool) -> u64 {
    if take_stock(vessel, nr_bytes) {
        return nr_bytes;
    }
    let Some(group) = PinnedNode::of_vessel(vessel) else { return 0 };
    let nr_bytes = nr_bytes.max(batch(group.idx)).min(ahead_bound(group.idx));
    let is_live = live_vessel(&group) == vessel;
    if nr_bytes < price || !is_live || try_charge_below(group.idx, None, nr_bytes).is_err() {
        return 0;
    }
    VESSELS.note_charge(vessel, nr_bytes);
    *went_up = true;
    nr_bytes
}

/// Charges a pinned group and its ancestors below `end`, all or none. What is refused climbs a ladder: what stocks and sheaves keep
/// below the refusing group is drained; shrinkers run there; then it is forced in a scope that must not fail, or the policy
/// decides.
pub(super) fn charge_below(group: u32, end: Option<u32>, nr_bytes: u64, on_limit: OnLimit) -> Result<(), Refused> {
    let Err(first) = try_charge_below(group, end, nr_bytes) else { return Ok(()) };
    let (mut drained, mut charged) = drain_and_charge(group, end, nr_bytes, first);
    let mut nr_reclaims = 0;
    while let Err(at) = charged
        && nr_reclaims < MAX_RECLAIMS
        && reclaim::make_room(at, nr_bytes)
    {
        nr_reclaims += 1;
        charged = try_charge_below(group, end, nr_bytes);
        if let Err(above) = charged
            && is_above(above, drained)
        {
            // That one has room now, and meets a limit that was not met before.
            (drained, charged) = drain_and_charge(group, end, nr_bytes, above);
        }
    }
    let Err(mut refusing) = charged else { return Ok(()) };
    if refusing != drained {
        // A level below, whose grant has ended meanwhile: it has met its limit as well.
        events::count(refusing, Event::Max);
    }
    if in_reclaim::must_not_fail() && force_charge_below(group, end, nr_bytes) {
        return Ok(());
    }
    if on_limit == OnLimit::AskPolicy {
        match oom::charge_or_kill(group, drained, nr_bytes) {
            Ok(()) => return Ok(()),
            Err(at) => refusing = at,
        }
    }
    events::count(refusing, Event::Oom);
    Err(Refused { refused_by: refusing, nr_bytes })
}

/// Drains the refusing group and tries again; then whichever group above it refuses next, which has not been drained. Returns
/// the last one that was, and how it ended.
fn drain_and_charge(group: u32, end: Option<u32>, nr_bytes: u64, first: u32) -> (u32, Result<(), u32>) {
    let mut refusing = first;
    loop {
        events::count(refusing, Event::Max);
        drain_subtree(refusing);
        match try_charge_below(group, end, nr_bytes) {
            // Upwards only, so it ends.
            Err(above) if is_above(above, refusing) => refusing = above,
            charged => return (refusing, charged),
        }
    }
}

/// Charges one level that has just refused, once room was made there: the first rungs of the ladder, for a level above those that
/// were granted their reserves.
#[cold]
pub(super) fn charge_with_room(at: u32, nr_bytes: u64) -> bool {
    let counter = &node(at).counter;
    events::count(at, Event::Max);
    drain_subtree(at);
    let mut is_charged = counter.try_charge(nr_bytes);
    let mut nr_reclaims = 0;
    while !is_charged && nr_reclaims < MAX_RECLAIMS && reclaim::make_room(at, nr_bytes) {
        nr_reclaims += 1;
        is_charged = counter.try_charge(nr_bytes);
    }
    is_charged
}

/// A pinned group and its ancestors up to `end`, which is not one of them. The pins of a slot's children keep its ancestors'
/// slots.
fn levels(group: u32, end: Option<u32>) -> impl Iterator<Item = u32> {
    ancestors(group).take_while(move |at| Some(*at) != end)
}

/// Charges all levels or none; the error is the refusing one.
fn try_charge_below(group: u32, end: Option<u32>, nr_bytes: u64) -> Result<(), u32> {
    for at in levels(group, end) {
        if !node(at).counter.try_charge(nr_bytes) {
            uncharge_below(group, Some(at), nr_bytes);
            return Err(at);
        }
    }
    Ok(())
}

/// Charges all levels whatever their limits are. False if a counter has no room: nothing is charged then.
#[cold]
fn force_charge_below(group: u32, end: Option<u32>, nr_bytes: u64) -> bool {
    for at in levels(group, end) {
        if !node(at).counter.force_charge(nr_bytes) {
            uncharge_below(group, Some(at), nr_bytes);
            return false;
        }
    }
    true
}

/// Raises the peaks to the present usage, and counts who is over its soft limit: what was charged is there now.
pub(crate) fn note_peak(vessel: u32) {
    if let Some(group) = PinnedNode::of_vessel(vessel) {
        note_peak_below(group.idx, None);
    }
    call_watcher();
}

pub(super) fn note_peak_below(group: u32, end: Option<u32>) {
    for at in levels(group, end) {
        let level = node(at);
        level.counter.note_peak();
        if level.counter.usage() > level.counter.high() {
            events::count(at, Event::High);
        }
    }
}

pub(super) fn uncharge_below(group: u32, end: Option<u32>, nr_bytes: u64) {
    levels(group, end).for_each(|at| uncharge_level(at, nr_bytes));
}

/// Takes bytes off one level, and tells those who wait for them.
pub(super) fn uncharge_level(at: u32, nr_bytes: u64) {
    let level = node(at);
    let returned = level.counter.uncharge(nr_bytes);
    if returned.before < nr_bytes {
        die!("group {at}: {nr_bytes} bytes returned, {} charged", returned.before);
    }
    if returned.ends_grant {
        level.counter.end_grant();
    }
    if returned.passed_high {
        events::announce(at);
    }
}

/// The group and its ancestors, the root last. The group is pinned.
pub(super) fn ancestors(group: u32) -> impl Iterator<Item = u32> {
    core::iter::successors(Some(group), |at| (*at != ROOT).then(|| node(*at).parent.load(Ordering::Relaxed)))
}

/// Whether a group is an ancestor of another one, which is pinned.
pub(super) fn is_above(above: u32, group: u32) -> bool {
    ancestors(group).skip(1).any(|at| at == above)
}

/// Bytes to charge ahead for a group: little for an idle one and under a small limit, more with use.
fn batch(group: u32) -> u64 {
    let by_use = (node(group).counter.usage() / USAGE_SHARE).clamp(MIN_BATCH, MAX_BATCH);
    by_use.min(ahead_bound(group))
}

/// The most bytes that a CPU charges ahead to a group at once.
fn ahead_bound(group: u32) -> u64 {
    let smallest_max = ancestors(group).map(|at| node(at).counter.max()).min().unwrap_or(u64::MAX);
    smallest_max / (LIMIT_SHARE * nr_cpus() as u64)
}

/// Gives back what all CPUs' stocks hold for a group and its descendants, and what free objects keep charged to them.
pub(super) fn drain_subtree(top: u32) {
    let discharge = *KEPT_IN_KIND.lock();
    if let Some(discharge) = discharge {
        discharge(top);
    }
    stocks::drain(|vessel| leads_to(vessel, top), |residue| give_back(Owed::from(residue)));
}

/// The same for the group that a vessel leads to.
pub(crate) fn drain_vessel(vessel: u32) {
    if let Some(group) = PinnedNode::of_vessel(vessel) {
        drain_subtree(group.idx);
    }
}

/// Gives back what this CPU's stock holds for a vessel.
pub(super) fn drain_here(vessel: u32) {
    if let Some(residue) = stocks::drain_here(vessel) {
        give_back(Owed::from(residue));
    }
}

/// A group's slot that is pinned for the time of a charge.
pub(super) struct PinnedNode {
    pub(super) idx: u32,
}

impl PinnedNode {
    /// The group that a vessel leads to; `None` if the vessel's slot is free, which a vessel with anything charged to it
    /// never is.
    pub(super) fn of_vessel(vessel: u32) -> Option<PinnedNode> {
        let mut id = vessel;
        loop {
            match VESSELS.target(id) {
                Target::Node { idx, generation } => {
                    if node(idx).pin.try_get(generation) {
                        return Some(PinnedNode { idx });
                    }
                    // The group died just now. Its vessel was forwarded before: look again.
                    core::hint::spin_loop();
                }
                Target::Forwarded => {
                    let (live, freed) = VESSELS.find(id)?;
                    if let Some(freed) = freed {
                        give_back(freed);
                    }
                    id = live;
                }
                // What was found live a moment ago may be gone if nothing keeps the first one: start again from there.
                Target::Nowhere if id != vessel => id = vessel,
                Target::Nowhere => return None,
            }
        }
    }

    pub(super) fn of_root() -> PinnedNode {
        PinnedNode::of_pinned(ROOT)
    }

    /// One more pin of a slot that the caller has pinned.
    pub(super) fn of_pinned(idx: u32) -> PinnedNode {
        node(idx).pin.get();
        PinnedNode { idx }
    }
}

impl Drop for PinnedNode {
    fn drop(&mut self) {
        tree::unpin(self.idx);
    }
}

/// Bytes that stocks hold per CPU at most.
pub(crate) const fn max_stock_bytes_per_cpu() -> u64 {
    NR_ARMS * NR_SLOTS as u64 * MAX_KEEP
}

/// Bytes that the stocks of one CPU hold for one vessel at most.
pub(crate) const fn max_stock_bytes_of_one() -> u64 {
    NR_ARMS * MAX_KEEP
}
