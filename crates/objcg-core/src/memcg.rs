//! Groups: the tree of [`Memcg`], what is charged to them, and the current one of each thread.
//!
//! Key types: [`Memcg`] (a counted handle), [`Entered`] (the guard of the current group), and behind them the vessel
//! (`objcg`), the page counter, the stocks. Knows nothing of slabs: it counts bytes for whoever asks. Below: `table`,
//! `page_alloc` for the tables' pages.
//!
//! The slab side sees no more of it than `current`, `charge_object` and `uncharge_object`; statistics use `leads_to` and
//! the sums beside it.

mod attached;
mod charge;
mod current;
mod event_fd;
mod events;
mod external;
mod gate;
mod in_reclaim;
mod index;
mod limits;
mod name;
mod node;
pub(crate) mod objcg;
mod oom;
mod page_counter;
mod peak;
mod pin;
mod reclaim;
mod shrinker;
mod signal;
mod stock;
mod stocks;
mod transfer;
mod tree;
mod vain_drains;
mod wait;
mod walk;

use core::fmt;
use core::marker::PhantomData;

use crate::cpu::nr_cpus;
use crate::sync::Ordering;
use node::node;

pub(crate) use charge::{
    Charged, OnLimit, charge_ahead, charge_more_ahead, charge_object, charge_refill, charged, drain_vessel, note_peak,
    set_discharge, uncharge_object, uncharge_past_stocks,
};
pub use charge::{Watcher, watch};
pub use current::{EnteredOwned, move_into, moved_into};
pub(crate) use current::{UNCHARGED, current, current_mark};
pub use event_fd::EventFd;
pub use events::Events;
pub(crate) use external::for_each_external;
pub use external::{ExternalCharge, ExternalError};
pub use in_reclaim::NoFail;
pub use name::{Name, NameError};
pub use oom::{OomKilled, OomPolicy, OomScope, ReviveError, checkpoint, marks_version, wait_for_marks};
pub use peak::PeakReader;
pub use shrinker::{DropFn, ReclaimContext, ShrinkControl, ShrinkFn, Shrinker};
pub(crate) use transfer::move_charge;
pub use wait::{end_wait_for_changes, max_throttle_delay, set_max_throttle_delay, throttle, wait_for_changes};
pub(crate) use walk::{group_bytes, leads_to, stock_bytes};

/// The root's vessel; as an object's owner it means "not charged".
pub(crate) const ROOT_VESSEL: u32 = 0;

/// A counted handle to a group: a node of the tree, with a counter and a limit of its own.
///
/// The group lives while a handle or a child holds it; the end of the last one deletes it. What outlives it becomes its
/// parent's. Source: the kernel's `struct mem_cgroup`.
pub struct Memcg {
    idx: u32,
}

/// The guard of [`Memcg::enter`]: dropping it makes the group current again that was current before.
#[must_use = "the group is left again when the guard is dropped"]
pub struct Entered<'a> {
    previous: u32,
    /// Borrowed from the handle, which keeps the group's vessel; bound to the thread, whose word it restores.
    _bound: PhantomData<(&'a Memcg, *const ())>,
}

/// A charge that was refused by a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    refused_by: u32,
    nr_bytes: u64,
}

/// Why a group cannot be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateError {
    /// The name is not one.
    Name(NameError),
    /// The parent has a child of that name.
    Exists,
    /// The parent was deleted.
    ParentDeleted,
    /// The parent, or a group above it, has no room for the new group's own memory.
    Limit(Refused),
    /// The process is out of memory.
    NoMemory,
}

/// Why a group cannot be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteError {
    /// The root is for ever.
    Root,
    /// It was deleted before.
    Deleted,
    /// It has children, which would lose their parent.
    HasChildren,
}

/// Why a limit cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitError {
    /// The root has no limit: what is not in a group is not counted.
    Root,
    /// The group was deleted.
    Deleted,
}

impl Memcg {
    /// The root of the tree. Memory that is in no group is the root's and is not counted.
    ///
    /// Aborts if the process has no memory for the tables of groups.
    #[must_use]
    pub fn root() -> Memcg {
        if !tree::init() {
            crate::report::die!("no memory for the root group");
        }
        tree::add_user(node::ROOT);
        Memcg { idx: node::ROOT }
    }

