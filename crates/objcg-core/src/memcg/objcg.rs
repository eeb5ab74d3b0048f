//! Vessels: what an object is charged to, the kernel's `struct obj_cgroup`.
//!
//! A vessel leads to its group while the group lives, and to the parent's vessel afterwards; deleting a group changes
//! that one word, whatever number of objects and of older vessels lead to it. Look-ups follow and shorten the path
//! (union-find). An object keeps the id of its vessel in 4 bytes; there is no reference count an object.
//!
//! # Life of a vessel
//!
//! | state word | meaning |
//! |---|---|
//! | 0 | the slot is free |
//! | `ATTACHED`, group number, generation | live: charges and returns go to that group |
//! | `FORWARDED`, `ATTACHED`, vessel id | the group was deleted, but its slot is still pinned by a handle or a charge |
//! | `FORWARDED`, vessel id | a dead group's vessel; freed when nothing is charged to it any more |
//!
//! `charged` is the sum of what leads here: bytes of live objects, of stocks, and [`VESSEL_BYTES`] for every vessel that
//! forwards here or whose group is a child of this one's. So a forwarding keeps its target alive like any object would,
//! and the memory of a dead group's vessel is the parent's, as everything that it left.
//!
//! Live vessels are read without a lock. Forwarded ones are followed, shortened and freed under one lock: it is reached
//! only by returns of batches to dead groups.

use crate::report::die;
use crate::sync::{AtomicU32, AtomicU64, Lock, Ordering};
use crate::table::{Slot, Table};

/// What a vessel's own memory costs the group that it leads to.
pub(crate) const VESSEL_BYTES: u64 = size_of::<ObjCgroup>() as u64;
/// Chunks of 8192 vessels: 33 million.
const CAPACITY: usize = if cfg!(loom) { 4 } else { 4096 };

const FORWARDED: u64 = 1 << 63;
const ATTACHED: u64 = 1 << 62;
const NODE_SHIFT: u32 = 32;
const LOW: u64 = u32::MAX as u64;

/// 24 bytes of state in 32: half a cache line for what a dead group leaves.
#[repr(C, align(32))]
#[cfg_attr(loom, derive(Default))]
pub(crate) struct ObjCgroup {
    charged: AtomicU64,
    state: AtomicU64,
    /// Bytes that a CPU's stock may keep for this vessel; 0 once the group is deleted.
    keep: AtomicU32,
    next_free: AtomicU32,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<ObjCgroup>() == 32);

#[cfg(not(loom))]
mod slot {
    #![expect(unsafe_code, reason = "vouches for a type that may start as zeroes")]

    use super::{AtomicU32, ObjCgroup, Slot};

    // SAFETY: zero is a valid value of every field, and all are atomics.
    unsafe impl Slot for ObjCgroup {
        fn next_free(&self) -> &AtomicU32 {
            &self.next_free
        }
    }
}

#[cfg(loom)]
impl Slot for ObjCgroup {
    fn next_free(&self) -> &AtomicU32 {
        &self.next_free
    }
}

/// Where a vessel leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// To a group: its slot's number and generation, which [`super::pin::Pin::try_get`] checks.
    Node { idx: u32, generation: u32 },
    /// To another vessel.
    Forwarded,
    /// Nowhere: the id's slot is free. Only those see it that hold nothing charged to the vessel.
    Nowhere,
}

/// Bytes on their way back to a vessel's group: a stock's residue, or the memory of vessels that were freed, owed to the
/// one that they led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "bytes that are owed stay charged until they are given back"]
pub(crate) struct Owed {
    pub(crate) vessel: u32,
    pub(crate) nr_bytes: u64,
}

#[cfg(not(loom))]
impl From<super::stock::Residue> for Owed {
    fn from(residue: super::stock::Residue) -> Owed {
        Owed { vessel: residue.vessel, nr_bytes: u64::from(residue.nr_bytes) }
    }
}

pub(crate) struct Vessels {
    table: Table<ObjCgroup, CAPACITY>,
    /// Guards forwarding: every change of a state word but the first, and every free.
    forwarding: Lock<()>,
}

