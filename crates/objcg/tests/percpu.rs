//! Per-CPU memory through the public API: who is charged and how much, whoever frees it (I1, I2, I4, I8); counters that are
//! exact on both arms, and on both at once.

use std::alloc::{Layout, alloc, dealloc};
use std::panic::catch_unwind;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use objcg::{AllocError, Memcg, MemcgStat, Objcg, PerCpu, PerCpuCounter, nr_cpus};
use objcg_core::percpu;

#[path = "support/random.rs"]
mod random;
use random::Random;

#[path = "support/groups.rs"]
mod groups;
use groups::{alone, group};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const OWNER_BYTES: u64 = 4;

/// An allocation that is freed by whoever drops it.
struct Memory(NonNull<u8>);

// SAFETY: per-CPU memory can be freed by any thread.
unsafe impl Send for Memory {}

impl Memory {
    fn of(nr_bytes: usize) -> Result<Memory, AllocError> {
        percpu::alloc(nr_bytes, 4).map(Memory)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the allocation is this value's, and nothing uses it.
        unsafe { percpu::free(self.0) };
    }
}

fn on_all_cpus(nr_bytes: u64) -> u64 {
    nr_bytes * nr_cpus() as u64
}

#[test]
fn i1_the_price_is_the_size_on_every_cpu_and_an_owner() {
    let _alone = alone();
    let tenant = group("price");
    for (nr_bytes, rounded) in [(1, 4), (4, 4), (5, 8), (100, 100), (4096, 4096), (65_536, 65_536)] {
        let memory = tenant.scope(|| Memory::of(nr_bytes)).expect("memory");
        tenant.drain();
        assert_eq!(tenant.usage(), on_all_cpus(rounded) + OWNER_BYTES, "{nr_bytes} bytes");
        let stat = tenant.stat();
        assert_eq!((stat.percpu_objects, stat.percpu_bytes), (1, on_all_cpus(rounded)));
        assert_eq!((stat.owner_bytes, stat.total_bytes()), (OWNER_BYTES, tenant.usage()));
        drop(memory);
        tenant.drain();
        assert_eq!((tenant.usage(), tenant.stat()), (0, MemcgStat::default()));
    }
}

#[test]
fn i2_it_is_given_back_by_any_thread_in_any_group() {
    let _alone = alone();
    let (payer, other) = (group("payer"), group("other"));
    let memory: Vec<Memory> = payer.scope(|| (0..1000).map(|_| Memory::of(24).expect("memory")).collect());
    thread::scope(|scope| {
        scope.spawn(|| other.scope(|| drop(memory)));
    });
    [&payer, &other].into_iter().for_each(Memcg::drain);
    assert_eq!((payer.usage(), other.usage()), (0, 0));
}

#[test]
fn i4_what_a_dead_group_left_is_its_parents() {
    let _alone = alone();
    let parent = group("parent");
    let nr_before = objcg::nr_vessels();
    let child = parent.create("child").expect("a new name");
    let survivor = child.scope(|| Memory::of(40)).expect("memory");
    child.delete().expect("alive, and without children");
    drop(child);
    assert_eq!(parent.stat().percpu_bytes, on_all_cpus(40));
    assert_eq!(objcg::nr_dying(), 0);
    drop(survivor);
    parent.drain();
    assert_eq!((parent.usage(), objcg::nr_vessels()), (0, nr_before));
}

#[test]
fn i8_what_a_limit_refuses_leaves_no_trace() {
    let _alone = alone();
    let tenant = group("limited");
    let max = on_all_cpus(1000);
    tenant.set_max(Some(max)).expect("alive");
    let refused = tenant.scope(|| Memory::of(1001)).err();
    assert!(matches!(refused, Some(AllocError::Limit(refused)) if refused.refused_by() == tenant.id()), "{refused:?}");
    tenant.drain();
    assert_eq!((tenant.usage(), tenant.peak(), tenant.events().oom), (0, 0, 1));
    let fits = tenant.scope(|| Memory::of(996)).expect("it fits to the byte");
    assert!(tenant.usage() <= max);
    drop(fits);
    assert_eq!(tenant.scope(|| Memory::of(0)).err(), Some(AllocError::Size(0)));
    let message = tenant.scope(|| Memory::of(70_000)).err().expect("over a unit").to_string();
    assert_eq!(message, "70000 bytes on each CPU: it must be from 1 to 65536");
}

