//! The index of names: (parent, name) → group, one hash table chained through the groups' slots.
//!
//! Guarded by the tree lock. Buckets are the engine's own pages; they double when there are as many groups as buckets.

#![expect(unsafe_code, reason = "buckets are an array in the engine's own pages")]

use core::slice;

use super::name::Name;
use super::node::{ROOT, node};
use crate::os::PAGE_SIZE;
use crate::page_alloc::{self, Run, Touches};
use crate::sync::{AtomicU32, Ordering};

const PER_PAGE: usize = PAGE_SIZE / size_of::<AtomicU32>();

pub(super) struct NameIndex {
    buckets: &'static [AtomicU32],
    run: Option<Run>,
    nr_groups: usize,
}

impl NameIndex {
    pub(super) const EMPTY: NameIndex = NameIndex { buckets: &[], run: None, nr_groups: 0 };

    pub(super) fn nr_groups(&self) -> usize {
        self.nr_groups
    }

    /// The child of `parent` of that name.
    pub(super) fn find(&self, parent: u32, name: &Name) -> Option<u32> {
        let hash = name.hash(parent);
        let mut at = self.bucket(hash)?.load(Ordering::Relaxed);
        while at != ROOT {
            let found = node(at);
            if found.hash.load(Ordering::Relaxed) == hash
                && found.parent.load(Ordering::Relaxed) == parent
                && found.name().as_bytes() == name.as_bytes()
            {
                return Some(at);
            }
            at = found.hash_next.load(Ordering::Relaxed);
        }
        None
    }

    /// Adds a group whose `parent` is set; false without memory for the first buckets.
    pub(super) fn insert(&mut self, idx: u32, name: &Name) -> bool {
        if self.nr_groups >= self.buckets.len() {
            self.grow();
        }
        let added = node(idx);
        let hash = name.hash(added.parent.load(Ordering::Relaxed));
        let Some(bucket) = self.bucket(hash) else { return false };
        added.hash.store(hash, Ordering::Relaxed);
        added.hash_next.store(bucket.load(Ordering::Relaxed), Ordering::Relaxed);
        bucket.store(idx, Ordering::Relaxed);
        self.nr_groups += 1;
        true
    }

    pub(super) fn remove(&mut self, idx: u32) {
        let removed = node(idx);
        let Some(bucket) = self.bucket(removed.hash.load(Ordering::Relaxed)) else { return };
        let mut link = bucket;
        while link.load(Ordering::Relaxed) != idx {
            link = &node(link.load(Ordering::Relaxed)).hash_next;
        }
        link.store(removed.hash_next.load(Ordering::Relaxed), Ordering::Relaxed);
        self.nr_groups -= 1;
    }

    fn bucket(&self, hash: u32) -> Option<&'static AtomicU32> {
        // The length is a power of two.
        self.buckets.get(hash as usize & self.buckets.len().wrapping_sub(1))
    }

    /// Doubles the buckets. Without memory the chains just get longer.
    fn grow(&mut self) {
        let nr_buckets = (self.buckets.len() * 2).max(PER_PAGE);
        let Ok(nr_pages) = u32::try_from(nr_buckets / PER_PAGE) else { return };
        let Some(run) = page_alloc::alloc_zeroed(nr_pages) else { return };
        // SAFETY: the run is ours alone and has that many bytes; zeroed memory is an array of atomics; it lives until the next growth, under the tree lock.
        let buckets = unsafe { slice::from_raw_parts(run.address().cast::<AtomicU32>().as_ptr(), nr_buckets) };
        let old = core::mem::replace(&mut self.buckets, buckets);
        for chain in old {
            let mut at = chain.load(Ordering::Relaxed);
            while at != ROOT {
                let moved = node(at);
                let next = moved.hash_next.load(Ordering::Relaxed);
                if let Some(bucket) = self.bucket(moved.hash.load(Ordering::Relaxed)) {
                    moved.hash_next.store(bucket.load(Ordering::Relaxed), Ordering::Relaxed);
                    bucket.store(at, Ordering::Relaxed);
                }
                at = next;
            }
        }
        if let Some(old_run) = self.run.replace(run) {
            page_alloc::free(old_run, Touches::All);
        }
    }
}