    /// A new child. Its own memory (288 bytes, 552 with a name over 56 bytes) is charged to this group.
    ///
    /// # Errors
    /// See [`CreateError`]; nothing is left of a refused group.
    pub fn create(&self, name: &str) -> Result<Memcg, CreateError> {
        let name = Name::new(name).map_err(CreateError::Name)?;
        tree::create(self.idx, &name).map(|idx| Memcg { idx })
    }

    /// The living child of that name.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<Memcg> {
        let name = Name::new(name).ok()?;
        tree::find_child(self.idx, &name).map(|idx| Memcg { idx })
    }

    /// Fills `room` with children, newest first, and returns how many there are, which may be more.
    pub fn children(&self, room: &mut [Option<Memcg>]) -> usize {
        // Handles that were in `room` are dropped first: the end of one must not come back to the tree lock.
        room.fill_with(|| None);
        let nr_wanted = room.len();
        let mut slots = room.iter_mut();
        tree::first_children(self.idx, nr_wanted, |idx| {
            if let Some(slot) = slots.next() {
                tree::add_user(idx);
                *slot = Some(Memcg { idx });
            }
        })
    }

    /// The parent; `None` for the root and for a deleted group.
    #[must_use]
    pub fn parent(&self) -> Option<Memcg> {
        tree::parent(self.idx).map(|idx| Memcg { idx })
    }

    /// The name; empty for the root.
    #[must_use]
    pub fn name(&self) -> Name {
        node(self.idx).name()
    }

    /// The number of the group's slot: unique among the groups that live or are held, reused later.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.idx
    }

    /// Whether the group was deleted.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        node(self.idx).pin.is_dead()
    }

    /// Deletes the group at once, whatever handles there are: they get errors from now on. What is charged to it becomes
    /// its parent's, without a visit to any object: O(1).
    ///
    /// # Errors
    /// See [`DeleteError`].
    pub fn delete(&self) -> Result<(), DeleteError> {
        tree::delete(self.idx)
    }

    /// Bytes charged to the group and its descendants: live objects, their owner slots, child groups' own memory, and
    /// what stocks hold ready (at most `stat::stock_bound`; [`Memcg::drain`] gives it back). 0 once the group is deleted.
    #[must_use]
    pub fn usage(&self) -> u64 {
        if self.is_deleted() { 0 } else { node(self.idx).counter.usage() }
    }

    /// The most bytes that were charged at once.
    #[must_use]
    pub fn peak(&self) -> u64 {
        node(self.idx).counter.peak()
    }

    /// Gives back what the CPUs' stocks hold for the group and its descendants, so that at a quiet point [`usage`] is
    /// exactly what objects and groups hold. Looks at every stock of every CPU: microseconds.
    ///
    /// [`usage`]: Memcg::usage
    pub fn drain(&self) {
        wait::drain(self.idx);
    }

    /// Makes this the group that the thread's new objects are charged to, until the guard is dropped. In a deleted group
    /// they are charged to its nearest living ancestor. Costs a thread-local word's exchange. A guard that is leaked
    /// leaves the thread with a number that a later group may get: what it allocates then is that group's, or nobody's.
    #[inline]
    pub fn enter(&self) -> Entered<'_> {
        let previous = current::replace(node(self.idx).objcg.load(Ordering::Relaxed));
        Entered { previous, _bound: PhantomData }
    }
}

impl Memcg {
    /// The group's own vessel.
    pub(crate) fn vessel(&self) -> u32 {
        node(self.idx).objcg.load(Ordering::Relaxed)
    }
}

/// For surfaces whose users cannot hold a [`Memcg`]: C, and the words of threads.
impl Memcg {
    /// The group's number and the generation of its slot in one word, never 0: names this group, and none that comes later.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        Memcg::ticket_of(self.idx)
    }

    fn ticket_of(idx: u32) -> u64 {
        u64::from(node(idx).pin.generation()) << u32::BITS | u64::from(idx)
    }

    /// A handle to the group that had this ticket, if it is alive. Any number may be asked.
    #[must_use]
    pub fn of_ticket(ticket: u64) -> Option<Memcg> {
        let idx = ticket as u32;
        tree::try_add_user(idx, (ticket >> u32::BITS) as u32).then(|| Memcg { idx })
    }

    /// Visits the tickets of the first `nr_wanted` children, newest first, and returns how many there are, which may be more.
    /// `visit` runs under the lock of the tree: it must not allocate from the engine, nor make or end groups.
    pub fn child_tickets(&self, nr_wanted: usize, mut visit: impl FnMut(u64)) -> usize {
        tree::first_children(self.idx, nr_wanted, |idx| visit(Memcg::ticket_of(idx)))
    }

    /// Deletes a group of which one handle was forgotten (`mem::forget`), and drops that one too.
    ///
    /// # Errors
    /// As [`Memcg::delete`]: the forgotten handle stays forgotten then.
    pub fn delete_forgotten(&self) -> Result<(), DeleteError> {
        self.delete()?;
        // A group is deleted once, so this is done once.
        drop(Memcg { idx: self.idx });
        Ok(())
    }
}

