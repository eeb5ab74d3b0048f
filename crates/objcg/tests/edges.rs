//! Where limits, failures and deletes meet: what shrinks fits, what failed was never there, what is dead keeps nothing
//! (I3, I4, I8).

use std::alloc::{Layout, alloc, dealloc, realloc};
use std::hint::black_box;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use objcg::{Memcg, Objcg};

#[path = "support/groups.rs"]
mod groups;
use groups::{alone, strict};

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const MIB: usize = 1 << 20;

fn layout(nr_bytes: usize, align: usize) -> Layout {
    Layout::from_size_align(nr_bytes, align).expect("a small size")
}

fn take(group: &Memcg, layout: Layout) -> *mut u8 {
    // SAFETY: no layout here has size 0.
    group.scope(|| unsafe { alloc(layout) })
}

fn give_back(memory: *mut u8, layout: Layout) {
    // SAFETY: callers hand over what they took with this layout.
    unsafe { dealloc(memory, layout) };
}

fn resize(group: &Memcg, memory: *mut u8, layout: Layout, nr_bytes: usize) -> *mut u8 {
    // SAFETY: callers hold the object with this layout, and no new size is 0.
    group.scope(|| unsafe { realloc(memory, layout, nr_bytes) })
}

#[test]
fn i8_a_shrink_is_never_refused() {
    const SHRINKS: [(usize, usize, usize); 8] = [
        (1024, 100, 8),
        (32 << 10, 8, 8),
        (100_000, 20_000, 8),
        (100_000, 20_000, 1 << 16),
        (200_000, 50_000, 8),
        (6 * MIB, 5 * MIB, 8),
        (6 * MIB, MIB, 8),
        (6 * MIB, 100, 8),
    ];
    let _alone = alone();
    let (owner, full) = ["owner", "full"].map(strict).into();
    full.set_max(Some(0)).expect("alive");
    for (from, to, align) in SHRINKS {
        // At its own limit, and in another group that is at its limit.
        for current in [&owner, &full] {
            let memory = take(&owner, layout(from, align));
            // SAFETY: the object is longer.
            unsafe { memory.write_bytes(0x5a, to) };
            owner.drain();
            owner.set_max(Some(owner.usage())).expect("alive");
            let shrunk = resize(current, memory, layout(from, align), to);
            assert!(!shrunk.is_null(), "{from} -> {to} bytes in {current:?}");
            // SAFETY: the object has that many bytes, which were written.
            let bytes = unsafe { std::slice::from_raw_parts(shrunk, to) };
            assert!(shrunk.addr().is_multiple_of(align) && bytes.iter().all(|byte| *byte == 0x5a));
            give_back(shrunk, layout(to, align));
            owner.set_max(None).expect("alive");
            owner.drain();
            assert_eq!((owner.usage(), full.usage()), (0, 0));
        }
    }
}

#[test]
fn i8_memory_that_the_system_refused_leaves_no_peak() {
    let _alone = alone();
    let tenant = strict("hopeful");
    let mut vec = tenant.scope(|| vec![7u8; 8 * MIB]);
    tenant.drain();
    let before = (tenant.usage(), tenant.peak());
    // More than the address space has, in an object of its own and by growing one.
    // An allocation that nobody sees would be left out of an optimised build.
    assert!(tenant.scope(|| black_box(Vec::<u8>::new()).try_reserve_exact(1 << 48)).is_err());
    assert!(tenant.scope(|| black_box(&mut vec).try_reserve_exact(1 << 48)).is_err());
    tenant.drain();
    assert_eq!((tenant.usage(), tenant.peak()), before);
    assert!(vec.iter().all(|byte| *byte == 7));
}

#[test]
fn i8_a_growth_that_neither_stays_nor_moves_leaves_no_peak() {
    let _alone = alone();
    let tenant = strict("wedged");
    // Neighbours in a row: in place there is no room. What is missing would fit the limit, a second copy would not.
    let objects: Vec<*mut u8> = (0..6).map(|_| take(&tenant, layout(MIB, 8))).collect();
    tenant.drain();
    tenant.set_max(Some(tenant.usage() + 5 * MIB as u64 / 2)).expect("alive");
    let before = (tenant.usage(), tenant.peak());
    let grown = resize(&tenant, objects[0], layout(MIB, 8), 3 * MIB);
    assert!(grown.is_null(), "it had room behind it, or the limit let it move: the test shows nothing");
    tenant.drain();
    assert_eq!((tenant.usage(), tenant.peak()), before);
    objects.iter().for_each(|memory| give_back(*memory, layout(MIB, 8)));
    tenant.drain();
    assert_eq!(tenant.usage(), 0);
}

