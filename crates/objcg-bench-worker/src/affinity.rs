//! Threads that stay where they are: two that hand objects to each other measure nothing while they share a CPU, and loops that are
//! compared with each other run on the same one, since the CPUs of a virtual machine are not equally fast at a time.
#![expect(unsafe_code, reason = "a system call")]

use std::mem;

/// Keeps the thread of a loop on the same CPU as the other processes of a round, which have the same seed; in other rounds it is another.
pub(crate) fn stay_with_others(seed: u64) {
    stay_on(seed as usize);
}

/// Keeps this thread on the `nth` of the CPUs that it may use, counted round. Without the kernel's leave it stays free.
pub(crate) fn stay_on(nth: usize) {
    // SAFETY: a set of CPUs is plain bits.
    let mut allowed: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the set has the size that is passed.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&allowed), &raw mut allowed) } != 0 {
        return;
    }
    // SAFETY: the number is below the size of the set.
    let mut cpus = (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &allowed) });
    // SAFETY: the set is valid.
    let nr_cpus = unsafe { libc::CPU_COUNT(&allowed) } as usize;
    let Some(cpu) = cpus.nth(nth % nr_cpus.max(1)) else { return };
    // SAFETY: as above.
    let mut one: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the number is below the size of the set.
    unsafe { libc::CPU_SET(cpu, &mut one) };
    // SAFETY: the set has the size that is passed.
    unsafe { libc::sched_setaffinity(0, size_of_val(&one), &raw const one) };
}
