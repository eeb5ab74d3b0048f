//! Page-level accounting, as in Linux until 5.3.
//!
//! Each group has caches of its own, made when it first allocates of a kind. Each of their slab pages points at the group
//! and holds a reference on it. Removing the group moves nothing, so a single surviving object pins a page, the page
//! pins the group, and the group stays with all that it weighs: a *dying* group.
//!
//! The model: [`PageGroup::nr_pages`] is the reference count; it follows the pages of the group's caches, call by call.

use objcg_core::cpu::CpuId;

use super::slabs::{Object, SlabCacheId, SlabCaches};
use super::tree::GroupTree;
use super::{CachePlan, Controller, Held};
use crate::replay::ReplayError;
use crate::trace::{CacheId, GroupId};

/// A group pointer in every slab page.
pub struct PageLevel {
    slabs: SlabCaches,
    tree: GroupTree,
    groups: Vec<PageGroup>,
    /// By slab cache: the group that its pages point at.
    page_groups: Vec<GroupId>,
    nr_pinned: usize,
}

struct PageGroup {
    /// By [`CacheId`].
    caches: Vec<Option<SlabCacheId>>,
    /// References: one for each page of its slabs.
    nr_pages: i64,
    is_deleted: bool,
}

impl PageLevel {
    /// A controller with no group but the root.
    ///
    /// # Errors
    ///
    /// [`ReplayError::CreateGroup`] if the engine refuses the parent of all groups.
    pub fn new(plan: CachePlan) -> Result<PageLevel, ReplayError> {
        let slabs = SlabCaches::new(plan);
        let root = PageGroup::new(slabs.nr_planned());
        Ok(PageLevel { slabs, tree: GroupTree::new()?, groups: vec![root], page_groups: Vec::new(), nr_pinned: 0 })
    }

    fn cache_of(&mut self, cache: CacheId, group: GroupId) -> Result<SlabCacheId, ReplayError> {
        if let Some(id) = self.groups[group.index()].caches[cache.index()] {
            return Ok(id);
        }
        let id = self.slabs.create(cache)?;
        self.groups[group.index()].caches[cache.index()] = Some(id);
        if self.page_groups.len() <= id.index() {
            self.page_groups.resize(id.index() + 1, GroupId::ROOT);
        }
        self.page_groups[id.index()] = group;
        Ok(id)
    }

    /// Takes a reference for each page that came, drops one for each that went.
    fn settle(&mut self, id: SlabCacheId, group: GroupId) {
        let delta = self.slabs.settle_pages(id);
        if delta != 0 {
            self.groups[group.index()].nr_pages += delta;
        }
    }

    /// Lets a removed group go if no page holds it.
    fn release(&mut self, group: GroupId) -> Result<(), ReplayError> {
        let state = &mut self.groups[group.index()];
        if state.nr_pages > 0 {
            return Ok(());
        }
        for id in state.caches.iter_mut().filter_map(Option::take) {
            self.slabs.destroy(id);
        }
        self.nr_pinned -= 1;
        self.tree.delete(group)
    }
}

impl Controller for PageLevel {
    fn create_group(&mut self, group: GroupId) -> Result<(), ReplayError> {
        self.tree.create(group)?;
        debug_assert_eq!(self.groups.len(), group.index());
        self.groups.push(PageGroup::new(self.slabs.nr_planned()));
        Ok(())
    }

    fn delete_group(&mut self, group: GroupId) -> Result<(), ReplayError> {
        self.groups[group.index()].is_deleted = true;
        self.nr_pinned += 1;
        for cache in 0..self.slabs.nr_planned() {
            if let Some(id) = self.groups[group.index()].caches[cache] {
                self.slabs.deactivate(id);
                self.settle(id, group);
            }
        }
        self.release(group)
    }

    fn alloc(&mut self, cpu: CpuId, cache: CacheId, owner: GroupId) -> Result<Object, ReplayError> {
        let id = self.cache_of(cache, owner)?;
        let object = self.slabs.alloc(id, cpu)?;
        self.settle(id, owner);
        Ok(object)
    }

    fn free(&mut self, cpu: CpuId, object: Object) {
        let id = object.cache();
        let group = self.page_groups[id.index()];
        self.slabs.free(cpu, object);
        if !self.groups[group.index()].is_deleted {
            self.settle(id, group);
            return;
        }
        self.slabs.deactivate(id);
        self.settle(id, group);
        self.release(group).expect("a pinned group has neither children nor a second owner");
    }

    fn held(&self) -> Held {
        self.slabs.held()
    }

    fn nr_pinned(&self) -> usize {
        self.nr_pinned
    }
}

impl PageGroup {
    fn new(nr_caches: usize) -> PageGroup {
        PageGroup { caches: vec![None; nr_caches], nr_pages: 0, is_deleted: false }
    }
}
