//! Memory of any size: a size class, a run of pages, or a mapping of its own.
//!
//! Key functions: [`alloc`], [`alloc_zeroed`], [`free`], [`realloc`], [`usable_size`]. The address alone says what an
//! object is: in the region its page's descriptor, outside it the table of huge objects. Below: `hooks`.
//!
//! | size | where | looked up by | alignment |
//! |---|---|---|---|
//! | ≤ 32 KiB | slab of a size class | descriptor | up to 4 KiB |
//! | ≤ 4 MiB | run of pages | descriptor | up to 2 MiB |
//! | above | mapping of its own | table | any |

#![expect(unsafe_code, reason = "memory comes back as addresses that the user vouches for")]

mod hardened;
mod huge;
mod large;

use core::fmt;
use core::ptr::NonNull;

use crate::cpu::Stacks;
use crate::hooks;
use crate::memcg::{Memcg, Refused};
use crate::options;
use crate::os::PAGE_SIZE;
pub use crate::os::UNWINDER_ALIGN;
use crate::page_alloc::{self, PageIdx, PageKind, page};
use crate::report::die;
use crate::size_class::SizeClass;
use crate::slab::{Cache, FreeObject, SlabObject, caches};
use crate::sync::{AtomicPtr, Ordering, OwnLines};

/// What an address that a user alleges to own was found to be.
enum Found {
    Slab(SlabObject),
    Large(PageIdx),
    Huge,
}

/// Sizes and alignments below this, a power of two, find their stack in one table.
const SHORTCUT_END: usize = 2048;
/// The step from one place of that table to the next.
const STEP_BYTES: usize = 8;

/// The stacks of the class of each small size, by steps; null before the first object of that size. A size that was
/// rounded up to its alignment has a class whose objects all lie at multiples of it.
static SHORTCUTS: OwnLines<[AtomicPtr<u8>; NR_SHORTCUTS]> =
    OwnLines([const { AtomicPtr::new(core::ptr::null_mut()) }; NR_SHORTCUTS]);
/// Room for sizes and alignments below [`SHORTCUT_END`], rounded up to each other; a power of two.
const NR_SHORTCUTS: usize = 2 * SHORTCUT_END / STEP_BYTES;

/// At least `nr_bytes` at a multiple of `align`, a power of two; not initialised, charged to the current group. `None` if
/// a limit refuses or the process is out of memory: nothing changed then.
#[inline]
#[must_use]
pub fn alloc(nr_bytes: usize, align: usize) -> Option<NonNull<u8>> {
    if align > STEP_BYTES {
        return alloc_apart(nr_bytes, align);
    }
    if nr_bytes < SHORTCUT_END {
        return alloc_by(nr_bytes.div_ceil(STEP_BYTES), nr_bytes, align);
    }
    alloc_slow(nr_bytes, align)
}

#[cold]
#[inline(never)]
fn alloc_apart(nr_bytes: usize, align: usize) -> Option<NonNull<u8>> {
    alloc_aligned(nr_bytes, align)
}

/// The same as [`alloc`], for callers whose `align` is always above 8: their code is the shorter if it is a constant.
#[inline(always)]
#[must_use]
pub fn alloc_aligned(nr_bytes: usize, align: usize) -> Option<NonNull<u8>> {
    match step_of(nr_bytes, align) {
        Some(step) => alloc_by(step, nr_bytes, align),
        None => alloc_slow(nr_bytes, align),
    }
}

/// The place of a size in [`SHORTCUTS`], if it has one.
#[inline(always)]
fn step_of(nr_bytes: usize, align: usize) -> Option<usize> {
    if (nr_bytes | align) >= SHORTCUT_END {
        return None;
    }
    let rounded = (nr_bytes + (align - 1)) & align.wrapping_neg();
    Some(rounded.div_ceil(STEP_BYTES) & (NR_SHORTCUTS - 1))
}

/// An object from the stack at that place of [`SHORTCUTS`].
#[inline(always)]
fn alloc_by(step: usize, nr_bytes: usize, align: usize) -> Option<NonNull<u8>> {
    // Relaxed: as in `Cache::stacks`.
    let stacks = Stacks::from_ptr(SHORTCUTS.0[step].load(Ordering::Relaxed));
    match Cache::alloc_from(stacks) {
        Ok(address) => Some(address),
        Err(object) => alloc_rest(object, nr_bytes, align),
    }
}

/// The rest of an allocation that the stack of its size did not serve: with the object found there, if there was one.
#[cold]
#[inline(never)]
fn alloc_rest(object: Option<FreeObject>, nr_bytes: usize, align: usize) -> Option<NonNull<u8>> {
    match object {
        Some(object) if object.exists() => Cache::hand_over(object),
        _ => alloc_slow(nr_bytes, align),
    }
}

