//! Groups, with what needs an allocator: paths and lists.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use objcg_core::memcg as engine;

pub use engine::{CreateError, DeleteError, Entered, EnteredOwned, Events, LimitError, NameError, Refused};
pub use objcg_core::stat::MemcgStat;

/// A counted handle to a group: a node of the tree, with a counter and a limit of its own.
///
/// The group lives while a handle, a guard or a child holds it; the end of the last one deletes it. What outlives it
/// becomes its parent's, at once and without a visit to any object. Handles are `Send` and `Sync`.
///
/// ```
/// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
/// use objcg::Memcg;
///
/// let server = Memcg::root().create("server")?;
/// let tenant = server.create("tenant-7")?;
/// assert_eq!(tenant.path(), "/server/tenant-7");
///
/// let survivor = tenant.scope(|| Box::new([0u8; 1000]));
/// tenant.delete()?;
/// assert_eq!(server.stat().slab_objects, 1); // the survivor is the parent's now
/// drop(survivor);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Memcg(pub(crate) engine::Memcg);

/// The root, for those who only look at it.
pub(crate) fn root() -> &'static Memcg {
    static ROOT: OnceLock<Memcg> = OnceLock::new();
    ROOT.get_or_init(|| {
        engine::Memcg::set_default_oom_policy(engine::OomPolicy::Kill);
        Memcg(engine::Memcg::root())
    })
}

impl Memcg {
    /// The root of the tree. Memory that is in no group is the root's; it is not counted and has no limit. The first call of this or of [`current`](Memcg::current)
    /// makes [`OomPolicy::Kill`](crate::OomPolicy::Kill) the process's default, unless it was set: in Rust a null from the
    /// allocator aborts the process.
    #[must_use]
    pub fn root() -> Memcg {
        root().clone()
    }

    /// A new child. Its own memory (288 bytes, 552 with a name over 56 bytes) is charged to this group. Under 2 µs
    /// together with its deletion.
    ///
    /// # Errors
    /// The name is empty, contains `/`, is longer than 255 bytes or taken; this group was deleted; or a limit leaves no
    /// room. Nothing is left of a refused group.
    pub fn create(&self, name: &str) -> Result<Memcg, CreateError> {
        self.0.create(name).map(Memcg)
    }

