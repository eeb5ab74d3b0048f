//! `tracking-allocator` over mimalloc v3, with a tracker as its users write it: two atomic additions a pair, in a counter
//! of the group.
#![expect(unsafe_code, reason = "several threads in one group, for which the crate has no safe way")]

use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicI64, Ordering};

use mimalloc::MiMalloc;
use tracking_allocator::{AllocationGroupId, AllocationGroupToken, AllocationRegistry, AllocationTracker, Allocator};

use crate::object::Object;

#[global_allocator]
static GLOBAL: Allocator<MiMalloc> = Allocator::from_allocator(MiMalloc);

const NR_COUNTERS: usize = 8192;

/// A counter with a cache line of its own.
#[repr(align(64))]
struct Counter(AtomicI64);

static COUNTERS: [Counter; NR_COUNTERS] = [const { Counter(AtomicI64::new(0)) }; NR_COUNTERS];

struct Tracker;

impl AllocationTracker for Tracker {
    fn allocated(&self, _addr: usize, object_size: usize, _wrapped_size: usize, group: AllocationGroupId) {
        counter(&group).fetch_add(object_size as i64, Ordering::Relaxed);
    }

    fn deallocated(
        &self,
        _addr: usize,
        object_size: usize,
        _wrapped_size: usize,
        source: AllocationGroupId,
        _current: AllocationGroupId,
    ) {
        counter(&source).fetch_sub(object_size as i64, Ordering::Relaxed);
    }
}

fn counter(group: &AllocationGroupId) -> &'static AtomicI64 {
    &COUNTERS[group.as_usize().get() % NR_COUNTERS].0
}

/// The tracker's counter of a group follows an object.
pub(crate) fn prove() -> Result<String, String> {
    let group = Group::top()?;
    let object = group.scope(|| Object::new(1000));
    let counted = counter(&group.0.id()).load(Ordering::Relaxed);
    drop(object);
    let left = counter(&group.0.id()).load(Ordering::Relaxed);
    if counted != 1000 || left != 0 {
        return Err(format!("the tracker counted {counted} bytes of 1000 and {left} of none"));
    }
    Ok(format!("the tracker of a group counted {counted} B, and {left} B when they were freed"))
}

/// A group by its token.
pub(crate) struct Group(AllocationGroupToken);

impl Group {
    /// The first one starts the tracker.
    pub(crate) fn top() -> Result<Group, String> {
        static START: Once = Once::new();
        START.call_once(|| {
            AllocationRegistry::set_global_tracker(Tracker).expect("there is no other");
            AllocationRegistry::enable_tracking();
        });
        AllocationGroupToken::register().map(Group).ok_or_else(|| "no group left".to_owned())
    }

    /// The crate's groups are flat.
    pub(crate) fn child(&self, _nth: usize) -> Result<Group, String> {
        Group::top()
    }

    pub(crate) fn limit(&self, _max: u64) -> Result<(), String> {
        Err("tracking-allocator has no limits".to_owned())
    }

    #[inline(always)]
    pub(crate) fn scope<R>(&self, work: impl FnOnce() -> R) -> R {
        // SAFETY: a token is a number, nothing happens at its end, and its uses are independent of each other.
        let mut token = unsafe { ptr::read(&raw const self.0) };
        let _inside = token.enter();
        work()
    }
}