#[inline(never)]
fn alloc_slow(nr_bytes: usize, align: usize) -> Option<NonNull<u8>> {
    let Some(class) = SizeClass::of_layout(nr_bytes, align) else {
        return alloc_pages(nr_bytes, align).map(|pages| pages.address);
    };
    let cache = &caches()[class.index()];
    // Nothing is at a multiple of every alignment: no class serves them all, so its place stays empty.
    if let Some(step) = step_of(nr_bytes, align).filter(|_| nr_bytes > 0) {
        let (shortcut, stacks) = (&SHORTCUTS.0[step], cache.stacks().as_ptr());
        // Not without need: all CPUs read the line in each allocation.
        if shortcut.load(Ordering::Relaxed) != stacks {
            shortcut.store(stacks, Ordering::Relaxed);
        }
    }
    match Cache::alloc_from(cache.stacks()) {
        Ok(address) => Some(address),
        Err(object) => alloc_rest_of(cache, object, nr_bytes, align),
    }
}

/// The rest of an allocation, with the class known.
#[cold]
#[inline(never)]
fn alloc_rest_of(
    cache: &'static Cache,
    object: Option<FreeObject>,
    nr_bytes: usize,
    align: usize,
) -> Option<NonNull<u8>> {
    if options::are_any_on() {
        return hardened::alloc(nr_bytes, align).map(|taken| taken.address);
    }
    cache.alloc_rest(object)
}

/// The same, all zero. Pages that come fresh from the operating system are not written again.
#[must_use]
pub fn alloc_zeroed(nr_bytes: usize, align: usize) -> Option<NonNull<u8>> {
    let (address, zeroed) = match SizeClass::of_layout(nr_bytes, align) {
        Some(_) => (alloc(nr_bytes, align)?, false),
        None => {
            let pages = alloc_pages(nr_bytes, align)?;
            (pages.address, pages.zeroed)
        }
    };
    if !zeroed {
        // SAFETY: the memory was just taken and has at least `nr_bytes`.
        unsafe { address.write_bytes(0, nr_bytes) };
    }
    Some(address)
}

/// Memory that was taken as pages.
pub(super) struct Pages {
    address: NonNull<u8>,
    zeroed: bool,
}

#[cold]
#[inline(never)]
fn alloc_pages(nr_bytes: usize, align: usize) -> Option<Pages> {
    if options::are_any_on() { hardened::alloc(nr_bytes, align) } else { alloc_raw_pages(nr_bytes, align) }
}

fn alloc_raw_pages(nr_bytes: usize, align: usize) -> Option<Pages> {
    if nr_bytes <= large::MAX_BYTES && align <= large::MAX_ALIGN {
        large::alloc(nr_bytes, align)
    } else {
        huge::alloc(nr_bytes, align)
    }
}

/// Gives memory back; its price returns to whoever was charged for it. Aborts on an address that is not the start of a
/// live object, as far as that can be seen.
///
/// # Safety
/// `address` came from this module, and nothing uses the memory any more.
#[inline]
pub unsafe fn free(address: NonNull<u8>) {
    match SlabObject::find(address) {
        Some(object) => Cache::free(object),
        None => free_pages(address),
    }
}

#[cold]
#[inline(never)]
fn free_pages(address: NonNull<u8>) {
    let found = find(address);
    if !matches!(found, Found::Slab(_)) {
        hardened::bury(&found, address);
    }
    match found {
        Found::Slab(object) => Cache::free(object),
        Found::Large(head) => large::free(head),
        Found::Huge => huge::free(address),
    }
}

/// Bytes that may be used at `address`: at least as many as were asked for.
///
/// # Safety
/// `address` came from this module and was not freed.
#[must_use]
pub unsafe fn usable_size(address: NonNull<u8>) -> usize {
    if options::are_any_on() { hardened::usable_size(address) } else { size_of_found(&find(address), address) }
}

fn size_of_found(found: &Found, address: NonNull<u8>) -> usize {
    match found {
        Found::Slab(object) => object.cache().size(),
        Found::Large(head) => large::nr_bytes(*head),
        Found::Huge => huge::nr_bytes(address),
    }
}

