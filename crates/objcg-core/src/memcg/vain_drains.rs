//! Which groups were drained lately, and stayed over their `high` all the same: their next throttle points need not drain them.
//!
//! A drain walks all CPUs' sheaves and stocks, with a fence of the other CPUs. A group that is held back reaches a throttle point with
//! each request, on the thread that serves the other groups as well. What it has freed since the last drain is found by the next
//! one: at a throttle point once [`VAIN_FOR`] has passed, or before that by whoever waits for its usage to fall.
//!
//! Kept in a few words of the process instead of in the groups' slots, whose bytes are charged. Groups share words: one that finds
//! another's number drains once more than it had to. A word outlives its group: a new one of the same number may not be drained
//! at its first throttle point. Whoever is held back for bytes that this drain would have found waits for the next drain: 5 ms
//! where nobody was held back before. A race costs the same.

use core::time::Duration;

use crate::os::Instant;
use crate::sync::{AtomicU64, Ordering};

/// For how long a drain that left a group over its `high` stands for the next one.
const VAIN_FOR: Duration = Duration::from_millis(20);

const NR_WORDS: usize = 512;
const GROUP_SHIFT: u32 = 32;

pub(super) static VAIN_DRAINS: VainDrains = VainDrains::new();

/// Each word is a group's number and the millisecond of its last drain, if that was in vain; 0 is none, as the root has no `high`.
/// Milliseconds wrap after 49 days: what is as old as that may look like new, once.
pub(super) struct VainDrains([AtomicU64; NR_WORDS]);

impl VainDrains {
    const fn new() -> VainDrains {
        VainDrains([const { AtomicU64::new(0) }; NR_WORDS])
    }

    /// A drain at `now` left the group over its `high`.
    pub(super) fn note(&self, group: u32, now: Instant) {
        let word = u64::from(group) << GROUP_SHIFT | u64::from(now.wrapping_millis());
        self.word(group).store(word, Ordering::Relaxed);
    }

    /// The group was brought down to its `high`.
    pub(super) fn forget(&self, group: u32) {
        let word = self.word(group);
        if word.load(Ordering::Relaxed) >> GROUP_SHIFT == u64::from(group) {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the last drain of the group, not long before `now`, was in vain.
    pub(super) fn is_noted(&self, group: u32, now: Instant) -> bool {
        let word = self.word(group).load(Ordering::Relaxed);
        let age = now.wrapping_millis().wrapping_sub(word as u32);
        word >> GROUP_SHIFT == u64::from(group) && u128::from(age) < VAIN_FOR.as_millis()
    }

    fn word(&self, group: u32) -> &AtomicU64 {
        &self.0[group as usize % NR_WORDS]
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::{NR_WORDS, VAIN_FOR, VainDrains};
    use crate::os::Instant;

    const GROUP: u32 = 7;
    const NEIGHBOUR: u32 = GROUP + NR_WORDS as u32;

    #[test]
    fn a_drain_in_vain_counts_for_a_while() {
        let drains = VainDrains::new();
        let now = Instant::now();
        assert!(!drains.is_noted(GROUP, now));
        drains.note(GROUP, now);
        let a_moment = Duration::from_millis(2);
        assert!(drains.is_noted(GROUP, now) && drains.is_noted(GROUP, now.after(VAIN_FOR - a_moment)));
        assert!(!drains.is_noted(GROUP, now.after(VAIN_FOR)));
        drains.note(GROUP, now.after(VAIN_FOR));
        assert!(drains.is_noted(GROUP, now.after(VAIN_FOR)));
        drains.forget(GROUP);
        assert!(!drains.is_noted(GROUP, now.after(VAIN_FOR)));
    }

    #[test]
    fn groups_that_share_a_word_take_it_from_each_other() {
        let drains = VainDrains::new();
        let now = Instant::now();
        drains.note(GROUP, now);
        drains.forget(NEIGHBOUR);
        assert!(drains.is_noted(GROUP, now) && !drains.is_noted(NEIGHBOUR, now));
        drains.note(NEIGHBOUR, now);
        assert!(!drains.is_noted(GROUP, now) && drains.is_noted(NEIGHBOUR, now));
    }
}
