//! Typed caches: objects of one size of the user's choice, in slabs of their own, charged like any other.

#![expect(unsafe_code, reason = "objects come back as addresses that the user vouches for")]

use core::fmt;
use core::ptr::NonNull;

use crate::cpu::CpuId;
use crate::os::PAGE_SIZE;
use crate::report::die;
use crate::size_class::{MAX_SIZE, SlabGeometry};
use crate::slab::{self, Cache, SlabObject};

pub use crate::slab::CacheStat;

/// The smallest object: a free one carries a mark of 8 bytes.
const MIN_SIZE: usize = 8;
/// Slabs above this would outgrow the arithmetic of object numbers.
const MAX_SLAB_PAGES: u32 = 128;

/// Whether a cache keeps free objects on the CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sheaves {
    /// Two sheaves a CPU, sized by the object.
    #[default]
    Auto,
    /// None: every call goes to the slabs, lowest address first. For measurements.
    Off,
}

/// What a cache is to be.
///
/// ```
/// use objcg_core::kmem_cache::{CacheConfig, KmemCache};
///
/// let cache = KmemCache::create(&CacheConfig { align: 64, ..CacheConfig::new(192) })?;
/// let object = cache.alloc().expect("out of memory");
/// // SAFETY: the object came from this cache and is not used any more.
/// unsafe { cache.free(object) };
/// # Ok::<(), objcg_core::kmem_cache::CreateCacheError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CacheConfig {
    /// Bytes of an object, at least 8; rounded up to the alignment.
    pub size: usize,
    /// Alignment of an object, a power of two from 8 to 4096.
    pub align: usize,
    /// How a slab is cut; `None` for the engine's choice.
    pub geometry: Option<SlabGeometry>,
    /// Whether free objects are kept on the CPUs.
    pub sheaves: Sheaves,
    /// Empty slabs that are kept before pages are given back.
    pub keep_empty: u32,
}

impl CacheConfig {
    /// Objects of `size` bytes, aligned to 8.
    #[must_use]
    pub fn new(size: usize) -> CacheConfig {
        CacheConfig { size, align: 8, geometry: None, sheaves: Sheaves::Auto, keep_empty: 1 }
    }
}

/// Why a cache cannot be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateCacheError {
    /// The size is under 8 bytes or, without a geometry, over 32 KiB.
    Size,
    /// The alignment is not a power of two from 8 to 4096.
    Align,
    /// The geometry has no object, no page, more than 128 pages, or objects that do not fit its pages.
    Geometry,
    /// The process is out of memory, or has some 65,000 caches already: there is an entry for so many in the table that a free looks up.
    NoMemory,
}

impl fmt::Display for CreateCacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CreateCacheError::Size => "the size of an object must be from 8 bytes to 32 KiB",
            CreateCacheError::Align => "the alignment must be a power of two from 8 to 4096",
            CreateCacheError::Geometry => "the objects do not fit a slab of at most 128 pages",
            CreateCacheError::NoMemory => "the process is out of memory, or has 65,000 caches",
        })
    }
}

impl core::error::Error for CreateCacheError {}

/// All slabs of one object size, shared by all groups (the kernel's `struct kmem_cache`).
///
/// Dropping it gives its memory back. If objects are still in use then, they stay valid and the memory stays held.
#[derive(Debug)]
pub struct KmemCache {
    idx: u32,
}

impl KmemCache {
    /// A new cache.
    ///
    /// # Errors
    /// See [`CreateCacheError`].
    pub fn create(config: &CacheConfig) -> Result<KmemCache, CreateCacheError> {
        if !config.align.is_power_of_two() || !(8..=PAGE_SIZE).contains(&config.align) {
            return Err(CreateCacheError::Align);
        }
        if config.size < MIN_SIZE || config.size > MAX_SLAB_PAGES as usize * PAGE_SIZE {
            return Err(CreateCacheError::Size);
        }
        let size = config.size.next_multiple_of(config.align);
        let geometry = match config.geometry {
            Some(geometry) => geometry,
            None if size > MAX_SIZE => return Err(CreateCacheError::Size),
            None => SlabGeometry::for_size(size),
        };
        let slab_bytes = geometry.pages as usize * PAGE_SIZE;
        let fits = geometry.objects > 0
            && geometry.pages <= MAX_SLAB_PAGES
            && (geometry.objects as usize).checked_mul(size).is_some_and(|nr_bytes| nr_bytes <= slab_bytes);
        if !fits {
            return Err(CreateCacheError::Geometry);
        }
        let with_sheaves = config.sheaves == Sheaves::Auto;
        let idx = Cache::create(size, geometry, with_sheaves, config.keep_empty).ok_or(CreateCacheError::NoMemory)?;
        Ok(KmemCache { idx })
    }

    fn cache(&self) -> &'static Cache {
        Cache::get(self.idx)
    }

    /// An object, charged to the current group; its bytes are not initialised. `None` if a limit refuses or the process
    /// is out of memory.
    #[inline]
    #[must_use]
    pub fn alloc(&self) -> Option<NonNull<u8>> {
        self.cache().alloc()
    }

    /// The same through the sheaves of a given CPU, wherever this thread runs.
    #[inline]
    #[must_use]
    pub fn alloc_on(&self, cpu: CpuId) -> Option<NonNull<u8>> {
        self.cache().alloc_on(cpu)
    }

    /// Gives an object back; its price returns to whoever was charged for it. Aborts on an address that no object of
    /// this cache has, and on a second free.
    ///
    /// # Safety
    /// The object came from this cache, and nothing uses it any more.
    #[inline]
    pub unsafe fn free(&self, object: NonNull<u8>) {
        Cache::free(self.find(object));
    }

    /// The same through the sheaves of a given CPU, wherever this thread runs.
    ///
    /// # Safety
    /// As for [`KmemCache::free`].
    #[inline]
    pub unsafe fn free_on(&self, cpu: CpuId, object: NonNull<u8>) {
        Cache::free_on(cpu, self.find(object));
    }

    fn find(&self, object: NonNull<u8>) -> SlabObject {
        let Some(found) = SlabObject::find(object) else {
            die!("{object:p}: freed to a cache, but no object starts there");
        };
        if !core::ptr::eq(found.cache(), self.cache()) {
            die!("{object:p}: freed to another cache than its own");
        }
        found
    }

    /// Bytes of an object, its alignment included.
    #[must_use]
    pub fn object_size(&self) -> usize {
        self.cache().size()
    }

    /// What the cache holds. O(1).
    #[must_use]
    pub fn stat(&self) -> CacheStat {
        self.cache().stat()
    }

    /// Empties the CPUs' sheaves and gives every empty slab back. Afterwards `stat().nr_objects` is the number of live
    /// objects, if nobody else is at work.
    pub fn shrink(&self) {
        self.cache().shrink_to(0);
    }
}

impl Drop for KmemCache {
    fn drop(&mut self) {
        // With objects still in use nothing is destroyed: their descriptors go on naming a valid cache.
        let _destroyed = Cache::destroy(self.idx);
    }
}

/// Takes the locks of all typed caches for a `fork`.
pub(crate) fn hold_for_fork() {
    Cache::hold_table_for_fork();
    slab::typed_caches().for_each(Cache::hold_for_fork);
}

/// Gives back what [`hold_for_fork`] took.
pub(crate) fn release_after_fork() {
    slab::typed_caches().rev().for_each(Cache::release_after_fork);
    Cache::release_table_after_fork();
}
