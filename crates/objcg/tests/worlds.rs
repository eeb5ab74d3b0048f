//! Degenerate worlds, each in a process of its own: no groups at all, memory before `main`, little address space (I7, I8).
//!
//! Each test runs this binary again with its name in the environment.

#[path = "support/process.rs"]
mod process;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicPtr, Ordering};

use objcg::{AllocError, Memcg, Objcg};
use objcg_core::percpu;
use process::{WORLD, in_own_process};

#[path = "support/groups.rs"]
mod groups;
use groups::try_vec;

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const MIB: usize = 1 << 20;

/// A round of work of all sizes.
fn churn() {
    let vecs: Vec<Vec<u8>> = (0..2000).map(|nth| vec![1; 1 + nth * 37 % 50_000]).collect();
    drop(vecs);
    drop(vec![1u8; 8 * MIB]);
}

/// Sheaves are kept by CPU: on one CPU, what a program holds does not depend on where it ran.
fn on_one_cpu(child: &mut Command) {
    let pin = || {
        // SAFETY: zero is an empty set of CPUs.
        let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: getcpu has no preconditions.
        let here = usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0);
        // SAFETY: the number is a CPU's.
        unsafe { libc::CPU_SET(here, &mut cpus) };
        // SAFETY: `cpus` is a valid set of that size.
        match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const cpus) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: all three calls are safe between fork and exec.
    unsafe { child.pre_exec(pin) };
}

#[test]
fn i7_a_process_without_groups_has_no_trace_of_them() {
    if !in_own_process("i7_a_process_without_groups_has_no_trace_of_them", on_one_cpu) {
        return;
    }
    let most_after = |nr_rounds| {
        let used_bytes = (0..nr_rounds).map(|_| {
            churn();
            objcg_core::stat::pages().used_bytes
        });
        used_bytes.max()
    };
    // Sheaf sizes adapt to the work at first, and go to and fro a little.
    let before = most_after(40);
    let after = most_after(20);
    assert!(after <= before, "the same work over again takes no page more: {after:?} bytes, {before:?} before");
    assert_eq!((objcg::nr_groups(), objcg::nr_dying(), objcg::nr_vessels()), (0, 0, 0));
    let root = Memcg::root();
    let kept = vec![vec![1u8; 100]; 1000];
    root.drain();
    assert_eq!((root.usage(), root.peak(), root.stat().total_bytes()), (0, 0, 0), "nothing of the root's is counted");
    drop(kept);
}

const EARLY_TEST: &str = "i2_memory_from_before_main_is_like_any";
static BEFORE_MAIN: AtomicPtr<Vec<String>> = AtomicPtr::new(std::ptr::null_mut());

#[used]
// SAFETY: `.init_array` holds pointers to functions of this signature.
#[unsafe(link_section = ".init_array")]
static EARLY: extern "C" fn() = {
    extern "C" fn allocate() {
        if std::env::var_os(WORLD).is_none_or(|world| world != EARLY_TEST) {
            return;
        }
        let group = Memcg::root().create("before main").expect("a new name");
        let texts = group.scope(|| (0..100).map(|n| format!("{n} bottles")).collect::<Vec<String>>());
        group.delete().expect("alive, and without children");
        BEFORE_MAIN.store(Box::into_raw(Box::new(texts)), Ordering::Release);
    }
    allocate
};

#[test]
fn i2_memory_from_before_main_is_like_any() {
    if !in_own_process(EARLY_TEST, |_| ()) {
        return;
    }
    let early = BEFORE_MAIN.swap(std::ptr::null_mut(), Ordering::AcqRel);
    assert!(!early.is_null());
    // SAFETY: made by `Box::into_raw` before `main`, and taken once.
    let texts = unsafe { Box::from_raw(early) };
    assert!(texts.iter().enumerate().all(|(n, text)| *text == format!("{n} bottles")));
    let root = Memcg::root();
    root.drain();
    assert_eq!(root.stat().slab_objects, 101, "100 texts and their vector, now the root's");
    assert_eq!(root.usage(), root.stat().total_bytes());
    drop(texts);
    root.drain();
    assert_eq!((root.usage(), objcg::nr_vessels()), (0, 0));
}

/// Leaves the child this much address space.
fn limit_address_space(child: &mut Command) {
    const LIMIT: u64 = 512 << 20;
    let lower = || {
        let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
        // SAFETY: `limit` is a valid rlimit.
        if unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) } == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    // SAFETY: setrlimit is safe between fork and exec.
    unsafe { child.pre_exec(lower) };
}

#[test]
fn i8_a_limited_address_space_ends_in_errors_not_in_death() {
    if !in_own_process("i8_a_limited_address_space_ends_in_errors_not_in_death", limit_address_space) {
        return;
    }
    let tenant = Memcg::root().create("cramped").expect("a new name");
    for nr_bytes in [100_000, 3 * MIB, 7 * MIB] {
        for round in 0..3 {
            // The list is there before memory ends.
            let mut held = Vec::with_capacity(1 << 14);
            while let Some(vec) = tenant.scope(|| try_vec(nr_bytes as u64)) {
                assert!(held.len() < held.capacity(), "there is no end");
                held.push(vec);
            }
            assert!(held.len() * nr_bytes > 64 * MIB, "{} of {nr_bytes} bytes in round {round}", held.len());
            drop(held);
            tenant.drain();
            assert_eq!((tenant.usage(), tenant.stat().large_objects), (0, 0));
        }
    }
}

#[test]
fn i8_percpu_memory_ends_in_errors_in_a_limited_address_space() {
    if !in_own_process("i8_percpu_memory_ends_in_errors_in_a_limited_address_space", limit_address_space) {
        return;
    }
    let tenant = Memcg::root().create("cramped").expect("a new name");
    for nr_bytes in [percpu::UNIT_BYTES, 5000] {
        let mut held = Vec::with_capacity(1 << 14);
        let end = loop {
            assert!(held.len() < held.capacity(), "there is no end");
            match tenant.scope(|| percpu::alloc(nr_bytes, 8)) {
                Ok(memory) => held.push(memory),
                Err(error) => break error,
            }
        };
        assert_eq!(end, AllocError::NoMemory);
        assert!(held.len() * nr_bytes > MIB, "{} of {nr_bytes} bytes on each CPU", held.len());
        // SAFETY: each is live, and nothing uses it.
        held.into_iter().for_each(|memory| unsafe { percpu::free(memory) });
        tenant.drain();
        assert_eq!((tenant.usage(), tenant.stat().percpu_objects), (0, 0));
    }
}
