//! The three historic kernel memory controllers, side by side on recorded traces.
//!
//! A [`Trace`] is a kernel's slab allocations and frees with the cgroup that each belongs to. [`compare`] replays it on
//! the engine's real slabs under page-level, cache-level and object-level accounting (see [`controller`]) and reports
//! what each held when most charged bytes were live, what it pinned, and how long it took. The definitions are in
//! `docs/design/lab.md`.
//!
//! Below: `objcg-core`, the engine. Above: `objcg-cli`, which prints and plots.
#![deny(unsafe_code)]

pub mod controller;
pub mod geometry;
pub mod trace;

mod compare;
mod info;
mod plan;
mod replay;
mod rss;
mod settings;

pub use compare::{Comparison, ControllerReport, Progress, Report, Series, TraceReport, compare};
pub use geometry::{GeometryTable, SlabShape};
pub use info::{CacheInfo, TraceInfo};
pub use plan::{ChargedPeak, NotReplayed};
pub use replay::{ReplayError, Sample};
pub use settings::{ControllerKind, Geometry, Scope, Settings, SheafMode};
pub use trace::{Fault, Trace, TraceError};
