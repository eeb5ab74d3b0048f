//! The engine's entry points as functions of their own, for `cargo xtask golden`, which counts their instructions; run, it
//! only shows that they work.

#![expect(unsafe_code, reason = "exports functions by name")]

use std::alloc::{GlobalAlloc, Layout};

use objcg::{Memcg, Objcg};

/// `GlobalAlloc::alloc`.
///
/// # Safety
/// As for `GlobalAlloc::alloc`.
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn objcg_entry_alloc(nr_bytes: usize, align: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    let layout = unsafe { Layout::from_size_align_unchecked(nr_bytes, align) };
    // SAFETY: as above.
    unsafe { Objcg.alloc(layout) }
}

/// `GlobalAlloc::dealloc`.
///
/// # Safety
/// As for `GlobalAlloc::dealloc`.
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn objcg_entry_free(memory: *mut u8) {
    // SAFETY: the caller's promise; the layout is not looked at.
    unsafe { Objcg.dealloc(memory, Layout::new::<u64>()) };
}

fn main() {
    let tenant = Memcg::root().create("entry points").expect("a new name");
    tenant.scope(|| {
        // SAFETY: 64 is a good size, and 8 a power of two.
        let memory = unsafe { objcg_entry_alloc(64, 8) };
        println!("64 bytes at {memory:p}, {} objects in the group", tenant.stat().slab_objects);
        // SAFETY: allocated above, freed once.
        unsafe { objcg_entry_free(memory) };
    });
}
