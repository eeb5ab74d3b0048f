//! Threads: a new one is in the group of whoever started it, or gets a group of its own.
//!
//! In the second case the tree is program → name → thread. A thread's group is deleted when the thread ends, and what it leaves
//! behind is its name's: so there are as many groups as names and living threads. A thread that names itself moves to that name;
//! what it had stays with the old one. (Another thread's naming of it is not seen.)

#![expect(unsafe_code, reason = "stands before C's functions")]

use core::ffi::{c_char, c_int, c_ulong, c_void};
use core::mem;
use core::ptr::NonNull;
use core::str;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use objcg_core::kmalloc;
use objcg_core::memcg::{self, Memcg};
use objcg_malloc::Line;
use objcg_report::{NAME_BYTES, Threads, name_bytes};

use crate::next::Next;
use crate::program;

/// Names that get a group; threads of more are in the program's.
const MAX_NAMES: usize = 1024;

static EACH_HAS_A_GROUP: AtomicBool = AtomicBool::new(false);
static NR_NAMES: AtomicUsize = AtomicUsize::new(0);

/// From now on each thread gets a group; this one first.
pub(crate) fn give_each_a_group() {
    EACH_HAS_A_GROUP.store(true, Ordering::Relaxed);
    move_to_own_group();
}

/// The thread's name, as the kernel has it.
pub(crate) fn own_name() -> [u8; NAME_BYTES] {
    let mut name = [0u8; NAME_BYTES];
    // SAFETY: the kernel writes 16 bytes.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// A name without what a group's may not have.
pub(crate) fn as_group_name(name: &[u8; NAME_BYTES]) -> &str {
    let bytes = name_bytes(name);
    match str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && !text.contains('/') => text,
        _ => "(unnamed)",
    }
}

/// Moves this thread into a group of its own, below its name's.
fn move_to_own_group() {
    let Some(program) = program::group() else { return };
    let name = own_name();
    let Some(of_name) = group_of_name(&program, as_group_name(&name)) else { return };
    // SAFETY: no preconditions.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) };
    let number = Line::<NAME_BYTES>::of(format_args!("{tid}"));
    let number = str::from_utf8(number.as_bytes()).unwrap_or_default();
    // Without room for another group the name's has to do.
    let own = of_name.create(number).unwrap_or(of_name);
    // Without memory the thread stays where it is.
    let _moved = memcg::move_into(own);
}

/// The group of a name, which stays.
fn group_of_name(program: &Memcg, name: &str) -> Option<Memcg> {
    if let Some(found) = program.child(name) {
        return Some(found);
    }
    if NR_NAMES.load(Ordering::Relaxed) >= MAX_NAMES {
        return None;
    }
    match program.create(name) {
        Ok(made) => {
            NR_NAMES.fetch_add(1, Ordering::Relaxed);
            mem::forget(made.clone());
            Some(made)
        }
        // Another thread of that name was faster, or a limit refuses.
        Err(_) => program.child(name),
    }
}

/// What threads of each name hold: the first names, which is all unless there are a great many.
pub(crate) fn for_each_name(program: &Memcg, mut visit: impl FnMut(Threads)) {
    // Under the tree's lock nothing may be looked at: first all tickets, then the groups.
    let mut tickets = [0; MAX_NAMES];
    let mut nr_names = 0;
    program.child_tickets(MAX_NAMES, |ticket| {
        tickets[nr_names] = ticket;
        nr_names += 1;
    });
    for of_name in tickets[..nr_names].iter().filter_map(|ticket| Memcg::of_ticket(*ticket)) {
        of_name.drain();
        visit(Threads {
            name: objcg_report::name(of_name.name().as_str().as_bytes()),
            nr_threads: of_name.child_tickets(0, drop) as u64,
            usage: of_name.usage(),
            peak: of_name.peak(),
        });
    }
}

/// What a new thread is to do, and where.
struct Start<F> {
    start: F,
    arg: *mut c_void,
    group: Memcg,
}

// Not "C-unwind": that would make `run` a frame that stops what passes, and asks a personality that this library is without.
type Routine = unsafe extern "C" fn(*mut c_void) -> *mut c_void;
type IntRoutine = unsafe extern "C" fn(*mut c_void) -> c_int;

static NEXT_PTHREAD_CREATE: Next = Next::new(c"pthread_create");
static NEXT_THRD_CREATE: Next = Next::new(c"thrd_create");
static NEXT_SETNAME: Next = Next::new(c"pthread_setname_np");
static NEXT_PRCTL: Next = Next::new(c"prctl");

impl<F> Start<F> {
    /// In memory that the new thread frees; `None` without any.
    fn pack(start: F, arg: *mut c_void) -> Option<NonNull<c_void>> {
        let group = Memcg::of_ticket(memcg::moved_into()).unwrap_or_else(Memcg::root);
        let packed = kmalloc::alloc(size_of::<Start<F>>(), align_of::<Start<F>>())?.cast::<Start<F>>();
        // SAFETY: the memory was just taken for it.
        unsafe { packed.write(Start { start, arg, group }) };
        Some(packed.cast())
    }

