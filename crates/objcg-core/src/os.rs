//! The operating system, on one page: address space, memory, waiting, the last word before an abort.
//!
//! Every call that can fail says so; nothing here allocates or panics. A port to another system rewrites this file.

#![expect(unsafe_code, reason = "system calls")]

mod bad_access;
mod stack;

use core::ffi::CStr;
use core::ptr::{self, NonNull};

use crate::faults::{self, Site};
use crate::sync::{AtomicU32, Ordering};
pub(crate) use bad_access::on_bad_access;
pub(crate) use stack::{Caller, capture};

#[cfg(not(target_os = "linux"))]
compile_error!("objcg runs on Linux only; `os.rs` is the page to port");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("objcg needs a 64-bit address space: it reserves its region once");

/// log2 of [`PAGE_SIZE`].
pub(crate) const PAGE_SHIFT: u32 = 12;
/// Bytes of the page that the engine hands out. The kernel's page may not be larger (checked once, at the reservation).
pub(crate) const PAGE_SIZE: usize = 1 << PAGE_SHIFT;

/// Whether the kernel's page is the engine's.
pub(crate) fn page_size_is_supported() -> bool {
    // SAFETY: sysconf has no preconditions.
    let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page_size) == Ok(PAGE_SIZE)
}

/// Whether this call is to fail, although it need not.
#[cfg(not(test))]
fn is_refused() -> bool {
    faults::strikes(Site::Os)
}

#[cfg(test)]
fn is_refused() -> bool {
    faults::strikes(Site::Os) || refusals::is_refused()
}

/// Runs calls whose failure the engine answers itself: `errno` stays the program's, which `free` may not change.
fn keeping_errno<R>(calls: impl FnOnce() -> R) -> R {
    // SAFETY: no preconditions; the address is good as long as the thread lives.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the thread's own number, which nobody else refers to.
    let before = unsafe { *errno };
    let result = calls();
    // SAFETY: as above.
    unsafe { *errno = before };
    result
}