/// The kernel's `test_percpu_basic` of `tools/testing/selftests/cgroup/test_kmem.c`, with objects of all three kinds: many
/// children, each with a little of each, and the parent's usage is their sum.
#[test]
fn i1_a_parent_of_a_thousand_children_holds_what_they_hold() {
    const NR_CHILDREN: usize = 1000;
    let _alone = alone();
    let parent = group("selftest");
    let mut random = Random::from_environment();
    let mut kept = Vec::with_capacity(NR_CHILDREN);
    let children: Vec<Memcg> = (0..NR_CHILDREN).map(|nth| parent.create(&nth.to_string()).expect("new")).collect();
    for child in &children {
        let large = Layout::from_size_align(40_000 + random.below(100_000), 8).expect("a small size");
        let nr_bytes = 1 + random.below(300);
        kept.push(child.scope(|| {
            // SAFETY: the size is not 0.
            let pages = unsafe { alloc(large) };
            assert!(!pages.is_null());
            (Memory::of(nr_bytes).expect("memory"), Box::new([0u8; 200]), pages, large)
        }));
    }
    let check = |moment: &str| {
        let usage = parent.usage();
        let stat = parent.stat();
        let held = stat.percpu_bytes + stat.slab_bytes + stat.large_bytes + stat.owner_bytes + stat.group_bytes;
        assert!(
            usage >= held && usage - held <= NR_CHILDREN as u64 * objcg::stock_bound(),
            "{moment}: {usage} {stat:?}"
        );
        parent.drain();
        assert_eq!(parent.usage(), parent.stat().total_bytes(), "{moment}");
        assert_eq!(stat.percpu_objects, kept.len() as u64, "{moment}");
    };
    check("all alive");
    children.iter().step_by(2).for_each(|child| child.delete().expect("alive, and without children"));
    check("half of them deleted");
    drop(children);
    check("all deleted");
    for (memory, object, pages, layout) in kept {
        drop((memory, object));
        // SAFETY: allocated above with this layout.
        unsafe { dealloc(pages, layout) };
    }
    parent.drain();
    assert_eq!((parent.usage(), parent.stat()), (0, MemcgStat::default()));
}

#[test]
fn memory_goes_back_to_the_system() {
    let _alone = alone();
    percpu::trim();
    let before = percpu::stat();
    let memory: Vec<Memory> = (0..50_000).map(|_| Memory::of(16).expect("memory")).collect();
    let full = percpu::stat();
    assert_eq!(full.used_bytes - before.used_bytes, on_all_cpus(16 * 50_000) as usize);
    drop(memory);
    assert!(percpu::stat().populated_bytes < full.populated_bytes / 4, "most pages went at once");
    percpu::trim();
    assert_eq!(percpu::stat(), before);
}

#[test]
fn values_are_made_and_dropped_once_on_each_cpu() {
    static NR_LIVE: AtomicUsize = AtomicUsize::new(0);
    struct Counted(usize);
    impl Counted {
        fn new(number: usize) -> Counted {
            NR_LIVE.fetch_add(1, Ordering::Relaxed);
            Counted(number)
        }
    }
    impl Drop for Counted {
        fn drop(&mut self) {
            NR_LIVE.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let _alone = alone();
    let before = percpu::stat().nr_allocations;
    let values = PerCpu::with(|cpu| Counted::new(cpu.index())).expect("memory");
    assert_eq!(NR_LIVE.load(Ordering::Relaxed), nr_cpus());
    assert!(values.iter().map(|value| value.0).eq(0..nr_cpus()));
    assert!(values.get().0 < nr_cpus());
    thread::spawn(move || drop(values)).join().expect("it ran");
    assert_eq!(NR_LIVE.load(Ordering::Relaxed), 0);

    let last = nr_cpus() - 1;
    let panics = || PerCpu::with(|cpu| if cpu.index() == last { panic!("on purpose") } else { Counted::new(0) });
    assert!(catch_unwind(panics).is_err());
    assert_eq!((NR_LIVE.load(Ordering::Relaxed), percpu::stat().nr_allocations), (0, before));
}

#[test]
fn odd_types_have_values_too() {
    #[derive(Debug, PartialEq)]
    #[repr(align(4096))]
    struct Page([u8; 5000]);
    #[repr(align(8192))]
    struct TwoPages;
    let _alone = alone();
    let nothing = PerCpu::with(|_| ()).expect("memory");
    assert_eq!(nothing.iter().count(), nr_cpus());
    let pages = PerCpu::with(|_| Page([3; 5000])).expect("memory");
    assert!(pages.iter().all(|page| std::ptr::from_ref(page).addr() % 4096 == 0 && page.0 == [3; 5000]));
    assert_eq!(PerCpu::with(|_| TwoPages).err(), Some(AllocError::Align(8192)));
    assert_eq!(PerCpu::<[u64; 8193]>::new().err(), Some(AllocError::Size(65_544)));
    assert!(PerCpu::<[u64; 8192]>::new().is_ok_and(|zeroes| zeroes.iter().all(|part| *part == [0; 8192])));
    let hits = PerCpu::<AtomicU64>::new().expect("memory");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10_000).for_each(|_| _ = hits.get().fetch_add(1, Ordering::Relaxed)));
        }
    });
    assert_eq!(hits.sum(), 40_000);
}

