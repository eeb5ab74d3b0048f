//! The sections for x86-64, as in the pseudo-code of the crate's page.
//!
//! Every section has the same frame: restart, arming, start. Labels: 5 restart, 2 start, 3 end, 4 abort, 99 descriptor. The
//! instruction before label 3 is the commit; a jump to 3 gives up without one. `{at}` is this CPU's number, then the address
//! of its data; `{area}` the offset of the registered area from the thread pointer.

#![expect(unsafe_code, reason = "restartable sequences are assembly")]

use core::arch::{asm, global_asm};
use core::hint;
use core::sync::atomic::AtomicU64;

use crate::read_mostly::{NR_CPUS_OFFSET, READ_MOSTLY};
use crate::{Stack, Sum, TaggedWord};

/// Loops before a commit, for tests.
pub(crate) static DELAY: AtomicU64 = AtomicU64::new(0);
/// Aborts so far, for tests.
pub(crate) static ABORTS: AtomicU64 = AtomicU64::new(0);

pub(crate) const HAS_THREAD_WORD: bool = true;
pub(crate) const SIGNATURE: u32 = 0x5305_3053;
pub(crate) const SYS_RSEQ: usize = 334;
pub(crate) const SYS_MEMBARRIER: usize = 324;

// Our own area (32 bytes; `cpu_id` is -1: not registered) and behind it the thread's words, in static thread-local storage:
// found by one load, before `main` as well, and in a preloaded library.
global_asm!(
    ".pushsection .tdata.objcg_rseq, \"awT\", @progbits",
    ".balign 32",
    ".hidden objcg_rseq_area",
    ".globl objcg_rseq_area",
    ".type objcg_rseq_area, @object",
    ".size objcg_rseq_area, 64",
    "objcg_rseq_area:",
    ".long 0, -1, 0, 0, 0, 0, 0, 0",
    ".quad {word}, 0, 0, 0",
    ".popsection",
    word = const crate::THREAD_WORD_AT_FIRST,
);

/// Zeroes a register, or nothing; then arms. What comes next is the start.
macro_rules! arm {
    ($zero:literal) => {
        concat!(
            ".pushsection __rseq_cs, \"aw\"\n",
            ".balign 32\n",
            "99: .long 0, 0\n",
            ".quad 2f, 3f - 2f, 4f\n",
            ".popsection\n",
            ".pushsection .text.unlikely.objcg_rseq, \"ax\"\n",
            // The signature stands before the abort handler, as the operand of an instruction that is never run.
            ".byte 0x0f, 0xb9, 0x3d\n",
            ".long 0x53053053\n",
            "4:\n",
            count_abort!(),
            "jmp 5f\n",
            ".popsection\n",
            "5: ",
            $zero,
            "\nmov {area}, qword ptr [rip + {read_mostly}]\n",
            "lea {at}, [rip + 99b]\n",
            "mov qword ptr fs:[{area} + 8], {at}\n",
        )
    };
}

/// The same, and starts.
macro_rules! begin {
    ($zero:literal) => {
        concat!(arm!($zero), "2: mov {at:e}, dword ptr fs:[{area} + 4]\n")
    };
}

/// Arms and starts; then `{at}` is this CPU's stack, or that of the threads that are not registered, whose CPU is a negative number.
macro_rules! begin_on_stack {
    () => {
        concat!(arm!(""), "2: movsxd {at}, dword ptr fs:[{area} + 4]\n", "shl {at}, {shift}\n", "add {at}, {stack}\n",)
    };
}

/// From this CPU's number to its part of the area, or out.
macro_rules! part {
    () => {
        "cmp {at:e}, dword ptr [rip + {read_mostly} + {nr_cpus}]\njae 3f\nshl {at}, {shift}\n"
    };
}

/// Time before a commit for the kernel to interfere, in tests. `{area}` is free by then.
#[cfg(feature = "delay")]
macro_rules! delay {
    () => {
        "mov {area}, qword ptr [rip + {delay}]\n6: sub {area}, 1\njnc 6b\n"
    };
}

#[cfg(not(feature = "delay"))]
macro_rules! delay {
    () => {
        "/* {delay} {aborts} */\n"
    };
}

