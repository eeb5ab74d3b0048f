//! The sections for aarch64, as in the pseudo-code of the crate's page; little-endian.
//!
//! The frame and the labels are those of x86-64: 5 restart, 2 start, 3 end, 4 abort, 99 descriptor; the instruction before
//! label 3 is the commit. `{area}` is the address of the registered area, free once this CPU's number is in `{at}`.
//!
//! Only threads of one CPU meet in its data, and the kernel orders them; whoever takes another CPU's has [`crate::fence`] for
//! that. What is left for barriers: that data is ready when `nr_cpus` says so, or a guard is gone.

#![expect(unsafe_code, reason = "restartable sequences are assembly")]

use core::arch::{asm, global_asm};
use core::sync::atomic::AtomicU64;

use crate::read_mostly::{NR_CPUS_OFFSET, READ_MOSTLY};
use crate::{Stack, Sum, TaggedWord};

/// Loops before a commit, for tests.
pub(crate) static DELAY: AtomicU64 = AtomicU64::new(0);
/// Aborts so far, for tests.
pub(crate) static ABORTS: AtomicU64 = AtomicU64::new(0);

pub(crate) const HAS_THREAD_WORD: bool = true;
/// `brk #0x45e0`.
pub(crate) const SIGNATURE: u32 = 0xd428_bc00;
pub(crate) const SYS_RSEQ: usize = 293;
pub(crate) const SYS_MEMBARRIER: usize = 283;

// Our own area (32 bytes; `cpu_id` is -1: not registered) and behind it the thread's words, in static thread-local storage:
// found by one load, before `main` as well, and in a preloaded library.
global_asm!(
    ".pushsection .tdata.objcg_rseq, \"awT\", %progbits",
    ".balign 32",
    ".hidden objcg_rseq_area",
    ".globl objcg_rseq_area",
    ".type objcg_rseq_area, %object",
    ".size objcg_rseq_area, 64",
    "objcg_rseq_area:",
    ".word 0, -1, 0, 0, 0, 0, 0, 0",
    ".xword {word}, 0, 0, 0",
    ".popsection",
    word = const crate::THREAD_WORD_AT_FIRST,
);

/// The abort handler lies in another part of the same section: a branch across sections could go through a veneer of the
/// linker, which is free to use registers.
///
/// Zeroes a register, or nothing; goes to the second argument if `init` was not called; then arms. What comes next is the start.
macro_rules! arm {
    ($zero:literal, $out:literal) => {
        concat!(
            ".pushsection __rseq_cs, \"aw\"\n",
            ".balign 32\n",
            "99: .word 0, 0\n",
            ".xword 2f, 3f - 2f, 4f\n",
            ".popsection\n",
            ".subsection 1\n",
            // The signature stands before the abort handler, as an instruction that is never run.
            ".inst 0xd428bc00\n",
            "4:\n",
            count_abort!(),
            "b 5f\n",
            ".previous\n",
            "5: ",
            $zero,
            "\nadrp {area}, {read_mostly}\n",
            "ldr {area}, [{area}, :lo12:{read_mostly}]\n",
            "cbz {area}, ",
            $out,
            "\n",
            "mrs {at}, tpidr_el0\n",
            "add {area}, {area}, {at}\n",
            "adrp {at}, 99b\n",
            "add {at}, {at}, :lo12:99b\n",
            "str {at}, [{area}, #8]\n",
        )
    };
}

/// The same, and starts.
macro_rules! begin {
    ($zero:literal, $out:literal) => {
        concat!(arm!($zero, $out), "2: ldr {at:w}, [{area}, #4]\n")
    };
}

/// Arms and starts, or goes to the argument; then `{at}` is this CPU's stack, or that of the threads that are not registered, whose
/// CPU is a negative number. What is on it is read by its address, and so not before the address.
macro_rules! begin_on_stack {
    ($out:literal) => {
        concat!(arm!("", $out), "2: ldrsw {at}, [{area}, #4]\nadd {at}, {stack}, {at}, lsl #{shift}\n")
    };
}

