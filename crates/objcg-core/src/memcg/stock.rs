//! Stocks: bytes that are already charged, cached on a CPU and waiting to be handed to objects.
//!
//! Each CPU has a direct-mapped table of 64-bit words {vessel id, bytes}. Consuming and refilling change one word. Bytes
//! in a stock are charged to their vessel, which lives as long as any are, so an id in a word with bytes is never a
//! stranger's. This file has the words and the portable arm's operations on them; `stocks` has the tables.

use crate::sync::{AtomicU64, Ordering};

/// Slots of one CPU: a thousand busy groups with neighbouring ids do not evict each other.
pub(crate) const NR_SLOTS: usize = if cfg!(loom) { 1 } else { 1024 };

const ID_SHIFT: u32 = 32;

/// A word of a stock.
#[repr(transparent)]
#[cfg_attr(loom, derive(Default))]
pub(crate) struct StockSlot(AtomicU64);

/// Bytes on their way back to a vessel's group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Residue {
    pub(crate) vessel: u32,
    pub(crate) nr_bytes: u32,
}

impl Residue {
    pub(super) fn from_word(word: u64) -> Option<Residue> {
        let nr_bytes = word as u32;
        (nr_bytes > 0).then_some(Residue { vessel: (word >> ID_SHIFT) as u32, nr_bytes })
    }

    pub(super) fn word(self) -> u64 {
        if self.nr_bytes == 0 { 0 } else { (u64::from(self.vessel) << ID_SHIFT) | u64::from(self.nr_bytes) }
    }
}

impl StockSlot {
    /// Takes `nr_bytes` for an object of `vessel`; false if the stock does not have them.
    #[inline]
    pub(crate) fn consume(&self, vessel: u32, nr_bytes: u32) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let Some(stock) = Residue::from_word(word) else { return false };
            if stock.vessel != vessel || stock.nr_bytes < nr_bytes {
                return false;
            }
            let left = Residue { vessel, nr_bytes: stock.nr_bytes - nr_bytes };
            match self.exchange(word, left.word()) {
                Ok(()) => return true,
                Err(seen) => word = seen,
            }
        }
    }

    /// Puts `nr_bytes` of `vessel` in; returns what has to go back to its group instead: another vessel's bytes that sat
    /// here, or what exceeds `keep`. What stays after an overflow is half of `keep`, so that a loop on the boundary does
    /// not come back each round.
    #[inline]
    pub(crate) fn refill(&self, vessel: u32, nr_bytes: u32, keep: u32) -> Option<Residue> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let Some((kept, excess)) = after_refill(Residue::from_word(word), vessel, nr_bytes, keep) else {
                return Some(Residue { vessel, nr_bytes });
            };
            match self.exchange(word, Residue { vessel, nr_bytes: kept }.word()) {
                Ok(()) => return excess,
                Err(seen) => word = seen,
            }
        }
    }

    /// Takes everything out if its vessel satisfies `test`.
    pub(crate) fn drain_if(&self, test: impl Fn(u32) -> bool) -> Option<Residue> {
        // Acquire pairs with the Release in `exchange`: a drained vessel's charge is seen before it is given back.
        let word = self.0.load(Ordering::Acquire);
        let stock = Residue::from_word(word)?;
        // A word that changes meanwhile is in use: whoever changed it can be drained the next time.
        (test(stock.vessel) && self.exchange(word, 0).is_ok()).then_some(stock)
    }

    /// What is in it now.
    pub(crate) fn peek(&self) -> Option<Residue> {
        Residue::from_word(self.0.load(Ordering::Relaxed))
    }

    fn exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).map(|_| ())
    }
}

/// What a word keeps, and what goes back instead, when `nr_bytes` of `vessel` come to one that holds `found`; `None` if it
/// stays as it is: what may not be kept does not displace another's bytes.
pub(super) fn after_refill(
    found: Option<Residue>,
    vessel: u32,
    nr_bytes: u32,
    keep: u32,
) -> Option<(u32, Option<Residue>)> {
    match found {
        Some(other) if other.vessel != vessel && nr_bytes > keep => None,
        Some(other) if other.vessel != vessel => Some((nr_bytes, Some(other))),
        Some(same) => Some(split(vessel, same.nr_bytes, nr_bytes, keep)),
        None => Some(split(vessel, 0, nr_bytes, keep)),
    }
}

