//! Per-CPU memory: an allocation is the same place in the unit of every CPU, charged object by object.
//!
//! Key functions: [`alloc`], [`free`]; key types: [`Words`] (a number of each CPU), `Chunk` (which granules are taken),
//! `Slots` (chunks by free space), `Region` (the address space). Below: `hooks`, which charges; `os`, from which the memory
//! comes. Source: the kernel's `mm/percpu.c`.
//!
//! A *chunk* has one *unit* of 64 KiB for each possible CPU, at a fixed stride, so that a section of `objcg_rseq` finds its
//! CPU's by a shift. An address is that in CPU 0's unit. *Granules* of 4 bytes are handed out first fit, lowest chunk with
//! room first by `slots`; memory is zero on every CPU. The price is the granules' bytes × possible CPUs + an owner slot; the
//! chunk keeps the owner, so a free returns the price to the vessel that paid, from any thread, CPU or group.
//!
//! **Locking.** One lock guards maps, slots and the region, with nothing taken under it; charges are made and given back
//! outside. Populating a page is the first write to it. Giving pages back takes their granules first, under the lock, then
//! lets go of it for the system call: nobody can be allocated what is on its way back, and nobody who has an allocation is
//! in a page that is. Nothing here is lock-free; `models` has what goes on in the middle, while no lock is held.
//!
//! **Hysteresis.** Pages without an allocation stay populated up to a bound: in each unit 4 and 1/16 of those that are
//! populated. Past it they go back until half the bound is left.

#![expect(unsafe_code, reason = "memory comes back as addresses that the user vouches for")]

mod bits;
mod chunk;
#[cfg(not(loom))]
mod counter;
mod region;
mod slots;
mod state;
#[cfg(not(loom))]
mod words;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

use core::fmt;
use core::ptr::NonNull;

use crate::cpu::{CpuId, nr_cpus};
use crate::hooks::{self, OWNER_BYTES, Refused};
use crate::os::PAGE_SIZE;
use crate::report::die;
use crate::sync::{Guard, Lock, Ordering};
use state::State;

#[cfg(not(loom))]
pub use counter::PerCpuCounter;
#[cfg(not(loom))]
pub use words::{Sum, Words};

/// log2 of [`UNIT_BYTES`]: from one CPU's unit to the next.
const UNIT_SHIFT: u32 = if cfg!(loom) { 5 } else { 16 };
/// The largest allocation, in bytes on one CPU.
pub const UNIT_BYTES: usize = 1 << UNIT_SHIFT;
/// What sizes are rounded up to.
pub const GRANULE_BYTES: usize = 4;
const NR_GRANULES: usize = UNIT_BYTES / GRANULE_BYTES;
const BLOCK_GRANULES: usize = PAGE_SIZE / GRANULE_BYTES;
const NR_BLOCKS: usize = NR_GRANULES / BLOCK_GRANULES;

/// Why there is no per-CPU memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocError {
    /// The size is 0, or over [`UNIT_BYTES`].
    Size(usize),
    /// The alignment is not a power of two, or over 4096.
    Align(usize),
    /// A group has no room for it.
    Limit(Refused),
    /// The process is out of memory, or of the address space that was set aside.
    NoMemory,
}

/// What per-CPU memory there is, in bytes on all CPUs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PercpuStat {
    /// Allocations.
    pub nr_allocations: usize,
    /// Bytes of their granules.
    pub used_bytes: usize,
    /// Bytes of the pages that they lie in, or lay in and that were not given back yet. A page takes memory on those CPUs
    /// that have written to it.
    pub populated_bytes: usize,
    /// Bytes of pages with owner words.
    pub owner_bytes: usize,
    /// Bytes of the chunks' metadata.
    pub metadata_bytes: usize,
}

impl PercpuStat {
    /// Everything that is held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.populated_bytes + self.owner_bytes + self.metadata_bytes
    }
}

/// The allocator. Tests make others, for machines with more CPUs.
struct Percpu {
    /// Units of a chunk; 0 for this machine's CPUs.
    width: usize,
    state: Lock<State>,
}

#[cfg(not(loom))]
static PERCPU: Percpu = Percpu::of_width(0);
#[cfg(loom)]
loom::lazy_static! {
    static ref PERCPU: Percpu = Percpu { width: 0, state: Lock::new(State::EMPTY) };
}

/// `nr_bytes` on every CPU at a multiple of `align`: zero, and charged to the current group. Returns the address in CPU 0's
/// unit; [`of_cpu`] leads to the others.
///
/// # Errors
/// See [`AllocError`]: nothing changed then.
///
/// ```
/// use objcg_core::percpu;
/// use objcg_core::memcg::Memcg;
/// use objcg_core::cpu::nr_cpus;
///
/// let tenant = Memcg::root().create("counting")?;
/// let inside = tenant.enter();
/// let counter = percpu::alloc(8, 8)?;
/// drop(inside);
/// assert_eq!(tenant.stat().percpu_bytes, 8 * nr_cpus() as u64);
/// // SAFETY: it came from `alloc`, and nothing uses it.
/// unsafe { percpu::free(counter) };
/// assert_eq!(tenant.stat().percpu_bytes, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn alloc(nr_bytes: usize, align: usize) -> Result<NonNull<u8>, AllocError> {
    PERCPU.alloc(nr_bytes, align)
}

/// Gives an allocation back, and its price to whoever was charged. Aborts on an address where none starts, and on a second
/// free.
///
/// # Safety
/// `address` came from [`alloc`], and nothing uses it any more, on any CPU.
pub unsafe fn free(address: NonNull<u8>) {
    PERCPU.free(address);
}

