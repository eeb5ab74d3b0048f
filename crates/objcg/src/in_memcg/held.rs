//! Holding a future back while its group is over its `high`.
//!
//! | state | ends |
//! |---|---|
//! | free | a poll finds the group over, and stocks and shrinkers cannot bring it down |
//! | held | usage has fallen, the group is marked or deleted, or the delay is over that was the right one at the start |
//!
//! After a hold the future is polled once whatever usage is, so everybody who is held back moves on, at a pace that the
//! excess gives. What wakes it is the notifier of the crate.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::memcg::root;
use crate::{BelowHigh, Memcg, OomKilled};

pub(super) struct Held {
    hold: Option<Box<Hold>>,
    total: Duration,
    /// The longest that one hold lasts.
    at_most: Duration,
}

struct Hold {
    since: Instant,
    below_high: BelowHigh,
}

impl Held {
    pub(super) const FREE: Held = Held { hold: None, total: Duration::ZERO, at_most: Duration::MAX };

    pub(super) fn at_most(&mut self, delay: Duration) {
        self.at_most = delay;
    }

    /// Whether the future was held when it was last polled.
    #[inline]
    pub(super) fn is_held(&self) -> bool {
        self.hold.is_some()
    }

    /// How long it was held in all.
    pub(super) fn total(&self) -> Duration {
        self.total + self.hold.as_ref().map_or(Duration::ZERO, |hold| hold.since.elapsed())
    }

    /// Ready when the future may be polled, or has to end.
    #[cold]
    #[inline(never)]
    pub(super) fn poll(&mut self, memcg: &Memcg, context: &mut Context<'_>) -> Poll<Result<(), OomKilled>> {
        if let Err(killed) = memcg.check() {
            self.let_go();
            return Poll::Ready(Err(killed));
        }
        // A hold is the books of who waits.
        let _in_root = root().enter();
        let hold = match &mut self.hold {
            Some(hold) => hold,
            None => match memcg.throttle_delay_after_reclaim() {
                None => return Poll::Ready(Ok(())),
                Some(delay) => self.hold.insert(Box::new(Hold::new(memcg, delay.min(self.at_most)))),
            },
        };
        ready!(Pin::new(&mut hold.below_high).poll(context));
        self.let_go();
        Poll::Ready(memcg.check())
    }

    /// Ends a hold, if there is one.
    pub(super) fn let_go(&mut self) {
        self.total = self.total();
        self.hold = None;
    }
}

impl Hold {
    fn new(memcg: &Memcg, delay: Duration) -> Hold {
        Hold { since: Instant::now(), below_high: memcg.below_high(delay) }
    }
}