    /// # Safety
    /// `packed` is from `pack`, and not used any more.
    unsafe fn unpack(packed: NonNull<c_void>) -> Start<F> {
        // SAFETY: by the contract.
        let start = unsafe { packed.cast::<Start<F>>().read() };
        // SAFETY: by the contract; it was allocated so.
        unsafe { kmalloc::free(packed.cast()) };
        start
    }

    /// Goes where the thread belongs.
    fn enter(self) -> (F, *mut c_void) {
        if EACH_HAS_A_GROUP.load(Ordering::Relaxed) {
            move_to_own_group();
        } else {
            // Without memory the thread stays in the root.
            let _moved = memcg::move_into(self.group);
        }
        (self.start, self.arg)
    }
}

/// What a new thread runs. `pthread_exit` and cancellation pass through its frame, which has nothing to drop when the program's
/// routine is called.
///
/// # Safety
/// `packed` is from `Start::pack`.
unsafe extern "C" fn run(packed: *mut c_void) -> *mut c_void {
    // SAFETY: by the contract.
    let packed = unsafe { NonNull::new_unchecked(packed) };
    // SAFETY: by the contract, and it is called once.
    let (start, arg) = unsafe { Start::<Routine>::unpack(packed) }.enter();
    // SAFETY: what the program gave to `pthread_create`.
    unsafe { start(arg) }
}

/// # Safety
/// As for [`run`].
unsafe extern "C" fn run_int(packed: *mut c_void) -> c_int {
    // SAFETY: by the contract.
    let packed = unsafe { NonNull::new_unchecked(packed) };
    // SAFETY: by the contract, and it is called once.
    let (start, arg) = unsafe { Start::<IntRoutine>::unpack(packed) }.enter();
    // SAFETY: what the program gave to `thrd_create`.
    unsafe { start(arg) }
}

/// POSIX's `pthread_create`.
///
/// # Safety
/// As POSIX has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attr: *const libc::pthread_attr_t,
    start: Routine,
    arg: *mut c_void,
) -> c_int {
    type Create =
        unsafe extern "C" fn(*mut libc::pthread_t, *const libc::pthread_attr_t, Routine, *mut c_void) -> c_int;
    // SAFETY: libc's function of that name has this type.
    let create = unsafe { mem::transmute::<*mut c_void, Create>(NEXT_PTHREAD_CREATE.address()) };
    if program::group().is_none() {
        // SAFETY: the caller's contract.
        return unsafe { create(thread, attr, start, arg) };
    }
    let Some(packed) = Start::pack(start, arg) else { return libc::EAGAIN };
    // SAFETY: the caller's contract; `run` takes what was packed.
    let status = unsafe { create(thread, attr, run, packed.as_ptr()) };
    if status != 0 {
        // SAFETY: no thread was started, so nobody else has it.
        drop(unsafe { Start::<Routine>::unpack(packed) });
    }
    status
}

/// C11's `thrd_create`.
///
/// # Safety
/// As C11 has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn thrd_create(thread: *mut libc::pthread_t, start: IntRoutine, arg: *mut c_void) -> c_int {
    /// glibc's `thrd_nomem`.
    const NO_MEMORY: c_int = 3;
    type Create = unsafe extern "C" fn(*mut libc::pthread_t, IntRoutine, *mut c_void) -> c_int;
    // SAFETY: libc's function of that name has this type.
    let create = unsafe { mem::transmute::<*mut c_void, Create>(NEXT_THRD_CREATE.address()) };
    if program::group().is_none() {
        // SAFETY: the caller's contract.
        return unsafe { create(thread, start, arg) };
    }
    let Some(packed) = Start::pack(start, arg) else { return NO_MEMORY };
    // SAFETY: the caller's contract; `run_int` takes what was packed.
    let status = unsafe { create(thread, run_int, packed.as_ptr()) };
    if status != 0 {
        // SAFETY: no thread was started, so nobody else has it.
        drop(unsafe { Start::<IntRoutine>::unpack(packed) });
    }
    status
}

/// glibc's `pthread_setname_np`.
///
/// # Safety
/// As glibc has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_setname_np(thread: libc::pthread_t, name: *const c_char) -> c_int {
    type SetName = unsafe extern "C" fn(libc::pthread_t, *const c_char) -> c_int;
    // SAFETY: libc's function of that name has this type.
    let set_name = unsafe { mem::transmute::<*mut c_void, SetName>(NEXT_SETNAME.address()) };
    // SAFETY: the caller's contract.
    let status = unsafe { set_name(thread, name) };
    // SAFETY: no preconditions.
    if status == 0 && thread == unsafe { libc::pthread_self() } {
        follow_name();
    }
    status
}

/// Linux's `prctl`, which also names threads. In C it takes what its option needs; the registers are the same.
///
/// # Safety
/// As Linux has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int {
    type Prctl = unsafe extern "C" fn(c_int, c_ulong, c_ulong, c_ulong, c_ulong) -> c_int;
    // SAFETY: libc's function of that name reads five registers.
    let next = unsafe { mem::transmute::<*mut c_void, Prctl>(NEXT_PRCTL.address()) };
    // SAFETY: the caller's contract.
    let status = unsafe { next(option, a, b, c, d) };
    if status == 0 && option == libc::PR_SET_NAME {
        follow_name();
    }
    status
}

fn follow_name() {
    if EACH_HAS_A_GROUP.load(Ordering::Relaxed) {
        move_to_own_group();
    }
}