/// Out, unless this CPU has data.
macro_rules! check {
    ($out:literal) => {
        concat!(
            // Acquire pairs with the Release of `init`.
            "adrp {area}, {read_mostly}\n",
            "add {area}, {area}, :lo12:{read_mostly} + {nr_cpus}\n",
            "ldar {area:w}, [{area}]\n",
            "cmp {at:w}, {area:w}\n",
            "b.hs ",
            $out,
            "\n"
        )
    };
}

/// Time before a commit for the kernel to interfere, in tests. `{area}` is free by then.
#[cfg(feature = "delay")]
macro_rules! delay {
    () => {
        "adrp {area}, {delay}\nldr {area}, [{area}, :lo12:{delay}]\n6: subs {area}, {area}, #1\nb.hs 6b\n"
    };
}

#[cfg(not(feature = "delay"))]
macro_rules! delay {
    () => {
        "/* {delay} {aborts} */\n"
    };
}

/// Run by the abort handler. Two at a time may count as one.
#[cfg(feature = "delay")]
macro_rules! count_abort {
    () => {
        "adrp {at}, {aborts}\nldr {area}, [{at}, :lo12:{aborts}]\nadd {area}, {area}, #1\nstr {area}, [{at}, :lo12:{aborts}]\n"
    };
}

#[cfg(not(feature = "delay"))]
macro_rules! count_abort {
    () => {
        ""
    };
}

#[inline(always)]
pub(crate) unsafe fn pop<const SHIFT: u32>(stack: *mut Stack) -> *mut u8 {
    let object;
    // SAFETY: the caller's areas are valid; the only store is the commit.
    unsafe {
        asm!(
            begin_on_stack!("8f"),
            "ldr {top}, [{at}]",
            "ldr {object}, [{top}], #-8",
            "cmp {object}, #{end}",
            "b.eq 8f",
            delay!(),
            "str {top}, [{at}]",
            "3:",
            "9:",
            ".subsection 1",
            "8: adrp {object}, {no_object}",
            "add {object}, {object}, :lo12:{no_object}",
            "b 9b",
            ".previous",
            area = out(reg) _, at = out(reg) _, top = out(reg) _, object = out(reg) object,
            stack = in(reg) stack, end = const crate::END, shift = const SHIFT, no_object = sym crate::NO_OBJECT,
            read_mostly = sym READ_MOSTLY, delay = sym DELAY, aborts = sym ABORTS,
            options(nostack),
        );
    }
    object
}

#[inline(always)]
pub(crate) unsafe fn push<const SHIFT: u32>(stack: *mut Stack, object: *mut u8) -> bool {
    // SAFETY: the caller's areas are valid; the place above the top is nobody's until the commit.
    unsafe {
        asm!(
            begin_on_stack!("{give_up}"),
            "ldr {top}, [{at}]",
            "ldr {word}, [{top}, #8]",
            "cmp {word}, #{end}",
            "b.eq {give_up}",
            "ldr {word}, [{top}]",
            "cmp {word}, {object}",
            "b.eq {give_up}",
            "str {object}, [{top}, #8]!",
            delay!(),
            "str {top}, [{at}]",
            "3:",
            area = out(reg) _, at = out(reg) _, top = out(reg) _, word = out(reg) _,
            stack = in(reg) stack, object = in(reg) object, end = const crate::END,
            shift = const SHIFT, read_mostly = sym READ_MOSTLY, delay = sym DELAY, aborts = sym ABORTS,
            give_up = label { return false },
            options(nostack),
        );
    }
    true
}

#[inline]
pub(crate) unsafe fn pop_many<const SHIFT: u32>(stack: *mut Stack, room: *mut usize, nr_places: usize) -> usize {
    let nr_taken: usize;
    // SAFETY: the caller's areas and buffer are valid; the buffer is his alone.
    unsafe {
        asm!(
            begin!("mov {nr}, #0", "3f"),
            check!("3f"),
            "add {at}, {stack}, {at}, lsl #{shift}",
            "ldr {top}, [{at}]",
            "7: cmp {nr}, {nr_places}",
            "b.eq 8f",
            "ldr {object}, [{top}]",
            "cmp {object}, #{end}",
            "b.eq 8f",
            "str {object}, [{room}, {nr}, lsl #3]",
            "sub {top}, {top}, #8",
            "add {nr}, {nr}, #1",
            "b 7b",
            // None: no commit. A stopper may be taken away by whoever has put it there.
            "8: cbz {nr}, 3f",
            delay!(),
            "str {top}, [{at}]",
            "3:",
            area = out(reg) _, at = out(reg) _, top = out(reg) _, object = out(reg) _, nr = out(reg) nr_taken,
            stack = in(reg) stack, room = in(reg) room, nr_places = in(reg) nr_places, end = const crate::END,
            shift = const SHIFT, read_mostly = sym READ_MOSTLY, nr_cpus = const NR_CPUS_OFFSET,
            delay = sym DELAY, aborts = sym ABORTS,
            options(nostack),
        );
    }
    nr_taken
}

