//! Typed caches: shape, sheaves, charging, and what remains of them.

use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::thread;

use objcg_core::SlabGeometry;
use objcg_core::cpu::{CpuId, nr_cpus};
use objcg_core::kmem_cache::{CacheConfig, CacheStat, CreateCacheError, KmemCache, Sheaves};
use objcg_core::memcg::Memcg;

fn free(cache: &KmemCache, object: NonNull<u8>) {
    // SAFETY: tests free what they took from the same cache, once.
    unsafe { cache.free(object) };
}

fn first_fit(size: usize, pages: u32, objects: u32) -> KmemCache {
    let geometry = Some(SlabGeometry { pages, objects });
    KmemCache::create(&CacheConfig { geometry, sheaves: Sheaves::Off, keep_empty: 0, ..CacheConfig::new(size) })
        .expect("a good shape")
}

/// A number that is used again is another cache's: nothing of the sizes, shapes or objects from before is left.
#[test]
fn caches_come_and_go_with_other_sizes_under_the_same_numbers() {
    let shapes =
        [(8, 1, 512), (100, 1, 39), (24, 2, 341), (3000, 3, 4), (4096, 1, 1), (300_000, 74, 1), (8, 128, 65_536)];
    let mut numbers = Vec::new();
    for round in 0..3 {
        for (size, pages, objects) in shapes {
            for sheaves in [Sheaves::Auto, Sheaves::Off] {
                let geometry = Some(SlabGeometry { pages, objects });
                let config = CacheConfig { geometry, sheaves, ..CacheConfig::new(size) };
                let cache = KmemCache::create(&config).expect("a good shape");
                let nr_objects = (objects as usize + 1).min(700);
                let taken: Vec<NonNull<u8>> = (0..nr_objects).map(|_| cache.alloc().expect("memory")).collect();
                for object in &taken {
                    // SAFETY: live, with so many bytes, and this test's alone.
                    unsafe { object.write_bytes(0xa5, size) };
                }
                let distinct: BTreeSet<usize> = taken.iter().map(|object| object.as_ptr() as usize).collect();
                assert!(distinct.iter().zip(distinct.iter().skip(1)).all(|(low, high)| high - low >= size));
                taken.into_iter().for_each(|object| free(&cache, object));
                cache.shrink();
                assert_eq!(cache.stat().nr_objects, 0, "{size} bytes, round {round}");
                numbers.push(format!("{cache:?}"));
            }
        }
    }
    let distinct: BTreeSet<&String> = numbers.iter().collect();
    assert!(distinct.len() < numbers.len() / 2, "numbers come again: {numbers:?}");
}

#[test]
fn first_fit_fills_the_lowest_slab_and_gives_an_empty_one_back() {
    let cache = first_fit(192, 1, 21);
    let objects: Vec<NonNull<u8>> = (0..63).map(|_| cache.alloc().expect("memory")).collect();
    assert_eq!(cache.stat(), CacheStat { nr_slabs: 3, slab_bytes: 3 * 4096, owner_bytes: 0, nr_objects: 63 });
    let distinct: BTreeSet<usize> = objects.iter().map(|object| object.as_ptr() as usize).collect();
    assert_eq!(distinct.len(), 63);
    assert!(distinct.iter().zip(distinct.iter().skip(1)).all(|(low, high)| high - low >= 192));
    // A hole in each slab: the lowest is filled first.
    let holes: Vec<NonNull<u8>> = (0..3).map(|slab| objects[slab * 21 + 5]).collect();
    holes.iter().rev().for_each(|hole| free(&cache, *hole));
    let lowest = *holes.iter().min().expect("three");
    assert_eq!(cache.alloc(), Some(lowest));
    free(&cache, lowest);
    for slab in 0..3 {
        for object in objects[slab * 21..(slab + 1) * 21].iter().filter(|object| !holes.contains(object)) {
            free(&cache, *object);
        }
        assert_eq!(cache.stat().nr_slabs, 2 - slab as u64, "an empty slab goes at once");
    }
}

#[test]
fn sheaves_of_all_cpus_hold_a_bounded_number_of_objects() {
    let cache = KmemCache::create(&CacheConfig::new(256)).expect("a good shape");
    for round in 0..20_000 {
        let (from, to) = (CpuId::fold(round), CpuId::fold(round / 7));
        let object = cache.alloc_on(from).expect("memory");
        // SAFETY: just allocated.
        unsafe { cache.free_on(to, object) };
    }
    // Two sheaves a CPU and four more, of 16 objects.
    assert!(cache.stat().nr_objects <= (nr_cpus() as u64 * 2 + 4) * 16, "{:?}", cache.stat());
    cache.shrink();
    assert_eq!(cache.stat(), CacheStat::default());
}