#[test]
fn i4_the_end_of_a_leaf_ends_a_chain_of_any_depth() {
    const DEPTH: usize = 6000;
    const CHILD: &str = "OBJCG_TEST_CHAIN";
    let _alone = alone();
    if std::env::var_os(CHILD).is_none() {
        // In a process of its own: the failure is a stack overflow.
        let mut child = Command::new(std::env::current_exe().expect("the test's own path"));
        child.args(["i4_the_end_of_a_leaf_ends_a_chain_of_any_depth", "--exact", "--test-threads=1"]).env(CHILD, "1");
        let output = child.output().expect("the test can run itself");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let mut leaf = Memcg::root().create("chain").expect("a new name");
    for _ in 1..DEPTH {
        leaf = leaf.create("next").expect("a new name");
    }
    assert_eq!(objcg::nr_groups(), DEPTH);
    drop(leaf);
    Memcg::root().drain();
    assert_eq!((objcg::nr_groups(), objcg::nr_dying(), objcg::nr_vessels()), (0, 0, 0));
}

#[test]
fn i4_what_comes_back_to_the_dead_stays_nowhere_after_a_drain() {
    // More than a CPU has stock words, so that every word is some living vessel's.
    const NR_GROUPS: usize = 1500;
    let _alone = alone();
    let top = Memcg::root().create("top").expect("a new name");
    let create = |kind: &str, nth: usize| top.create(&format!("{kind}{nth}")).expect("a new name");
    let dead: Vec<Memcg> = (0..NR_GROUPS).map(|nth| create("dead", nth)).collect();
    let survivors: Vec<*mut u8> = dead.iter().map(|group| take(group, layout(40, 8))).collect();
    dead.iter().for_each(|group| group.delete().expect("alive, and without children"));
    drop(dead);
    Memcg::root().drain();
    let nr_before = objcg::nr_vessels();
    let live: Vec<Memcg> = (0..NR_GROUPS).map(|nth| create("live", nth)).collect();
    live.iter().for_each(|group| give_back(take(group, layout(40, 8)), layout(40, 8)));
    survivors.iter().for_each(|memory| give_back(*memory, layout(40, 8)));
    // Free objects may wait in sheaves with the charge of the dead: a drain of those that they were left to ends that.
    top.drain();
    assert_eq!(objcg::nr_vessels(), nr_before - NR_GROUPS + live.len());
}

#[test]
fn i3_no_charge_lands_under_a_limit_that_is_gone() {
    const MAX: u64 = 300_000;
    const NR_ROUNDS: usize = 400_000;
    let _alone = alone();
    let tenant = strict("lowered");
    let stop = AtomicBool::new(false);
    let nr_over = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let memory = take(&tenant, layout(2 * MAX as usize, 8));
                if !memory.is_null() {
                    give_back(memory, layout(2 * MAX as usize, 8));
                }
            }
        });
        let mut nr_over = 0;
        for _ in 0..NR_ROUNDS {
            tenant.set_max(None).expect("alive");
            let is_below = tenant.set_max(Some(MAX)) == Ok(0);
            nr_over += u32::from(is_below && (0..3).any(|_| tenant.usage() > MAX));
        }
        stop.store(true, Ordering::Relaxed);
        nr_over
    });
    assert_eq!(nr_over, 0, "times that usage rose over the limit after it was set");
}

#[test]
fn nothing_at_all_is_as_aligned_as_it_is_asked_for() {
    for align in (0..13).map(|log2| 1 << log2) {
        // The smaller alignments came first, and their objects wait free.
        for _ in 0..3 {
            let memory = objcg_core::kmalloc::alloc(0, align).expect("memory");
            assert!(memory.as_ptr().addr().is_multiple_of(align), "0 bytes at {align}");
            // SAFETY: live, and nothing uses it.
            unsafe { objcg_core::kmalloc::free(memory) };
        }
    }
}
