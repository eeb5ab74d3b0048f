//! The gate of a registered callback: who may run it, and who takes its slot back.
//!
//! | bits | meaning |
//! |---|---|
//! | 31–13 | generation: how often the slot was used |
//! | 12 | closed: no new run |
//! | 11–0 | runs under way, and one of the registration |
//!
//! The last one out of a closed gate, a run or the registration itself, takes the slot back; so a callback is never dropped while it
//! runs, wherever its registration ends, even inside the callback.

use crate::sync::{AtomicU32, Ordering};

const COUNT: u32 = CLOSED - 1;
const CLOSED: u32 = 1 << 12;
const GENERATION: u32 = CLOSED << 1;

#[repr(transparent)]
#[cfg_attr(loom, derive(Default))]
pub(crate) struct Gate(AtomicU32);

impl Gate {
    /// Opens the gate of a slot that the caller has filled in and owns.
    pub(crate) fn open(&self) {
        let generation = self.0.load(Ordering::Relaxed) & !(CLOSED | COUNT);
        // Release pairs with the Acquire in `enter`: who runs sees the slot filled in.
        self.0.store(generation.wrapping_add(GENERATION) | 1, Ordering::Release);
    }

    /// Starts a run; false if the gate is closed. [`Gate::leave`] ends it.
    pub(crate) fn enter(&self) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            // All of COUNT are more threads than run at once; one too many does not run.
            if word & CLOSED != 0 || word & COUNT == 0 || word & COUNT == COUNT {
                return false;
            }
            match self.0.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(seen) => word = seen,
            }
        }
    }

    /// Ends a run. True if it was the last of a closed gate: then the caller owns the slot, and says so by [`Gate::gone`].
    #[must_use = "the last one takes the slot back"]
    pub(crate) fn leave(&self) -> bool {
        // AcqRel: what every run did happens before the slot is taken back.
        let before = self.0.fetch_sub(1, Ordering::AcqRel);
        before & COUNT == 1
    }

    /// Closes the gate and takes the registration's part back. True as for [`Gate::leave`]; else somebody is still running.
    #[must_use = "the last one takes the slot back"]
    pub(crate) fn close(&self) -> bool {
        self.0.fetch_or(CLOSED, Ordering::Relaxed);
        self.leave()
    }

    /// The generation, which changes when a closed gate's slot has been taken back.
    pub(crate) fn generation(&self) -> u32 {
        // Acquire pairs with the Release in `gone`.
        self.0.load(Ordering::Acquire) & !(CLOSED | COUNT)
    }

    /// Says that the slot of a closed gate was taken back: nobody runs, and nothing is left of the callback.
    pub(crate) fn gone(&self) {
        let generation = self.0.load(Ordering::Relaxed) & !(CLOSED | COUNT);
        // Release pairs with the Acquire in `generation`.
        self.0.store(generation.wrapping_add(GENERATION), Ordering::Release);
    }
}

#[cfg(not(loom))]
impl Gate {
    /// In a child of `fork`, whose only thread has `nr_mine` runs under way: those of the threads that are not there never end. A gate
    /// whose registration had ended, and which such a run kept, stays closed for ever.
    pub(crate) fn forget_others(&self, nr_mine: u32) {
        let word = self.0.load(Ordering::Relaxed);
        if word & COUNT != 0 {
            let of_registration = u32::from(word & CLOSED == 0);
            self.0.store(word & !COUNT | (of_registration + nr_mine), Ordering::Relaxed);
        }
    }

    /// Sleeps until the registration of that generation has come to its end.
    pub(crate) fn wait_until_gone(&self, generation: u32) {
        loop {
            let word = self.0.load(Ordering::Acquire);
            if word & !(CLOSED | COUNT) != generation {
                return;
            }
            crate::os::futex_wait(&self.0, word);
        }
    }

    /// Wakes who sleeps in [`Gate::wait_until_gone`], and looks again.
    pub(crate) fn wake(&self) {
        crate::os::futex_wake_all(&self.0);
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, Ordering};

    use super::Gate;

    #[derive(Default)]
    struct Slot {
        gate: Gate,
        /// 1 while the callback exists.
        callback: AtomicU32,
        nr_drops: AtomicU32,
    }

    impl Slot {
        fn run(&self) -> bool {
            if !self.gate.enter() {
                return false;
            }
            assert_eq!(self.callback.load(Ordering::Relaxed), 1, "runs what was dropped");
            if self.gate.leave() {
                self.take_back();
            }
            true
        }

        fn take_back(&self) {
            self.callback.store(0, Ordering::Relaxed);
            self.nr_drops.fetch_add(1, Ordering::Relaxed);
            self.gate.gone();
        }

        fn unregister(&self) {
            let generation = self.gate.generation();
            if self.gate.close() {
                self.take_back();
            }
            while self.gate.generation() == generation {
                loom::thread::yield_now();
            }
        }
    }

    /// Two runs against the end of the registration: no run after it, none of a dropped callback, one drop.
    #[test]
    fn loom_unregistration_against_runs() {
        loom::model(|| {
            let slot = Arc::new(Slot::default());
            slot.callback.store(1, Ordering::Relaxed);
            slot.gate.open();
            let runners: Vec<_> = (0..2)
                .map(|_| {
                    let slot = Arc::clone(&slot);
                    loom::thread::spawn(move || slot.run())
                })
                .collect();
            slot.unregister();
            assert_eq!(slot.callback.load(Ordering::Relaxed), 0, "still there after its unregistration");
            assert!(!slot.run(), "runs after its unregistration");
            for runner in runners {
                runner.join().unwrap();
            }
            assert_eq!(slot.nr_drops.load(Ordering::Relaxed), 1);
        });
    }
}