impl Clone for Memcg {
    fn clone(&self) -> Self {
        tree::add_user(self.idx);
        Memcg { idx: self.idx }
    }
}

impl Drop for Memcg {
    fn drop(&mut self) {
        tree::drop_user(self.idx);
    }
}

impl PartialEq for Memcg {
    fn eq(&self, other: &Self) -> bool {
        self.idx == other.idx
    }
}

impl Eq for Memcg {}

impl fmt::Debug for Memcg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memcg").field("id", &self.idx).field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        current::replace(self.previous);
    }
}

impl Refused {
    /// A refusal that was ordered, by no group's limit: the root's, which has none.
    pub(crate) fn on_order(nr_bytes: u64) -> Refused {
        Refused { refused_by: node::ROOT, nr_bytes }
    }

    /// The [`Memcg::id`] of the group whose limit refused.
    #[must_use]
    pub fn refused_by(self) -> u32 {
        self.refused_by
    }

    /// The bytes that did not fit.
    #[must_use]
    pub fn nr_bytes(self) -> u64 {
        self.nr_bytes
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes are over the limit of group {}", self.nr_bytes, self.refused_by)
    }
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CreateError::Name(error) => error.fmt(f),
            CreateError::Exists => f.write_str("a group of that name exists already"),
            CreateError::ParentDeleted => f.write_str("the parent group was deleted"),
            CreateError::Limit(refused) => write!(f, "no room for the group's own memory: {refused}"),
            CreateError::NoMemory => f.write_str("the process is out of memory"),
        }
    }
}

impl fmt::Display for DeleteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeleteError::Root => "the root group cannot be deleted",
            DeleteError::Deleted => "the group was deleted before",
            DeleteError::HasChildren => "the group has children; delete them first",
        })
    }
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LimitError::Root => "the root group has no limit",
            LimitError::Deleted => "the group was deleted",
        })
    }
}

impl core::error::Error for Refused {}
impl core::error::Error for CreateError {}
impl core::error::Error for DeleteError {}
impl core::error::Error for LimitError {}

/// Living groups, the root not counted.
#[must_use]
pub fn nr_groups() -> usize {
    tree::nr_groups()
}

/// Slots of deleted groups that are still pinned: by handles to them, or by charges under way at this moment. Objects
/// never pin one.
#[must_use]
pub fn nr_dying() -> usize {
    tree::nr_dying()
}

/// Vessels, of living groups and of dead ones to which something is still charged, the root's not counted. One takes 32
/// bytes.
#[must_use]
pub fn nr_vessels() -> usize {
    // tidy: allow(saturating_sub): before the root exists there is none to leave out
    (charge::VESSELS.nr_used() as usize).saturating_sub(1)
}

/// The most bytes that stocks hold ready for one group: CPUs × 256 KiB.
pub(crate) fn stock_bound() -> u64 {
    nr_cpus() as u64 * charge::max_stock_bytes_of_one()
}

/// The most bytes that all stocks of one CPU can hold ready, for all groups together.
#[must_use]
pub fn stock_bound_per_cpu() -> u64 {
    charge::max_stock_bytes_per_cpu()
}

/// Takes the lock of the tree for a `fork`: the first of all.
pub(crate) fn hold_tree_for_fork() {
    tree::hold_tree_for_fork();
}

/// Gives back what [`hold_tree_for_fork`] took.
pub(crate) fn release_tree_after_fork() {
    tree::release_tree_after_fork();
}

/// Takes the other locks of this side for a `fork`: below those of sheaves.
pub(crate) fn hold_for_fork() {
    tree::hold_for_fork();
}

/// Gives back what [`hold_for_fork`] took.
pub(crate) fn release_after_fork() {
    tree::release_after_fork();
}

/// In a child of `fork`, with the locks still held: what is under way in other threads never ends.
pub(crate) fn forget_other_threads() {
    shrinker::forget_others_after_fork();
}
