//! Huge objects: a mapping of their own each, found through a table by address.
//!
//! The table is open-addressed with linear probing, at most half full, in the engine's own pages, under one lock: a huge
//! object costs system calls anyway. Growing and shrinking moves page tables, not bytes.

#![expect(unsafe_code, reason = "mappings, and an array in the engine's own pages")]

use core::ptr::NonNull;
use core::slice;

use super::Pages;
use crate::hooks;
use crate::memcg::{Memcg, Refused};
use crate::os::{self, PAGE_SIZE};
use crate::page_alloc::{self, Run, Touches};
use crate::report::die;
use crate::sync::Lock;

#[derive(Clone, Copy)]
struct Huge {
    /// 0 in a free place.
    address: usize,
    nr_bytes: usize,
    owner: u32,
    /// Pages in front of it that nobody may touch; one more is behind it then.
    nr_guards: u32,
}

struct HugeTable {
    places: &'static mut [Huge],
    run: Option<Run>,
    nr_objects: usize,
}

static TABLE: Lock<HugeTable> = Lock::new(HugeTable { places: &mut [], run: None, nr_objects: 0 });

const PER_PAGE: usize = PAGE_SIZE / size_of::<Huge>();

/// Maps `nr_bytes` at a multiple of `align`.
pub(super) fn alloc(nr_bytes: usize, align: usize) -> Option<Pages> {
    alloc_behind(0, nr_bytes, align)
}

/// The same between guard pages, whatever the size.
pub(super) fn alloc_guarded(nr_bytes: usize, align: usize) -> Option<Pages> {
    static IS_WATCHING: Lock<bool> = Lock::new(false);
    if !core::mem::replace(&mut *IS_WATCHING.lock(), true) {
        os::on_bad_access(report_guard);
    }
    // As many pages in front as the alignment needs.
    alloc_behind(u32::try_from(align.div_ceil(PAGE_SIZE)).ok()?, nr_bytes, align)
}

fn alloc_behind(nr_guards: u32, nr_bytes: usize, align: usize) -> Option<Pages> {
    if nr_bytes > isize::MAX as usize - PAGE_SIZE {
        return None;
    }
    let nr_bytes = nr_bytes.max(1).next_multiple_of(PAGE_SIZE);
    let charge = hooks::charge_pages(nr_bytes)?;
    let mapped = if nr_guards > 0 { map_guarded(nr_guards, nr_bytes, align) } else { map_aligned(nr_bytes, align) };
    let address = mapped.and_then(|address| {
        let huge = Huge { address: address.as_ptr() as usize, nr_bytes, owner: charge.owner(), nr_guards };
        let inserted = TABLE.lock().insert(huge);
        if !inserted {
            huge.unmap(address);
        }
        inserted.then_some(address)
    })?;
    charge.taken();
    Some(Pages { address, zeroed: true })
}

/// Maps a multiple of the page between guard pages, with so many in front.
fn map_guarded(nr_guards: u32, nr_bytes: usize, align: usize) -> Option<NonNull<u8>> {
    let nr_before = nr_guards as usize * PAGE_SIZE;
    let nr_mapped = nr_bytes.checked_add(nr_before + PAGE_SIZE)?;
    let before = map_aligned(nr_mapped, align)?;
    // SAFETY: inside the mapping.
    let address = unsafe { before.add(nr_before) };
    // SAFETY: inside the mapping: one page is behind.
    let behind = unsafe { address.add(nr_bytes) };
    // SAFETY: nobody uses what is around the object, before and behind.
    let is_guarded = unsafe { os::protect(before, nr_before) } && unsafe { os::protect(behind, PAGE_SIZE) };
    if !is_guarded {
        // SAFETY: the mapping was made here and is shown to nobody.
        unsafe { os::unmap(before, nr_mapped) };
    }
    is_guarded.then_some(address)
}

