//! The program's group, and the report on it.
//!
//! Set up before `main` by one thread. The file of the report is mapped and shared: what was written stays when the process is
//! killed. Its counters are kept up to date by every batch that is charged; the rest is written once, at the end.

#![expect(unsafe_code, reason = "system calls, and a mapping that is shared with another process")]

use core::ffi::{CStr, c_char};
use core::fmt;
use core::ptr::{self, NonNull};
use core::str;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};

use objcg_core::memcg::{self, Memcg, Watcher};
use objcg_core::stat;
use objcg_malloc::Line;
use objcg_report::{COMPLETE, CUT_SHORT, Class, GroupBy, MAX_CLASSES, MAX_THREADS, Order, Report, Threads, VARIABLE};

use crate::{endings, threads};

/// What a shell gives back when it cannot run a program.
const CANNOT_RUN: i32 = 126;
const NAME_WORDS: usize = 16;

/// The ticket of the program's group; 0 in a process that is not meant.
static PROGRAM: AtomicU64 = AtomicU64::new(0);
/// The process that the report is on. Another finds itself here after `fork` and `vfork`.
static PID: AtomicI32 = AtomicI32::new(0);
static REPORT: AtomicPtr<Report> = AtomicPtr::new(ptr::null_mut());
/// Whether the end of the process was seen.
static IS_FILLED: AtomicBool = AtomicBool::new(false);
static WATCHER: Watcher = Watcher(update_counters);
/// The folder for reports of processes that are forked, if they are wanted: text that is never freed.
static FOLDER: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());

/// Run by the loader before `main`.
#[used]
// SAFETY: `.init_array` holds pointers to functions, which may take less than they are given.
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = {
    extern "C" fn start() {
        crate::program::start();
    }
    start
};

/// Prints one line, and ends the process.
pub(crate) fn fail(what: fmt::Arguments<'_>) -> ! {
    let line = Line::<256>::of(format_args!("objcg run: {what}\n"));
    // SAFETY: a valid buffer of the length that is passed.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_bytes().as_ptr().cast(), line.as_bytes().len()) };
    // SAFETY: no preconditions.
    unsafe { libc::syscall(libc::SYS_exit_group, CANNOT_RUN) };
    loop {
        core::hint::spin_loop();
    }
}

/// The program's group, in a process that has one.
pub(crate) fn group() -> Option<Memcg> {
    match PROGRAM.load(Ordering::Relaxed) {
        0 => None,
        ticket => Memcg::of_ticket(ticket),
    }
}

fn start() {
    let name = variable(VARIABLE);
    // SAFETY: a C string.
    let text = unsafe { libc::getenv(name.as_ptr().cast()) };
    let Some(text) = NonNull::new(text) else { return };
    // SAFETY: the environment's text is a C string, and nobody else runs yet.
    let text = unsafe { CStr::from_ptr(text.as_ptr()) };
    let order = text.to_str().ok().and_then(|text| Order::parse(text).ok());
    let Some(order) = order else { fail(format_args!("{VARIABLE} is not of this version; unset it")) };
    if !order.with_children && !is_first(order.folder) {
        return leave_the_environment();
    }
    let program = make_group(&order);
    PROGRAM.store(program.ticket(), Ordering::Relaxed);
    // SAFETY: no preconditions.
    PID.store(unsafe { libc::getpid() }, Ordering::Relaxed);
    if memcg::move_into(program.clone()).is_none() {
        fail(format_args!("out of memory"));
    }
    // It lives as long as the process.
    core::mem::forget(program);
    open_report(order.folder);
    memcg::watch(&WATCHER);
    endings::find_next();
    if order.group_by == GroupBy::Thread {
        threads::give_each_a_group();
    }
    if order.with_children {
        keep_folder(order.folder);
    }
    // SAFETY: the handler is a function of this library, which is never unloaded.
    unsafe { libc::pthread_atfork(None, None, Some(after_fork)) };
}

/// The variable's name as a C string.
const fn variable(name: &str) -> [u8; NAME_WORDS] {
    let mut text = [0; NAME_WORDS];
    let mut at = 0;
    while at < name.len() {
        text[at] = name.as_bytes()[at];
        at += 1;
    }
    text
}

/// Whether this is the process that the command started, or what that has become by `exec`.
fn is_first(folder: &str) -> bool {
    let path = Line::<4096>::of(format_args!("{folder}/first\0"));
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC;
    // SAFETY: a C string.
    let file = unsafe { libc::open(path.as_bytes().as_ptr().cast(), flags, 0o600) };
    if file < 0 {
        fail(format_args!("{folder}: cannot be written to"));
    }
    // SAFETY: no preconditions.
    let pid = unsafe { libc::getpid() };
    let mut seen = 0i32;
    // The command waits for one process: nobody else writes here before it has started others.
    // SAFETY: a valid buffer of the length that is passed.
    let nr_read = unsafe { libc::read(file, (&raw mut seen).cast(), size_of::<i32>()) };
    if nr_read == 0 {
        // SAFETY: as above.
        unsafe { libc::write(file, (&raw const pid).cast(), size_of::<i32>()) };
        seen = pid;
    }
    // SAFETY: opened here, closed once.
    unsafe { libc::close(file) };
    seen == pid
}

