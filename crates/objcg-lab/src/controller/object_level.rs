//! Object-level accounting, as in Linux since 5.9: the engine itself, not a model of it.
//!
//! One set of caches serves all groups. A charged object is allocated inside its entered group and goes back to its
//! owner when it is freed, whoever that is by then. Removing the group hands its charges to the parent at once.

use objcg_core::cpu::CpuId;
use objcg_core::memcg;

use super::percpu::PercpuObject;
use super::slabs::{Object, SlabCacheId, SlabCaches};
use super::tree::GroupTree;
use super::{CachePlan, Controller, Held};
use crate::replay::ReplayError;
use crate::trace::{CacheId, GroupId};

/// An owner for every object.
pub struct ObjectLevel {
    slabs: SlabCaches,
    tree: GroupTree,
    /// By [`CacheId`].
    caches: Vec<Option<SlabCacheId>>,
}

impl ObjectLevel {
    /// A controller with no group but the root.
    ///
    /// # Errors
    ///
    /// [`ReplayError::CreateGroup`] if the engine refuses the parent of all groups.
    pub fn new(plan: CachePlan) -> Result<ObjectLevel, ReplayError> {
        let slabs = SlabCaches::new(plan);
        let caches = vec![None; slabs.nr_planned()];
        Ok(ObjectLevel { slabs, tree: GroupTree::new()?, caches })
    }

    /// Bytes charged to all groups, living and gone.
    #[must_use]
    pub fn usage(&self) -> u64 {
        self.tree.usage()
    }

    fn cache_of(&mut self, cache: CacheId) -> Result<SlabCacheId, ReplayError> {
        if let Some(id) = self.caches[cache.index()] {
            return Ok(id);
        }
        let id = self.slabs.create(cache)?;
        self.caches[cache.index()] = Some(id);
        Ok(id)
    }
}

impl Controller for ObjectLevel {
    fn create_group(&mut self, group: GroupId) -> Result<(), ReplayError> {
        self.tree.create(group)
    }

    fn delete_group(&mut self, group: GroupId) -> Result<(), ReplayError> {
        self.tree.delete(group)
    }

    fn alloc(&mut self, cpu: CpuId, cache: CacheId, owner: GroupId) -> Result<Object, ReplayError> {
        let id = self.cache_of(cache)?;
        let _entered = self.tree.get(owner).map(memcg::Memcg::enter);
        self.slabs.alloc(id, cpu)
    }

    fn free(&mut self, cpu: CpuId, object: Object) {
        self.slabs.free(cpu, object);
    }

    fn alloc_percpu(&mut self, nr_bytes: u32, owner: GroupId) -> Result<PercpuObject, ReplayError> {
        let entered = self.tree.get(owner).map(memcg::Memcg::enter);
        PercpuObject::alloc(nr_bytes, entered.is_some())
    }

    /// With the owner vectors that slabs share, which are the whole process's.
    fn held(&self) -> Held {
        let held = self.slabs.held();
        Held { owner_bytes: held.owner_bytes + objcg_core::stat::shared_owner_bytes(), ..held }
    }

    /// Asks the engine, which counts for the whole process: what runs beside this replay counts too.
    fn nr_pinned(&self) -> usize {
        memcg::nr_dying()
    }
}
