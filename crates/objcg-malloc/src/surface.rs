//! The functions of `<stdlib.h>` and `<malloc.h>` that allocate and free, by glibc's rules: memory at multiples of 16, `malloc(0)`
//! is an address of its own, `errno` is `ENOMEM` or `EINVAL` after a null, `free` leaves `errno` alone.
//!
//! Each is one call of the engine. What is reported there (a second free, a foreign address) ends the program with one line.

#![expect(unsafe_code, reason = "these are C's functions")]

use core::ffi::{c_int, c_void};
use core::ptr::{self, NonNull};

use objcg_core::kmalloc;

// Without the standard library nothing else names it: then its versions of functions would not be asked for.
#[link(name = "c")]
unsafe extern "C" {}

/// What every address is a multiple of: `alignof(max_align_t)`.
pub(crate) const ALIGN: usize = 16;
const PAGE_BYTES: usize = 4096;

pub(crate) fn set_errno(errno: c_int) {
    // SAFETY: no preconditions; the address is good as long as the thread lives.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: the thread's own number.
    unsafe { *place = errno };
}

#[cold]
#[inline(never)]
fn fail(errno: c_int) -> *mut c_void {
    set_errno(errno);
    ptr::null_mut()
}

#[inline(always)]
pub(crate) fn or_out_of_memory(memory: Option<NonNull<u8>>) -> *mut c_void {
    match memory {
        Some(address) => address.as_ptr().cast(),
        None => fail(libc::ENOMEM),
    }
}

/// C's `malloc`.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(nr_bytes: usize) -> *mut c_void {
    or_out_of_memory(kmalloc::alloc_aligned(nr_bytes, ALIGN))
}

/// C's `calloc`.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(nr_items: usize, item_bytes: usize) -> *mut c_void {
    or_out_of_memory(nr_items.checked_mul(item_bytes).and_then(|nr_bytes| kmalloc::alloc_zeroed(nr_bytes, ALIGN)))
}

/// C's `free`.
///
/// # Safety
/// `address` is null, or came from here and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(address: *mut c_void) {
    if let Some(address) = NonNull::new(address.cast()) {
        // SAFETY: the caller's contract.
        unsafe { kmalloc::free(address) };
    }
}

/// C's `realloc`. Of 0 bytes it frees, and returns null, as glibc's does.
///
/// # Safety
/// `address` is null, or came from here; it is not used any more unless the result is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(address: *mut c_void, nr_bytes: usize) -> *mut c_void {
    let Some(old) = NonNull::new(address.cast()) else { return malloc(nr_bytes) };
    if nr_bytes == 0 {
        // SAFETY: the caller's contract.
        unsafe { kmalloc::free(old) };
        return ptr::null_mut();
    }
    // SAFETY: the caller's contract. C's objects need no more than `ALIGN` after they have moved, wherever they came from.
    or_out_of_memory(unsafe { kmalloc::realloc(old, nr_bytes, ALIGN) })
}

/// glibc's `reallocarray`: `realloc` with an overflow check.
///
/// # Safety
/// As for [`realloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(address: *mut c_void, nr_items: usize, item_bytes: usize) -> *mut c_void {
    match nr_items.checked_mul(item_bytes) {
        // SAFETY: the caller's contract.
        Some(nr_bytes) => unsafe { realloc(address, nr_bytes) },
        None => fail(libc::ENOMEM),
    }
}

/// C23's `free_sized`. The size is not needed, and not trusted.
///
/// # Safety
/// As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(address: *mut c_void, _nr_bytes: usize) {
    // SAFETY: the caller's contract.
    unsafe { free(address) };
}

/// C23's `free_aligned_sized`.
///
/// # Safety
/// As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(address: *mut c_void, _align: usize, _nr_bytes: usize) {
    // SAFETY: the caller's contract.
    unsafe { free(address) };
}

/// C11's `aligned_alloc`; the size need not be a multiple.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, nr_bytes: usize) -> *mut c_void {
    memalign(align, nr_bytes)
}

/// glibc's `memalign`: an alignment that is no power of two becomes the next one.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, nr_bytes: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => or_out_of_memory(kmalloc::alloc(nr_bytes, align.max(ALIGN))),
        None => fail(libc::EINVAL),
    }
}

/// POSIX's `posix_memalign`: says what went wrong, and leaves `errno` and, then, `place` alone.
///
/// # Safety
/// `place` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(place: *mut *mut c_void, align: usize, nr_bytes: usize) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return libc::EINVAL;
    }
    let Some(address) = kmalloc::alloc(nr_bytes, align.max(ALIGN)) else { return libc::ENOMEM };
    // SAFETY: the caller's contract.
    unsafe { place.write(address.as_ptr().cast()) };
    0
}

/// BSD's `valloc`: at a multiple of the page.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(nr_bytes: usize) -> *mut c_void {
    memalign(PAGE_BYTES, nr_bytes)
}

/// glibc's `pvalloc`: whole pages.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(nr_bytes: usize) -> *mut c_void {
    match nr_bytes.checked_next_multiple_of(PAGE_BYTES) {
        Some(nr_bytes) => memalign(PAGE_BYTES, nr_bytes.max(PAGE_BYTES)),
        None => fail(libc::ENOMEM),
    }
}

/// glibc's `malloc_usable_size`: all bytes of the object's slot may be used. 0 for null.
///
/// # Safety
/// `address` is null, or came from here and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(address: *const c_void) -> usize {
    match NonNull::new(address.cast_mut().cast()) {
        // SAFETY: the caller's contract.
        Some(address) => unsafe { kmalloc::usable_size(address) },
        None => 0,
    }
}
