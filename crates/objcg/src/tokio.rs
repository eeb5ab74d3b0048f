//! Tokio tasks that inherit the group of the one that starts them. With the feature `tokio`.
//!
//! `tokio::spawn` starts every task in no group: what a handler spawns is nobody's. What is here is the same in the current
//! group. A task ends with `Err(OomKilled)` once its group is killed, and its memory goes with it.
//!
//! ```
//! # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
//! use objcg::{FutureExt, Memcg};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tenant = Memcg::root().create("tenant")?;
//! let request = async {
//!     let task = objcg::tokio::spawn(async { Memcg::current() });
//!     task.await
//! };
//! assert_eq!(request.in_memcg(&tenant).await???, tenant);
//! # Ok(())
//! # }
//! ```

use std::fmt;

use ::tokio::task::{self, AbortHandle, JoinError, JoinHandle};

use crate::thread::inherit;
use crate::{FutureExt, Memcg, OomKilled};

/// [`tokio::spawn`], in the current group. The task's own memory is charged to it as well; it is freed when the
/// task has ended and its handle is gone.
///
/// # Panics
/// Not called inside a runtime.
pub fn spawn<F>(future: F) -> JoinHandle<Result<F::Output, OomKilled>>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    task::spawn(future.in_memcg(&Memcg::current()))
}

/// [`tokio::task::spawn_local`], in the current group.
///
/// # Panics
/// Not called inside a `LocalSet`.
pub fn spawn_local<F>(future: F) -> JoinHandle<Result<F::Output, OomKilled>>
where
    F: Future<Output: 'static> + 'static,
{
    task::spawn_local(future.in_memcg(&Memcg::current()))
}

/// [`tokio::task::spawn_blocking`], in the current group. The work does not begin if the group is
/// killed before its turn comes; work that runs asks [`checkpoint`](crate::checkpoint) itself.
///
/// ```
/// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
/// use objcg::Memcg;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tenant = Memcg::root().create("tenant")?;
/// let work = tenant.scope(|| objcg::tokio::spawn_blocking(Memcg::current));
/// assert_eq!(work.await??, tenant);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
/// Not called inside a runtime.
pub fn spawn_blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> JoinHandle<Result<R, OomKilled>> {
    task::spawn_blocking(unless_killed(work))
}

fn unless_killed<R>(work: impl FnOnce() -> R) -> impl FnOnce() -> Result<R, OomKilled> {
    let group = Memcg::current();
    inherit(move || {
        group.check()?;
        Ok(work())
    })
}

/// [`tokio::task::JoinSet`], whose tasks inherit the group that is current when they are spawned.
///
/// ```
/// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
/// use objcg::{Memcg, tokio::JoinSet};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tenant = Memcg::root().create("tenant")?;
/// let mut set = JoinSet::new();
/// tenant.scope(|| set.spawn(async { Memcg::current() }));
/// while let Some(ended) = set.join_next().await {
///     assert_eq!(ended??, tenant);
/// }
/// # Ok(())
/// # }
/// ```
pub struct JoinSet<R>(task::JoinSet<Result<R, OomKilled>>);

impl<R: 'static> JoinSet<R> {
    /// An empty set.
    #[must_use]
    pub fn new() -> JoinSet<R> {
        JoinSet(task::JoinSet::new())
    }

    /// As [`spawn`].
    pub fn spawn<F>(&mut self, future: F) -> AbortHandle
    where
        F: Future<Output = R> + Send + 'static,
        R: Send,
    {
        self.0.spawn(future.in_memcg(&Memcg::current()))
    }

    /// As [`spawn_local`].
    pub fn spawn_local<F>(&mut self, future: F) -> AbortHandle
    where
        F: Future<Output = R> + 'static,
    {
        self.0.spawn_local(future.in_memcg(&Memcg::current()))
    }

    /// As [`spawn_blocking`].
    pub fn spawn_blocking(&mut self, work: impl FnOnce() -> R + Send + 'static) -> AbortHandle
    where
        R: Send,
    {
        self.0.spawn_blocking(unless_killed(work))
    }

    /// Waits for a task to end, whichever is first; `None` when the set is empty. Can be cancelled: no task is lost.
    ///
    /// # Errors
    /// The outer error: the task panicked or was aborted. The inner one: its group was killed.
    pub async fn join_next(&mut self) -> Option<Result<Result<R, OomKilled>, JoinError>> {
        self.0.join_next().await
    }

    /// A task that has ended, if there is one.
    pub fn try_join_next(&mut self) -> Option<Result<Result<R, OomKilled>, JoinError>> {
        self.0.try_join_next()
    }

    /// Aborts all tasks; [`join_next`](JoinSet::join_next) still gives each one's end.
    pub fn abort_all(&mut self) {
        self.0.abort_all();
    }

    /// Aborts all tasks, and waits until they are gone.
    pub async fn shutdown(&mut self) {
        self.0.shutdown().await;
    }

    /// Lets all tasks run on without the set.
    pub fn detach_all(&mut self) {
        self.0.detach_all();
    }

    /// How many tasks there are whose end was not taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<R: 'static> Default for JoinSet<R> {
    fn default() -> JoinSet<R> {
        JoinSet::new()
    }
}

impl<R> fmt::Debug for JoinSet<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JoinSet").field(&self.0).finish()
    }
}