fn map_aligned(nr_bytes: usize, align: usize) -> Option<NonNull<u8>> {
    if align <= PAGE_SIZE {
        return os::map(nr_bytes);
    }
    let mapped = os::map(nr_bytes.checked_add(align)?)?;
    let before = mapped.align_offset(align);
    // SAFETY: the offset is below `align`, so the address is inside the mapping.
    let address = unsafe { mapped.add(before) };
    if before > 0 {
        // SAFETY: the part before the object is ours and unused.
        unsafe { os::unmap(mapped, before) };
    }
    // SAFETY: the object's end is inside the mapping, `align - before` bytes before its end.
    let behind = unsafe { address.add(nr_bytes) };
    // SAFETY: the part behind the object is ours and unused; it is not empty, since `before` is below `align`.
    unsafe { os::unmap(behind, align - before) };
    Some(address)
}

/// Unmaps a huge object; aborts if there is none at the address.
pub(super) fn free(address: NonNull<u8>) {
    let removed = TABLE.lock().remove(address.as_ptr() as usize);
    let Some(huge) = removed else { report_stranger(address) };
    huge.unmap(address);
    hooks::uncharge_pages(huge.owner, huge.nr_bytes);
}

/// Resizes a huge object, moving its pages if need be; `None` leaves it as it was. Objects that stop being huge move out.
pub(super) fn resize(address: NonNull<u8>, nr_bytes: usize) -> Option<NonNull<u8>> {
    if nr_bytes <= super::large::MAX_BYTES || nr_bytes > isize::MAX as usize - PAGE_SIZE {
        return None;
    }
    let new_bytes = nr_bytes.next_multiple_of(PAGE_SIZE);
    let Some(old) = TABLE.lock().get(address.as_ptr() as usize) else { report_stranger(address) };
    if old.nr_guards > 0 {
        return None;
    }
    let charge = if new_bytes > old.nr_bytes {
        Some(hooks::charge_more_pages(old.owner, new_bytes - old.nr_bytes)?)
    } else {
        None
    };
    // The object's user is here, so nobody else changes its entry; but while its pages move, its old address may be
    // mapped by another thread, which then inserts it: so the entry goes before the pages do.
    TABLE.lock().remove(old.address);
    // SAFETY: it is a mapping of that length, and its user gives the old address up if it moves.
    let moved = unsafe { os::remap(address, old.nr_bytes, new_bytes) };
    let now = match moved {
        Some(moved) => Huge { address: moved.as_ptr() as usize, nr_bytes: new_bytes, ..old },
        None => old,
    };
    if !TABLE.lock().insert(now) {
        die!("{address:p}: no memory to note where a huge object moved");
    }
    moved?;
    if let Some(charge) = charge {
        charge.taken();
    } else if new_bytes < old.nr_bytes {
        hooks::uncharge_pages(old.owner, old.nr_bytes - new_bytes);
    }
    moved
}

/// Makes a group the owner of a huge object; aborts if there is none at the address.
pub(super) fn adopt(address: NonNull<u8>, group: &Memcg) -> Result<(), Refused> {
    let Some(huge) = TABLE.lock().get(address.as_ptr() as usize) else { report_stranger(address) };
    // The object's user is here, so nobody else changes its entry.
    let owner = hooks::moved_owner(huge.owner, group, huge.nr_bytes as u64)?;
    let mut table = TABLE.lock();
    table.remove(huge.address);
    // There was a place for it a moment ago.
    if !table.insert(Huge { owner, ..huge }) {
        die!("{address:p}: no memory to note the owner of a huge object");
    }
    Ok(())
}

/// Bytes of a huge object; aborts if there is none at the address.
pub(super) fn nr_bytes(address: NonNull<u8>) -> usize {
    let found = TABLE.lock().get(address.as_ptr() as usize);
    match found {
        Some(huge) => huge.nr_bytes,
        None => report_stranger(address),
    }
}

/// Visits owner and bytes of every huge object, under the table's lock.
pub(super) fn for_each(mut visit: impl FnMut(u32, usize)) {
    let table = TABLE.lock();
    for huge in table.places.iter().filter(|huge| huge.address != 0) {
        visit(huge.owner, huge.nr_bytes);
    }
}

pub(super) fn hold_for_fork() {
    TABLE.hold_for_fork();
}

pub(super) fn release_after_fork() {
    TABLE.force_unlock();
}

#[cold]
#[inline(never)]
fn report_stranger(address: NonNull<u8>) -> ! {
    die!("{address:p}: not the address of an object: foreign, or freed already");
}