/// The place of an allocation in a CPU's unit.
///
/// # Safety
/// `first` came from [`alloc`].
#[inline]
#[must_use]
pub unsafe fn of_cpu(first: NonNull<u8>, cpu: CpuId) -> NonNull<u8> {
    // SAFETY: a chunk has a unit for each CPU number, and an allocation has the same place in each.
    unsafe { first.byte_add(cpu.index() << UNIT_SHIFT) }
}

/// What there is. O(1).
#[must_use]
pub fn stat() -> PercpuStat {
    PERCPU.lock().stat()
}

/// Gives all pages without an allocation back to the operating system; returns how many bytes of units that were.
pub fn trim() -> usize {
    PERCPU.release_down_to(0)
}

/// Visits the owner and the bytes, on all CPUs, of every allocation that has one.
pub(crate) fn for_each_owned(visit: impl FnMut(u32, u64)) {
    PERCPU.for_each_owned(visit);
}

/// Takes the lock for a `fork`.
#[cfg(not(loom))]
pub(crate) fn hold_for_fork() {
    PERCPU.state.hold_for_fork();
}

/// Gives back what [`hold_for_fork`] took.
#[cfg(not(loom))]
pub(crate) fn release_after_fork() {
    PERCPU.state.force_unlock();
}

fn price(nr_granules: usize, nr_units: usize) -> usize {
    nr_granules * GRANULE_BYTES * nr_units + OWNER_BYTES
}

impl Percpu {
    #[cfg(not(loom))]
    const fn of_width(width: usize) -> Percpu {
        Percpu { width, state: Lock::new(State::EMPTY) }
    }

    fn nr_units(&self) -> usize {
        if self.width == 0 { nr_cpus() } else { self.width }
    }

    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }

    fn alloc(&self, nr_bytes: usize, align: usize) -> Result<NonNull<u8>, AllocError> {
        if nr_bytes == 0 || nr_bytes > UNIT_BYTES {
            return Err(AllocError::Size(nr_bytes));
        }
        if !align.is_power_of_two() || align > PAGE_SIZE {
            return Err(AllocError::Align(align));
        }
        let nr_granules = nr_bytes.div_ceil(GRANULE_BYTES);
        let nr_units = self.nr_units();
        let price = price(nr_granules, nr_units);
        let charge = hooks::charge_ahead(price).map_err(AllocError::Limit)?;
        let taken = self.lock().alloc(nr_units, nr_granules, align.div_ceil(GRANULE_BYTES), charge.owner());
        let taken = taken.ok_or(AllocError::NoMemory)?;
        taken.zero(nr_units);
        charge.taken();
        Ok(taken.address)
    }

    fn free(&self, address: NonNull<u8>) {
        let mut state = self.lock();
        let freed = state.free(address.as_ptr() as usize).unwrap_or_else(|stranger| report_stranger(address, stranger));
        let price = price(freed.nr_granules, self.nr_units());
        let bound = state.idle_bound();
        let has_surplus = state.nr_idle() > bound;
        drop(state);
        hooks::uncharge_pages(freed.owner, price);
        if has_surplus {
            self.release_down_to(bound / 2);
        }
    }

    /// Gives idle blocks back until that many are left, the highest chunks' first; returns the bytes of units that went.
    fn release_down_to(&self, nr_blocks: usize) -> usize {
        let mut nr_released = 0;
        loop {
            let mut state = self.lock();
            if state.nr_idle() <= nr_blocks {
                return nr_released;
            }
            let Some(idle) = state.hold_idle() else { return nr_released };
            drop(state);
            let is_released = idle.release();
            let nr_bytes = idle.nr_pages() * PAGE_SIZE * self.nr_units();
            self.lock().put_idle(idle, is_released);
            if !is_released {
                return nr_released;
            }
            nr_released += nr_bytes;
        }
    }

    fn for_each_owned(&self, mut visit: impl FnMut(u32, u64)) {
        let mut next = Some(0);
        while let Some(at) = next {
            // A chunk at a time: others may go on in between.
            next = self.lock().for_each_owned(at, |owner, nr_granules| {
                // Relaxed: at a quiet point whoever has the allocation has stored its owner.
                visit(owner.load(Ordering::Relaxed), (nr_granules * GRANULE_BYTES * self.nr_units()) as u64);
            });
        }
    }
}

/// Why an address is not that of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stranger {
    Foreign,
    OtherUnit(usize),
    Inside,
    Free,
}

#[cold]
#[inline(never)]
fn report_stranger(address: NonNull<u8>, stranger: Stranger) -> ! {
    match stranger {
        Stranger::Foreign => die!("{address:p}: not an address of per-CPU memory"),
        Stranger::OtherUnit(cpu) => die!("{address:p}: in the unit of CPU {cpu}; per-CPU memory is freed by CPU 0's"),
        Stranger::Inside => die!("{address:p}: inside per-CPU memory, not its start"),
        Stranger::Free => die!("{address:p}: no per-CPU memory starts there: freed already, or never allocated"),
    }
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AllocError::Size(nr_bytes) => write!(f, "{nr_bytes} bytes on each CPU: it must be from 1 to {UNIT_BYTES}"),
            AllocError::Align(align) => {
                write!(f, "an alignment of {align}: it must be a power of two up to {PAGE_SIZE}")
            }
            AllocError::Limit(refused) => refused.fmt(f),
            AllocError::NoMemory => f.write_str("the process is out of memory"),
        }
    }
}

impl core::error::Error for AllocError {}
