//! What any program expects of a global allocator: alignment, zeroes, contents, threads (I2, I7, I10).

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;

use objcg::{Memcg, Objcg};

#[path = "support/groups.rs"]
mod groups;
use groups::alone;

#[global_allocator]
static GLOBAL: Objcg = Objcg;

#[path = "support/random.rs"]
mod random;
use random::Random;

fn fill(memory: *mut u8, nr_bytes: usize, tag: u8) {
    // SAFETY: callers own that many bytes.
    unsafe { memory.write_bytes(tag, nr_bytes) };
}

fn is_filled(memory: *const u8, nr_bytes: usize, tag: u8) -> bool {
    // SAFETY: callers own that many initialised bytes.
    unsafe { std::slice::from_raw_parts(memory, nr_bytes) }.iter().all(|byte| *byte == tag)
}

#[test]
fn every_alignment_up_to_2_mib_and_beyond() {
    let _alone = alone();
    for shift in 0..=24 {
        for nr_bytes in [1, 7, 100, 5000, 40_000, 5 << 20] {
            let layout = Layout::from_size_align(nr_bytes, 1 << shift).unwrap();
            // SAFETY: the size is not 0.
            let memory = unsafe { alloc(layout) };
            assert!(!memory.is_null() && memory.addr().is_multiple_of(1 << shift), "{layout:?}");
            fill(memory, nr_bytes, 0xa5);
            // SAFETY: allocated with this layout.
            unsafe { dealloc(memory, layout) };
        }
    }
}

#[test]
fn zeroed_memory_is_zero_where_dirty_memory_was() {
    let _alone = alone();
    for nr_bytes in [8, 100, 3000, 32 << 10, 40_000, 1 << 20, 6 << 20] {
        let layout = Layout::from_size_align(nr_bytes, 8).unwrap();
        for _ in 0..20 {
            // SAFETY: the size is not 0.
            let dirty = unsafe { alloc(layout) };
            fill(dirty, nr_bytes, 0xff);
            // SAFETY: allocated with this layout.
            unsafe { dealloc(dirty, layout) };
            // SAFETY: the size is not 0.
            let zeroed = unsafe { alloc_zeroed(layout) };
            assert!(is_filled(zeroed, nr_bytes, 0), "{nr_bytes} bytes");
            // SAFETY: allocated with this layout.
            unsafe { dealloc(zeroed, layout) };
        }
    }
}

#[test]
fn realloc_keeps_contents_across_every_kind_of_memory() {
    let _alone = alone();
    const SIZES: [usize; 9] = [10, 100, 4000, 30_000, 50_000, 300_000, 3 << 20, 5 << 20, 40 << 20];
    for align in [8, 64, 4096, 1 << 16] {
        for from in SIZES {
            for to in SIZES {
                let layout = Layout::from_size_align(from, align).unwrap();
                // SAFETY: the size is not 0.
                let memory = unsafe { alloc(layout) };
                fill(memory, from, 0x3c);
                // SAFETY: allocated with this layout; the new size is not 0.
                let moved = unsafe { realloc(memory, layout, to) };
                assert!(moved.addr().is_multiple_of(align));
                assert!(is_filled(moved, from.min(to), 0x3c), "{from} -> {to} at {align}");
                fill(moved, to, 0xc3);
                // SAFETY: this is its layout now.
                unsafe { dealloc(moved, Layout::from_size_align(to, align).unwrap()) };
            }
        }
    }
}

#[test]
fn a_vector_that_grows_and_shrinks_stays_its_groups() {
    let _alone = alone();
    let tenant = Memcg::root().create("growing").unwrap();
    let mut vec = tenant.scope(|| Vec::<u8>::with_capacity(1));
    let mut sizes: Vec<usize> = (0..24).map(|shift| 1 << shift).collect();
    sizes.extend((0..24).rev().map(|shift| 1 << shift));
    for nr_bytes in sizes {
        tenant.scope(|| {
            vec.resize(nr_bytes, 1);
            vec.shrink_to_fit();
        });
        tenant.drain();
        let stat = tenant.stat();
        assert_eq!((stat.slab_objects + stat.large_objects, tenant.usage()), (1, stat.total_bytes()));
        assert!(stat.total_bytes() >= nr_bytes as u64);
    }
    drop(vec);
    tenant.drain();
    assert_eq!(tenant.usage(), 0);
}