/// Reports an access to a guard page. Runs in a signal handler, which may have interrupted the lock's holder.
fn report_guard(at: usize) {
    let Some(table) = TABLE.try_lock() else { return };
    for huge in table.places.iter().filter(|huge| huge.nr_guards > 0) {
        let Huge { address, nr_bytes, nr_guards, .. } = *huge;
        if (address - nr_guards as usize * PAGE_SIZE..address).contains(&at) {
            die!("{address:#x}: touched {} bytes before its start, at {at:#x}", address - at);
        }
        if (address + nr_bytes..address + nr_bytes + PAGE_SIZE).contains(&at) {
            die!("{address:#x}: touched {} bytes past its {nr_bytes} bytes, at {at:#x}", at - address - nr_bytes);
        }
    }
}

impl Huge {
    /// Takes its mapping away, with its guard pages.
    fn unmap(&self, address: NonNull<u8>) {
        let nr_before = self.nr_guards as usize * PAGE_SIZE;
        let nr_behind = if self.nr_guards > 0 { PAGE_SIZE } else { 0 };
        // SAFETY: the guard pages are in the mapping.
        let first = unsafe { address.sub(nr_before) };
        // SAFETY: it is a mapping of that length; its user gives it up, or was never shown it.
        unsafe { os::unmap(first, nr_before + self.nr_bytes + nr_behind) };
    }
}

impl HugeTable {
    fn home(&self, address: usize) -> usize {
        let hash = ((address / PAGE_SIZE) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        // The length is a power of two.
        hash as usize & (self.places.len() - 1)
    }

    fn next(&self, index: usize) -> usize {
        (index + 1) & (self.places.len() - 1)
    }

    /// The place of an address, or the free place where it would go. The table is never full.
    fn place_of(&self, address: usize) -> Option<usize> {
        if self.places.is_empty() {
            return None;
        }
        let mut index = self.home(address);
        while self.places[index].address != address && self.places[index].address != 0 {
            index = self.next(index);
        }
        Some(index)
    }

    fn get(&self, address: usize) -> Option<Huge> {
        self.place_of(address).map(|index| self.places[index]).filter(|huge| huge.address != 0)
    }

    fn insert(&mut self, huge: Huge) -> bool {
        if self.nr_objects * 2 >= self.places.len() && !self.grow() {
            // An entry that was removed a moment ago always has its place back.
            if self.nr_objects + 1 >= self.places.len() {
                return false;
            }
        }
        let Some(index) = self.place_of(huge.address) else { return false };
        self.places[index] = huge;
        self.nr_objects += 1;
        true
    }

    /// Removes an entry and moves back those behind it that probed past its place.
    fn remove(&mut self, address: usize) -> Option<Huge> {
        let index = self.place_of(address)?;
        let removed = self.places[index];
        if removed.address == 0 {
            return None;
        }
        self.nr_objects -= 1;
        let mut hole = index;
        let mut at = self.next(index);
        while self.places[at].address != 0 {
            let home = self.home(self.places[at].address);
            let mask = self.places.len() - 1;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.places[hole] = self.places[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.places[hole].address = 0;
        Some(removed)
    }

    fn grow(&mut self) -> bool {
        let nr_places = (self.places.len() * 2).max(PER_PAGE.next_power_of_two());
        let nr_bytes = nr_places * size_of::<Huge>();
        let Ok(nr_pages) = u32::try_from(nr_bytes.div_ceil(PAGE_SIZE)) else { return false };
        let Some(run) = page_alloc::alloc_zeroed(nr_pages) else { return false };
        // SAFETY: the run is ours alone and has that many bytes; zeroed memory is an array of free places, which belongs to the table
        // until the next growth.
        let places = unsafe { slice::from_raw_parts_mut(run.address().cast::<Huge>().as_ptr(), nr_places) };
        let old = core::mem::replace(&mut self.places, places);
        for huge in old.iter().filter(|huge| huge.address != 0) {
            if let Some(index) = self.place_of(huge.address) {
                self.places[index] = *huge;
            }
        }
        if let Some(old_run) = self.run.replace(run) {
            page_alloc::free(old_run, Touches::All);
        }
        true
    }
}
