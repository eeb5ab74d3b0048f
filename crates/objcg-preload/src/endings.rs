//! How a program ends: by `exit` or a return from `main`, which run this library's destructor; by `_exit` and its kin, or by
//! `abort`, which this library stands before. Of one that is killed the report has the counters.

#![expect(unsafe_code, reason = "these are C's functions")]

use core::ffi::{c_int, c_void};

use crate::next::Next;
use crate::program::{report_at_a_glance, report_in_full};

/// Run by the loader after the program's own destructors.
#[used]
// SAFETY: `.fini_array` holds pointers to functions of this signature.
#[unsafe(link_section = ".fini_array")]
static END: extern "C" fn() = {
    extern "C" fn end() {
        report_in_full();
    }
    end
};

static NEXT_ABORT: Next = Next::new(c"abort");
static NEXT_EXIT: Next = Next::new(c"_exit");
static NEXT_QUICK_EXIT: Next = Next::new(c"quick_exit");

/// Finds what this file stands before: `abort` may be called where nothing can be looked up.
pub(crate) fn find_next() {
    [&NEXT_ABORT, &NEXT_EXIT, &NEXT_QUICK_EXIT].into_iter().for_each(|next| {
        next.address();
    });
}

fn end_by(next: &Next, status: c_int) -> ! {
    report_at_a_glance();
    // SAFETY: each is a function of one number, or of none, that does not return.
    let end: extern "C" fn(c_int) -> ! = unsafe { core::mem::transmute::<*mut c_void, _>(next.address()) };
    end(status)
}

/// POSIX's `_exit`.
#[unsafe(no_mangle)]
pub extern "C" fn _exit(status: c_int) -> ! {
    end_by(&NEXT_EXIT, status)
}

/// C's `_Exit`: the same.
#[unsafe(no_mangle)]
pub extern "C" fn _Exit(status: c_int) -> ! {
    end_by(&NEXT_EXIT, status)
}

/// C11's `quick_exit`.
#[unsafe(no_mangle)]
pub extern "C" fn quick_exit(status: c_int) -> ! {
    end_by(&NEXT_QUICK_EXIT, status)
}

/// C's `abort`.
#[unsafe(no_mangle)]
pub extern "C" fn abort() -> ! {
    end_by(&NEXT_ABORT, 0)
}
