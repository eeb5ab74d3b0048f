//! The engine's slab caches, held in a table, and the objects that they hand out as move-only tokens.
//!
//! Controllers above are safe code: an [`Object`] carries the number of the cache that it came from, so it can only go
//! back there, and a cache cannot be destroyed while one of its objects is out.

#![expect(unsafe_code, reason = "touches and frees objects of the engine")]

use std::ptr::NonNull;

use objcg_core::SlabGeometry;
use objcg_core::cpu::CpuId;
use objcg_core::kmem_cache::{CacheConfig, KmemCache, Sheaves};

use super::{CachePlan, Held};
use crate::geometry::PAGE_SIZE;
use crate::replay::ReplayError;
use crate::settings::SheafMode;
use crate::trace::CacheId;

/// A live object.
///
/// # Invariants
///
/// `address` is an object of cache `cache` of the one `SlabCaches` of its controller, and is the lab's to use.
#[derive(Debug)]
pub struct Object {
    address: NonNull<u8>,
    cache: u32,
}

impl Object {
    /// The cache that it came from.
    pub(super) fn cache(&self) -> SlabCacheId {
        SlabCacheId(self.cache)
    }
}

/// A cache in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlabCacheId(u32);

impl SlabCacheId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// All slab caches of one controller.
pub(super) struct SlabCaches {
    plan: CachePlan,
    caches: Vec<Option<Entry>>,
    vacant: Vec<u32>,
}

struct Entry {
    cache: KmemCache,
    /// Objects that are out.
    nr_objects: u64,
    /// Pages when [`SlabCaches::settle_pages`] last looked.
    nr_pages: u64,
    /// Offset of the last byte of an object.
    last: usize,
}

impl SlabCaches {
    pub(super) fn new(plan: CachePlan) -> SlabCaches {
        SlabCaches { plan, caches: Vec::new(), vacant: Vec::new() }
    }

    /// How many caches the plan offers.
    pub(super) fn nr_planned(&self) -> usize {
        self.plan.caches.len()
    }

    /// Makes another cache of this shape.
    pub(super) fn create(&mut self, cache: CacheId) -> Result<SlabCacheId, ReplayError> {
        let shape = self.plan.caches[cache.index()];
        let mut config = CacheConfig::new(shape.slot as usize);
        config.geometry = shape.slab.map(|slab| SlabGeometry { pages: slab.pages, objects: slab.objects });
        if self.plan.sheaves == SheafMode::Off {
            config.sheaves = Sheaves::Off;
            config.keep_empty = 0;
        }
        let cache = KmemCache::create(&config).map_err(ReplayError::CreateCache)?;
        let entry = Entry { cache, nr_objects: 0, nr_pages: 0, last: shape.slot as usize - 1 };
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.caches.push(None);
            u32::try_from(self.caches.len() - 1).expect("fewer caches than rows")
        });
        self.caches[id as usize] = Some(entry);
        Ok(SlabCacheId(id))
    }

    /// Allocates and touches an object.
    pub(super) fn alloc(&mut self, id: SlabCacheId, cpu: CpuId) -> Result<Object, ReplayError> {
        let entry = self.entry_mut(id);
        let address = entry.cache.alloc_on(cpu).ok_or(ReplayError::OutOfMemory)?;
        // SAFETY: the object is ours and has at least one byte.
        unsafe { address.write_volatile(1) };
        // SAFETY: `last` is below the object's size.
        let end = unsafe { address.add(entry.last) };
        // SAFETY: the object's last byte, ours as its first.
        unsafe { end.write_volatile(1) };
        entry.nr_objects += 1;
        // INVARIANT: just allocated from this cache.
        Ok(Object { address, cache: id.0 })
    }

    /// Frees an object.
    pub(super) fn free(&mut self, cpu: CpuId, object: Object) {
        let entry = self.entry_mut(object.cache());
        // SAFETY: by the invariant of `Object` this is a live object of that cache, and the token is used up.
        unsafe { entry.cache.free_on(cpu, object.address) };
        entry.nr_objects -= 1;
    }

    /// By how many pages the cache has grown since the last call.
    pub(super) fn settle_pages(&mut self, id: SlabCacheId) -> i64 {
        let entry = self.entry_mut(id);
        let nr_pages = entry.cache.stat().slab_bytes / u64::from(PAGE_SIZE);
        let before = std::mem::replace(&mut entry.nr_pages, nr_pages);
        nr_pages.cast_signed() - before.cast_signed()
    }

    /// Objects that are out.
    pub(super) fn nr_objects(&self, id: SlabCacheId) -> u64 {
        self.caches[id.index()].as_ref().map_or(0, |entry| entry.nr_objects)
    }

    /// Gives back all free memory of the cache of a removed group. Its frees are few and its next allocation will not
    /// come: what its sheaves hold would only keep slabs. The kernel deactivates such caches in the same way.
    pub(super) fn deactivate(&mut self, id: SlabCacheId) {
        if self.plan.sheaves == SheafMode::On {
            self.entry_mut(id).cache.shrink();
        }
    }

    /// Destroys a cache that has no objects out.
    pub(super) fn destroy(&mut self, id: SlabCacheId) {
        assert_eq!(self.nr_objects(id), 0, "a cache is destroyed after its objects");
        self.caches[id.index()] = None;
        self.vacant.push(id.0);
    }

    /// What all caches hold. O(caches).
    pub(super) fn held(&self) -> Held {
        let mut held = Held::default();
        for entry in self.caches.iter().flatten() {
            let stat = entry.cache.stat();
            held.nr_slabs += stat.nr_slabs;
            held.slab_bytes += stat.slab_bytes;
            held.owner_bytes += stat.owner_bytes;
            held.nr_caches += 1;
        }
        held
    }

    fn entry_mut(&mut self, id: SlabCacheId) -> &mut Entry {
        self.caches[id.index()].as_mut().expect("ids of destroyed caches are forgotten")
    }
}