fn mmap(nr_bytes: usize, protection: i32, extra_flags: i32) -> Option<NonNull<u8>> {
    if is_refused() {
        return None;
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | extra_flags;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
    let addr = keeping_errno(|| unsafe { libc::mmap(ptr::null_mut(), nr_bytes, protection, flags, -1, 0) });
    if addr == libc::MAP_FAILED { None } else { NonNull::new(addr.cast()) }
}

/// Reserves address space without memory behind it. Multiples of the page; aligned to the page. It never becomes huge pages on
/// the kernel's own account: a heap of a few small objects would be charged for 2 MiB of them.
pub(crate) fn reserve(nr_bytes: usize) -> Option<NonNull<u8>> {
    let start = mmap(nr_bytes, libc::PROT_NONE, libc::MAP_NORESERVE)?;
    // SAFETY: advice on a range that was just mapped. A kernel without huge pages refuses it, and needs none.
    keeping_errno(|| unsafe { libc::madvise(start.as_ptr().cast(), nr_bytes, libc::MADV_NOHUGEPAGE) });
    Some(start)
}

/// Maps zeroed memory, aligned to the page.
pub(crate) fn map(nr_bytes: usize) -> Option<NonNull<u8>> {
    mmap(nr_bytes, libc::PROT_READ | libc::PROT_WRITE, 0)
}

/// Makes a part of a reservation readable and writable. False if the kernel refuses (strict overcommit, map limit).
///
/// # Safety
/// The range lies in a reservation of the caller's that nothing else uses.
pub(crate) unsafe fn commit(addr: NonNull<u8>, nr_bytes: usize) -> bool {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the caller owns the range; widening its protection cannot invalidate a reference.
    !is_refused() && keeping_errno(|| unsafe { libc::mprotect(addr.as_ptr().cast(), nr_bytes, protection) == 0 })
}

/// Keeps everybody from a range, for good: an access ends in SIGSEGV. False if the kernel refuses (map limit).
///
/// # Safety
/// The range is the caller's, and nobody uses it.
pub(crate) unsafe fn protect(addr: NonNull<u8>, nr_bytes: usize) -> bool {
    // SAFETY: the caller owns the range, which nobody uses.
    !is_refused() && keeping_errno(|| unsafe { libc::mprotect(addr.as_ptr().cast(), nr_bytes, libc::PROT_NONE) == 0 })
}

/// Gives the memory of a range back; it reads as zero afterwards. False if the kernel refuses (locked memory).
///
/// # Safety
/// The range is committed, owned by the caller, and nobody reads its present contents any more.
pub(crate) unsafe fn release(addr: NonNull<u8>, nr_bytes: usize) -> bool {
    // SAFETY: the caller owns the range and gives up its contents.
    !is_refused()
        && keeping_errno(|| unsafe { libc::madvise(addr.as_ptr().cast(), nr_bytes, libc::MADV_DONTNEED) == 0 })
}

/// Whether the page at `addr` occupies memory. Where the kernel does not say (a filter on system calls), it does.
///
/// # Safety
/// The page is committed.
pub(crate) unsafe fn is_resident(addr: NonNull<u8>) -> bool {
    let mut state = 1;
    // SAFETY: the page is mapped, and there is a byte for its state.
    keeping_errno(|| unsafe { libc::mincore(addr.as_ptr().cast(), PAGE_SIZE, &raw mut state) });
    state & 1 != 0
}

/// Asks the kernel not to back a range by huge pages, where a write to one page would take memory for its neighbours. A
/// kernel that knows no huge pages refuses, rightly.
///
/// # Safety
/// The range lies in a reservation of the caller's.
pub(crate) unsafe fn keep_pages_small(addr: NonNull<u8>, nr_bytes: usize) {
    // SAFETY: the caller owns the range; the advice changes no contents.
    keeping_errno(|| unsafe { libc::madvise(addr.as_ptr().cast(), nr_bytes, libc::MADV_NOHUGEPAGE) });
}

/// Takes a mapping or a part of one away.
///
/// # Safety
/// The range is the caller's, from [`map`] or [`reserve`], and nothing refers to it any more.
pub(crate) unsafe fn unmap(addr: NonNull<u8>, nr_bytes: usize) {
    // SAFETY: the caller owns the range. munmap of a part can fail only at the map limit; the range then leaks, unused.
    keeping_errno(|| unsafe { libc::munmap(addr.as_ptr().cast(), nr_bytes) });
}

/// Resizes a mapping, moving it if need be; the contents move along. `None` leaves it as it was.
///
/// # Safety
/// `addr` is the start of a mapping of `old_bytes` from [`map`], and the caller is its only user.
pub(crate) unsafe fn remap(addr: NonNull<u8>, old_bytes: usize, new_bytes: usize) -> Option<NonNull<u8>> {
    if is_refused() {
        return None;
    }
    // SAFETY: the caller owns the whole mapping; the kernel picks a free address if it has to move.
    let moved =
        keeping_errno(|| unsafe { libc::mremap(addr.as_ptr().cast(), old_bytes, new_bytes, libc::MREMAP_MAYMOVE) });
    if moved == libc::MAP_FAILED { None } else { NonNull::new(moved.cast()) }
}

/// The limit on this process's address space in bytes, if there is one.
pub(crate) fn address_space_limit() -> Option<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid, exclusive out-parameter.
    let status = keeping_errno(|| unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) });
    if status != 0 || limit.rlim_cur == libc::RLIM_INFINITY {
        return None;
    }
    usize::try_from(limit.rlim_cur).ok()
}

/// What Rust's standard library takes for granted of its allocations, beyond what it asks for: an exception that is raised lies at a
/// multiple of 16, as LLVM's unwinder has it, which comes with musl. Declared so since rust-lang/rust#161368.
pub const UNWINDER_ALIGN: usize = if cfg!(target_env = "gnu") { 1 } else { 16 };

/// The number of CPUs that may ever come up: one more than the highest number in the kernel's list of possible CPUs.
pub(crate) fn nr_possible_cpus() -> usize {
    keeping_errno(read_possible_cpus).unwrap_or_else(|| {
        // SAFETY: sysconf has no preconditions.
        let nr_configured = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
        usize::try_from(nr_configured).unwrap_or(1).max(1)
    })
}

