//! Charges for memory that the engine does not make: mappings, a GPU's memory, what a C library holds.
//!
//! A charge is a slot of a table, vessel and bytes, so that statistics find it by looking as they find objects. It is charged like
//! an object: when its group is deleted the bytes are the parent's, through the vessel.

use core::fmt;

use super::node::node;
use super::objcg::Owed;
use super::transfer::move_charge;
use super::{Memcg, ROOT_VESSEL, Refused, charge};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::table::{Slot, Table};

/// Chunks of 10,922 charges: 11 million.
static TABLE: Table<ExternalSlot, 1024> = Table::new();

#[repr(C)]
struct ExternalSlot {
    /// 0 in a free slot.
    nr_bytes: AtomicU64,
    vessel: AtomicU32,
    next_free: AtomicU32,
}

mod slot {
    #![expect(unsafe_code, reason = "vouches for a type that may start as zeroes")]

    use super::{AtomicU32, ExternalSlot, Slot};

    // SAFETY: zero is a valid value of every field, and all are atomics.
    unsafe impl Slot for ExternalSlot {
        fn next_free(&self) -> &AtomicU32 {
            &self.next_free
        }
    }
}

/// Why memory that the engine does not make was not charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalError {
    /// A limit refuses it.
    Limit(Refused),
    /// The process is out of memory.
    NoMemory,
}

/// Bytes charged to a group for memory that the engine does not make; dropping it gives them back.
///
/// # Invariants
/// The slot is this value's, and its bytes are charged to its vessel.
#[must_use = "the bytes are given back when it is dropped"]
#[derive(Debug)]
pub struct ExternalCharge {
    slot: u32,
}

impl Memcg {
    /// Charges `nr_bytes` to the group for memory that comes from elsewhere. Shrinkers may run; nobody is killed. A few hundred
    /// nanoseconds at most without a limit that is met. In the root nothing is counted.
    ///
    /// # Errors
    /// See [`ExternalError`]; nothing is left of a refused charge.
    pub fn charge_external(&self, nr_bytes: u64) -> Result<ExternalCharge, ExternalError> {
        let slot = TABLE.alloc().ok_or(ExternalError::NoMemory)?;
        let vessel = node(self.idx).objcg.load(Ordering::Relaxed);
        let external = TABLE.get(slot);
        match move_charge(ROOT_VESSEL, vessel, nr_bytes) {
            Ok(owner) => {
                external.vessel.store(owner, Ordering::Relaxed);
                external.nr_bytes.store(nr_bytes, Ordering::Relaxed);
                // INVARIANT: as was just done.
                Ok(ExternalCharge { slot })
            }
            Err(refused) => {
                TABLE.free(slot);
                Err(ExternalError::Limit(refused))
            }
        }
    }
}

impl ExternalCharge {
    fn external(&self) -> &'static ExternalSlot {
        TABLE.get(self.slot)
    }

    /// Bytes charged.
    #[must_use]
    pub fn nr_bytes(&self) -> u64 {
        self.external().nr_bytes.load(Ordering::Relaxed)
    }

    fn vessel(&self) -> u32 {
        self.external().vessel.load(Ordering::Relaxed)
    }

    /// Charges more or fewer bytes. After its group was deleted the charge is the nearest living ancestor's, and so is what it grows
    /// by.
    ///
    /// # Errors
    /// A limit refuses: the charge stays as it was. Making it smaller is never refused.
    pub fn resize(&mut self, nr_bytes: u64) -> Result<(), Refused> {
        let old = self.nr_bytes();
        let vessel = self.vessel();
        if let Some(more) = nr_bytes.checked_sub(old) {
            self.grow(vessel, old, more)?;
        } else {
            give_back(vessel, old - nr_bytes);
        }
        self.external().nr_bytes.store(nr_bytes, Ordering::Relaxed);
        Ok(())
    }

    fn grow(&self, vessel: u32, nr_bytes: u64, more: u64) -> Result<(), Refused> {
        if vessel == ROOT_VESSEL {
            return Ok(());
        }
        let mut grown = move_charge(ROOT_VESSEL, vessel, more)?;
        let mut rest = vessel;
        // One charge has one owner, and the growth of a deleted group's is its ancestor's. Both lead to the same living group: no
        // counter changes, so nothing is refused.
        while rest != grown {
            rest = move_charge(rest, grown, nr_bytes).unwrap_or(grown);
            if rest != grown {
                grown = move_charge(grown, rest, more).unwrap_or(rest);
            }
        }
        self.external().vessel.store(rest, Ordering::Relaxed);
        Ok(())
    }

    /// Moves the charge to another group.
    ///
    /// # Errors
    /// A limit refuses: the charge stays as it was.
    pub fn move_to(&mut self, group: &Memcg) -> Result<(), Refused> {
        let to = node(group.idx).objcg.load(Ordering::Relaxed);
        let moved = move_charge(self.vessel(), to, self.nr_bytes())?;
        self.external().vessel.store(moved, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for ExternalCharge {
    fn drop(&mut self) {
        let external = self.external();
        let (vessel, nr_bytes) = (self.vessel(), external.nr_bytes.swap(0, Ordering::Relaxed));
        give_back(vessel, nr_bytes);
        TABLE.free(self.slot);
    }
}

impl fmt::Display for ExternalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExternalError::Limit(refused) => refused.fmt(f),
            ExternalError::NoMemory => f.write_str("the process is out of memory"),
        }
    }
}

impl core::error::Error for ExternalError {}

/// Takes bytes off a vessel's group at once, past the stocks: what is released is seen to be.
fn give_back(vessel: u32, nr_bytes: u64) {
    if vessel != ROOT_VESSEL {
        charge::give_back(Owed { vessel, nr_bytes });
    }
}

/// Visits vessel and bytes of every charge.
pub(crate) fn for_each_external(mut visit: impl FnMut(u32, u64)) {
    for external in (0..TABLE.nr_made()).map(|idx| TABLE.get(idx)) {
        let nr_bytes = external.nr_bytes.load(Ordering::Relaxed);
        if nr_bytes > 0 {
            visit(external.vessel.load(Ordering::Relaxed), nr_bytes);
        }
    }
}

pub(super) fn hold_for_fork() {
    TABLE.hold_for_fork();
}

pub(super) fn release_after_fork() {
    TABLE.release_after_fork();
}