/// Takes this library out of what processes that this one starts will preload.
fn leave_the_environment() {
    // SAFETY: a C string.
    let text = unsafe { libc::getenv(c"LD_PRELOAD".as_ptr()) };
    let Some(text) = NonNull::new(text) else { return };
    // SAFETY: as in `start`.
    let text = unsafe { CStr::from_ptr(text.as_ptr()) };
    let mut others = Line::<4096>::of(format_args!(""));
    for library in text.to_bytes().split(|byte| matches!(byte, b':' | b' ')) {
        if !library.ends_with(b"libobjcg_preload.so")
            && let Ok(library) = str::from_utf8(library)
        {
            // What does not fit was no list of libraries.
            let _ = fmt::Write::write_fmt(&mut others, format_args!("{library}:"));
        }
    }
    let _ = fmt::Write::write_str(&mut others, "\0");
    let name = variable(VARIABLE);
    // SAFETY: a C string; nobody else runs yet.
    unsafe { libc::unsetenv(name.as_ptr().cast()) };
    if others.as_bytes().len() == 1 {
        // SAFETY: as above.
        unsafe { libc::unsetenv(c"LD_PRELOAD".as_ptr()) };
    } else {
        // SAFETY: as above; the value ends with a 0.
        unsafe { libc::setenv(c"LD_PRELOAD".as_ptr(), others.as_bytes().as_ptr().cast(), 1) };
    }
}

fn make_group(order: &Order<'_>) -> Memcg {
    let comm = threads::own_name();
    let made = Memcg::root().create(threads::as_group_name(&comm));
    let program = match made {
        Ok(program) => program,
        Err(error) => fail(format_args!("no group for the program: {error}")),
    };
    if program.set_max(order.max).and_then(|_| program.set_high(order.high)).is_err() {
        fail(format_args!("the program's group cannot be limited"));
    }
    program
}