/// How many numbers the kernel may give to CPUs, from 0 on; at least as many as there are CPUs. `None` if there is nothing to tell by.
pub(crate) fn nr_cpu_numbers() -> Option<usize> {
    keeping_errno(|| read_possible_cpus().or_else(nr_bits_of_affinity))
}

/// The bits that the kernel has for a set of CPUs: where there is no `/sys`, a bound that is not far off. `None` with kernels that are
/// built for thousands of CPUs.
fn nr_bits_of_affinity() -> Option<usize> {
    let mut set = [0u8; MOST_CPU_BITS / 8];
    // SAFETY: `set` is a valid buffer of the length that is passed; the kernel writes its set of CPUs there.
    let nr_bytes = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, set.len(), set.as_mut_ptr()) };
    usize::try_from(nr_bytes).ok().filter(|nr_bytes| *nr_bytes > 0).map(|nr_bytes| nr_bytes * 8)
}

/// As many are taken for a bound.
const MOST_CPU_BITS: usize = 1024;

fn read_possible_cpus() -> Option<usize> {
    let path = c"/sys/devices/system/cpu/possible";
    let mut text = [0u8; 256];
    // SAFETY: `path` is a C string that lives as long as the program.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return None;
    }
    // SAFETY: `text` is a valid buffer of the length that is passed.
    let nr_read = unsafe { libc::read(file, text.as_mut_ptr().cast(), text.len()) };
    // SAFETY: `file` was opened here and is closed once.
    unsafe { libc::close(file) };
    // One that fills the buffer may have been cut.
    let text = text.get(..usize::try_from(nr_read).ok()?).filter(|read| read.len() < text.len())?;
    highest_in_cpu_list(text).map(|highest| highest + 1)
}

/// The last number of a CPU list such as `0-3,8-11`: the kernel prints it in ascending order.
fn highest_in_cpu_list(text: &[u8]) -> Option<usize> {
    let last = text.trim_ascii_end().rsplit(|byte| !byte.is_ascii_digit()).next()?;
    core::str::from_utf8(last).ok()?.parse().ok()
}

/// The CPU that this thread runs on at this moment, as the kernel numbers it.
#[inline]
pub(crate) fn current_cpu() -> usize {
    // SAFETY: sched_getcpu has no preconditions.
    let cpu = unsafe { libc::sched_getcpu() };
    // -1 means a kernel without the call: every thread then shares CPU 0's slots, which their locks allow.
    usize::try_from(cpu).unwrap_or(0)
}

/// Sleeps while `word` holds `expected`. May return for no reason.
#[cfg(not(loom))]
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32) {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let no_timeout = ptr::null::<libc::timespec>();
    // SAFETY: `word` is a live, aligned 32-bit word for the whole call.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, expected, no_timeout) });
}

/// Nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(u64);

const NANOS_PER_SEC: u64 = 1_000_000_000;

impl Instant {
    pub(crate) fn now() -> Instant {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid, exclusive out-parameter; the clock exists on every kernel.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
        // Neither is negative, and 64 bits last for centuries.
        Instant(time.tv_sec as u64 * NANOS_PER_SEC + time.tv_nsec as u64)
    }

    /// So much later; the end of time if that is sooner.
    pub(crate) fn after(self, time: core::time::Duration) -> Instant {
        let nanos = u64::try_from(time.as_nanos()).ok().and_then(|nanos| self.0.checked_add(nanos));
        // The kernel's times are signed.
        Instant(nanos.unwrap_or(u64::MAX).min(i64::MAX as u64))
    }

