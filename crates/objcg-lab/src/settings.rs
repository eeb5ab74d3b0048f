//! How a trace is replayed: which controllers, which objects, on which slabs.

use serde::Serialize;

/// One of the three historic schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControllerKind {
    /// Caches of their own for each group; every slab page holds a reference on its group.
    PageLevel,
    /// Caches of their own for each group, made on demand and destroyed by reference count.
    CacheLevel,
    /// Shared caches, each object charged by itself.
    ObjectLevel,
}

impl ControllerKind {
    /// In the order of their history.
    pub const ALL: [ControllerKind; 3] =
        [ControllerKind::PageLevel, ControllerKind::CacheLevel, ControllerKind::ObjectLevel];

    /// As it is written in options and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ControllerKind::PageLevel => "page-level",
            ControllerKind::CacheLevel => "cache-level",
            ControllerKind::ObjectLevel => "object-level",
        }
    }
}

/// Which of the trace's slab objects are replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Those that are charged: accounted, and of a cgroup.
    #[default]
    Charged,
    /// All. Under per-group caches the uncharged ones live in root caches.
    All,
}

impl Scope {
    /// The default first.
    pub const ALL: [Scope; 2] = [Scope::Charged, Scope::All];

    /// As it is written in options and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scope::Charged => "charged",
            Scope::All => "all",
        }
    }
}

/// Whose slabs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Geometry {
    /// The recording kernel's: pages and objects per slab from the trace's metadata.
    #[default]
    Kernel,
    /// The engine's own choice for the size of the slot.
    Engine,
}

impl Geometry {
    /// The default first.
    pub const ALL: [Geometry; 2] = [Geometry::Kernel, Geometry::Engine];

    /// As it is written in options and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Geometry::Kernel => "kernel",
            Geometry::Engine => "engine",
        }
    }
}

/// Whether CPUs keep free objects at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SheafMode {
    /// As in production: per-CPU sheaves, a barn, an empty slab kept.
    #[default]
    On,
    /// First fit: the lowest partial slab serves, and an empty slab goes back at once.
    Off,
}

impl SheafMode {
    /// The default first.
    pub const ALL: [SheafMode; 2] = [SheafMode::On, SheafMode::Off];

    /// As it is written in options and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SheafMode::On => "on",
            SheafMode::Off => "off",
        }
    }
}

/// The terms of one replay. The default is the lab's question: charged objects, the kernel's slabs, as in production.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Which objects.
    pub scope: Scope,
    /// Whose slabs.
    pub geometry: Geometry,
    /// Per-CPU sheaves, or first fit.
    pub sheaves: SheafMode,
}
