//! Shrinkers: callbacks of caches that can give memory back, each registered for a group.
//!
//! A registration is a slot of a table: callback, its data, the group's number, and a [`Gate`] that says who may run it. A pass
//! looks at all slots; it holds no lock while a callback runs. Whoever leaves a closed gate last drops the data and frees the slot.

#![expect(unsafe_code, reason = "callbacks and their data come as pointers")]

use core::ffi::c_void;

use super::gate::Gate;
use super::{Memcg, in_reclaim};
use crate::sync::{AtomicPtr, AtomicU32, Ordering};
use crate::table::{Slot, Table};

/// 64 chunks of 8192 registrations.
static TABLE: Table<ShrinkerSlot, 64> = Table::new();

/// Why memory is wanted back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReclaimContext {
    /// An allocation met a limit, and is refused or kills if nothing comes back. The thread is in the middle of that
    /// allocation, wherever it happened: it may hold any lock of the program's. Do not wait for one.
    Allocation,
    /// A thread is held back above `high`: it called for it, and holds no lock that a shrinker needs.
    Throttle,
    /// Somebody asked for memory back, or lowered a limit.
    Reclaim,
}

/// What is asked of a shrinker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShrinkControl {
    /// Bytes that are wanted; what the group is above its protection, if that is less.
    pub nr_bytes: u64,
    /// Why.
    pub context: ReclaimContext,
}

/// A callback: is given the data it was registered with, and returns how many bytes it believes to have freed.
pub type ShrinkFn = unsafe fn(data: *mut c_void, control: &ShrinkControl) -> u64;

/// Drops a callback's data.
pub type DropFn = unsafe fn(data: *mut c_void);

#[repr(C)]
pub(super) struct ShrinkerSlot {
    gate: Gate,
    /// The group's number. It is pinned by the registration's handle as long as the gate is open.
    group: AtomicU32,
    next_free: AtomicU32,
    shrink: AtomicPtr<c_void>,
    drop: AtomicPtr<c_void>,
    data: AtomicPtr<c_void>,
}

// SAFETY: zero is a valid value of every field (a gate that is closed to all, null pointers), and all are atomics.
unsafe impl Slot for ShrinkerSlot {
    fn next_free(&self) -> &AtomicU32 {
        &self.next_free
    }
}

/// A registration; dropping it ends it. Then no run of the callback is under way, unless it is dropped inside a shrinker: then
/// its data is dropped by whoever runs it last. Holds a handle to the group.
#[must_use = "a shrinker is unregistered when its registration is dropped"]
#[derive(Debug)]
pub struct Shrinker {
    group: Memcg,
    slot: u32,
}

impl Memcg {
    /// Registers a callback that gives memory of this group back. It is run under no lock of the engine, by any thread, by several
    /// at once, inside allocations; in the root, so that what it allocates is nobody's. It is never run by a thread that
    /// runs a shrinker already. `None` without memory: then `drop` was not called.
    ///
    /// # Safety
    /// `shrink` may be called with `data` from any thread, by several at once, until `drop` is called with it, which happens
    /// once. Neither unwinds.
    pub unsafe fn register_shrinker(&self, shrink: ShrinkFn, drop: DropFn, data: *mut c_void) -> Option<Shrinker> {
        let idx = TABLE.alloc()?;
        let slot = TABLE.get(idx);
        slot.group.store(self.idx, Ordering::Relaxed);
        slot.shrink.store(shrink as *mut c_void, Ordering::Relaxed);
        slot.drop.store(drop as *mut c_void, Ordering::Relaxed);
        slot.data.store(data, Ordering::Relaxed);
        slot.gate.open();
        Some(Shrinker { group: self.clone(), slot: idx })
    }
}

impl Shrinker {
    /// The group that it was registered for.
    #[must_use]
    pub fn group(&self) -> &Memcg {
        &self.group
    }
}

impl Drop for Shrinker {
    fn drop(&mut self) {
        let slot = TABLE.get(self.slot);
        let generation = slot.gate.generation();
        if slot.gate.close() {
            take_back(self.slot);
        } else if !in_reclaim::reclaims() {
            // Inside a shrinker, waiting for one might be waiting for oneself.
            slot.gate.wait_until_gone(generation);
        }
    }
}

/// Drops the data of a registration that has come to its end, and frees its slot.
fn take_back(idx: u32) {
    let slot = TABLE.get(idx);
    let (drop, data) = (slot.drop.load(Ordering::Relaxed), slot.data.load(Ordering::Relaxed));
    // SAFETY: it was stored from a `DropFn`.
    let drop = unsafe { core::mem::transmute::<*mut c_void, DropFn>(drop) };
    // SAFETY: by the contract of `register_shrinker`: the gate is closed and everybody has left, and one is the last.
    unsafe { drop(data) };
    slot.gate.gone();
    slot.gate.wake();
    TABLE.free(idx);
}

/// The numbers that registrations have or had.
pub(super) fn all() -> core::ops::Range<u32> {
    0..TABLE.nr_made()
}

/// The group of a registration as long as the visit to it lasts; `None` if there is none of that number.
pub(super) struct Visit {
    idx: u32,
}

impl Visit {
    /// Keeps a registration, and its group's slot, from going away.
    pub(super) fn begin(idx: u32) -> Option<Visit> {
        // Made only then: its drop leaves the gate.
        TABLE.get(idx).gate.enter().then(|| Visit { idx })
    }

    pub(super) fn idx(&self) -> u32 {
        self.idx
    }

    pub(super) fn group(&self) -> u32 {
        TABLE.get(self.idx).group.load(Ordering::Relaxed)
    }

    /// Runs the callback. The thread is one that reclaims, and has no other visit.
    pub(super) fn run(&self, control: &ShrinkControl) -> u64 {
        let slot = TABLE.get(self.idx);
        let (shrink, data) = (slot.shrink.load(Ordering::Relaxed), slot.data.load(Ordering::Relaxed));
        // SAFETY: it was stored from a `ShrinkFn`.
        let shrink = unsafe { core::mem::transmute::<*mut c_void, ShrinkFn>(shrink) };
        // SAFETY: by the contract of `register_shrinker`; the gate keeps the data.
        in_reclaim::running(self.idx, || unsafe { shrink(data, control) })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if TABLE.get(self.idx).gate.leave() {
            take_back(self.idx);
        }
    }
}

pub(super) fn hold_for_fork() {
    TABLE.hold_for_fork();
}

pub(super) fn release_after_fork() {
    TABLE.release_after_fork();
}

/// In a child of `fork`: no run is under way but the one that has called it, if it was called by one.
pub(super) fn forget_others_after_fork() {
    let mine = in_reclaim::runs();
    all().for_each(|idx| TABLE.get(idx).gate.forget_others(u32::from(mine == Some(idx))));
}