    /// The living child of that name.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<Memcg> {
        self.0.child(name).map(Memcg)
    }

    /// The living children, newest first.
    #[must_use]
    pub fn children(&self) -> Vec<Memcg> {
        let mut room: Vec<Option<engine::Memcg>> = Vec::new();
        loop {
            let nr_children = self.0.children(&mut room);
            if nr_children <= room.len() {
                return room.into_iter().flatten().map(Memcg).collect();
            }
            // Some more: others may create groups meanwhile.
            room.resize_with(nr_children + nr_children / 8, || None);
        }
    }

    /// The parent; `None` for the root and for a deleted group.
    #[must_use]
    pub fn parent(&self) -> Option<Memcg> {
        self.0.parent().map(Memcg)
    }

    /// The name; empty for the root.
    #[must_use]
    pub fn name(&self) -> String {
        self.0.name().as_str().to_owned()
    }

    /// The names from the root down, each after a `/`; of a deleted group only its own, after `(deleted)/`.
    #[must_use]
    pub fn path(&self) -> String {
        if self.is_deleted() {
            return format!("(deleted)/{}", self.0.name());
        }
        let mut names = Vec::new();
        let mut at = self.clone();
        while let Some(parent) = at.parent() {
            names.push(at.name());
            at = parent;
        }
        if at != Memcg::root() {
            // Deleted on the way.
            return format!("(deleted)/{}", self.0.name());
        }
        if names.is_empty() {
            return "/".to_owned();
        }
        names.iter().rev().fold(String::new(), |path, name| path + "/" + name)
    }

    /// The number of the group: unique among the groups that live or are held, reused later.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether the group was deleted, by a [`delete`](Memcg::delete) through another handle.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.0.is_deleted()
    }

    /// Deletes the group at once, whatever handles there are; they get errors from now on. What is charged to it becomes
    /// its parent's: O(1).
    ///
    /// # Errors
    /// It is the root, was deleted before, or has children.
    pub fn delete(&self) -> Result<(), DeleteError> {
        self.0.delete()
    }

    /// Bytes charged to the group and its descendants: live objects at the size of their slots, 4 bytes of owner each,
    /// child groups' own memory, and what the CPUs' stocks hold ready (at most [`stock_bound`](crate::stock_bound);
    /// [`drain`](Memcg::drain) gives it back). One load. 0 once the group is deleted.
    #[must_use]
    pub fn usage(&self) -> u64 {
        self.0.usage()
    }

    /// The most bytes that were charged at once. A charge that was refused leaves no peak.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.0.peak()
    }

    /// The limit in bytes; `None` without one.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.0.max()
    }

    /// Sets or lifts the limit: no charge takes usage over it from now on, in this group or below, but into the
    /// [`reserve`](Memcg::reserve) of a group that is marked to end. If usage is over it, stocks are drained and shrinkers run.
    /// Returns by how much usage is over it afterwards.
    ///
    /// # Errors
    /// It is the root, or was deleted.
    pub fn set_max(&self, max: Option<u64>) -> Result<u64, LimitError> {
        self.0.set_max(max)
    }

    /// The soft limit in bytes; `None` without one.
    #[must_use]
    pub fn high(&self) -> Option<u64> {
        self.0.high()
    }

    /// Sets or lifts the soft limit: it refuses nothing, but charges that leave usage above it are counted in
    /// [`events`](Memcg::events), and whoever calls [`throttle`](Memcg::throttle) is held back. Returns by how much usage is over
    /// it now.
    ///
    /// # Errors
    /// It is the root, or was deleted.
    pub fn set_high(&self, high: Option<u64>) -> Result<u64, LimitError> {
        self.0.set_high(high)
    }

    /// How often limits were met, by the group and its descendants, those deleted meanwhile among them: the kernel's
    /// `memory.events`. [`events_local`](Memcg::events_local) are the group's own.
    #[must_use]
    pub fn events(&self) -> Events {
        self.0.events()
    }

    /// Objects and bytes of the group and its descendants by kind, found by looking at the whole heap, independent of
    /// the counters: at a quiet point `usage() == stat().total_bytes()`. Linear in the heap.
    #[must_use]
    pub fn stat(&self) -> MemcgStat {
        self.0.stat()
    }

    /// Gives back what the CPUs' stocks hold ready for the group and its descendants. Microseconds.
    pub fn drain(&self) {
        self.0.drain();
    }

    /// Makes this the group that the thread's new objects are charged to, until the guard is dropped. Guards nest, and
    /// are dropped in the reverse order. In a deleted group new objects are its nearest living ancestor's. Do not leak a
    /// guard: once its group is gone, the thread's objects may be charged to a group that has nothing to do with it.
    #[inline]
    pub fn enter(&self) -> Entered<'_> {
        self.0.enter()
    }

    /// As [`enter`](Memcg::enter), with a guard that holds the handle: it can be kept anywhere in the thread, and left out of
    /// order by [`leave_below`](EnteredOwned::leave_below).
    ///
    /// A guard that is just dropped before one that was made later has the later one's drop bring its group back: then the thread
    /// charges to that group until it enters another, and once the group has ended to whoever gets its place.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use objcg::Memcg;
    ///
    /// let outer = Memcg::root().create("outer")?.enter_owned();
    /// let mut inner = Memcg::root().create("inner")?.enter_owned();
    /// outer.leave_below(&mut inner);
    /// assert_eq!(Memcg::current().name(), "inner");
    /// drop(inner);
    /// assert_eq!(Memcg::current(), Memcg::root());
    /// # Ok::<(), objcg::CreateError>(())
    /// ```
    pub fn enter_owned(self) -> EnteredOwned {
        self.0.enter_owned()
    }

    /// The group that this thread's new objects are charged to: the one that was entered last, the root if none; in a deleted
    /// group its nearest living ancestor. A few atomic operations.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use objcg::Memcg;
    ///
    /// let tenant = Memcg::root().create("tenant")?;
    /// assert_eq!(tenant.scope(Memcg::current), tenant);
    /// # Ok::<(), objcg::CreateError>(())
    /// ```
    #[must_use]
    pub fn current() -> Memcg {
        // It may be the first group that the program gets, whose default policy this sets.
        let _root = root();
        Memcg(engine::Memcg::current())
    }

    /// [`throttle_delay`](Memcg::throttle_delay) after stocks and shrinkers gave back what they can.
    pub(crate) fn throttle_delay_after_reclaim(&self) -> Option<Duration> {
        self.0.throttle_delay_after_reclaim()
    }

    /// Runs `work` inside the group. A panic leaves the group as well.
    #[inline]
    pub fn scope<R>(&self, work: impl FnOnce() -> R) -> R {
        let _inside = self.enter();
        work()
    }
}

impl fmt::Debug for Memcg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memcg")
            .field("path", &self.path())
            .field("usage", &self.usage())
            .field("max", &self.max())
            .finish()
    }
}