impl Vessels {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Vessels { table: Table::new(), forwarding: Lock::new(()) }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Vessels { table: Table::new(), forwarding: Lock::new(()) }
    }

    /// A vessel for a group; `None` without memory. [`VESSEL_BYTES`] were charged to the parent's vessel before.
    pub(crate) fn attach(&self, node: u32, generation: u32) -> Option<u32> {
        let id = self.table.alloc()?;
        let vessel = self.table.get(id);
        vessel.charged.store(0, Ordering::Relaxed);
        vessel.keep.store(0, Ordering::Relaxed);
        let state = ATTACHED | (u64::from(node) << NODE_SHIFT) | u64::from(generation);
        vessel.state.store(state, Ordering::Release);
        Some(id)
    }

    #[inline]
    pub(crate) fn target(&self, id: u32) -> Target {
        // Acquire pairs with the Release in `forward` and `attach`.
        match self.table.get(id).state.load(Ordering::Acquire) {
            0 => Target::Nowhere,
            state if state & FORWARDED != 0 => Target::Forwarded,
            state => Target::Node { idx: ((state & !ATTACHED) >> NODE_SHIFT) as u32, generation: state as u32 },
        }
    }

    /// Bytes that a CPU's stock may keep for the vessel.
    #[inline]
    pub(crate) fn keep(&self, id: u32) -> u32 {
        self.table.get(id).keep.load(Ordering::Relaxed)
    }

    /// Sets what stocks may keep, for a live vessel whose group the caller has pinned. A delete that comes between leaves
    /// a stock that keeps up to this much until its slot's next use: the bound of I1 covers it.
    pub(crate) fn set_keep(&self, id: u32, nr_bytes: u32) {
        self.table.get(id).keep.store(nr_bytes, Ordering::Relaxed);
    }

    /// Bytes that lead to the vessel.
    pub(crate) fn charged(&self, id: u32) -> u64 {
        self.table.get(id).charged.load(Ordering::Relaxed)
    }

    /// Counts bytes that were charged to the vessel's group. The caller has the group pinned, which keeps the vessel.
    pub(crate) fn note_charge(&self, id: u32, nr_bytes: u64) {
        self.table.get(id).charged.fetch_add(nr_bytes, Ordering::Relaxed);
    }

    /// Counts bytes that were given back to the vessel's group; they must have been charged. The last ones may free the
    /// vessel, so it must not be used afterwards.
    pub(crate) fn note_return(&self, id: u32, nr_bytes: u64) -> Option<Owed> {
        // AcqRel: all that was done for the vessel's bytes happens before it is freed.
        let before = self.table.get(id).charged.fetch_sub(nr_bytes, Ordering::AcqRel);
        if before < nr_bytes {
            die!("vessel {id}: {nr_bytes} bytes returned, {before} charged");
        }
        if before > nr_bytes {
            return None;
        }
        // It may have been freed and even reused by now; then it is looked at once more than needed, under the lock.
        let _forwarding = self.forwarding.lock();
        self.collect(id)
    }

    /// Leads a deleted group's vessel to its parent's. The caller holds the tree lock, and the group's slot.
    pub(crate) fn forward(&self, id: u32, to: u32) {
        let _forwarding = self.forwarding.lock();
        let vessel = self.table.get(id);
        vessel.keep.store(0, Ordering::Relaxed);
        // Release pairs with the Acquire in `target`.
        vessel.state.store(FORWARDED | ATTACHED | u64::from(to), Ordering::Release);
    }

    /// The group's slot is released: from now on only charges keep the vessel.
    pub(crate) fn detach(&self, id: u32) -> Option<Owed> {
        let _forwarding = self.forwarding.lock();
        self.table.get(id).state.fetch_and(!ATTACHED, Ordering::Relaxed);
        self.collect(id)
    }

    /// Follows a vessel to the live one at the end of its path, and leads all on the path straight there. `None` if the
    /// id's slot is free. The `Owed` is what the shortening has freed, all of it owed to the vessel found.
    pub(crate) fn find(&self, id: u32) -> Option<(u32, Option<Owed>)> {
        let _forwarding = self.forwarding.lock();
        if self.state(id) == 0 {
            return None;
        }
        let mut live = id;
        while let Some(next) = self.next(live) {
            live = next;
        }
        let mut freed_bytes = 0;
        let mut at = id;
        let mut at_is_empty = false;
        while let Some(next) = self.next(at) {
            let next_is_empty = next != live && self.lead(at, next, live);
            if at_is_empty && self.state(at) & ATTACHED == 0 {
                self.release(at);
                freed_bytes += VESSEL_BYTES;
            }
            (at, at_is_empty) = (next, next_is_empty);
        }
        let freed = (freed_bytes > 0).then_some(Owed { vessel: live, nr_bytes: freed_bytes });
        Some((live, freed))
    }

    /// Leads `id` to `live` instead of `old`; returns whether nothing leads to `old` any more.
    fn lead(&self, id: u32, old: u32, live: u32) -> bool {
        let vessel = self.table.get(id);
        let attached = vessel.state.load(Ordering::Relaxed) & ATTACHED;
        self.table.get(live).charged.fetch_add(VESSEL_BYTES, Ordering::Relaxed);
        vessel.state.store(FORWARDED | attached | u64::from(live), Ordering::Release);
        self.table.get(old).charged.fetch_sub(VESSEL_BYTES, Ordering::AcqRel) == VESSEL_BYTES
    }

    /// Frees the vessel if its group is gone and nothing is charged to it. Called under the lock.
    fn collect(&self, id: u32) -> Option<Owed> {
        let state = self.state(id);
        let done = state & (FORWARDED | ATTACHED) == FORWARDED && self.charged(id) == 0;
        if !done {
            return None;
        }
        self.release(id);
        Some(Owed { vessel: (state & LOW) as u32, nr_bytes: VESSEL_BYTES })
    }

    fn release(&self, id: u32) {
        self.table.get(id).state.store(0, Ordering::Relaxed);
        self.table.free(id);
    }

    fn state(&self, id: u32) -> u64 {
        self.table.get(id).state.load(Ordering::Relaxed)
    }

    /// The vessel that a forwarded one leads to.
    fn next(&self, id: u32) -> Option<u32> {
        let state = self.state(id);
        (state & FORWARDED != 0).then_some((state & LOW) as u32)
    }

    /// How many vessels there are, live and dead.
    pub(crate) fn nr_used(&self) -> u32 {
        self.table.nr_used()
    }
}