    /// How much later it is than `earlier`; zero if it is not.
    pub(crate) fn since(self, earlier: Instant) -> core::time::Duration {
        // tidy: allow(saturating_sub): as said above
        core::time::Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// In milliseconds, which begin again from 0 after 49 days.
    pub(crate) fn wrapping_millis(self) -> u32 {
        (self.0 / 1_000_000) as u32
    }
}

/// Sleeps while `word` holds `expected`, at most until `deadline`. May return for no reason.
#[cfg(not(loom))]
pub(crate) fn futex_wait_until(word: &AtomicU32, expected: u32, deadline: Instant) {
    // The deadline of this operation is an absolute time of the monotonic clock.
    let operation = libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG;
    let until =
        libc::timespec { tv_sec: (deadline.0 / NANOS_PER_SEC) as i64, tv_nsec: (deadline.0 % NANOS_PER_SEC) as i64 };
    let no_second_word = ptr::null::<u32>();
    keeping_errno(|| {
        // SAFETY: word and time are alive and aligned for the whole call.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                word.as_ptr(),
                operation,
                expected,
                &raw const until,
                no_second_word,
                libc::FUTEX_BITSET_MATCH_ANY,
            )
        }
    });
}

/// Wakes all threads that sleep on `word`.
#[cfg(not(loom))]
pub(crate) fn futex_wake_all(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: `word` is a live, aligned 32-bit word; waking has no other precondition.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, i32::MAX) });
}

/// A new event descriptor, non-blocking and closed at `exec`; or the system's error number.
pub(crate) fn event_fd() -> Result<i32, i32> {
    // SAFETY: no preconditions.
    let file = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if file >= 0 {
        return Ok(file);
    }
    // SAFETY: no preconditions; the address is good as long as the thread lives.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the thread's own number, which nobody else refers to.
    Err(unsafe { *errno })
}

/// Makes an event descriptor readable.
pub(crate) fn raise_event_fd(file: i32) {
    let one = 1u64;
    // SAFETY: a valid buffer of the length that is passed. A full counter refuses, and is readable already.
    keeping_errno(|| unsafe { libc::write(file, (&raw const one).cast(), size_of::<u64>()) });
}

/// Closes a descriptor.
///
/// # Safety
/// The caller owns it, and nobody uses it any more.
pub(crate) unsafe fn close(file: i32) {
    // SAFETY: the caller's contract.
    keeping_errno(|| unsafe { libc::close(file) });
}

/// Wakes one thread that sleeps on `word`.
#[cfg(not(loom))]
pub(crate) fn futex_wake(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: `word` is a live, aligned 32-bit word; waking has no other precondition.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 1) };
}

/// Registers what runs before a `fork`, and after it in the parent and in the child.
pub(crate) fn at_fork(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) -> bool {
    // SAFETY: the three handlers are functions of the program and live as long as it does.
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) == 0 }
}

/// A pthread key that is made when it is first set.
pub(crate) struct ThreadKey {
    /// One more than the key; 0 before.
    key: AtomicU32,
}

impl ThreadKey {
    pub(crate) const fn new() -> Self {
        ThreadKey { key: AtomicU32::new(0) }
    }

    /// This thread's value; null before it is set, and while `at_exit` runs.
    pub(crate) fn get(&self) -> *const libc::c_void {
        let Some(key) = self.key.load(Ordering::Acquire).checked_sub(1) else { return ptr::null() };
        // SAFETY: the key was created and is never deleted.
        unsafe { libc::pthread_getspecific(key) }
    }

    /// Sets this thread's value; `at_exit` is called with one that is not null when the thread ends. False without a key or
    /// memory.
    pub(crate) fn set(
        &self,
        value: *const libc::c_void,
        at_exit: Option<unsafe extern "C" fn(*mut libc::c_void)>,
    ) -> bool {
        let Some(key) = self.key(at_exit) else { return false };
        // SAFETY: the key was created and is never deleted.
        unsafe { libc::pthread_setspecific(key, value) == 0 }
    }

    fn key(&self, at_exit: Option<unsafe extern "C" fn(*mut libc::c_void)>) -> Option<libc::pthread_key_t> {
        if let Some(key) = self.key.load(Ordering::Acquire).checked_sub(1) {
            return Some(key);
        }
        let mut key = 0;
        // SAFETY: `key` is a valid, exclusive out-parameter.
        if unsafe { libc::pthread_key_create(&raw mut key, at_exit) } != 0 {
            return None;
        }
        match self.key.compare_exchange(0, key + 1, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Some(key),
            Err(winner) => {
                // SAFETY: this key was created here and shown to nobody.
                unsafe { libc::pthread_key_delete(key) };
                Some(winner - 1)
            }
        }
    }
}