#[inline]
pub(crate) unsafe fn push_many<const SHIFT: u32>(stack: *mut Stack, objects: *const usize, nr_objects: usize) -> usize {
    let nr_put: usize;
    // SAFETY: the caller's areas and objects are valid; places above the top are nobody's until the commit.
    unsafe {
        asm!(
            begin!("mov {nr}, #0", "3f"),
            check!("3f"),
            "add {at}, {stack}, {at}, lsl #{shift}",
            "ldr {top}, [{at}]",
            "7: cmp {nr}, {nr_objects}",
            "b.eq 8f",
            "ldr {object}, [{top}, #8]",
            "cmp {object}, #{end}",
            "b.eq 8f",
            "ldr {object}, [{objects}, {nr}, lsl #3]",
            "str {object}, [{top}, #8]!",
            "add {nr}, {nr}, #1",
            "b 7b",
            // None: no commit. A stopper may be taken away by whoever has put it there.
            "8: cbz {nr}, 3f",
            delay!(),
            "str {top}, [{at}]",
            "3:",
            area = out(reg) _, at = out(reg) _, top = out(reg) _, object = out(reg) _, nr = out(reg) nr_put,
            stack = in(reg) stack, objects = in(reg) objects, nr_objects = in(reg) nr_objects, end = const crate::END,
            shift = const SHIFT, read_mostly = sym READ_MOSTLY, nr_cpus = const NR_CPUS_OFFSET,
            delay = sym DELAY, aborts = sym ABORTS,
            options(nostack),
        );
    }
    nr_put
}

#[inline(always)]
pub(crate) unsafe fn compare_add<const SHIFT: u32>(
    word: *mut TaggedWord,
    guard: *mut u32,
    tag: u32,
    delta: i64,
) -> bool {
    let done: u32;
    // SAFETY: the caller's areas are valid; the only store is the commit.
    unsafe {
        asm!(
            begin!("mov {done:w}, #0", "3f"),
            check!("3f"),
            "lsl {at}, {at}, #{shift}",
            // Acquire pairs with the Release of whoever has changed the word and now takes the guard away.
            "add {found}, {guard}, {at}",
            "ldar {found:w}, [{found}]",
            "cbnz {found:w}, 3f",
            "add {at}, {at}, {word}",
            "ldr {new}, [{at}]",
            "add {new}, {new}, {delta}",
            "lsr {found}, {new}, #32",
            "cmp {found:w}, {tag:w}",
            "b.ne 3f",
            "ldr {found:w}, [{at}, #8]",
            "cmp {new:w}, {found:w}",
            "b.hi 3f",
            "mov {done:w}, #1",
            delay!(),
            "str {new}, [{at}]",
            "3:",
            area = out(reg) _, at = out(reg) _, new = out(reg) _, found = out(reg) _, done = out(reg) done,
            word = in(reg) word, guard = in(reg) guard, tag = in(reg) tag, delta = in(reg) delta,
            shift = const SHIFT, read_mostly = sym READ_MOSTLY, nr_cpus = const NR_CPUS_OFFSET,
            delay = sym DELAY, aborts = sym ABORTS,
            options(nostack),
        );
    }
    done != 0
}