#[cfg(not(loom))]
impl Vessels {
    /// The vessel that a forwarded one leads to next.
    pub(crate) fn forwarded_to(&self, id: u32) -> Option<u32> {
        self.next(id)
    }

    /// All ids that were ever handed out are below this.
    pub(crate) fn nr_made(&self) -> u32 {
        self.table.nr_made()
    }

    pub(crate) fn hold_for_fork(&self) {
        self.forwarding.hold_for_fork();
        self.table.hold_for_fork();
    }

    pub(crate) fn release_after_fork(&self) {
        self.table.release_after_fork();
        self.forwarding.force_unlock();
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;

    use super::{Target, VESSEL_BYTES, Vessels};
    use crate::memcg::pin::Pin;

    const CHILD_NODE: u32 = 2;

    /// root ← parent ← child, with an object of 100 bytes charged to the child; ids in that order.
    fn family() -> (Arc<Vessels>, u32, u32, u32) {
        let vessels = Arc::new(Vessels::new());
        let root = vessels.attach(0, 1).unwrap();
        let parent = vessels.attach(1, 1).unwrap();
        vessels.note_charge(root, VESSEL_BYTES);
        let child = vessels.attach(CHILD_NODE, 1).unwrap();
        vessels.note_charge(parent, VESSEL_BYTES);
        vessels.note_charge(child, 100);
        (vessels, root, parent, child)
    }

    fn delete(vessels: &Vessels, id: u32, parent: u32) {
        vessels.forward(id, parent);
        return_owed(vessels, vessels.detach(id));
    }

    fn return_owed(vessels: &Vessels, mut owed: Option<super::Owed>) {
        while let Some(bytes) = owed {
            owed = vessels.note_return(bytes.vessel, bytes.nr_bytes);
        }
    }

    /// Returns the object's bytes, following the vessel as the charging side does.
    fn free_object(vessels: &Vessels, child: u32) -> u32 {
        let mut id = child;
        while vessels.target(id) == Target::Forwarded {
            let (live, freed) = vessels.find(id).expect("the object keeps its vessel");
            return_owed(vessels, freed);
            id = live;
        }
        return_owed(vessels, vessels.note_return(child, 100));
        id
    }

    /// The object is freed while its group and then the parent are deleted: it finds a vessel that was live, both dead
    /// vessels are freed, and the root's account is back at zero.
    #[test]
    fn loom_i4_forwarding_against_free() {
        loom::model(|| {
            let (vessels, root, parent, child) = family();
            let other = Arc::clone(&vessels);
            let freer = loom::thread::spawn(move || free_object(&other, child));
            delete(&vessels, child, parent);
            delete(&vessels, parent, root);
            let found = freer.join().unwrap();
            assert!([root, parent, child].contains(&found));
            assert_eq!(vessels.nr_used(), 1, "only the root's vessel is left");
            assert_eq!(vessels.charged(root), 0);
        });
    }

    /// Two objects of one dead group are freed at once, over a path that both shorten.
    #[test]
    fn loom_i4_two_frees_shorten_one_path() {
        loom::model(|| {
            let (vessels, root, parent, child) = family();
            vessels.note_charge(child, 100);
            delete(&vessels, child, parent);
            delete(&vessels, parent, root);
            let other = Arc::clone(&vessels);
            let freer = loom::thread::spawn(move || free_object(&other, child));
            assert_eq!(free_object(&vessels, child), root);
            assert_eq!(freer.join().unwrap(), root);
            assert_eq!((vessels.nr_used(), vessels.charged(root)), (1, 0));
        });
    }

    /// A charge finds the group while it is deleted: it lands on a vessel that is live at that moment, never on a freed
    /// one, and what it charged is found again under the vessel that it was told.
    #[test]
    fn loom_i4_charge_against_delete() {
        loom::model(|| {
            let (vessels, root, parent, child) = family();
            let pin = Arc::new(Pin::default());
            let generation = pin.revive();
            // The charging thread is inside the group: its handle is a pin.
            pin.get();
            let (other, other_pin) = (Arc::clone(&vessels), Arc::clone(&pin));
            let charger = loom::thread::spawn(move || {
                let charged = charge(&other, &other_pin, child);
                unpin(&other, &other_pin, child);
                charged
            });
            vessels.forward(child, parent);
            pin.kill();
            unpin(&vessels, &pin, child);
            let charged = charger.join().unwrap();
            assert!(!pin.try_get(generation));
            return_owed(&vessels, vessels.note_return(charged, 50));
            free_object(&vessels, child);
            delete(&vessels, parent, root);
            assert_eq!((vessels.nr_used(), vessels.charged(root)), (1, 0));
        });
    }

    fn charge(vessels: &Vessels, pin: &Pin, child: u32) -> u32 {
        let mut id = child;
        loop {
            match vessels.target(id) {
                Target::Node { idx: CHILD_NODE, generation } => {
                    if pin.try_get(generation) {
                        vessels.note_charge(id, 50);
                        unpin(vessels, pin, child);
                        return id;
                    }
                    loom::thread::yield_now();
                }
                Target::Node { .. } => {
                    vessels.note_charge(id, 50);
                    return id;
                }
                Target::Forwarded => {
                    let (live, owed) = vessels.find(id).expect("the charger's pin keeps its vessel");
                    return_owed(vessels, owed);
                    id = live;
                }
                Target::Nowhere => panic!("a vessel in use is free"),
            }
        }
    }

    fn unpin(vessels: &Vessels, pin: &Pin, child: u32) {
        if pin.put() {
            return_owed(vessels, vessels.detach(child));
        }
    }
}
