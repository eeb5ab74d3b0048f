//! glibc's ways of asking an allocator about itself: `mallinfo`, `malloc_stats`, `malloc_info`, `malloc_trim`, `mallopt`.
//!
//! The figures of one heap, since there is one: slabs and runs of pages are what glibc calls the arena, huge objects its mapped
//! regions.

#![expect(unsafe_code, reason = "these are C's functions")]

use core::ffi::c_int;
use core::fmt;

use objcg_core::{kmalloc, percpu, stat};

use crate::Line;
use crate::surface::set_errno;

/// glibc's `malloc_trim`: gives what is free and whole pages back to the system. 1 if anything went, else 0. `_pad` is for a heap
/// with a top.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(_pad: usize) -> c_int {
    c_int::from(kmalloc::trim() + percpu::trim() > 0)
}

/// glibc's `mallopt`. What it sets there has no counterpart here: its parameters are accepted (1), and ignored; others are refused
/// (0).
#[unsafe(no_mangle)]
pub extern "C" fn mallopt(parameter: c_int, _value: c_int) -> c_int {
    /// `M_ARENA_MAX` to `M_TRIM_THRESHOLD`, and `M_MXFAST`.
    const LOWEST: c_int = -8;
    const FAST_BINS: c_int = 1;
    c_int::from((LOWEST..=FAST_BINS).contains(&parameter) && parameter != 0)
}

/// glibc's `mallinfo2`.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo2() -> libc::mallinfo2 {
    let heap = stat::heap();
    let arena = heap.pages.used_bytes + heap.pages.dirty_bytes;
    let live = (heap.slab_object_bytes + heap.large_bytes) as usize;
    libc::mallinfo2 {
        arena,
        ordblks: stat::size_classes().map(|class| class.nr_waiting as usize).sum(),
        smblks: 0,
        hblks: heap.huge_objects as usize,
        hblkhd: heap.huge_bytes as usize,
        usmblks: 0,
        fsmblks: 0,
        uordblks: live,
        // tidy: allow(saturating_sub): the two were read one after the other
        fordblks: arena.saturating_sub(live),
        keepcost: heap.pages.dirty_bytes,
    }
}

/// The same in numbers of 32 bits: those that do not fit are their lower half, as in glibc.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo() -> libc::mallinfo {
    let info = mallinfo2();
    libc::mallinfo {
        arena: info.arena as c_int,
        ordblks: info.ordblks as c_int,
        smblks: 0,
        hblks: info.hblks as c_int,
        hblkhd: info.hblkhd as c_int,
        usmblks: 0,
        fsmblks: 0,
        uordblks: info.uordblks as c_int,
        fordblks: info.fordblks as c_int,
        keepcost: info.keepcost as c_int,
    }
}

/// glibc's `malloc_stats`: a table on standard error.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_stats() {
    let heap = stat::heap();
    print(format_args!("objcg: {:14} bytes live\n", heap.live_bytes()));
    print(format_args!("objcg: {:14} bytes held\n", heap.held_bytes()));
    print(format_args!("objcg: {:13.1}% of slabs in use\n", heap.utilisation() * 100.0));
    print(format_args!("objcg: {:>14} {:>12} {:>12} {:>12}\n", "object bytes", "live", "at hand", "slab bytes"));
    for class in stat::size_classes().filter(|class| class.nr_slabs > 0) {
        let stat::ClassStat { size, nr_objects, nr_waiting, slab_bytes, .. } = class;
        print(format_args!("objcg: {size:14} {nr_objects:12} {nr_waiting:12} {slab_bytes:12}\n"));
    }
    let large = heap.large_objects + heap.huge_objects;
    print(format_args!("objcg: {:>14} {large:12} {:>12} {:12}\n", "larger", "", heap.large_bytes + heap.huge_bytes));
}

fn print(args: fmt::Arguments<'_>) {
    let line = Line::<160>::of(args);
    // SAFETY: a valid buffer of the length that is passed. Nobody hears of a failed write.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_bytes().as_ptr().cast(), line.as_bytes().len()) };
}

/// glibc's `malloc_info`: the same as XML on a stream. 0, or -1 with `EINVAL` for options, of which there are none.
///
/// # Safety
/// `stream` is open for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_info(options: c_int, stream: *mut libc::FILE) -> c_int {
    if options != 0 {
        set_errno(libc::EINVAL);
        return -1;
    }
    let put = |args: fmt::Arguments<'_>| {
        let line = Line::<200>::of(args);
        // SAFETY: a valid buffer of the length that is passed; the stream is the caller's. Its error flag tells of failures.
        unsafe { libc::fwrite(line.as_bytes().as_ptr().cast(), 1, line.as_bytes().len(), stream) };
    };
    let heap = stat::heap();
    put(format_args!("<malloc version=\"objcg-1\">\n<heap nr=\"0\">\n<sizes>\n"));
    for class in stat::size_classes().filter(|class| class.nr_slabs > 0) {
        let stat::ClassStat { size, nr_objects, nr_waiting, slab_bytes, .. } = class;
        put(format_args!("<size to=\"{size}\" live=\"{nr_objects}\" free=\"{nr_waiting}\" total=\"{slab_bytes}\"/>\n"));
    }
    put(format_args!("</sizes>\n"));
    put(format_args!("<total type=\"live\" size=\"{}\"/>\n", heap.live_bytes()));
    put(format_args!("<total type=\"large\" count=\"{}\" size=\"{}\"/>\n", heap.large_objects, heap.large_bytes));
    put(format_args!("<total type=\"mmap\" count=\"{}\" size=\"{}\"/>\n", heap.huge_objects, heap.huge_bytes));
    put(format_args!("<system type=\"current\" size=\"{}\"/>\n", heap.held_bytes()));
    put(format_args!("</heap>\n</malloc>\n"));
    0
}