/// Maps this process's report.
fn open_report(folder: &str) {
    // SAFETY: no preconditions.
    let pid = unsafe { libc::getpid() };
    let path = Line::<4096>::of(format_args!("{folder}/{pid}.report\0"));
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
    // SAFETY: a C string.
    let file = unsafe { libc::open(path.as_bytes().as_ptr().cast(), flags, 0o600) };
    // SAFETY: resizes the file just made.
    if file < 0 || unsafe { libc::ftruncate(file, size_of::<Report>() as libc::off_t) } != 0 {
        fail(format_args!("{folder}: no room for a report"));
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let mapped = unsafe { libc::mmap(ptr::null_mut(), size_of::<Report>(), protection, libc::MAP_SHARED, file, 0) };
    // SAFETY: opened here, closed once; the mapping stays.
    unsafe { libc::close(file) };
    if mapped == libc::MAP_FAILED {
        fail(format_args!("{folder}: no room for a report"));
    }
    let report = mapped.cast::<Report>();
    let command = threads::own_name();
    // SAFETY: the mapping is as large as a report, aligned to the page, and nobody else's in this process.
    unsafe { report.write(Report::started(pid.unsigned_abs().into(), objcg_report::name_bytes(&command))) };
    REPORT.store(report, Ordering::Release);
}

fn keep_folder(folder: &str) {
    let Some(kept) = objcg_core::kmalloc::alloc_zeroed(folder.len() + 1, 1) else { return };
    // SAFETY: there is room for the text and a 0.
    unsafe { kept.as_ptr().copy_from_nonoverlapping(folder.as_ptr(), folder.len()) };
    FOLDER.store(kept.as_ptr().cast(), Ordering::Relaxed);
}

/// Run in the child of a `fork`: the report is its parent's.
extern "C" fn after_fork() {
    REPORT.store(ptr::null_mut(), Ordering::Relaxed);
    let folder = FOLDER.load(Ordering::Relaxed);
    if folder.is_null() {
        return;
    }
    // SAFETY: from `keep_folder`: ends with a 0, and is never freed.
    let folder = unsafe { CStr::from_ptr(folder) }.to_str().unwrap_or_default();
    // SAFETY: no preconditions.
    PID.store(unsafe { libc::getpid() }, Ordering::Relaxed);
    IS_FILLED.store(false, Ordering::Relaxed);
    open_report(folder);
}

/// This process's report; none in a child of `vfork`, which has its parent's memory.
fn report() -> Option<NonNull<Report>> {
    let report = NonNull::new(REPORT.load(Ordering::Acquire))?;
    // SAFETY: no preconditions.
    (PID.load(Ordering::Relaxed) == unsafe { libc::getpid() }).then_some(report)
}

/// Stores a number of the report. Other threads may be at it: the last one stays.
///
/// # Safety
/// `place` is in the mapping of a report.
unsafe fn store(place: *mut u64, number: u64) {
    // SAFETY: aligned, mapped for ever, and only accessed so while other threads may.
    unsafe { AtomicU64::from_ptr(place) }.store(number, Ordering::Relaxed);
}

extern "C" fn update_counters() {
    let Some(report) = NonNull::new(REPORT.load(Ordering::Acquire)) else { return };
    let Some(program) = group() else { return };
    let events = program.events();
    // SAFETY: the field is inside the mapping.
    let counters = unsafe { &raw mut (*report.as_ptr()).counters };
    let numbers = [program.usage(), program.peak(), events.high, events.max, events.oom];
    for (at, number) in numbers.into_iter().enumerate() {
        // SAFETY: the counters are as many numbers of 64 bits, inside the mapping.
        let place = unsafe { counters.cast::<u64>().add(at) };
        // SAFETY: as just said.
        unsafe { store(place, number) };
    }
}

const _: () = assert!(size_of::<objcg_report::Counters>() == 5 * size_of::<u64>());
// A row is left for what is in pages.
const _: () = assert!(stat::NR_SIZE_CLASSES < MAX_CLASSES);

/// Writes what can be seen without a lock: whoever ends the process so may have interrupted the allocator.
pub(crate) fn report_at_a_glance() {
    let Some(report) = report() else { return };
    fill(report, CUT_SHORT, |report| {
        for class in stat::size_classes_at_a_glance() {
            add_class(report, class);
        }
    });
}

/// Writes everything, exactly.
pub(crate) fn report_in_full() {
    let Some(report) = report() else { return };
    let Some(program) = group() else { return };
    fill(report, COMPLETE, |report| {
        threads::for_each_name(&program, |row| add_threads(report, row));
        let held = program.stat();
        let heap = stat::heap();
        for class in stat::size_classes() {
            add_class(report, class);
        }
        let nr_large = heap.large_objects + heap.huge_objects;
        if nr_large > 0 {
            add_row(report, Class { size: 0, nr_objects: nr_large, object_bytes: heap.large_bytes + heap.huge_bytes });
        }
        report.live_objects = held.slab_objects + held.large_objects + held.percpu_objects;
        report.live_bytes = held.slab_bytes + held.large_bytes + held.percpu_bytes;
        report.held_bytes = heap.held_bytes();
    });
}

/// Fills the report, once, but for the counters, which are brought up to date.
fn fill(report: NonNull<Report>, state: u64, look: impl FnOnce(&mut Report)) {
    if IS_FILLED.swap(true, Ordering::AcqRel) {
        return;
    }
    update_counters();
    // SAFETY: the mapping is as large as a report and aligned; other threads may store counters, which are copied as they are.
    let mut filled = unsafe { report.as_ptr().read_volatile() };
    look(&mut filled);
    filled.peak_rss = peak_rss();
    filled.state = state;
    // SAFETY: as above. A counter that another thread stores meanwhile is older by that.
    unsafe { report.as_ptr().write_volatile(filled) };
    update_counters();
}

fn add_class(report: &mut Report, class: stat::ClassStat) {
    report.slab_object_bytes += class.object_bytes();
    report.slab_bytes += class.slab_bytes + class.owner_bytes;
    if class.nr_objects > 0 {
        let (size, object_bytes) = (class.size as u64, class.object_bytes());
        add_row(report, Class { size, nr_objects: class.nr_objects, object_bytes });
    }
}

fn add_row(report: &mut Report, row: Class) {
    let at = report.nr_classes as usize;
    if at < MAX_CLASSES {
        report.classes[at] = row;
        report.nr_classes += 1;
    }
}

fn add_threads(report: &mut Report, row: Threads) {
    let at = report.nr_threads as usize;
    if at < MAX_THREADS {
        report.threads[at] = row;
        report.nr_threads += 1;
        return;
    }
    let last = &mut report.threads[MAX_THREADS - 1];
    last.name = objcg_report::name(b"(others)");
    last.nr_threads += row.nr_threads;
    last.usage += row.usage;
    last.peak = last.peak.max(row.peak);
}

fn peak_rss() -> u64 {
    // SAFETY: zeroes are a valid value.
    let mut usage = unsafe { core::mem::zeroed::<libc::rusage>() };
    // SAFETY: a valid, exclusive out-parameter.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    usage.ru_maxrss.unsigned_abs() * 1024
}

const _: () = assert!(VARIABLE.len() < NAME_WORDS);
