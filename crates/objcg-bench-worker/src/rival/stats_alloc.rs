//! `stats_alloc` over glibc: without nightly Rust it wraps nothing else in a static.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use crate::object::Object;

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The counters follow an object.
pub(crate) fn prove() -> Result<String, String> {
    let region = Region::new(GLOBAL);
    drop(Object::new(1000));
    let change = region.change();
    if change.bytes_allocated != 1000 || change.bytes_deallocated != 1000 {
        return Err(format!("stats_alloc counted {change:?}"));
    }
    Ok(format!("stats_alloc counted {} B of 1000 B", change.bytes_allocated))
}
