//! The objcg engine: slab caches shared by all groups, charged object by object.
//!
//! This crate is what the `objcg` crate, the `malloc` library and the lab stand on; programs use `objcg`. It brings the
//! Linux kernel's object-level memory accounting into a process: one set of slab caches for all groups, an owner id an
//! object in a vector beside the slab, bytes charged ahead in per-CPU stocks, and deleted groups that leave nothing but a
//! vessel of 32 bytes while something is charged to it.
//!
//! ```
//! use objcg_core::{kmalloc, memcg::Memcg};
//!
//! let tenant = Memcg::root().create("tenant")?;
//! let inside = tenant.enter();
//! let memory = kmalloc::alloc(100, 8).expect("out of memory");
//! drop(inside);
//! assert_eq!(tenant.stat().slab_objects, 1);
//! // SAFETY: the memory came from `kmalloc::alloc` and is not used any more.
//! unsafe { kmalloc::free(memory) };
//! assert_eq!(tenant.stat().slab_objects, 0);
//! # Ok::<(), objcg_core::memcg::CreateError>(())
//! ```
//!
//! Layers, lowest first: `sync`, `os`, `report`, `faults`, `options`, `hardening`, `cpu`, `size_class`, `page_alloc`, `table`, `memcg`, `slab`, `hooks`,
//! `kmem_cache`, `kmalloc`, `percpu`, `stat`, `fork`. A file uses its own layer and lower ones. `ARCHITECTURE.md` is the map.
//!
//! Under `--cfg loom` only the protocols that have models are compiled.

#![cfg_attr(not(loom), no_std)]
#![deny(unsafe_code)]
#![cfg_attr(loom, allow(dead_code, unused_imports, reason = "models use a part of what their files have"))]

#[cfg(test)]
extern crate std;

#[cfg(not(loom))]
pub mod cpu;
#[cfg(not(loom))]
pub mod faults;
#[cfg(not(loom))]
mod fork;
#[cfg(not(loom))]
mod hardening;
#[cfg(not(loom))]
mod hooks;
#[cfg(not(loom))]
pub mod kmalloc;
#[cfg(not(loom))]
pub mod kmem_cache;
#[cfg(not(loom))]
pub mod memcg;
#[cfg(not(loom))]
pub mod options;
#[cfg(not(loom))]
mod os;
#[cfg(not(loom))]
mod page_alloc;
pub mod percpu;
mod report;
#[cfg(not(loom))]
mod size_class;
#[cfg(not(loom))]
mod slab;
#[cfg(not(loom))]
pub mod stat;
mod sync;
mod table;

#[cfg(not(loom))]
pub use fork::nr_forks;
#[cfg(not(loom))]
pub use size_class::SlabGeometry;

/// The modules that have models, reachable without the statics of the modules around them.
#[cfg(loom)]
mod cpu {
    #[path = "afar.rs"]
    pub(crate) mod afar;
    #[path = "models.rs"]
    mod models;

    pub(crate) use models::{CpuId, nr_cpus};
}

/// As above.
#[cfg(loom)]
mod memcg {
    #[path = "gate.rs"]
    pub(crate) mod gate;
    #[cfg(test)]
    #[path = "models.rs"]
    mod models;
    #[path = "objcg.rs"]
    pub(crate) mod objcg;
    #[path = "page_counter.rs"]
    pub(crate) mod page_counter;
    #[path = "pin.rs"]
    pub(crate) mod pin;
    #[path = "signal.rs"]
    pub(crate) mod signal;
    #[path = "stock.rs"]
    pub(crate) mod stock;
}

/// As above.
#[cfg(loom)]
mod slab {
    #[path = "barn.rs"]
    pub(crate) mod barn;
    #[path = "obj_exts.rs"]
    pub(crate) mod obj_exts;
}

/// What stands for layers that have no models, below one that has.
#[cfg(loom)]
#[path = "hooks/models.rs"]
mod hooks;
#[cfg(loom)]
#[path = "os/models.rs"]
mod os;
