//! Groups of an allocator that has none: there never is one.

/// Cannot be made.
pub(crate) enum Group {}

impl Group {
    pub(crate) fn top() -> Result<Group, String> {
        Err("this allocator has no groups".to_owned())
    }

    pub(crate) fn child(&self, _nth: usize) -> Result<Group, String> {
        match *self {}
    }

    pub(crate) fn limit(&self, _max: u64) -> Result<(), String> {
        match *self {}
    }

    pub(crate) fn scope<R>(&self, _work: impl FnOnce() -> R) -> R {
        match *self {}
    }
}