/// Resizes memory, in place where its class, its neighbouring pages or its mapping allow; else it moves. In place it
/// stays its owner's; if it moves, the new memory is charged to the current group. `None` leaves it as it was.
///
/// # Safety
/// `address` came from this module with this `align` (or a larger one) and was not freed; if it moves, nothing may use
/// the old address any more.
pub unsafe fn realloc(address: NonNull<u8>, nr_bytes: usize, align: usize) -> Option<NonNull<u8>> {
    if options::are_any_on() {
        // SAFETY: the caller's contract is the same.
        return unsafe { hardened::realloc(address, nr_bytes, align) };
    }
    let found = find(address);
    if let Found::Slab(object) = &found {
        object.check_live();
    }
    let in_place = match &found {
        Found::Slab(object) => fits_in_place(object.cache().size(), nr_bytes, align).then_some(address),
        Found::Large(head) => large::resize(*head, nr_bytes).then_some(address),
        Found::Huge if align <= PAGE_SIZE => huge::resize(address, nr_bytes),
        Found::Huge => None,
    };
    if in_place.is_some() {
        return in_place;
    }
    let nr_usable = size_of_found(&found, address);
    let Some(moved) = alloc(nr_bytes, align) else {
        // What shrinks fits where it is: a limit must not make a shrink fail, which Rust's `Vec` does not survive.
        return (nr_bytes <= nr_usable).then_some(address);
    };
    let nr_kept = nr_usable.min(nr_bytes);
    // SAFETY: both have that many bytes, and new memory does not overlap live memory.
    unsafe { moved.copy_from_nonoverlapping(address, nr_kept) };
    // SAFETY: the caller gives the old address up.
    unsafe { free(address) };
    Some(moved)
}

/// Makes a group the owner of live memory, wherever it came from: its price moves from the old owner to the group, where their
/// paths to the root part. Aborts on an address that is not the start of a live object, as far as that can be seen.
///
/// # Errors
/// A limit refuses, which kills nobody, or there is no memory for an owner vector. Nothing changed then.
///
/// # Safety
/// `address` came from this module and was not freed, and nobody else frees, resizes or adopts it meanwhile.
pub unsafe fn adopt(address: NonNull<u8>, group: &Memcg) -> Result<(), AdoptError> {
    match find(address) {
        Found::Slab(object) => {
            let owner = object.cache().owner_word(&object).ok_or(AdoptError::NoMemory)?;
            hooks::move_owner(owner, group, object.cache().price()).map_err(AdoptError::Limit)
        }
        Found::Large(head) => {
            let price = large::nr_bytes(head) as u64;
            hooks::move_owner(page(head).owner(), group, price).map_err(AdoptError::Limit)
        }
        Found::Huge => huge::adopt(address, group).map_err(AdoptError::Limit),
    }
}

/// Why memory did not change its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptError {
    /// A limit refuses it.
    Limit(Refused),
    /// The process is out of memory.
    NoMemory,
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdoptError::Limit(refused) => refused.fmt(f),
            AdoptError::NoMemory => f.write_str("the process is out of memory"),
        }
    }
}

impl core::error::Error for AdoptError {}

/// Whether an object of `size` bytes should stay where it is: it fits, and a smaller class would not save a quarter.
fn fits_in_place(size: usize, nr_bytes: usize, align: usize) -> bool {
    nr_bytes <= size && SizeClass::of_layout(nr_bytes, align).is_some_and(|class| class.size() * 4 > size * 3)
}

/// Looks an address up; aborts unless an object starts there.
fn find(address: NonNull<u8>) -> Found {
    let addr = address.as_ptr() as usize;
    let Some(found) = page_alloc::lookup_at(addr) else { return Found::Huge };
    if let Some(object) = SlabObject::in_page(address, found) {
        return Found::Slab(object);
    }
    if let Some(cache) = Cache::of_page(found.page) {
        die!("{address:p}: not the start of an object of {} bytes", cache.size());
    }
    let head = page_alloc::head_of(addr);
    match page(head).kind() {
        PageKind::Large if page_alloc::address(head) == address => Found::Large(head),
        kind => report_stranger(address, kind),
    }
}

#[cold]
#[inline(never)]
fn report_stranger(address: NonNull<u8>, kind: PageKind) -> ! {
    match kind {
        PageKind::Large => die!("{address:p}: inside a large object, not its start"),
        PageKind::Clean | PageKind::Patchy | PageKind::Dirty | PageKind::Releasing => {
            die!("{address:p}: freed already: its pages are free")
        }
        _ => die!("{address:p}: not the address of an object"),
    }
}

/// Objects and bytes in huge mappings, by owner.
pub(crate) fn for_each_huge(visit: impl FnMut(u32, usize)) {
    huge::for_each(visit);
}

/// Empties the CPUs' sheaves of all size classes, gives empty slabs and free pages back to the operating system, and
/// returns how many bytes of pages that were.
pub fn trim() -> usize {
    caches().iter().for_each(|cache| cache.shrink_to(0));
    page_alloc::release_all()
}

/// Takes the locks of this module for a `fork`.
pub(crate) fn hold_for_fork() {
    huge::hold_for_fork();
    caches().iter().for_each(Cache::hold_for_fork);
}

/// Gives back what [`hold_for_fork`] took.
pub(crate) fn release_after_fork() {
    caches().iter().rev().for_each(Cache::release_after_fork);
    huge::release_after_fork();
}
