//! Shrinkers: closures that give a group's memory back.

#![expect(unsafe_code, reason = "closures go through the engine as pointers")]

use std::alloc::{Layout, handle_alloc_error};
use std::ffi::c_void;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use objcg_core::memcg as engine;

use crate::Memcg;
use crate::unwind::drop_quietly;

pub use engine::{ReclaimContext, ShrinkControl};

/// The registration of a shrinker: see [`Memcg::register_shrinker`].
#[must_use = "a shrinker is unregistered when its registration is dropped"]
pub struct Shrinker {
    registration: engine::Shrinker,
    has_panicked: Arc<AtomicBool>,
}

struct Registered<F> {
    shrink: F,
    has_panicked: Arc<AtomicBool>,
}

impl Memcg {
    /// Registers a closure that gives memory of this group back: a cache that can drop entries. It is told how many bytes are wanted
    /// and why, and returns how many it believes to have freed.
    ///
    /// It is called before a charge at this group or above is refused, by [`reclaim`](Memcg::reclaim), by
    /// [`throttle`](Memcg::throttle), and when `max` is lowered below usage; groups furthest above their [`low`](Memcg::low)
    /// first; those of a deleted group are not asked any more. By any thread, by several at once, under no lock of the allocator; never by a thread that runs a shrinker
    /// already. It runs in the root: what it allocates is charged to nobody, so it should free, not move.
    ///
    /// **In [`ReclaimContext::Allocation`] the thread is in the middle of an allocation, and may hold any of the program's locks,
    /// the cache's own among them.** Use `try_lock` there, and return 0 if the lock is taken.
    ///
    /// A closure that panics is not called again: [`Shrinker::has_panicked`]. The panic goes no further. The closure must not
    /// hold the registration's only owner in a way that keeps it from being dropped; dropping the registration waits for
    /// runs under way, except inside a shrinker, so do not drop it with a lock held for which the closure waits.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use std::sync::{Arc, Mutex};
    /// use objcg::Memcg;
    ///
    /// let tenant = Memcg::root().create("tenant")?;
    /// tenant.set_max(Some(1 << 20))?;
    /// let pages = Arc::new(Mutex::new(Vec::new()));
    /// let cache = Arc::clone(&pages);
    /// let shrinker = tenant.register_shrinker(move |control| {
    ///     let Ok(mut pages) = cache.try_lock() else { return 0 };
    ///     let mut freed = 0;
    ///     while freed < control.nr_bytes && let Some(page) = pages.pop() {
    ///         freed += Vec::<u8>::len(&page) as u64;
    ///     }
    ///     freed
    /// });
    /// for _ in 0..1000 {
    ///     // A hundred times the limit goes through the cache.
    ///     let page = tenant.scope(|| vec![0u8; 100_000]);
    ///     pages.lock().unwrap().push(page);
    /// }
    /// assert_eq!((tenant.events().oom, tenant.is_oom_killed()), (0, false));
    /// drop(shrinker);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn register_shrinker<F>(&self, shrink: F) -> Shrinker
    where
        F: Fn(&ShrinkControl) -> u64 + Send + Sync + 'static,
    {
        let has_panicked = Arc::new(AtomicBool::new(false));
        let registered = Box::new(Registered { shrink, has_panicked: Arc::clone(&has_panicked) });
        let data = Box::into_raw(registered).cast();
        // SAFETY: the closure may be shared by threads and sent to any (bounds on `F`); `run` and `end` do not unwind.
        let registration = unsafe { self.0.register_shrinker(run::<F>, end::<F>, data) };
        let Some(registration) = registration else { handle_alloc_error(Layout::new::<Registered<F>>()) };
        Shrinker { registration, has_panicked }
    }
}

/// # Safety
/// `data` came from a box of a `Registered<F>`, which was not dropped.
unsafe fn run<F: Fn(&ShrinkControl) -> u64>(data: *mut c_void, control: &ShrinkControl) -> u64 {
    // SAFETY: the caller's contract.
    let registered = unsafe { &*data.cast::<Registered<F>>() };
    if registered.has_panicked.load(Ordering::Relaxed) {
        return 0;
    }
    // What a panic leaves behind is not looked at by this closure any more.
    catch_unwind(AssertUnwindSafe(|| (registered.shrink)(control))).unwrap_or_else(|payload| {
        registered.has_panicked.store(true, Ordering::Relaxed);
        drop_quietly(payload);
        0
    })
}

/// # Safety
/// `data` came from a box of a `Registered<F>`, and nothing uses it any more.
unsafe fn end<F>(data: *mut c_void) {
    // SAFETY: the caller's contract.
    drop_quietly(unsafe { Box::from_raw(data.cast::<Registered<F>>()) });
}

impl Shrinker {
    /// The group that it was registered for.
    #[must_use]
    pub fn group(&self) -> Memcg {
        Memcg(self.registration.group().clone())
    }

    /// Whether the closure has panicked, and is not called any more. The panic hook has printed why.
    #[must_use]
    pub fn has_panicked(&self) -> bool {
        self.has_panicked.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Shrinker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shrinker")
            .field("group", &self.group().path())
            .field("has_panicked", &self.has_panicked())
            .finish()
    }
}
