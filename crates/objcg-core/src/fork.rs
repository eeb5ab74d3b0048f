//! `fork` in a threaded process: the forking thread takes every lock of the engine, in lock order, and gives them back in
//! parent and child, so that no lock is held in the child by a thread that does not exist there.

#![expect(unsafe_code, reason = "runs before main, to register the handlers")]

use crate::hardening;
use crate::memcg;
use crate::options;
use crate::os;
use crate::page_alloc;
use crate::percpu;
use crate::slab;
use crate::sync::{AtomicU32, Ordering};
use crate::{kmalloc, kmem_cache};

static NR_FORKS: AtomicU32 = AtomicU32::new(0);

/// How many forks lie between the program's start and this process: a thread that was started before the last of them is not in it.
/// One load.
#[must_use]
pub fn nr_forks() -> u32 {
    NR_FORKS.load(Ordering::Relaxed)
}

/// Registered by the loader before `main`: an allocator entry must not have to ask whether it was done.
#[used]
// SAFETY: `.init_array` holds pointers to functions of this signature.
#[unsafe(link_section = ".init_array")]
static REGISTER: extern "C" fn() = {
    extern "C" fn register() {
        // If nothing was allocated yet: groups can be made before the first object is.
        options::init();
        // Without the handlers a fork in a threaded process is as unsafe as in any allocator that has none.
        let _registered = os::at_fork(prepare, release, release_in_child);
    }
    register
};

extern "C" fn prepare() {
    memcg::hold_tree_for_fork();
    hardening::hold_for_fork();
    kmalloc::hold_for_fork();
    kmem_cache::hold_for_fork();
    // Objects are discharged with a sheaf's slot or barn held.
    memcg::hold_for_fork();
    slab::caches_for_fork().iter().for_each(slab::Cache::hold_for_fork);
    page_alloc::hold_for_fork();
    percpu::hold_for_fork();
}

extern "C" fn release() {
    percpu::release_after_fork();
    page_alloc::release_after_fork();
    slab::caches_for_fork().iter().rev().for_each(slab::Cache::release_after_fork);
    memcg::release_after_fork();
    kmem_cache::release_after_fork();
    kmalloc::release_after_fork();
    hardening::release_after_fork();
    memcg::release_tree_after_fork();
}

extern "C" fn release_in_child() {
    NR_FORKS.fetch_add(1, Ordering::Relaxed);
    memcg::forget_other_threads();
    release();
}