#[inline(always)]
pub(crate) unsafe fn add<const SHIFT: u32>(counter: *mut u64, delta: u64) -> bool {
    let done: u32;
    // SAFETY: the caller's areas are valid; the only store is the commit.
    unsafe {
        asm!(
            begin!("mov {done:w}, #0", "3f"),
            check!("3f"),
            "add {at}, {counter}, {at}, lsl #{shift}",
            "ldr {new}, [{at}]",
            "add {new}, {new}, {delta}",
            "mov {done:w}, #1",
            delay!(),
            "str {new}, [{at}]",
            "3:",
            area = out(reg) _, at = out(reg) _, new = out(reg) _, done = out(reg) done,
            counter = in(reg) counter, delta = in(reg) delta,
            shift = const SHIFT, read_mostly = sym READ_MOSTLY, nr_cpus = const NR_CPUS_OFFSET,
            delay = sym DELAY, aborts = sym ABORTS,
            options(nostack),
        );
    }
    done != 0
}

#[inline(always)]
pub(crate) unsafe fn add_overflowing<const SHIFT: u32>(counter: *mut i64, delta: i64) -> Sum {
    let (done, overflowed): (u32, u32);
    // SAFETY: the caller's areas are valid; the only store is the commit.
    unsafe {
        asm!(
            begin!("mov {done:w}, #0", "3f"),
            check!("3f"),
            "add {at}, {counter}, {at}, lsl #{shift}",
            "ldr {new}, [{at}]",
            "adds {new}, {new}, {delta}",
            "cset {overflowed:w}, vs",
            "mov {done:w}, #1",
            delay!(),
            "str {new}, [{at}]",
            "3:",
            area = out(reg) _, at = out(reg) _, new = out(reg) _, done = out(reg) done, overflowed = out(reg) overflowed,
            counter = in(reg) counter, delta = in(reg) delta,
            shift = const SHIFT, read_mostly = sym READ_MOSTLY, nr_cpus = const NR_CPUS_OFFSET,
            delay = sym DELAY, aborts = sym ABORTS,
            options(nostack),
        );
    }
    match (done, overflowed) {
        (0, _) => Sum::GaveUp,
        (_, 0) => Sum::Added,
        _ => Sum::Overflowed,
    }
}

#[inline]
pub(crate) unsafe fn exchange(word: *mut usize, cpu: u32, new: usize) -> Option<usize> {
    let (done, old): (u32, usize);
    // SAFETY: the caller's word is valid; the only store is the commit.
    unsafe {
        asm!(
            begin!("mov {done:w}, #0", "3f"),
            "cmp {at:w}, {cpu:w}",
            "b.ne 3f",
            "ldr {old}, [{word}]",
            "mov {done:w}, #1",
            delay!(),
            "str {new}, [{word}]",
            "3:",
            area = out(reg) _, at = out(reg) _, done = out(reg) done, old = out(reg) old,
            word = in(reg) word, cpu = in(reg) cpu, new = in(reg) new,
            read_mostly = sym READ_MOSTLY, delay = sym DELAY, aborts = sym ABORTS,
            options(nostack),
        );
    }
    (done != 0).then_some(old)
}

/// Offset of our own area from the thread pointer.
#[inline(always)]
pub(crate) fn own_offset() -> isize {
    let offset;
    // SAFETY: a load of a constant that the loader wrote.
    unsafe {
        asm!("adrp {0}, :gottprel:objcg_rseq_area", "ldr {0}, [{0}, :gottprel_lo12:objcg_rseq_area]",
            out(reg) offset, options(pure, nomem, nostack, preserves_flags));
    }
    offset
}

/// `(offset, size)` of libc's area; `None` if libc does not know rseq.
pub(crate) fn libc_area() -> Option<(isize, u32)> {
    let (offset, size): (*const isize, *const u32);
    // SAFETY: loads of two addresses that the loader wrote; 0 for an absent symbol.
    unsafe {
        // Weak, and said so here: it counts in the object file that has the loads.
        asm!(".weak __rseq_offset", ".weak __rseq_size",
            "adrp {0}, :got:__rseq_offset", "ldr {0}, [{0}, :got_lo12:__rseq_offset]",
            "adrp {1}, :got:__rseq_size", "ldr {1}, [{1}, :got_lo12:__rseq_size]",
            out(reg) offset, out(reg) size, options(pure, nomem, nostack, preserves_flags));
    }
    if offset.is_null() || size.is_null() {
        return None;
    }
    // SAFETY: libc's symbols are constants of these types from before the first instruction of ours.
    let offset = unsafe { offset.read() };
    // SAFETY: as above.
    Some((offset, unsafe { size.read() }))
}

