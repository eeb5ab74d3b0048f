//! Corruption ends the process with one line that says what and where (I9); `fork` in a threaded process does not hang.
//!
//! Each fault runs in a child process of its own: this test binary again, with the fault's name in the environment.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use objcg::{CpuId, Memcg, Objcg, PerCpuCounter};
use objcg_core::{kmalloc, percpu};

#[path = "support/fork.rs"]
mod fork;
use fork::in_child_of_fork;
#[path = "support/stop.rs"]
mod stop;
use stop::Stop;

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const FAULT: &str = "OBJCG_TEST_FAULT";

fn run_fault(test: &str, fault: &str) -> Output {
    let this = std::env::current_exe().expect("the test's own path");
    let mut child = Command::new(this);
    child.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(FAULT, fault);
    child.output().expect("the test can run itself")
}

fn alloc(nr_bytes: usize) -> NonNull<u8> {
    kmalloc::alloc(nr_bytes, 8).expect("memory")
}

fn free(address: NonNull<u8>) {
    // SAFETY: not met where a fault is committed on purpose: that is what the children are for.
    unsafe { kmalloc::free(address) };
}

fn inside(address: NonNull<u8>, offset: usize) -> NonNull<u8> {
    // SAFETY: offsets are inside the objects.
    unsafe { address.add(offset) }
}

/// Moves this thread to a CPU, if the process may run there.
fn run_on(cpu: CpuId) {
    // SAFETY: a set of CPUs is plain bits; zero is the empty one.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is a local one, and CPU ids are below its size.
    unsafe { libc::CPU_SET(cpu.index(), &mut one) };
    // SAFETY: the set is a local one, of the size that is given.
    unsafe { libc::sched_setaffinity(0, size_of_val(&one), &raw const one) };
}

fn commit(fault: &str) {
    let object = match fault.split_once(' ').expect("a size and a fault").0 {
        "small" => alloc(100),
        "page" => alloc(4096),
        "large" => alloc(100_000),
        "huge" => alloc(10 << 20),
        other => panic!("{other}"),
    };
    // Neighbours in use, so that the slab does not go.
    let _neighbours = [alloc(100), alloc(4096)];
    match fault.split_once(' ').expect("a size and a fault").1 {
        "double free" => {
            free(object);
            free(object);
        }
        "double free after others" => {
            let others: Vec<_> = (0..500).map(|_| alloc(100)).collect();
            free(object);
            others.into_iter().for_each(free);
            free(object);
            // Found out before it would be handed to a second user.
            let mut taken: Vec<_> = Vec::with_capacity(5000);
            taken.extend((0..5000).map(|_| alloc(100)));
        }
        "write after free" => {
            free(object);
            // SAFETY: not met: the fault.
            unsafe { object.cast::<u64>().write_volatile(1) };
            let _user = alloc(100);
        }
        "double free in a group" => {
            let tenant = Memcg::root().create("tenant").expect("a new name");
            let charged = tenant.scope(|| alloc(100));
            free(charged);
            free(charged);
        }
        "double free on another thread" => {
            let address = object.as_ptr() as usize;
            free(object);
            let other = move || {
                free(NonNull::new(std::ptr::with_exposed_provenance_mut(address)).expect("not null"));
                // The object waits in the sheaves of two CPUs: it is found out when the second of them hands it out.
                for cpu in CpuId::all() {
                    run_on(cpu);
                    let mut taken: Vec<_> = Vec::with_capacity(5000);
                    taken.extend((0..5000).map(|_| alloc(100)));
                    std::mem::forget(taken);
                }
            };
            thread::spawn(other).join().expect("the process ends before");
        }
        "interior" => free(inside(object, 8)),
        "next page" => free(inside(object, 8192)),
        "realloc of a freed one" | "realloc of a freed one in place" => {
            free(object);
            let nr_bytes = if fault.ends_with("in place") { 99 } else { 200_000 };
            // SAFETY: not met: the fault.
            let _ = unsafe { kmalloc::realloc(object, nr_bytes, 8) };
        }
        "stack" => {
            let mut local = [0u64; 4];
            free(NonNull::from(&mut local).cast());
        }
        "static" => {
            static STATIC: u64 = 0;
            free(NonNull::from(&STATIC).cast());
        }
        other => panic!("{other}"),
    }
}

#[test]
fn i9_faults_abort_with_one_line() {
    const FAULTS: [&str; 17] = [
        "small double free",
        "small double free after others",
        "small double free in a group",
        "small double free on another thread",
        "small write after free",
        "small interior",
        "small realloc of a freed one in place",
        "small stack",
        "small static",
        "page double free",
        "page interior",
        "large double free",
        "large interior",
        "large next page",
        "large realloc of a freed one",
        "huge double free",
        "huge next page",
    ];
    if let Ok(fault) = std::env::var(FAULT) {
        return commit(&fault);
    }
    for fault in FAULTS {
        let output = run_fault("i9_faults_abort_with_one_line", fault);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{fault}: {stderr}");
        assert!(stderr.starts_with("objcg: 0x") && stderr.lines().count() == 1, "{fault}: {stderr}");
    }
}