/// Run by the abort handler.
#[cfg(feature = "delay")]
macro_rules! count_abort {
    () => {
        "lock inc qword ptr [rip + {aborts}]\n"
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
            begin_on_stack!(),
            "mov {top}, qword ptr [{at}]",
            "mov {object}, qword ptr [{top}]",
            "cmp {object}, {end}",
            "je 8f",
            delay!(),
            "sub qword ptr [{at}], 8",
            "3:",
            "9:",
            ".pushsection .text.unlikely.objcg_rseq, \"ax\"",
            "8: lea {object}, [rip + {no_object}]",
            "jmp 9b",
            ".popsection",
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
            begin_on_stack!(),
            "mov {top}, qword ptr [{at}]",
            "cmp qword ptr [{top} + 8], {end}",
            "je {give_up}",
            "cmp qword ptr [{top}], {object}",
            "je {give_up}",
            "mov qword ptr [{top} + 8], {object}",
            delay!(),
            "add qword ptr [{at}], 8",
            "3:",
            area = out(reg) _, at = out(reg) _, top = out(reg) _,
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
            begin!("xor {nr:e}, {nr:e}"),
            part!(),
            "add {at}, {stack}",
            "mov {top}, qword ptr [{at}]",
            "7: cmp {nr}, {nr_places}",
            "je 8f",
            "mov {word}, qword ptr [{top}]",
            "cmp {word}, {end}",
            "je 8f",
            "mov qword ptr [{room} + 8 * {nr}], {word}",
            "sub {top}, 8",
            "inc {nr}",
            "jmp 7b",
            // None: no commit. A stopper may be taken away by whoever has put it there.
            "8: test {nr}, {nr}",
            "jz 3f",
            delay!(),
            "mov qword ptr [{at}], {top}",
            "3:",
            area = out(reg) _, at = out(reg) _, top = out(reg) _, word = out(reg) _, nr = out(reg) nr_taken,
            stack = in(reg) stack, room = in(reg) room, nr_places = in(reg) nr_places, end = const crate::END,
            shift = const SHIFT, read_mostly = sym READ_MOSTLY, nr_cpus = const NR_CPUS_OFFSET, delay = sym DELAY, aborts = sym ABORTS,
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
            begin!("xor {nr:e}, {nr:e}"),
            part!(),
            "add {at}, {stack}",
            "mov {top}, qword ptr [{at}]",
            "7: cmp {nr}, {nr_objects}",
            "je 8f",
            "cmp qword ptr [{top} + 8], {end}",
            "je 8f",
            "mov {word}, qword ptr [{objects} + 8 * {nr}]",
            "mov qword ptr [{top} + 8], {word}",
            "add {top}, 8",
            "inc {nr}",
            "jmp 7b",
            // None: no commit. A stopper may be taken away by whoever has put it there.
            "8: test {nr}, {nr}",
            "jz 3f",
            delay!(),
            "mov qword ptr [{at}], {top}",
            "3:",
            area = out(reg) _, at = out(reg) _, top = out(reg) _, word = out(reg) _, nr = out(reg) nr_put,
            stack = in(reg) stack, objects = in(reg) objects, nr_objects = in(reg) nr_objects, end = const crate::END,
            shift = const SHIFT, read_mostly = sym READ_MOSTLY, nr_cpus = const NR_CPUS_OFFSET, delay = sym DELAY, aborts = sym ABORTS,
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
            begin!("xor {done:e}, {done:e}"),
            part!(),
            "cmp dword ptr [{guard} + {at}], 0",
            "jne 3f",
            "add {at}, {word}",
            "mov {new}, qword ptr [{at}]",
            "add {new}, {delta}",
            "mov {found}, {new}",
            "shr {found}, 32",
            "cmp {found:e}, {tag:e}",
            "jne 3f",
            "cmp {new:e}, dword ptr [{at} + 8]",
            "ja 3f",
            "inc {done:e}",
            delay!(),
            "mov qword ptr [{at}], {new}",
            "3:",
            area = out(reg) _, at = out(reg) _, new = out(reg) _, found = out(reg) _, done = out(reg) done,
            word = in(reg) word, guard = in(reg) guard, tag = in(reg) tag, delta = in(reg) delta,
            shift = const SHIFT, read_mostly = sym READ_MOSTLY, nr_cpus = const NR_CPUS_OFFSET, delay = sym DELAY, aborts = sym ABORTS,
            options(nostack),
        );
    }
    done != 0
}

#[inline(always)]
pub(crate) unsafe fn add<const SHIFT: u32>(counter: *mut u64, delta: u64) -> bool {
    let done: u32;
    // SAFETY: the caller's areas are valid. The addition is one instruction, which is interrupted before or after.
    unsafe {
        asm!(
            begin!("xor {done:e}, {done:e}"),
            part!(),
            "inc {done:e}",
            delay!(),
            "add qword ptr [{counter} + {at}], {delta}",
            "3:",
            area = out(reg) _, at = out(reg) _, done = out(reg) done, counter = in(reg) counter, delta = in(reg) delta,
            shift = const SHIFT, read_mostly = sym READ_MOSTLY, nr_cpus = const NR_CPUS_OFFSET, delay = sym DELAY, aborts = sym ABORTS,
            options(nostack),
        );
    }
    done != 0
}