/// Adds up and down from many threads; returns what it must come to.
fn add_in_a_storm(counter: &PerCpuCounter, before_each_thread: impl Fn(usize) + Sync) -> i64 {
    const NR_THREADS: usize = 8;
    const NR_ROUNDS: usize = 200_000;
    let in_all = AtomicI64::new(0);
    thread::scope(|scope| {
        for thread in 0..NR_THREADS {
            let (in_all, before_each_thread) = (&in_all, &before_each_thread);
            scope.spawn(move || {
                before_each_thread(thread);
                let mut mine = 0;
                for round in 0..NR_ROUNDS {
                    let delta = [1, 1, -1, 3, -2, 1000][round % 6] - (thread as i64 % 2) * 500;
                    counter.add(delta);
                    mine += delta;
                    if round % 1000 == 0 {
                        thread::yield_now();
                    }
                }
                in_all.fetch_add(mine, Ordering::Relaxed);
            });
        }
    });
    in_all.into_inner()
}

#[test]
fn counters_are_exact_at_a_quiet_point() {
    let _alone = alone();
    let counter = PerCpuCounter::new().expect("memory");
    let in_all = add_in_a_storm(&counter, |_| ());
    assert_eq!(counter.sum(), in_all);
    assert!(counter.approximate().abs_diff(in_all) <= counter.bound());
}

#[test]
fn counters_take_any_number() {
    const NUMBERS: [i64; 16] =
        [i64::MAX, i64::MIN, -1, 1 << 40, i64::MAX, 7, 1023, 1023, 1, 1024, -1024, -1024, -1, -1025, 1025, 0];
    let _alone = alone();
    let counter = PerCpuCounter::new().expect("memory");
    let mut in_all = 0i64;
    for number in NUMBERS.iter().cycle().take(100) {
        counter.add(*number);
        in_all = in_all.wrapping_add(*number);
        assert_eq!(counter.sum(), in_all, "after {number}");
        assert!(counter.sum().wrapping_sub(counter.approximate()).unsigned_abs() <= counter.bound(), "after {number}");
    }
}

/// The approximate value is near the sum at any moment, not only at quiet ones.
#[test]
fn approximations_keep_their_bound_while_threads_add() {
    const NR_ADDS: i64 = 300_000;
    let _alone = alone();
    let counter = PerCpuCounter::new().expect("memory");
    let nr_begun = AtomicI64::new(0);
    let nr_done = AtomicI64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..NR_ADDS {
                nr_begun.fetch_add(1, Ordering::AcqRel);
                counter.add(1);
                nr_done.fetch_add(1, Ordering::AcqRel);
            }
        });
        while nr_done.load(Ordering::Acquire) < NR_ADDS {
            let least = nr_done.load(Ordering::Acquire);
            let found = counter.approximate();
            let most = nr_begun.load(Ordering::Acquire);
            // One thread adds: it may be about to add the two batches that a word has lost.
            let bound = counter.bound() as i64 + 2048;
            assert!(found >= least - bound && found <= most + bound, "{least} {found} {most}");
        }
    });
    assert_eq!(counter.sum(), NR_ADDS);
}

