//! Threads that inherit the group of the one that starts them.
//!
//! `std::thread` starts every thread in the root. What is here is the same with a group: [`spawn`], [`Builder`], and [`inherit`]
//! for everything else that runs a closure somewhere.

use std::io;
use std::thread::{self, JoinHandle, Scope, ScopedJoinHandle};

use crate::Memcg;

/// Binds a closure to the current group: wherever it is called, it runs inside, and it is dropped inside as well. Costs a handle;
/// a call costs an enter and its end.
///
/// For pools of threads, which outlive every group.
///
/// ```
/// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
/// use objcg::{Memcg, thread::inherit};
///
/// let tenant = Memcg::root().create("tenant")?;
/// let job = tenant.scope(|| inherit(Memcg::current));
/// let ran_in = std::thread::spawn(job).join().unwrap();
/// assert_eq!(ran_in, tenant);
/// # Ok::<(), objcg::CreateError>(())
/// ```
pub fn inherit<R>(work: impl FnOnce() -> R) -> impl FnOnce() -> R {
    let work = Bound { group: Memcg::current(), work: Some(work) };
    move || work.run()
}

/// [`std::thread::spawn`], in the current group. The bytes of the thread's own books are charged to the group as well.
///
/// # Panics
/// The system makes no thread; [`Builder::spawn`] gives an error instead.
///
/// ```
/// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
/// use objcg::Memcg;
///
/// let tenant = Memcg::root().create("tenant")?;
/// let worker = tenant.scope(|| objcg::thread::spawn(|| vec![0u8; 100_000]));
/// let rows = worker.join().unwrap();
/// assert!(tenant.usage() >= 100_000);
/// # drop(rows);
/// # Ok::<(), objcg::CreateError>(())
/// ```
pub fn spawn<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    thread::spawn(inherit(work))
}

/// [`std::thread::Builder`], for threads in the current group.
///
/// ```
/// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
/// use objcg::{Memcg, thread::Builder};
///
/// let tenant = Memcg::root().create("tenant")?;
/// std::thread::scope(|scope| {
///     let worker = tenant.scope(|| Builder::new().name("worker".into()).spawn_scoped(scope, Memcg::current))?;
///     assert_eq!(worker.join().unwrap(), tenant);
///     Ok::<(), std::io::Error>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Builder(thread::Builder);

impl Builder {
    /// Without a name, with a stack of the usual size.
    #[must_use]
    pub fn new() -> Builder {
        Builder(thread::Builder::new())
    }

    /// The thread's name: no zero byte in it.
    #[must_use]
    pub fn name(self, name: String) -> Builder {
        Builder(self.0.name(name))
    }

    /// The size of the stack in bytes. A stack is the system's memory: no group is charged for it.
    #[must_use]
    pub fn stack_size(self, nr_bytes: usize) -> Builder {
        Builder(self.0.stack_size(nr_bytes))
    }

    /// Starts the thread in the current group.
    ///
    /// # Errors
    /// The system makes no thread.
    pub fn spawn<R: Send + 'static>(self, work: impl FnOnce() -> R + Send + 'static) -> io::Result<JoinHandle<R>> {
        self.0.spawn(inherit(work))
    }

    /// Starts the thread in the current group, bound to a [`std::thread::scope`].
    ///
    /// # Errors
    /// The system makes no thread.
    pub fn spawn_scoped<'scope, R: Send + 'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        work: impl FnOnce() -> R + Send + 'scope,
    ) -> io::Result<ScopedJoinHandle<'scope, R>> {
        self.0.spawn_scoped(scope, inherit(work))
    }
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

/// A closure and its group. What the closure holds is dropped inside, called or not.
struct Bound<F> {
    group: Memcg,
    work: Option<F>,
}

impl<F> Bound<F> {
    fn run<R>(mut self) -> R
    where
        F: FnOnce() -> R,
    {
        let work = self.work.take();
        // It is taken once: this function consumes the closure.
        self.group.scope(|| work.map(|work| work()).expect("taken once"))
    }
}

impl<F> Drop for Bound<F> {
    fn drop(&mut self) {
        self.group.scope(|| self.work = None);
    }
}