#[inline(always)]
pub(crate) unsafe fn add_overflowing<const SHIFT: u32>(counter: *mut i64, delta: i64) -> Sum {
    // SAFETY: the caller's areas are valid. The addition is one instruction, which is interrupted before or after; behind it the
    // flags are the thread's own, whatever happens.
    unsafe {
        asm!(
            begin!(""),
            "cmp {at:e}, dword ptr [rip + {read_mostly} + {nr_cpus}]",
            "jae {give_up}",
            "shl {at}, {shift}",
            delay!(),
            "add qword ptr [{counter} + {at}], {delta}",
            "3:",
            "jo {overflowed}",
            area = out(reg) _, at = out(reg) _, counter = in(reg) counter, delta = in(reg) delta,
            shift = const SHIFT, read_mostly = sym READ_MOSTLY, nr_cpus = const NR_CPUS_OFFSET, delay = sym DELAY, aborts = sym ABORTS,
            give_up = label { return Sum::GaveUp },
            overflowed = label { return Sum::Overflowed },
            options(nostack),
        );
    }
    Sum::Added
}

#[inline]
pub(crate) unsafe fn exchange(word: *mut usize, cpu: u32, new: usize) -> Option<usize> {
    let (done, old): (u32, usize);
    // SAFETY: the caller's word is valid; the only store is the commit.
    unsafe {
        asm!(
            begin!("xor {done:e}, {done:e}"),
            "cmp {at:e}, {cpu:e}",
            "jne 3f",
            "mov {old}, qword ptr [{word}]",
            "inc {done:e}",
            delay!(),
            "mov qword ptr [{word}], {new}",
            "3:",
            area = out(reg) _, at = out(reg) _, done = out(reg) done, old = out(reg) old,
            word = in(reg) word, cpu = in(reg) cpu, new = in(reg) new, read_mostly = sym READ_MOSTLY, delay = sym DELAY, aborts = sym ABORTS,
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
        asm!("mov {}, qword ptr [rip + objcg_rseq_area@GOTTPOFF]", out(reg) offset,
            options(pure, nomem, nostack, preserves_flags));
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
            "mov {}, qword ptr [rip + __rseq_offset@GOTPCREL]", "mov {}, qword ptr [rip + __rseq_size@GOTPCREL]",
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
        asm!("mov {:e}, dword ptr fs:[{} + {}]", out(reg) value, in(reg) offset, const DISPLACEMENT,
            options(readonly, nostack, preserves_flags));
    }
    value
}

/// Reads the 32-bit word `DISPLACEMENT` bytes behind an offset from the thread pointer.
///
/// # Safety
/// The word lies in the thread's static thread-local storage, and this thread alone changes it.
#[inline(always)]
pub(crate) unsafe fn thread_load<const DISPLACEMENT: usize>(offset: isize) -> u32 {
    let value: u64;
    // SAFETY: the caller vouches for the place.
    unsafe {
        asm!("mov {:e}, dword ptr fs:[{} + {}]", out(reg) value, in(reg) offset, const DISPLACEMENT,
            options(pure, readonly, nostack, preserves_flags));
    }
    // SAFETY: a load of 32 bits clears the upper half of the register. The compiler, which does not know, would do it once more.
    unsafe { hint::assert_unchecked(value <= u64::from(u32::MAX)) };
    value as u32
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
        asm!("mov {}, qword ptr fs:[{} + {}]", out(reg) value, in(reg) offset, const DISPLACEMENT,
            options(pure, readonly, nostack, preserves_flags));
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
        asm!("mov qword ptr fs:[{} + {}], {}", in(reg) offset, const DISPLACEMENT, in(reg) value,
            options(nostack, preserves_flags));
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
        asm!("mov dword ptr fs:[{} + {}], {:e}", in(reg) offset, const DISPLACEMENT, in(reg) value,
            options(nostack, preserves_flags));
    }
}

/// The address of the thread's static thread-local storage that offsets count from.
pub(crate) fn thread_pointer() -> *mut u8 {
    let pointer;
    // SAFETY: the first word at the thread pointer is its own address, by the ABI.
    unsafe { asm!("mov {}, qword ptr fs:[0]", out(reg) pointer, options(pure, readonly, nostack, preserves_flags)) };
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
        asm!("syscall", inlateout("rax") number => result, in("rdi") arguments[0], in("rsi") arguments[1],
            in("rdx") arguments[2], in("r10") arguments[3], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}
