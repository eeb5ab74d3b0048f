//! What those wait for who wait for a group: one futex word, changed by whoever changes what they wait for.
//!
//! | bits | meaning |
//! |---|---|
//! | 31–3 | version: how often something changed |
//! | 2 | somebody is to be called by the next change that is more than an event, through [`Changes`] |
//! | 1 | somebody is to be called by the next change of any kind |
//! | 0 | a thread sleeps, or is about to |
//!
//! Whoever waits sets a bit, then looks at what it waits for, then sleeps while the word is as the setting left it. Whoever changes
//! something does so first, then raises the version and clears the bits in one exchange. One of the two comes first in the order
//! of the word's changes: either the waiter sees the change, or the changer sees the bit. So no wake is lost, and a change for
//! which nobody waits makes no system call. An event leaves bit 2 as it is: a group that meets its limit over and over calls nobody
//! who waits for its end.

use crate::sync::{AtomicU32, Ordering};

const SLEEPS: u32 = 1;
const CALLS: u32 = 2;
const STATE_CALLS: u32 = 4;
const VERSION: u32 = 8;

#[repr(transparent)]
#[cfg_attr(loom, derive(Default))]
pub(crate) struct Signal(AtomicU32);

/// Who has to be told of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Threads that sleep on this word.
    pub(crate) sleepers: bool,
    /// Whoever asked to be called.
    pub(crate) caller: bool,
}

impl Signal {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Signal {
        Signal(AtomicU32::new(0))
    }

    /// Says that a thread is going to sleep; returns the word on which to [`sleep`](Signal::sleep), after one more look at what
    /// is waited for.
    pub(crate) fn prepare_to_sleep(&self) -> u32 {
        // Acquire pairs with the Release in `change`: a change that is before this is seen by the look.
        self.0.fetch_or(SLEEPS, Ordering::Acquire) | SLEEPS
    }

    /// Asks for a call at the next change; returns the version, which [`Signal::version`] tells then to be another one.
    pub(crate) fn ask_for_call(&self) -> u32 {
        // Acquire as in `prepare_to_sleep`.
        self.0.fetch_or(CALLS, Ordering::Acquire) / VERSION
    }

    /// The same, for a call at the next change that is more than an event.
    pub(crate) fn ask_for_state_call(&self) -> u32 {
        // Acquire as in `prepare_to_sleep`.
        self.0.fetch_or(STATE_CALLS, Ordering::Acquire) / VERSION
    }

    /// How often something changed.
    #[inline]
    pub(crate) fn version(&self) -> u32 {
        self.0.load(Ordering::Acquire) / VERSION
    }

    /// Notes a change that was made before; returns who has to be told.
    pub(crate) fn change(&self) -> Waiting {
        self.change_for(CALLS | STATE_CALLS)
    }

    /// The same, of a change that is an event and no more.
    pub(crate) fn change_by_event(&self) -> Waiting {
        self.change_for(CALLS)
    }

    fn change_for(&self, callers: u32) -> Waiting {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let next = word.wrapping_add(VERSION) & !(SLEEPS | callers);
            // Release pairs with the Acquire of who waits.
            match self.0.compare_exchange_weak(word, next, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return Waiting { sleepers: word & SLEEPS != 0, caller: word & callers != 0 },
                Err(seen) => word = seen,
            }
        }
    }
}

#[cfg(not(loom))]
impl Signal {
    /// Sleeps unless something changed since [`Signal::prepare_to_sleep`], at most until `deadline`. May return for no reason.
    pub(crate) fn sleep(&self, prepared: u32, deadline: crate::os::Instant) {
        crate::os::futex_wait_until(&self.0, prepared, deadline);
    }

    /// Wakes all threads that sleep.
    #[cold]
    pub(crate) fn wake(&self) {
        crate::os::futex_wake_all(&self.0);
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, Ordering};

    use super::Signal;

    #[derive(Default)]
    struct Group {
        signal: Signal,
        nr_events: AtomicU32,
        /// Wakes of sleepers that were sent: what the futex does.
        nr_wakes: AtomicU32,
    }

    impl Group {
        fn count_event(&self) {
            self.nr_events.fetch_add(1, Ordering::Relaxed);
            if self.signal.change().sleepers {
                self.nr_wakes.fetch_add(1, Ordering::Release);
            }
        }

        /// Whether the thread would sleep for ever: it prepared, saw no event, and the word stayed as it was until it slept.
        /// A wake that is sent after the word changed ends the sleep.
        fn wait_for(&self, wanted: u32) {
            loop {
                let prepared = self.signal.prepare_to_sleep();
                if self.nr_events.load(Ordering::Relaxed) >= wanted {
                    return;
                }
                // The futex: asleep while the word is as prepared, and then until a wake is sent.
                while self.signal.0.load(Ordering::Relaxed) == prepared {
                    loom::thread::yield_now();
                }
            }
        }
    }

    /// Two events against a waiter for both: it ends, so it was told of the last one.
    #[test]
    fn loom_no_wake_is_lost() {
        loom::model(|| {
            let group = Arc::new(Group::default());
            let waiter = {
                let group = Arc::clone(&group);
                loom::thread::spawn(move || group.wait_for(2))
            };
            group.count_event();
            group.count_event();
            waiter.join().unwrap();
        });
    }

    /// A mark, with an event before it, against one who asks to be called by more than an event: it sees the mark or is called.
    #[test]
    fn loom_an_event_does_not_take_the_call_of_a_mark() {
        loom::model(|| {
            let group = Arc::new(Group::default());
            let other = Arc::clone(&group);
            let changer = loom::thread::spawn(move || {
                other.nr_events.store(1, Ordering::Relaxed);
                assert!(!other.signal.change_by_event().caller, "nobody asked for events");
                other.nr_events.store(2, Ordering::Relaxed);
                other.signal.change().caller
            });
            group.signal.ask_for_state_call();
            let saw_the_mark = group.nr_events.load(Ordering::Relaxed) == 2;
            let is_called = changer.join().unwrap();
            assert!(saw_the_mark || is_called, "neither seen nor told");
            assert_eq!(group.signal.version(), 2);
        });
    }

    /// One thread that prepared before the change and did not see it: the changer sees that it has to wake somebody.
    #[test]
    fn loom_who_misses_the_change_is_woken() {
        loom::model(|| {
            let group = Arc::new(Group::default());
            let other = Arc::clone(&group);
            let changer = loom::thread::spawn(move || other.count_event());
            group.signal.prepare_to_sleep();
            let saw_it = group.nr_events.load(Ordering::Relaxed) == 1;
            let asked = group.signal.ask_for_call();
            changer.join().unwrap();
            let woken = group.nr_wakes.load(Ordering::Acquire) == 1;
            assert!(saw_it || woken, "neither seen nor told");
            assert_eq!(group.signal.version(), 1);
            assert!(asked <= 1);
        });
    }
}
