//! Where a tenant's objects live.

use crate::object::Object;
use crate::rival::Group;

/// What gives a tenant its objects.
pub(super) trait Home: Sized + Send {
    type Object: Send;

    /// Whether a tenant has something of its own that is made and deleted.
    const COSTS: bool;

    /// Handles a request of the tenant: what it allocates is the tenant's.
    fn visit<R>(&self, work: impl FnOnce() -> R) -> R;

    /// An object of which each page is touched.
    fn alloc(&self, size: usize) -> Self::Object;

    fn free(&self, object: Self::Object);

    fn size(object: &Self::Object) -> usize;
}

/// The allocator that all tenants share.
pub(super) struct Shared;

/// The same, with a group of the tenant's that is charged.
pub(super) struct Grouped(pub(super) Group);

impl Home for Shared {
    type Object = Object;

    const COSTS: bool = false;

    #[inline(always)]
    fn visit<R>(&self, work: impl FnOnce() -> R) -> R {
        work()
    }

    #[inline(always)]
    fn alloc(&self, size: usize) -> Object {
        Object::new_touched(size)
    }

    #[inline(always)]
    fn free(&self, object: Object) {
        drop(object);
    }

    fn size(object: &Object) -> usize {
        object.size()
    }
}

impl Home for Grouped {
    type Object = Object;

    const COSTS: bool = true;

    #[inline(always)]
    fn visit<R>(&self, work: impl FnOnce() -> R) -> R {
        self.0.scope(work)
    }

    #[inline(always)]
    fn alloc(&self, size: usize) -> Object {
        Shared.alloc(size)
    }

    #[inline(always)]
    fn free(&self, object: Object) {
        drop(object);
    }

    fn size(object: &Object) -> usize {
        object.size()
    }
}
