//! Before a cache has more slabs than ever, what another CPU has to spare serves.
//!
//! The number of CPUs is the process's: this program has one test.

use std::ptr::NonNull;

use objcg_core::SlabGeometry;
use objcg_core::cpu::{CpuId, nr_cpus, set_nr_cpus};
use objcg_core::kmem_cache::{CacheConfig, CacheStat, KmemCache};
use objcg_core::memcg::Memcg;

/// What an object costs its group.
const PRICE: u64 = 256 + 4;

struct Fixture {
    cache: KmemCache,
    live: Vec<NonNull<u8>>,
}

impl Fixture {
    /// A cache whose sheaves have 16 objects, of which a refill brings 8.
    fn new() -> Fixture {
        let geometry = Some(SlabGeometry { pages: 2, objects: 32 });
        let cache = KmemCache::create(&CacheConfig { geometry, ..CacheConfig::new(256) }).expect("a good shape");
        Fixture { cache, live: Vec::new() }
    }

    fn take(&mut self, nr_objects: usize, cpu: usize) {
        self.live.extend((0..nr_objects).map(|_| self.cache.alloc_on(CpuId::fold(cpu)).expect("memory")));
    }

    fn give(&mut self, nr_objects: usize, cpu: usize) {
        // SAFETY: each was taken, and leaves the list of those that are live.
        self.live.drain(..nr_objects).for_each(|object| unsafe { self.cache.free_on(CpuId::fold(cpu), object) });
    }

    fn nr_slabs(&self) -> u64 {
        self.cache.stat().nr_slabs
    }

    fn end(mut self) {
        self.give(self.live.len(), 0);
        self.cache.shrink();
        assert_eq!(self.cache.stat(), CacheStat::default());
    }
}

#[test]
fn i1_what_another_cpu_has_to_spare_comes_before_more_slabs_than_ever() {
    assert!(set_nr_cpus(2));
    assert_eq!(nr_cpus(), 2);

    let mut it = Fixture::new();
    it.take(64, 0);
    assert_eq!(it.nr_slabs(), 2);
    it.give(24, 1);
    it.take(16, 0);
    assert_eq!(it.nr_slabs(), 2, "a full spare serves, and another of half a sheaf is left");
    it.take(1, 0);
    assert_eq!(it.nr_slabs(), 3, "a main sheaf is left to its CPU");
    it.take(31, 0);
    assert_eq!(it.nr_slabs(), 3);
    it.give(16 + 1, 1);
    it.take(1, 0);
    assert_eq!(it.nr_slabs(), 3, "the spare, each time that more than ever would be needed");
    it.end();

    // Objects that wait with a charge change it when they are wanted.
    let mut it = Fixture::new();
    let [tenant, neighbour] = ["tenant", "neighbour"].map(|name| Memcg::root().create(name).expect("a new name"));
    let inside = tenant.enter();
    it.take(64, 0);
    it.give(24, 1);
    drop(inside);
    let inside = neighbour.enter();
    it.take(16, 0);
    drop(inside);
    assert_eq!(it.nr_slabs(), 2);
    tenant.drain();
    neighbour.drain();
    assert_eq!((tenant.usage(), neighbour.usage()), (40 * PRICE, 16 * PRICE));
    it.end();
    tenant.drain();
    neighbour.drain();
    assert_eq!((tenant.usage(), neighbour.usage()), (0, 0));
}