fn split(vessel: u32, had: u32, nr_bytes: u32, keep: u32) -> (u32, Option<Residue>) {
    match had.checked_add(nr_bytes) {
        Some(total) if total <= keep => (total, None),
        // Also where the sum does not fit: what came goes back, what was there is cut to half.
        _ => {
            let kept = had.min(keep / 2);
            // A single return is below 2^31 and `had` at most MAX_KEEP: this sum fits.
            let nr_bytes = nr_bytes + (had - kept);
            (kept, Some(Residue { vessel, nr_bytes }))
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(not(loom))]
    mod single {
        use crate::memcg::stock::{Residue, StockSlot};
        use crate::sync::AtomicU64;

        #[test]
        fn what_goes_in_comes_out_or_stays() {
            let slot = StockSlot(AtomicU64::new(0));
            assert!(!slot.consume(3, 8));
            assert_eq!(slot.refill(3, 100, 1000), None);
            assert!(!slot.consume(4, 8), "another vessel's bytes");
            assert!(slot.consume(3, 60));
            assert_eq!(slot.refill(4, 10, 1000), Some(Residue { vessel: 3, nr_bytes: 40 }));
            assert_eq!(slot.refill(4, 1000, 1000), Some(Residue { vessel: 4, nr_bytes: 1000 }));
            assert_eq!(slot.drain_if(|_| true), Some(Residue { vessel: 4, nr_bytes: 10 }));
            assert_eq!(slot.drain_if(|_| true), None);
        }

        #[test]
        fn all_that_is_there_can_be_taken_and_all_that_may_be_kept_stays() {
            let slot = StockSlot(AtomicU64::new(0));
            assert_eq!(slot.refill(3, 1000, 1000), None, "what may be kept");
            assert!(slot.consume(3, 1000), "what is there");
            assert_eq!((slot.refill(3, 7, 1000), slot.peek()), (None, Some(Residue { vessel: 3, nr_bytes: 7 })));
            assert_eq!(slot.refill(4, 1000, 1000), Some(Residue { vessel: 3, nr_bytes: 7 }), "another's make room");
            assert_eq!(slot.refill(5, 1001, 1000), Some(Residue { vessel: 5, nr_bytes: 1001 }), "or stay");
        }

        #[test]
        fn an_overflow_leaves_half_of_what_may_be_kept() {
            let slot = StockSlot(AtomicU64::new(0));
            assert_eq!(slot.refill(1, 990, 1000), None);
            assert_eq!(slot.refill(1, 20, 1000), Some(Residue { vessel: 1, nr_bytes: 510 }));
            assert_eq!(slot.peek(), Some(Residue { vessel: 1, nr_bytes: 500 }));
            assert_eq!(slot.refill(1, 5, 0), Some(Residue { vessel: 1, nr_bytes: 505 }), "a dead vessel keeps nothing");
        }
    }

    #[cfg(loom)]
    mod models {
        use loom::sync::Arc;

        use crate::memcg::stock::StockSlot;

        /// An owner that consumes and refills races with a drain from another CPU: no byte is lost or doubled.
        #[test]
        fn loom_i1_stock_consume_against_drain() {
            loom::model(|| {
                let slot = Arc::new(StockSlot::default());
                assert_eq!(slot.refill(1, 10, 100), None);
                let other = Arc::clone(&slot);
                let drainer =
                    loom::thread::spawn(move || other.drain_if(|_| true).map_or(0, |residue| residue.nr_bytes));
                let mut held = 0;
                if slot.consume(1, 4) {
                    held += 4;
                }
                assert_eq!(slot.refill(1, 3, 100), None);
                let drained = drainer.join().unwrap();
                let left = slot.drain_if(|_| true).map_or(0, |residue| residue.nr_bytes);
                assert_eq!(held + drained + left, 13);
            });
        }

        /// Two vessels share a slot: each one's bytes come out under its own name.
        #[test]
        fn loom_i2_stock_keeps_owners_apart() {
            loom::model(|| {
                let slot = Arc::new(StockSlot::default());
                let other = Arc::clone(&slot);
                let thread = loom::thread::spawn(move || other.refill(2, 5, 100));
                let mine = slot.refill(1, 7, 100);
                let theirs = thread.join().unwrap();
                let mut sums = [0, 0];
                for residue in [mine, theirs, slot.drain_if(|_| true)].into_iter().flatten() {
                    sums[residue.vessel as usize - 1] += residue.nr_bytes;
                }
                assert_eq!(sums, [7, 5]);
            });
        }
    }
}
