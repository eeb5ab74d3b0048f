//! Cache-level accounting, as in Linux 5.3 to 5.8.
//!
//! Each group has caches of its own, as under [`super::PageLevel`], but pages point at their cache and only the cache
//! points at the group. Removing the group swaps that pointer to the parent in each of its caches; a cache is
//! destroyed when its group is gone and its last object is freed. Nothing pins a group; the half-empty slabs stay.

use std::collections::HashSet;

use objcg_core::cpu::CpuId;

use super::slabs::{Object, SlabCacheId, SlabCaches};
use super::tree::GroupTree;
use super::{CachePlan, Controller, Held};
use crate::replay::ReplayError;
use crate::trace::{CacheId, GroupId};

/// A group pointer in every cache.
pub struct CacheLevel {
    slabs: SlabCaches,
    tree: GroupTree,
    /// By group, by [`CacheId`].
    groups: Vec<Vec<Option<SlabCacheId>>>,
    /// By slab cache.
    holders: Vec<Holder>,
}

/// What a cache points at, and whether it is there for new objects or for its last ones.
#[derive(Clone, Copy)]
struct Holder {
    group: GroupId,
    is_inherited: bool,
}

impl CacheLevel {
    /// A controller with no group but the root.
    ///
    /// # Errors
    ///
    /// [`ReplayError::CreateGroup`] if the engine refuses the parent of all groups.
    pub fn new(plan: CachePlan) -> Result<CacheLevel, ReplayError> {
        let slabs = SlabCaches::new(plan);
        let root = vec![None; slabs.nr_planned()];
        Ok(CacheLevel { slabs, tree: GroupTree::new()?, groups: vec![root], holders: Vec::new() })
    }

    fn cache_of(&mut self, cache: CacheId, group: GroupId) -> Result<SlabCacheId, ReplayError> {
        if let Some(id) = self.groups[group.index()][cache.index()] {
            return Ok(id);
        }
        let id = self.slabs.create(cache)?;
        self.groups[group.index()][cache.index()] = Some(id);
        let holder = Holder { group, is_inherited: false };
        if self.holders.len() <= id.index() {
            self.holders.resize(id.index() + 1, holder);
        }
        self.holders[id.index()] = holder;
        Ok(id)
    }

    /// An inherited cache goes with its last object.
    fn put(&mut self, id: SlabCacheId) {
        if self.slabs.nr_objects(id) == 0 {
            self.slabs.destroy(id);
        } else {
            self.slabs.deactivate(id);
        }
    }
}

impl Controller for CacheLevel {
    fn create_group(&mut self, group: GroupId) -> Result<(), ReplayError> {
        self.tree.create(group)?;
        debug_assert_eq!(self.groups.len(), group.index());
        self.groups.push(vec![None; self.slabs.nr_planned()]);
        Ok(())
    }

    fn delete_group(&mut self, group: GroupId) -> Result<(), ReplayError> {
        for id in std::mem::take(&mut self.groups[group.index()]).into_iter().flatten() {
            self.holders[id.index()] = Holder { group: GroupId::ROOT, is_inherited: true };
            self.put(id);
        }
        self.tree.delete(group)
    }

    fn alloc(&mut self, cpu: CpuId, cache: CacheId, owner: GroupId) -> Result<Object, ReplayError> {
        let id = self.cache_of(cache, owner)?;
        self.slabs.alloc(id, cpu)
    }

    fn free(&mut self, cpu: CpuId, object: Object) {
        let id = object.cache();
        self.slabs.free(cpu, object);
        if self.holders[id.index()].is_inherited {
            self.put(id);
        }
    }

    fn held(&self) -> Held {
        self.slabs.held()
    }

    fn nr_pinned(&self) -> usize {
        let is_gone = |group: &GroupId| *group != GroupId::ROOT && self.tree.get(*group).is_none();
        self.holders.iter().map(|holder| holder.group).filter(is_gone).collect::<HashSet<_>>().len()
    }
}