/// How far from the thread pointer the area is that libc registers; `None` where it registers no threads.
fn offset_of_libcs_area() -> Option<isize> {
    // SAFETY: looks a name up.
    let offset = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()) };
    // SAFETY: null, or the symbol, which is a constant of this type.
    unsafe { offset.cast::<isize>().as_ref() }.copied()
}

/// Takes libc's registration away from this thread, as on a kernel that has forgotten it: the thread is on the portable arm.
fn unregister_from_libc() {
    const UNREGISTER: libc::c_int = 1;
    const SIGNATURE: u32 = 0x5305_3053;
    let offset = offset_of_libcs_area().expect("libc registers threads");
    // SAFETY: no preconditions. On x86-64 it is the thread pointer.
    let thread_pointer = unsafe { libc::pthread_self() } as usize;
    let area = thread_pointer.wrapping_add_signed(offset);
    // SAFETY: libc's area of this thread, with libc's signature.
    let result = unsafe { libc::syscall(libc::SYS_rseq, area, 32, UNREGISTER, SIGNATURE) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn counters_are_exact_with_threads_of_both_arms_on_one_cpu() {
    const CHILD: &str = "OBJCG_TEST_ARMS";
    if std::env::consts::ARCH != "x86_64" || offset_of_libcs_area().is_none() {
        // There is no registration that could be taken away, or it is elsewhere and signed otherwise.
        return;
    }
    if std::env::var_os(CHILD).is_none() {
        // In a process of its own: its threads lose their registrations.
        let mut child = Command::new(std::env::current_exe().expect("the test's own path"));
        child.args(["counters_are_exact_with_threads_of_both_arms_on_one_cpu", "--exact"]).env(CHILD, "1");
        let output = child.output().expect("the test can run itself");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let counter = PerCpuCounter::new().expect("memory");
    counter.add(0);
    let in_all = add_in_a_storm(&counter, |thread| {
        pin_to_this_process_first_cpu();
        if thread % 2 == 0 && cfg!(not(objcg_rseq_absent)) {
            unregister_from_libc();
        }
    });
    assert_eq!(counter.sum(), in_all);
}

fn pin_to_this_process_first_cpu() {
    // SAFETY: zero is an empty set of CPUs.
    let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the number is below the set's size.
    unsafe { libc::CPU_SET(0, &mut cpus) };
    // A container may not have it: the threads then meet on whatever CPU they run.
    // SAFETY: `cpus` is a valid set of that size.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const cpus) };
}

#[test]
fn i1_random_work_in_a_tree_of_groups_is_conserved() {
    const NR_OPERATIONS: usize = 30_000;
    let _alone = alone();
    let mut random = Random::from_environment();
    let top = group("tree");
    let mut groups: Vec<Memcg> = vec![top.create("first").expect("a new name")];
    let mut live: Vec<(Memory, u64)> = Vec::new();
    for nth in 0..NR_OPERATIONS {
        match random.below(100) {
            0 => {
                let parent = &groups[random.below(groups.len())];
                let child = parent.create(&nth.to_string()).expect("a new name");
                groups.push(child);
            }
            1 if groups.len() > 1 => {
                let victim = groups.swap_remove(1 + random.below(groups.len() - 1));
                // One with children stays until its last handle goes.
                let _deleted = victim.delete();
            }
            2..=55 => {
                let bound = if random.below(20) == 0 { 5000 } else { 50 };
                let nr_bytes = 1 + random.below(bound);
                let group = &groups[random.below(groups.len())];
                let memory = group.scope(|| Memory::of(nr_bytes)).expect("memory");
                live.push((memory, on_all_cpus(nr_bytes.next_multiple_of(4) as u64)));
            }
            _ if !live.is_empty() => drop(live.swap_remove(random.below(live.len()))),
            _ => {}
        }
        if nth % 3000 == 0 {
            let stat = top.stat();
            assert_eq!(stat.percpu_bytes, live.iter().map(|(_, nr_bytes)| nr_bytes).sum::<u64>());
            assert_eq!(stat.percpu_objects, live.len() as u64);
            assert_eq!(top.usage(), stat.total_bytes());
        }
    }
    drop((live, groups));
    top.drain();
    assert_eq!((top.usage(), top.stat()), (0, MemcgStat::default()));
}
