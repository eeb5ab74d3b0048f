//! Per-CPU memory and counters in C, charged to the group that the thread is in.

#![expect(unsafe_code, reason = "these are C's functions")]
#![allow(non_camel_case_types, reason = "the names of objcg.h")]

use core::ffi::{c_int, c_uint, c_void};
use core::ptr::{self, NonNull};

use objcg_core::cpu::{CpuId, nr_cpus};
use objcg_core::percpu::{self, PerCpuCounter};

use crate::status::Status;

/// `objcg_counter_t`: a counter that all CPUs add to without sharing a cache line.
pub struct objcg_counter(PerCpuCounter);

/// CPUs that have a copy: those that may ever come up.
#[unsafe(no_mangle)]
pub extern "C" fn objcg_nr_cpus() -> c_uint {
    // At most 1024.
    nr_cpus() as c_uint
}

/// Zeroed memory on every CPU.
///
/// # Safety
/// `memory` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_percpu_alloc(nr_bytes: usize, align: usize, memory: *mut *mut c_void) -> c_int {
    let alloc = || {
        if memory.is_null() {
            return Err(Status::Invalid);
        }
        let address = percpu::alloc(nr_bytes, align)?;
        // SAFETY: the caller's contract.
        unsafe { memory.write(address.as_ptr().cast()) };
        Ok(())
    };
    Status::of(alloc())
}

/// Gives per-CPU memory back.
///
/// # Safety
/// `memory` is null, or came from [`objcg_percpu_alloc`] and is not used any more on any CPU.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_percpu_free(memory: *mut c_void) {
    if let Some(memory) = NonNull::new(memory.cast()) {
        // SAFETY: the caller's contract.
        unsafe { percpu::free(memory) };
    }
}

/// A CPU's copy; null for a number that is no CPU's.
///
/// # Safety
/// `memory` came from [`objcg_percpu_alloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_percpu_ptr(memory: *mut c_void, cpu: c_uint) -> *mut c_void {
    let cpu = CpuId::all().nth(cpu as usize);
    match (NonNull::new(memory.cast()), cpu) {
        // SAFETY: the caller's contract.
        (Some(memory), Some(cpu)) => unsafe { percpu::of_cpu(memory, cpu) }.as_ptr().cast(),
        _ => ptr::null_mut(),
    }
}

/// The copy of the CPU that the thread runs on at this moment.
///
/// # Safety
/// As for [`objcg_percpu_ptr`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_percpu_this(memory: *mut c_void) -> *mut c_void {
    // SAFETY: the caller's contract.
    unsafe { objcg_percpu_ptr(memory, CpuId::current().index() as c_uint) }
}

/// Makes a counter at 0.
///
/// # Safety
/// `counter` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_counter_create(counter: *mut *mut objcg_counter) -> c_int {
    let create = || {
        if counter.is_null() {
            return Err(Status::Invalid);
        }
        let words = PerCpuCounter::new()?;
        // Not `Box::new`, which aborts when memory is out.
        let memory = objcg_core::kmalloc::alloc(size_of::<objcg_counter>(), align_of::<objcg_counter>());
        let made = memory.ok_or(Status::NoMemory)?.cast::<objcg_counter>();
        // SAFETY: the memory was just taken for it.
        unsafe { made.write(objcg_counter(words)) };
        // SAFETY: the caller's contract.
        unsafe { counter.write(made.as_ptr()) };
        Ok(())
    };
    Status::of(create())
}

/// Unmakes a counter.
///
/// # Safety
/// `counter` is null, or came from [`objcg_counter_create`] and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_counter_destroy(counter: *mut objcg_counter) {
    let Some(counter) = NonNull::new(counter) else { return };
    // SAFETY: the caller's contract.
    unsafe { counter.drop_in_place() };
    // SAFETY: it was allocated so by `objcg_counter_create`.
    unsafe { objcg_core::kmalloc::free(counter.cast()) };
}

/// Adds to a counter: one restartable sequence.
///
/// # Safety
/// `counter` came from [`objcg_counter_create`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_counter_add(counter: *const objcg_counter, delta: i64) {
    // SAFETY: the caller's contract.
    unsafe { &*counter }.0.add(delta);
}

/// The exact sum, once nobody adds any more.
///
/// # Safety
/// As for [`objcg_counter_add`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_counter_sum(counter: *const objcg_counter) -> i64 {
    // SAFETY: the caller's contract.
    unsafe { &*counter }.0.sum()
}

/// The sum within [`objcg_counter_bound`], by one load.
///
/// # Safety
/// As for [`objcg_counter_add`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_counter_approximate(counter: *const objcg_counter) -> i64 {
    // SAFETY: the caller's contract.
    unsafe { &*counter }.0.approximate()
}

/// How far [`objcg_counter_approximate`] can be from the sum.
///
/// # Safety
/// As for [`objcg_counter_add`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn objcg_counter_bound(counter: *const objcg_counter) -> u64 {
    // SAFETY: the caller's contract.
    unsafe { &*counter }.0.bound()
}