fn commit_percpu(fault: &str) {
    let memory = percpu::alloc(40, 8).expect("memory");
    let _neighbour = percpu::alloc(40, 8).expect("memory");
    let free = |address: NonNull<u8>| {
        // SAFETY: not met where a fault is committed on purpose.
        unsafe { percpu::free(address) };
    };
    match fault {
        "double free" => {
            free(memory);
            free(memory);
        }
        "double free after the memory is gone" => {
            free(memory);
            percpu::trim();
            free(memory);
        }
        "interior" => free(inside(memory, 4)),
        "misaligned" => free(inside(memory, 1)),
        "never allocated" => free(inside(memory, 4000)),
        "another CPU's unit" => free(inside(memory, percpu::UNIT_BYTES)),
        "owner words" => free(inside(memory, objcg::nr_cpus() * percpu::UNIT_BYTES)),
        "slab object" => free(alloc(40)),
        "stack" => {
            let mut local = [0u64; 4];
            free(NonNull::from(&mut local).cast());
        }
        other => panic!("{other}"),
    }
}

#[test]
fn i9_faults_with_percpu_memory_abort_with_one_line() {
    const FAULTS: [&str; 9] = [
        "double free",
        "double free after the memory is gone",
        "interior",
        "misaligned",
        "never allocated",
        "another CPU's unit",
        "owner words",
        "slab object",
        "stack",
    ];
    if let Ok(fault) = std::env::var(FAULT) {
        return commit_percpu(&fault);
    }
    // On a machine with one CPU the next unit is that of the owner words.
    for fault in FAULTS {
        let output = run_fault("i9_faults_with_percpu_memory_abort_with_one_line", fault);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{fault}: {stderr}");
        assert!(stderr.starts_with("objcg: 0x") && stderr.lines().count() == 1, "{fault}: {stderr}");
        assert!(stderr.contains("per-CPU memory"), "{fault}: {stderr}");
    }
}

#[test]
fn bytes_that_look_like_a_free_objects_are_freed_like_any() {
    // What a sheaf leaves in a free object's first word, written back by the object's next user.
    let object = alloc(48);
    free(object);
    // SAFETY: freed, but still mapped: the allocator's memory. Only this test thread uses this size.
    let mark = unsafe { object.cast::<u64>().read_volatile() };
    let again = alloc(48);
    // SAFETY: 48 bytes, ours.
    unsafe { again.cast::<u64>().write_volatile(mark) };
    // SAFETY: ours, allocated with this alignment.
    assert_eq!(unsafe { kmalloc::realloc(again, 47, 8) }, Some(again));
    free(again);
}

#[test]
fn fork_in_a_threaded_process_leaves_a_usable_child() {
    const NR_FORKS: usize = 150;
    let stop = AtomicBool::new(false);
    let tenant = Memcg::root().create("forking").expect("a new name");
    thread::scope(|scope| {
        for nth in 0..3usize {
            let (stop, tenant) = (&stop, &tenant);
            scope.spawn(move || {
                let mut round = nth;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    let child = tenant.create(&format!("{nth}-{round}")).expect("a new name");
                    let objects: Vec<Vec<u8>> = child.scope(|| (0..40).map(|n| vec![1; n * 1000 + 1]).collect());
                    let counters = child.scope(|| [(); 20].map(|()| PerCpuCounter::new().expect("memory")));
                    // More than sheaves keep: their charge goes back with a slot held, to a vessel that has to be followed.
                    let many: Vec<Box<[u8; 500]>> = child.scope(|| (0..2000).map(|_| Box::new([1; 500])).collect());
                    counters.iter().for_each(|counter| counter.add(1));
                    child.delete().expect("it has no children");
                    drop((objects, counters, many));
                }
            });
        }
        let _stop = Stop(&stop);
        for _ in 0..NR_FORKS {
            in_child_of_fork(is_exact_in_child);
        }
    });
    tenant.drain();
    assert_eq!(tenant.usage(), 0);
}

fn is_exact_in_child() -> bool {
    let group = Memcg::root().create("in the child").expect("a new name");
    let objects: Vec<Vec<u8>> = group.scope(|| (0..200).map(|n| vec![1; n * 300 + 1]).collect());
    let counter = group.scope(PerCpuCounter::new).expect("memory");
    (0..5000).for_each(|_| counter.add(1));
    let is_exact = counter.sum() == 5000;
    drop((objects, counter));
    group.drain();
    is_exact && group.usage() == 0
}