/// Reads the 32-bit word `DISPLACEMENT` bytes behind an offset from the thread pointer, which the kernel may change at any
/// time.
///
/// # Safety
/// The word lies in the thread's static thread-local storage.
#[inline(always)]
pub(crate) unsafe fn thread_load_volatile<const DISPLACEMENT: usize>(offset: isize) -> u32 {
    let value;
    // SAFETY: the caller vouches for the place.
    unsafe {
        asm!("mrs {0:x}, tpidr_el0", "add {0:x}, {0:x}, {1}", "ldr {0:w}, [{0:x}, #{2}]", out(reg) value, in(reg) offset,
            const DISPLACEMENT, options(readonly, nostack, preserves_flags));
    }
    value
}

/// Reads the 32-bit word `DISPLACEMENT` bytes behind an offset from the thread pointer.
///
/// # Safety
/// The word lies in the thread's static thread-local storage, and this thread alone changes it.
#[inline(always)]
pub(crate) unsafe fn thread_load<const DISPLACEMENT: usize>(offset: isize) -> u32 {
    let value;
    // SAFETY: the caller vouches for the place.
    unsafe {
        asm!("mrs {0:x}, tpidr_el0", "add {0:x}, {0:x}, {1}", "ldr {0:w}, [{0:x}, #{2}]", out(reg) value, in(reg) offset,
            const DISPLACEMENT, options(pure, readonly, nostack, preserves_flags));
    }
    value
}

/// Reads the 64-bit word `DISPLACEMENT` bytes behind an offset from the thread pointer.
///
/// # Safety
/// As for [`thread_load`].
#[inline(always)]
pub(crate) unsafe fn thread_load_word<const DISPLACEMENT: usize>(offset: isize) -> u64 {
    let value;
    // SAFETY: the caller vouches for the place.
    unsafe {
        asm!("mrs {0}, tpidr_el0", "add {0}, {0}, {1}", "ldr {0}, [{0}, #{2}]", out(reg) value, in(reg) offset,
            const DISPLACEMENT, options(pure, readonly, nostack, preserves_flags));
    }
    value
}

/// Writes the 64-bit word `DISPLACEMENT` bytes behind an offset from the thread pointer.
///
/// # Safety
/// As for [`thread_load`].
#[inline(always)]
pub(crate) unsafe fn thread_store_word<const DISPLACEMENT: usize>(offset: isize, value: u64) {
    // SAFETY: the caller vouches for the place.
    unsafe {
        asm!("mrs {0}, tpidr_el0", "add {0}, {0}, {1}", "str {3}, [{0}, #{2}]", out(reg) _, in(reg) offset,
            const DISPLACEMENT, in(reg) value, options(nostack, preserves_flags));
    }
}

/// Writes the 32-bit word `DISPLACEMENT` bytes behind an offset from the thread pointer.
///
/// # Safety
/// As for [`thread_load`].
#[inline(always)]
pub(crate) unsafe fn thread_store<const DISPLACEMENT: usize>(offset: isize, value: u32) {
    // SAFETY: the caller vouches for the place.
    unsafe {
        asm!("mrs {0}, tpidr_el0", "add {0}, {0}, {1}", "str {3:w}, [{0}, #{2}]", out(reg) _, in(reg) offset,
            const DISPLACEMENT, in(reg) value, options(nostack, preserves_flags));
    }
}

/// The address of the thread's static thread-local storage that offsets count from.
pub(crate) fn thread_pointer() -> *mut u8 {
    let pointer;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, tpidr_el0", out(reg) pointer, options(pure, nomem, nostack, preserves_flags)) };
    pointer
}

/// A system call of four arguments.
///
/// # Safety
/// As the system call demands.
pub(crate) unsafe fn syscall(number: usize, arguments: [usize; 4]) -> isize {
    let result;
    // SAFETY: the caller vouches for the arguments; the kernel keeps all registers but these.
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") arguments[0] => result, in("x1") arguments[1],
            in("x2") arguments[2], in("x3") arguments[3], options(nostack));
    }
    result
}
