//! Appended to another crate's test programs: serves them by objcg, charges every thread but the first to one group, and
//! fails the program at its exit if anything is still charged to the group then.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::OnceLock;

use objcg::{Memcg, Objcg};

struct Inside;

#[global_allocator]
static GLOBAL: Inside = Inside;

static GROUP: OnceLock<Memcg> = OnceLock::new();

thread_local! {
    static IS_TEST: Cell<Option<bool>> = const { Cell::new(None) };
}

/// The test harness keeps its books on the first thread and runs tests on others.
fn is_test_thread() -> bool {
    IS_TEST.get().unwrap_or_else(|| {
        // SAFETY: both calls have no preconditions.
        let is_test = unsafe { libc::getpid() } != unsafe { libc::gettid() };
        IS_TEST.set(Some(is_test));
        is_test
    })
}

fn group() -> &'static Memcg {
    GROUP.get_or_init(|| {
        // SAFETY: the handler is a function of the program.
        assert_eq!(unsafe { libc::atexit(check_at_exit) }, 0);
        Memcg::root().create("suite").expect("a new name")
    })
}

extern "C" fn check_at_exit() {
    let group = group();
    group.drain();
    println!("peak {} usage {}", group.peak(), group.usage());
    if group.usage() != 0 || group.peak() == 0 {
        eprintln!("still charged at exit: {:?}", group.stat());
        // SAFETY: ends the process; nothing is left to be run.
        unsafe { libc::_exit(1) };
    }
}

// SAFETY: every call is the engine's, inside a group or not.
unsafe impl GlobalAlloc for Inside {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _inside = is_test_thread().then(|| group().enter());
        // SAFETY: the caller's promise is the same.
        unsafe { Objcg.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { Objcg.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let _inside = is_test_thread().then(|| group().enter());
        // SAFETY: as above.
        unsafe { Objcg.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let _inside = is_test_thread().then(|| group().enter());
        // SAFETY: as above.
        unsafe { Objcg.realloc(memory, layout, new_size) }
    }
}
