//! Futures and streams that live in a group.
//!
//! [`InMemcg`] enters the group for each poll and for the end of what it wraps, and leaves it again whatever happens in
//! between. It knows no runtime: what wakes a future that is held back is the engine's own notifier.

mod held;
mod registered;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

#[cfg(feature = "stream")]
use futures_core::Stream;
use objcg_core::memcg as engine;
use pin_project_lite::pin_project;

use crate::{Memcg, OomKilled};
use held::Held;
use registered::Registered;

/// Puts a future into a group.
///
/// ```
/// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
/// use objcg::{FutureExt, Memcg};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tenant = Memcg::root().create("tenant")?;
/// let rows = async { vec![0u8; 100_000] }.in_memcg(&tenant).await?;
/// assert!(tenant.usage() >= 100_000);
/// # drop(rows);
/// # Ok(())
/// # }
/// ```
pub trait FutureExt: Future + Sized {
    /// The future, in the group: see [`InMemcg`].
    fn in_memcg(self, memcg: &Memcg) -> InMemcg<Self> {
        InMemcg::new(self, memcg)
    }
}

impl<F: Future> FutureExt for F {}

/// Puts a stream into a group. With the feature `stream`.
///
/// ```
/// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
/// use std::pin::pin;
///
/// use futures_core::Stream;
/// use objcg::{Memcg, StreamExt};
///
/// # fn rows() -> impl Stream<Item = Vec<u8>> { Rows }
/// # struct Rows;
/// # impl Stream for Rows {
/// #     type Item = Vec<u8>;
/// #     fn poll_next(
/// #         self: std::pin::Pin<&mut Self>,
/// #         _: &mut std::task::Context<'_>,
/// #     ) -> std::task::Poll<Option<Vec<u8>>> {
/// #         std::task::Poll::Ready(Some(vec![0; 100_000]))
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tenant = Memcg::root().create("tenant")?;
/// let mut rows = pin!(rows().in_memcg(&tenant));
/// let first = std::future::poll_fn(|context| rows.as_mut().poll_next(context)).await.expect("a row")?;
/// assert!(tenant.usage() >= 100_000);
/// # drop(first);
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "stream")]
pub trait StreamExt: Stream + Sized {
    /// The stream, in the group: see [`InMemcg`].
    fn in_memcg(self, memcg: &Memcg) -> InMemcg<Self> {
        InMemcg::new(self, memcg)
    }
}

#[cfg(feature = "stream")]
impl<S: Stream> StreamExt for S {}

pin_project! {
    /// A future or a stream in a group, made by [`FutureExt::in_memcg`] or [`StreamExt::in_memcg`].
    ///
    /// - Each poll runs inside the group: what is allocated is charged to it. The group that was current before is current
    ///   again afterwards, however the poll ends.
    /// - Once the group is killed, the next poll drops what is wrapped, inside the group, and gives `Err(OomKilled)`.
    /// - While the group is over its `high`, what is wrapped is not polled, until usage has fallen or
    ///   [`Memcg::throttle_delay`] has passed; then it is polled once at least. So all of many that are held back move on.
    /// - It is dropped inside the group when it has ended, or with the wrapper.
    ///
    /// Where the group was deleted, its nearest living ancestor takes its place. Costs a handle, and under 5 ns a poll.
    ///
    /// # Panics
    /// A future is polled again after its end.
    #[must_use = "futures and streams do nothing unless polled"]
    pub struct InMemcg<T> {
        // `None` after the end.
        #[pin]
        inner: Option<T>,
        memcg: Memcg,
        // The version of the process's events at which the group needed no attention.
        quiet_at: Option<u32>,
        held: Held,
        registered: Registered,
    }

    impl<T> PinnedDrop for InMemcg<T> {
        fn drop(this: Pin<&mut Self>) {
            this.end();
        }
    }
}

impl<T> InMemcg<T> {
    /// Wraps anything that is polled, for [`poll_with`](InMemcg::poll_with): something that is neither a future nor a stream.
    pub fn new(inner: T, memcg: &Memcg) -> InMemcg<T> {
        InMemcg {
            inner: Some(inner),
            memcg: memcg.clone(),
            quiet_at: None,
            held: Held::FREE,
            registered: Registered::default(),
        }
    }

    /// Has one hold last at most so long, whatever [`Memcg::throttle_delay`] says.
    pub fn hold_at_most(mut self, delay: Duration) -> InMemcg<T> {
        self.held.at_most(delay);
        self
    }

    /// The group.
    pub fn memcg(&self) -> &Memcg {
        &self.memcg
    }

    /// What is wrapped; `None` after its end.
    pub fn get_ref(&self) -> Option<&T> {
        self.inner.as_ref()
    }

    /// How long what is wrapped was held back in all, for its group's being over its `high`.
    pub fn held_for(&self) -> Duration {
        self.held.total()
    }

    /// Polls what is wrapped by `poll`, under the rules above; `None` after its end.
    ///
    /// # Errors
    /// The group was killed. What was wrapped is gone.
    #[inline]
    pub fn poll_with<R>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<Option<Result<R, OomKilled>>> {
        if self.inner.is_none() {
            return Poll::Ready(None);
        }
        if self.quiet_at != Some(engine::Memcg::attention_version())
            && let Err(killed) = ready!(self.as_mut().attend(context))
        {
            self.end();
            return Poll::Ready(Some(Err(killed)));
        }
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else { return Poll::Ready(None) };
        let inside = this.memcg.enter();
        let polled = poll(inner, context);
        drop(inside);
        if polled.is_pending() {
            this.registered.keep(this.memcg, context.waker());
        }
        polled.map(|result| Some(Ok(result)))
    }

    /// Something happened in the process since the group was last found to need nothing: looks at the group.
    fn attend(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), OomKilled>> {
        let this = self.project();
        // Before the look: what happens after it is a new version.
        let version = engine::Memcg::attention_version();
        if this.held.is_held() || this.memcg.0.needs_attention() {
            *this.quiet_at = None;
            return this.held.poll(this.memcg, context);
        }
        *this.quiet_at = Some(version);
        Poll::Ready(Ok(()))
    }

    /// Drops what is wrapped, inside the group.
    pub fn end(self: Pin<&mut Self>) {
        let mut this = self.project();
        *this.registered = Registered::default();
        this.held.let_go();
        let _inside = this.memcg.enter();
        this.inner.set(None);
    }
}

impl<F: Future> Future for InMemcg<F> {
    type Output = Result<F::Output, OomKilled>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(self.as_mut().poll_with(context, F::poll));
        self.end();
        Poll::Ready(ended.expect("`InMemcg` was polled after its end"))
    }
}

#[cfg(feature = "stream")]
impl<S: Stream> Stream for InMemcg<S> {
    type Item = Result<S::Item, OomKilled>;

    #[inline]
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match ready!(self.as_mut().poll_with(context, S::poll_next)) {
            Some(Ok(Some(item))) => Poll::Ready(Some(Ok(item))),
            Some(Ok(None)) => {
                self.end();
                Poll::Ready(None)
            }
            Some(Err(killed)) => Poll::Ready(Some(Err(killed))),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let Some(inner) = &self.inner else { return (0, Some(0)) };
        let (least, most) = inner.size_hint();
        // A kill adds an item, and takes away those that would have come.
        (least.min(1), most.and_then(|most| most.checked_add(1)))
    }
}

impl<T: fmt::Debug> fmt::Debug for InMemcg<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemcg").field("inner", &self.inner).field("memcg", &self.memcg).finish_non_exhaustive()
    }
}