#[test]
fn a_burst_that_comes_again_leaves_no_more_behind_than_the_first() {
    let cache = KmemCache::create(&CacheConfig::new(1024)).expect("a good shape");
    for round in 0..8 {
        // Each CPU that ever had sheaves has its price: see `PUTS_TO_EMPTY`.
        let nr_objects = 16_384 + 1024 * nr_cpus();
        let mut objects: Vec<NonNull<u8>> = (0..nr_objects).map(|_| cache.alloc().expect("memory")).collect();
        let most = cache.stat().slab_bytes;
        // In no order, so that each slab has some of those that come last.
        while !objects.is_empty() {
            let nth = (objects.len() * 7 + 3) % objects.len().next_power_of_two() % objects.len();
            free(&cache, objects.swap_remove(nth));
        }
        let left = cache.stat().slab_bytes;
        assert!(left <= most / 8, "{left} of {most} bytes are left in round {round}");
    }
}

#[test]
fn objects_cross_threads_through_the_barn() {
    let cache = KmemCache::create(&CacheConfig::new(64)).expect("a good shape");
    for _ in 0..50 {
        let objects: Vec<usize> = (0..1000).map(|_| cache.alloc().expect("memory").as_ptr() as usize).collect();
        assert_eq!(objects.iter().collect::<BTreeSet<_>>().len(), objects.len(), "an object was handed out twice");
        thread::scope(|scope| {
            for half in objects.chunks(500) {
                let cache = &cache;
                scope.spawn(move || {
                    for address in half {
                        free(cache, NonNull::new(std::ptr::with_exposed_provenance_mut(*address)).expect("not null"));
                    }
                });
            }
        });
    }
    cache.shrink();
    assert_eq!(cache.stat(), CacheStat::default());
}

#[test]
fn i7_owner_vectors_come_with_the_first_charged_object() {
    let cache = first_fit(128, 1, 32);
    let uncharged = cache.alloc().expect("memory");
    assert_eq!(cache.stat().owner_bytes, 0);
    let tenant = Memcg::root().create("typed").expect("a new name");
    let inside = tenant.enter();
    let charged = cache.alloc().expect("memory");
    drop(inside);
    assert_eq!(cache.stat().owner_bytes, 32 * 4, "4 bytes for each of 32 objects");
    tenant.drain();
    assert_eq!((tenant.usage(), tenant.stat().slab_objects), (128 + 4, 1));
    free(&cache, charged);
    free(&cache, uncharged);
    tenant.drain();
    assert_eq!((tenant.usage(), cache.stat()), (0, CacheStat::default()));
}

#[test]
fn i8_a_refused_object_leaves_no_trace_in_the_cache() {
    let cache = first_fit(1024, 2, 8);
    let tenant = Memcg::root().create("refused").expect("a new name");
    tenant.set_max(Some(1000)).expect("alive");
    let before = (cache.stat(), tenant.usage(), tenant.peak());
    let inside = tenant.enter();
    assert_eq!(cache.alloc(), None);
    drop(inside);
    assert_eq!((cache.stat(), tenant.usage(), tenant.peak()), before);
}

#[test]
fn a_dropped_cache_leaves_its_live_objects_valid() {
    let cache = KmemCache::create(&CacheConfig::new(512)).expect("a good shape");
    let object = cache.alloc().expect("memory");
    // SAFETY: 512 bytes, ours.
    unsafe { object.write_bytes(0x5a, 512) };
    drop(cache);
    let others: Vec<KmemCache> =
        (0..50).map(|_| KmemCache::create(&CacheConfig::new(512)).expect("a good shape")).collect();
    for other in &others {
        let stranger = other.alloc().expect("memory");
        // SAFETY: 512 bytes, ours.
        unsafe { stranger.write_bytes(0, 512) };
        free(other, stranger);
    }
    // SAFETY: the object was never freed.
    let bytes = unsafe { std::slice::from_raw_parts(object.as_ptr(), 512) };
    assert!(bytes.iter().all(|byte| *byte == 0x5a));
}

#[test]
fn bad_shapes_are_refused() {
    let refusal = |config: CacheConfig| KmemCache::create(&config).map(|_| ()).expect_err("a bad shape");
    let shape =
        |pages, objects| CacheConfig { geometry: Some(SlabGeometry { pages, objects }), ..CacheConfig::new(100) };
    assert_eq!(refusal(CacheConfig::new(0)), CreateCacheError::Size);
    assert_eq!(refusal(CacheConfig::new(7)), CreateCacheError::Size);
    assert_eq!(refusal(CacheConfig::new(usize::MAX)), CreateCacheError::Size);
    assert_eq!(refusal(CacheConfig::new((32 << 10) + 1)), CreateCacheError::Size);
    for align in [0, 4, 24, 8192] {
        assert_eq!(refusal(CacheConfig { align, ..CacheConfig::new(100) }), CreateCacheError::Align);
    }
    for (pages, objects) in [(1, 0), (0, 1), (1, 40), (129, 1), (1, u32::MAX)] {
        assert_eq!(refusal(shape(pages, objects)), CreateCacheError::Geometry, "{pages} pages, {objects} objects");
    }
    let aligned = KmemCache::create(&CacheConfig { align: 64, ..CacheConfig::new(100) }).expect("a good shape");
    assert_eq!(aligned.object_size(), 128);
}