#[test]
fn i2_threads_that_hand_objects_around_return_them_to_their_owner() {
    let _alone = alone();
    const NR_THREADS: usize = 4;
    const NR_ROUNDS: usize = 20_000;
    let tenants: Vec<Memcg> =
        (0..NR_THREADS).map(|nth| Memcg::root().create(&format!("ring-{nth}")).unwrap()).collect();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..NR_THREADS).map(|_| mpsc::sync_channel::<Vec<u8>>(64)).unzip();
    let seed = Random::from_environment().below(1 << 20);
    thread::scope(|scope| {
        for (nth, inbox) in receivers.into_iter().enumerate() {
            let outbox = senders[(nth + 1) % NR_THREADS].clone();
            let tenant = &tenants[nth];
            scope.spawn(move || {
                let mut state = seed + nth;
                for _ in 0..NR_ROUNDS {
                    state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                    let nr_bytes = 1 + (state >> 16) % 5000;
                    let sent = tenant.scope(|| vec![nr_bytes as u8; nr_bytes]);
                    // A full neighbour is waited for only after the own inbox was emptied: no cycle of waiting threads.
                    let mut unsent = Some(sent);
                    while let Some(vec) = unsent.take() {
                        unsent = match outbox.try_send(vec) {
                            Ok(()) | Err(mpsc::TrySendError::Disconnected(_)) => None,
                            Err(mpsc::TrySendError::Full(vec)) => Some(vec),
                        };
                        for received in inbox.try_iter() {
                            assert!(received.iter().all(|byte| *byte == received.len() as u8));
                        }
                    }
                }
            });
        }
    });
    drop(senders);
    for tenant in &tenants {
        tenant.drain();
        assert_eq!((tenant.usage(), tenant.stat().slab_objects), (0, 0), "{tenant:?}");
    }
}

struct AllocatesAtExit(Vec<u8>);

impl Drop for AllocatesAtExit {
    fn drop(&mut self) {
        let copy = self.0.clone();
        assert_eq!(copy.len(), self.0.len());
    }
}

thread_local! {
    static AT_EXIT: RefCell<Option<AllocatesAtExit>> = const { RefCell::new(None) };
}

#[test]
fn i10_thousands_of_threads_come_and_go() {
    let _alone = alone();
    let tenant = Memcg::root().create("threads").unwrap();
    // Joined, not scoped: a scope ends before its threads' thread-locals are gone.
    let churn = |nr_threads: usize| {
        for nth in 0..nr_threads {
            let tenant = tenant.clone();
            let thread = thread::spawn(move || {
                let vec = tenant.scope(|| vec![1u8; nth % 2000 + 1]);
                AT_EXIT.set(Some(AllocatesAtExit(vec)));
            });
            thread.join().unwrap();
        }
    };
    churn(500);
    let before = objcg_core::stat::pages().used_bytes;
    churn(3000);
    let after = objcg_core::stat::pages().used_bytes;
    // Other tests of this process are at work; what threads would leave behind is tens of kilobytes each.
    assert!(after < before + (64 << 20), "{before} -> {after}");
    tenant.drain();
    assert_eq!(tenant.usage(), 0);
}

#[test]
fn i7_what_is_in_no_group_is_not_counted() {
    let _alone = alone();
    let tenant = Memcg::root().create("bystander").unwrap();
    let map: BTreeMap<usize, String> = (0..1000).map(|n| (n, n.to_string())).collect();
    assert_eq!((tenant.usage(), tenant.stat().slab_objects), (0, 0));
    let inside = tenant.enter();
    let in_root = Memcg::root().scope(|| vec![0u8; 1000]);
    drop(inside);
    assert_eq!(tenant.stat().slab_objects, 0, "the root's scope inside a group is nobody's");
    drop((map, in_root));
    assert_eq!(Memcg::root().max(), None);
}

#[test]
fn a_panic_leaves_the_scope() {
    let _alone = alone();
    let tenant = Memcg::root().create("panicking").unwrap();
    let caught = std::panic::catch_unwind(|| {
        tenant.scope(|| std::panic::resume_unwind(Box::new("expected")));
    });
    assert!(caught.is_err());
    drop(caught);
    let outside = vec![0u8; 100];
    tenant.drain();
    assert_eq!(tenant.usage(), 0);
    drop(outside);
}

/// An exception is an object as others are; unwinders may want it at a multiple of 16, whatever its layout says.
#[test]
fn a_panic_is_caught_wherever_its_exception_lies() {
    let mut held = Vec::new();
    for _ in 0..50 {
        let caught = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(7_u32)));
        assert_eq!(caught.unwrap_err().downcast_ref::<u32>(), Some(&7));
        // What an exception is as large as: the next one lies elsewhere.
        held.push([Box::new([0_u64; 5]) as Box<dyn std::any::Any>, Box::new([0_u64; 6]), Box::new([0_u64; 7])]);
    }
}
