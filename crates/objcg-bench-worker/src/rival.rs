//! The allocator that this worker was built with. Exactly one module is compiled: it sets the global allocator.
//!
//! A module gives `prove`, which shows by the allocator's own symbols or statistics that it serves, and
//! `Group`: something to be charged, with the one of `ungrouped` for who has none. Who has heaps or arenas to give away
//! has a `Heap` as well.

#[cfg(feature = "accounting-allocator")]
mod accounting_allocator;
#[cfg(feature = "cap")]
mod cap;
#[cfg(feature = "glibc")]
mod glibc;
#[cfg(feature = "header")]
mod header;
#[cfg(feature = "jemalloc")]
mod jemalloc;
#[cfg(any(feature = "mimalloc-v2", feature = "mimalloc-v3"))]
mod mimalloc;
#[cfg(feature = "objcg")]
mod objcg;
#[cfg(feature = "rpmalloc")]
mod rpmalloc;
#[cfg(feature = "snmalloc")]
mod snmalloc;
#[cfg(feature = "stats_alloc")]
mod stats_alloc;
#[cfg(feature = "tracking-allocator")]
mod tracking_allocator;
#[cfg(not(any(feature = "header", feature = "objcg", feature = "tracking-allocator")))]
mod ungrouped;

#[cfg(feature = "accounting-allocator")]
pub(crate) use self::accounting_allocator::prove;
#[cfg(feature = "cap")]
pub(crate) use self::cap::prove;
#[cfg(feature = "glibc")]
pub(crate) use self::glibc::prove;
#[cfg(feature = "header")]
pub(crate) use self::header::{Group, prove};
#[cfg(feature = "jemalloc")]
pub(crate) use self::jemalloc::{Heap, prove};
#[cfg(any(feature = "mimalloc-v2", feature = "mimalloc-v3"))]
pub(crate) use self::mimalloc::{Heap, prove};
#[cfg(feature = "objcg")]
pub(crate) use self::objcg::{Group, prove};
#[cfg(feature = "rpmalloc")]
pub(crate) use self::rpmalloc::prove;
#[cfg(feature = "snmalloc")]
pub(crate) use self::snmalloc::prove;
#[cfg(feature = "stats_alloc")]
pub(crate) use self::stats_alloc::prove;
#[cfg(feature = "tracking-allocator")]
pub(crate) use self::tracking_allocator::{Group, prove};
#[cfg(not(any(feature = "header", feature = "objcg", feature = "tracking-allocator")))]
pub(crate) use self::ungrouped::Group;

use crate::protocol::Mode;

/// A limit that no workload comes near.
const FAR_AWAY: u64 = 1 << 40;

/// The group that a mode asks for; `None` to stay outside every group.
pub(crate) fn group_of(mode: Mode) -> Result<Option<Group>, String> {
    match mode {
        Mode::Off => Ok(None),
        Mode::On => Ok(Some(Group::top()?)),
        Mode::Limit => {
            let parent = Group::top()?;
            parent.limit(FAR_AWAY)?;
            let group = parent.child(0)?;
            group.limit(FAR_AWAY)?;
            // The parent lives as long as the child; its handle may go.
            Ok(Some(group))
        }
        Mode::Heaps => Err("this workload knows no heaps".to_owned()),
    }
}

/// Runs `work` inside `group`, if there is one.
#[inline(always)]
pub(crate) fn within<R>(group: Option<&Group>, work: impl FnOnce() -> R) -> R {
    match group {
        Some(group) => group.scope(work),
        None => work(),
    }
}
