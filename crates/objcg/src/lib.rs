//! A global allocator that knows who holds the memory.
//!
//! Groups ([`Memcg`]) form a tree. While a thread is inside a group, every object that it allocates is charged to the
//! group and all its ancestors: exactly, object by object, whichever thread frees it later. Groups have limits, which no
//! charge can overrun; a deleted group is gone at once and what it left behind is its parent's. All groups share the same
//! slabs, so a thousand tenants cost no more memory than one.
//!
//! ```
//! use objcg::{Memcg, Objcg};
//!
//! #[global_allocator]
//! static GLOBAL: Objcg = Objcg;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let tenant = Memcg::root().create("tenant")?;
//!     tenant.set_max(Some(1 << 20))?;
//!
//!     let rows = tenant.scope(|| vec![0u8; 100_000]);
//!     assert!(tenant.usage() >= 100_000);
//!
//!     // Over the limit an allocation fails, and nobody else notices.
//!     let refused = tenant.scope(|| Vec::<u8>::new().try_reserve_exact(2 << 20));
//!     assert!(refused.is_err());
//!
//!     drop(rows); // from any thread, in any group: the tenant gets its bytes back
//!     tenant.drain();
//!     assert_eq!(tenant.usage(), 0);
//!     Ok(())
//! }
//! ```
//!
//! # Limits
//!
//! Before a charge passes [`max`](Memcg::set_max), the [shrinkers](Memcg::register_shrinker) of caches run. If that is not enough,
//! [`OomPolicy::Kill`], the default, grants a bounded [reserve](Memcg::reserve) and marks a group, whose code learns it from
//! [`checkpoint`] or [`Memcg::killed`]; [`OomPolicy::Fail`], or what does not fit the reserve, gives a null. Above
//! [`high`](Memcg::set_high) nothing fails: [`throttle`] and [`Memcg::below_high`] hold back.
//!
//! # Per-CPU memory
//!
//! [`PerCpu`] has a value for each CPU, [`PerCpuCounter`] counts without a shared cache line; both are charged like objects.
//!
//! # Cost
//!
//! An object costs its size class plus 4 bytes of owner while it belongs to a group. Outside every group an allocation
//! pays one compare. A group costs 288 bytes, charged to its parent.

#![deny(unsafe_code)]

mod adopt;
#[cfg(feature = "allocator-api2")]
mod allocator;
mod external;
mod global;
mod in_memcg;
mod limits;
mod memcg;
mod notify;
mod percpu;
mod shrinker;
pub mod thread;
#[cfg(feature = "tokio")]
pub mod tokio;
mod unwind;

pub use adopt::{Adopt, AdoptError};
pub use external::{ExternalCharge, ExternalError};
pub use global::Objcg;
#[cfg(feature = "stream")]
pub use in_memcg::StreamExt;
pub use in_memcg::{FutureExt, InMemcg};
pub use limits::{
    EventFd, OomKilled, OomPolicy, OomScope, PeakReader, ReviveError, checkpoint, max_throttle_delay, nofail,
    set_max_throttle_delay, throttle,
};
pub use memcg::{
    CreateError, DeleteError, Entered, EnteredOwned, Events, LimitError, Memcg, MemcgStat, NameError, Refused,
};
pub use notify::{BelowHigh, EventsChanged, Killed};
pub use objcg_core::cpu::{CpuId, nr_cpus};
pub use objcg_core::memcg::{nr_dying, nr_groups, nr_vessels};
pub use objcg_core::stat::stock_bound;
pub use percpu::{AllocError, PerCpu, PerCpuCounter, Zeroable};
pub use shrinker::{ReclaimContext, ShrinkControl, Shrinker};
