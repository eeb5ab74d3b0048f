//! The pin word of a group's slot: count, death and generation in one, so that finding a group needs no lock and no RCU.
//!
//! | bits | meaning |
//! |---|---|
//! | 63–32 | generation: how often the slot was reused |
//! | 31 | dead: no new pin by [`Pin::try_get`] |
//! | 30–0 | pins: one for the group being alive or having handles, one a child slot, one a charge under way |
//!
//! A slot is reused only after its last pin is gone, and then under the next generation, so a ticket (number and
//! generation) kept from an earlier life fails.

use crate::sync::{AtomicU64, Ordering};

const DEAD: u64 = 1 << 31;
const COUNT: u64 = DEAD - 1;
const GENERATION_SHIFT: u32 = 32;

#[repr(transparent)]
#[cfg_attr(loom, derive(Default))]
pub(crate) struct Pin(AtomicU64);

impl Pin {
    /// Starts the life of a slot that the caller just took: alive, one pin. Returns its generation.
    pub(crate) fn revive(&self) -> u32 {
        let generation = self.generation().wrapping_add(1);
        // Release pairs with the Acquire in `try_get`: who pins the slot sees it filled in.
        self.0.store((u64::from(generation) << GENERATION_SHIFT) | 1, Ordering::Release);
        generation
    }

    /// Pins the slot if it still is in that generation and alive.
    pub(crate) fn try_get(&self, generation: u32) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if word >> GENERATION_SHIFT != u64::from(generation) || word & DEAD != 0 || word & COUNT == 0 {
                return false;
            }
            match self.0.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(seen) => word = seen,
            }
        }
    }

    /// Adds a pin to a slot that the caller has pinned.
    pub(crate) fn get(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a pin back; true if it was the last, and the caller must release the slot.
    pub(crate) fn put(&self) -> bool {
        // AcqRel: what every holder did to the slot is seen by the one that releases it.
        self.0.fetch_sub(1, Ordering::AcqRel) & COUNT == 1
    }

    /// Ends the life: `try_get` fails from now on. The caller holds a pin.
    pub(crate) fn kill(&self) {
        // Release pairs with the failing `try_get`'s retry: the vessel was forwarded before this.
        self.0.fetch_or(DEAD, Ordering::Release);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.0.load(Ordering::Acquire) & DEAD != 0
    }

    pub(crate) fn generation(&self) -> u32 {
        (self.0.load(Ordering::Relaxed) >> GENERATION_SHIFT) as u32
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Pin;
    use crate::sync::AtomicU64;

    #[test]
    fn only_a_living_slot_of_that_generation_is_pinned() {
        let pin = Pin(AtomicU64::new(0));
        assert!(!pin.try_get(0), "it was never alive");
        let first = pin.revive();
        assert!(pin.try_get(first) && !pin.try_get(first + 1), "another life's");
        pin.kill();
        assert!(!pin.try_get(first), "dead, with two pins");
        assert!(!pin.put() && pin.put());
        let second = pin.revive();
        assert!(!pin.try_get(first) && pin.try_get(second));
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, Ordering};

    use super::Pin;

    /// A charge that finds the group races with its deletion: the slot is released once, and never while it is pinned.
    #[test]
    fn loom_i4_try_get_against_delete() {
        loom::model(|| {
            let slot = Arc::new((Pin::default(), AtomicU32::new(1)));
            let generation = slot.0.revive();
            let other = Arc::clone(&slot);
            let charger = loom::thread::spawn(move || {
                let (pin, alive) = &*other;
                if !pin.try_get(generation) {
                    return false;
                }
                assert_eq!(alive.load(Ordering::Relaxed), 1, "released while pinned");
                let last = pin.put();
                if last {
                    alive.store(0, Ordering::Relaxed);
                }
                last
            });
            let (pin, alive) = &*slot;
            pin.kill();
            assert!(!pin.try_get(generation), "pinned after its death");
            let last = pin.put();
            if last {
                alive.store(0, Ordering::Relaxed);
            }
            let theirs = charger.join().unwrap();
            assert!(last != theirs, "exactly one releases");
            assert!(!pin.try_get(generation), "dead for ever");
        });
    }

    /// A ticket of an earlier life fails although the slot is alive again.
    #[test]
    fn loom_i4_generation_guards_reuse() {
        loom::model(|| {
            let slot = Arc::new(Pin::default());
            let old = slot.revive();
            let other = Arc::clone(&slot);
            let stale = loom::thread::spawn(move || {
                let pinned = other.try_get(old);
                if pinned { Some(other.put()) } else { None }
            });
            slot.kill();
            let mut released = slot.put();
            let theirs = stale.join().unwrap();
            released |= theirs == Some(true);
            assert!(released);
            let new = slot.revive();
            assert!(!slot.try_get(old));
            assert!(slot.try_get(new));
        });
    }
}
