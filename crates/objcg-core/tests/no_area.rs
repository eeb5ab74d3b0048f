//! A process that has no memory for the per-CPU area when it is wanted first has no sections from then on, and all else.
//!
//! Orders are the process's: this program has one test.

use std::ptr::NonNull;
use std::thread;

use objcg_core::cpu::nr_cpus;
use objcg_core::faults::{MILLION, Site, fail_often, pass_all};
use objcg_core::memcg::Memcg;
use objcg_core::percpu::PerCpuCounter;
use objcg_core::{kmalloc, stat};

fn free(object: NonNull<u8>) {
    // SAFETY: it is live, and nothing uses it.
    unsafe { kmalloc::free(object) };
}

fn work(tenant: &Memcg) {
    let _inside = tenant.enter();
    let mut objects: Vec<NonNull<u8>> = Vec::new();
    for round in 0..20_000 {
        if round % 3 == 2 {
            free(objects.swap_remove(round * 7 % objects.len()));
        } else {
            objects.push(kmalloc::alloc(8 + round * 37 % 3000, 8).expect("memory"));
        }
    }
    objects.into_iter().for_each(free);
}

#[test]
fn i1_all_is_right_where_the_area_was_refused() {
    fail_often(Site::Os, MILLION, 0);
    assert!(kmalloc::alloc(100, 8).is_none(), "not even the smallest area");
    pass_all(Site::Os);
    let counter = PerCpuCounter::new().expect("memory");
    let tenant = Memcg::root().create("tenant").expect("memory");
    thread::scope(|scope| {
        for _ in 0..2 * nr_cpus().min(4) {
            scope.spawn(|| {
                work(&tenant);
                counter.add(1);
            });
        }
    });
    assert_eq!(counter.sum(), 2 * nr_cpus().min(4) as i64);
    tenant.drain();
    assert_eq!((tenant.usage(), tenant.stat().total_bytes()), (0, 0));
    kmalloc::trim();
    assert_eq!(stat::heap().live_bytes(), 0);
}
