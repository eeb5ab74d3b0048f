//! How many typed caches there can be. It takes all their numbers: this program has one test.

use std::ptr::NonNull;

use objcg_core::kmem_cache::{CacheConfig, CacheStat, CreateCacheError, KmemCache};

fn free(cache: &KmemCache, object: NonNull<u8>) {
    // SAFETY: it came from the same cache, and nothing uses it.
    unsafe { cache.free(object) };
}

#[test]
fn caches_are_numbered_as_far_as_there_are_entries_for_them() {
    let config = CacheConfig::new(64);
    let caches: Vec<KmemCache> = (0..1 << 16).map_while(|_| KmemCache::create(&config).ok()).collect();
    assert!(caches.len() > 65_000 && caches.len() < 1 << 16, "{} caches", caches.len());
    assert_eq!(KmemCache::create(&config).expect_err("no number is left"), CreateCacheError::NoMemory);
    // Those that have stacks of their own, those that share the ones that stay empty, and the last.
    for cache in caches.iter().step_by(500).chain(caches.last()) {
        let objects: Vec<_> = (0..100).map(|_| cache.alloc().expect("memory")).collect();
        objects.into_iter().for_each(|object| free(cache, object));
        cache.shrink();
        assert_eq!(cache.stat(), CacheStat::default());
    }
    drop(caches);
    assert!(KmemCache::create(&config).is_ok(), "numbers come back");
}
