//! Whose area the sections use: libc's, our own, or none.

#![expect(unsafe_code, reason = "registers with the kernel, and reads what it writes")]

use core::sync::atomic::{AtomicU8, Ordering};

use crate::arch;
use crate::read_mostly::{self, READ_MOSTLY};

const RSEQ_FLAG_UNREGISTER: usize = 1;
const AREA_BYTES: usize = 32;
/// Of `cpu_id` in the area.
const CPU_ID_OFFSET: usize = 4;
const RSEQ_CS_OFFSET: usize = 8;
/// Bytes from our own area to a word behind it: not 0 in a thread that shall not be registered any more.
const GIVEN_UP_OFFSET: usize = 40;

const MEMBARRIER_PRIVATE_EXPEDITED_RSEQ: usize = 1 << 7;
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED_RSEQ: usize = 1 << 8;
const MEMBARRIER_FLAG_CPU: usize = 1;

/// Who registers threads with the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// libc has registered every thread.
    Libc,
    /// Each thread registers itself by [`register_thread`].
    Own,
    /// Nobody can: an old kernel, a filter on system calls, another architecture. All sections give up.
    Absent,
}

const UNKNOWN: u8 = 0;
const LIBC: u8 = 1;
const OWN: u8 = 2;
const ABSENT: u8 = 3;

static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Finds out who registers threads, and lets sections run on CPUs below `nr_cpus`. No section may be called before this has
/// returned, and none on an area that is not ready. With 0 there shall be none: registration is absent then.
///
/// To be called by one thread at a time; once it has returned, later calls only say what was found. Sections in a process
/// whose kernel has no fence for them would be of use only to those who never need another CPU's data, so there they stay
/// absent.
pub fn init(nr_cpus: u32) -> Registration {
    if STATE.load(Ordering::Acquire) == UNKNOWN {
        let state = find(nr_cpus);
        if state != ABSENT {
            READ_MOSTLY.nr_cpus.store(nr_cpus, Ordering::Release);
        }
        STATE.store(state, Ordering::Release);
    }
    registration()
}

/// What [`init`] has found; [`Registration::Absent`] before it.
#[must_use]
pub fn registration() -> Registration {
    match STATE.load(Ordering::Acquire) {
        LIBC => Registration::Libc,
        OWN => Registration::Own,
        _ => Registration::Absent,
    }
}

fn find(nr_cpus: u32) -> u8 {
    // Whatever comes of it: a thread that is not registered arms its own area, and finds no CPU there.
    read_mostly::set_offset(arch::own_offset());
    if nr_cpus == 0 {
        return ABSENT;
    }
    // SAFETY: registers an intent of this process; no memory is passed.
    let fence = unsafe { arch::syscall(arch::SYS_MEMBARRIER, [MEMBARRIER_REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0, 0]) };
    if fence != 0 {
        return ABSENT;
    }
    // A size of 0: libc knows rseq, but was told not to register or was refused.
    if let Some((offset, size)) = arch::libc_area()
        && size > 0
    {
        read_mostly::set_offset(offset);
        return LIBC;
    }
    if register_own() { OWN } else { ABSENT }
}

/// Registers this thread's own area; true if the thread is registered now. Cheap when there is nothing to do. A thread that
/// was refused, or has unregistered, is not tried again.
pub fn register_thread() -> bool {
    match registration() {
        Registration::Libc => is_registered(),
        Registration::Own => is_registered() || (!has_given_up() && register_own()),
        Registration::Absent => false,
    }
}

/// Unregisters this thread's own area, for good: to be called before the thread's static thread-local storage goes. Does
/// nothing where libc registers.
pub fn unregister_thread() {
    if registration() == Registration::Own && is_registered() {
        // First, so that a signal handler does not register again.
        give_up();
        system_call(RSEQ_FLAG_UNREGISTER);
    }
}

fn register_own() -> bool {
    // Sections may have run here before: some kernels look at what they left already at the registration.
    // SAFETY: the words are in the thread's own area, which nobody else writes to while it is not registered.
    unsafe { arch::thread_store::<RSEQ_CS_OFFSET>(arch::own_offset(), 0) };
    // SAFETY: as above.
    unsafe { arch::thread_store::<{ RSEQ_CS_OFFSET + 4 }>(arch::own_offset(), 0) };
    if system_call(0) == 0 {
        return true;
    }
    give_up();
    false
}

fn system_call(flags: usize) -> isize {
    let area = arch::thread_pointer().wrapping_offset(arch::own_offset());
    // SAFETY: the area is the thread's own, 32 bytes at a multiple of 32, and stays until the thread unregisters.
    unsafe { arch::syscall(arch::SYS_RSEQ, [area.expose_provenance(), AREA_BYTES, flags, arch::SIGNATURE as usize]) }
}

fn give_up() {
    // SAFETY: the word is in static thread-local storage, behind the area, and only this function changes it.
    unsafe { arch::thread_store::<GIVEN_UP_OFFSET>(arch::own_offset(), 1) };
}

fn has_given_up() -> bool {
    // SAFETY: as above.
    unsafe { arch::thread_load::<GIVEN_UP_OFFSET>(arch::own_offset()) != 0 }
}

/// The CPU's number; negative, as an `i32`, in a thread that is not registered.
#[inline]
fn cpu_id() -> u32 {
    // SAFETY: the offset is that of libc's or our own area.
    unsafe { arch::thread_load_volatile::<CPU_ID_OFFSET>(read_mostly::offset()) }
}

fn is_registered() -> bool {
    cpu_id().cast_signed() >= 0
}

/// The CPU that this thread runs on at this moment; `None` if it is not registered, or runs on a CPU that has no data.
#[inline]
#[must_use]
pub fn current_cpu() -> Option<u32> {
    let nr_cpus = READ_MOSTLY.nr_cpus.load(Ordering::Relaxed);
    if nr_cpus == 0 {
        return None;
    }
    Some(cpu_id()).filter(|cpu| *cpu < nr_cpus)
}

/// Waits until every section that was under way on `cpu` when it was called has ended or restarted; what was stored before
/// the call is seen by those that start afterwards. Some 10 µs if a thread of this process runs there, 0.3 µs if not.
///
/// Aborting is not ours to do: false if the kernel refuses, which it does not once [`init`] has found a registration.
#[must_use]
pub fn fence(cpu: u32) -> bool {
    let arguments = [MEMBARRIER_PRIVATE_EXPEDITED_RSEQ, MEMBARRIER_FLAG_CPU, cpu as usize, 0];
    // SAFETY: no memory is passed.
    unsafe { arch::syscall(arch::SYS_MEMBARRIER, arguments) == 0 }
}