/// Has `at_exit` called when this thread ends, as late as pthread allows; false if it will not be. One function a process.
pub(crate) fn at_thread_exit(at_exit: unsafe extern "C" fn(*mut libc::c_void)) -> bool {
    static KEY: ThreadKey = ThreadKey::new();
    KEY.set(ptr::without_provenance(1), Some(at_exit))
}

/// A 32-bit word of each thread, 0 at first, where there is no static thread-local storage of ours.
#[cfg(not(all(
    any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")),
    not(objcg_rseq_absent)
)))]
pub(crate) struct ThreadWord(ThreadKey);

#[cfg(not(all(
    any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")),
    not(objcg_rseq_absent)
)))]
impl ThreadWord {
    pub(crate) const fn new() -> Self {
        ThreadWord(ThreadKey::new())
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.get() as usize as u32
    }

    pub(crate) fn replace(&self, word: u32) -> u32 {
        let previous = self.get();
        if word != previous && !self.0.set(ptr::without_provenance(word as usize), None) {
            crate::report::die!("no memory for a thread's current group");
        }
        previous
    }
}

/// The text of `OBJCG_OPTIONS`, if the process may be told by its environment: one with more rights than its user has may not.
pub(crate) fn option_text() -> Option<&'static [u8]> {
    // SAFETY: no preconditions.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return None;
    }
    // SAFETY: the name is a C string. Whoever changes the environment while another thread reads it breaks POSIX' rule.
    let text = unsafe { libc::getenv(c"OBJCG_OPTIONS".as_ptr()) };
    // SAFETY: a C string of the environment, which stays unless the program replaces just this variable meanwhile.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// Writes `line` to standard error.
pub(crate) fn print(line: &[u8]) {
    // SAFETY: `line` is a valid buffer of the length that is passed. Nobody hears of a failed write.
    keeping_errno(|| unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) });
}

/// Writes `line` to standard error and ends the process by SIGABRT.
pub(crate) fn abort_with(line: &[u8]) -> ! {
    print(line);
    // SAFETY: abort has no preconditions.
    unsafe { libc::abort() }
}

/// Has the calls of a test's thread refused: memory that is out, at every place where it can be.
#[cfg(test)]
pub(crate) mod refusals {
    use std::cell::Cell;

    std::thread_local! {
        /// How many calls pass before the refusals, and how many are refused then.
        static PLAN: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    }

    /// From now on this thread's first `nr_passed` calls go to the system, then `nr_refused` are refused.
    pub(crate) fn plan(nr_passed: usize, nr_refused: usize) {
        PLAN.set((nr_passed, nr_refused));
    }

    /// Lets all calls pass again; returns how many refusals are left of the plan.
    pub(crate) fn end() -> usize {
        PLAN.replace((0, 0)).1
    }

    pub(super) fn is_refused() -> bool {
        let (nr_passed, nr_refused) = PLAN.get();
        if nr_passed > 0 {
            PLAN.set((nr_passed - 1, nr_refused));
        } else if nr_refused > 0 {
            PLAN.set((0, nr_refused - 1));
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{highest_in_cpu_list, nr_bits_of_affinity, read_possible_cpus};

    #[test]
    fn a_set_of_cpus_has_a_bit_for_each_number() {
        if let (Some(nr_possible), Some(nr_bits)) = (read_possible_cpus(), nr_bits_of_affinity()) {
            assert!(nr_possible <= nr_bits, "{nr_possible} CPUs, {nr_bits} bits");
        }
    }

    #[test]
    fn cpu_lists_end_with_the_highest() {
        assert_eq!(highest_in_cpu_list(b"0\n"), Some(0));
        assert_eq!(highest_in_cpu_list(b"0-1\n"), Some(1));
        assert_eq!(highest_in_cpu_list(b"0-3,8-11\n"), Some(11));
        assert_eq!(highest_in_cpu_list(b"\n"), None);
    }
}
