//! The table of stocks: [`super::stock::NR_SLOTS`] words a CPU, made when the first group is.

#![expect(unsafe_code, reason = "one array of words, reached through a pointer")]

use core::ptr;

use super::stock::{NR_SLOTS, StockSlot};
use crate::cpu::{CpuId, nr_cpus};
use crate::os::PAGE_SIZE;
use crate::page_alloc::{self, PageKind};
use crate::sync::{AtomicPtr, Ordering};

static STOCKS: AtomicPtr<StockSlot> = AtomicPtr::new(ptr::null_mut());

/// Makes the table. Called under the tree lock before the first group exists; without memory there are no stocks, and
/// every charge goes up the tree by itself.
pub(super) fn init() {
    let nr_bytes = nr_cpus() * NR_SLOTS * size_of::<StockSlot>();
    let nr_pages = nr_bytes.div_ceil(PAGE_SIZE) as u32;
    let Some(run) = page_alloc::alloc(nr_pages, 1, PageKind::Engine) else { return };
    // SAFETY: the run is ours alone and has that many bytes; zero is an empty stock.
    unsafe { run.address().write_bytes(0, nr_bytes) };
    // Release pairs with the Acquire in `slot`.
    STOCKS.store(run.address().as_ptr().cast(), Ordering::Release);
}

/// The word of a vessel in a CPU's table.
#[inline]
pub(super) fn slot(cpu: CpuId, vessel: u32) -> Option<&'static StockSlot> {
    at(cpu.index() * NR_SLOTS + vessel as usize % NR_SLOTS)
}

/// Visits every word of every CPU.
pub(super) fn for_each(mut visit: impl FnMut(&'static StockSlot)) {
    for index in 0..nr_cpus() * NR_SLOTS {
        let Some(stock) = at(index) else { return };
        visit(stock);
    }
}

#[inline]
fn at(index: usize) -> Option<&'static StockSlot> {
    let stocks = STOCKS.load(Ordering::Acquire);
    if stocks.is_null() {
        return None;
    }
    // SAFETY: every CPU id and slot number is inside the table that `init` made.
    let stock = unsafe { stocks.add(index) };
    // SAFETY: the table is never freed and its elements are atomics.
    Some(unsafe { &*stock })
}
