//! The three historic schemes behind one trait.
//!
//! A [`Controller`] owns slabs of the engine and decides which caches objects come from and what holds a group. They
//! differ in nothing else: the same `slabs` below, the same engine groups in `tree`, the same rows from above.
//! Each runs on one thread; the CPU of a row picks the sheaf.

use objcg_core::cpu::CpuId;

use crate::geometry::SlabShape;
use crate::replay::ReplayError;
use crate::settings::SheafMode;
use crate::trace::{CacheId, GroupId};

mod cache_level;
mod object_level;
mod page_level;
mod percpu;
mod slabs;
mod tree;

pub use cache_level::CacheLevel;
pub use object_level::ObjectLevel;
pub use page_level::PageLevel;
pub use percpu::PercpuObject;
pub use slabs::Object;

/// An accounting scheme at work on the engine's slabs.
pub trait Controller {
    /// Creates a group under the root.
    ///
    /// # Errors
    ///
    /// [`ReplayError::CreateGroup`] if the engine refuses.
    fn create_group(&mut self, group: GroupId) -> Result<(), ReplayError>;

    /// Removes a group. Its objects stay where they are.
    ///
    /// # Errors
    ///
    /// [`ReplayError::DeleteGroup`] if the engine refuses.
    fn delete_group(&mut self, group: GroupId) -> Result<(), ReplayError>;

    /// Allocates an object of `cache`, charged to `owner`; not charged if that is the root.
    ///
    /// # Errors
    ///
    /// [`ReplayError::OutOfMemory`], or [`ReplayError::CreateCache`] where a cache is made on demand.
    fn alloc(&mut self, cpu: CpuId, cache: CacheId, owner: GroupId) -> Result<Object, ReplayError>;

    /// Frees an object of this controller.
    fn free(&mut self, cpu: CpuId, object: Object);

    /// Allocates `nr_bytes` of per-CPU memory for `owner`. It lies scattered over many pages, a little on each, which groups
    /// share: who charges pages or caches cannot charge it, and this is what those do.
    ///
    /// # Errors
    ///
    /// [`ReplayError::Percpu`].
    fn alloc_percpu(&mut self, nr_bytes: u32, owner: GroupId) -> Result<PercpuObject, ReplayError> {
        let _nobody_is_charged = owner;
        PercpuObject::alloc(nr_bytes, false)
    }

    /// What is held now. O(caches).
    fn held(&self) -> Held;

    /// Groups that are removed and not yet gone. O(caches).
    fn nr_pinned(&self) -> usize;
}

/// What a controller's slabs hold, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Slabs.
    pub nr_slabs: u64,
    /// Their pages.
    pub slab_bytes: u64,
    /// Owner vectors.
    pub owner_bytes: u64,
    /// Caches.
    pub nr_caches: u64,
}

impl Held {
    /// Slab pages and owner vectors.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.slab_bytes + self.owner_bytes
    }
}

/// The caches that a controller is to offer, by [`CacheId`], and how they keep free objects.
///
/// # Examples
///
/// A controller can be driven by hand:
///
/// ```
/// use objcg_core::cpu::CpuId;
/// use objcg_lab::controller::{CacheShape, CachePlan, Controller, PageLevel};
/// use objcg_lab::{SheafMode, trace::{CacheId, GroupId}};
///
/// let plan = CachePlan { caches: vec![CacheShape { slot: 192, slab: None }], sheaves: SheafMode::Off };
/// let mut scheme = PageLevel::new(plan)?;
/// scheme.create_group(GroupId(1))?;
/// let object = scheme.alloc(CpuId::fold(0), CacheId(0), GroupId(1))?;
/// scheme.delete_group(GroupId(1))?;
/// assert_eq!(scheme.nr_pinned(), 1);
/// scheme.free(CpuId::fold(0), object);
/// assert_eq!(scheme.nr_pinned(), 0);
/// # Ok::<(), objcg_lab::ReplayError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachePlan {
    /// The caches.
    pub caches: Vec<CacheShape>,
    /// Per-CPU sheaves, or first fit.
    pub sheaves: SheafMode,
}

/// One cache to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Bytes of a slot.
    pub slot: u32,
    /// The slab's shape; the engine's own choice if `None`.
    pub slab: Option<SlabShape>,
}
