//! Usage, limits and mark of one group, after the kernel's `mm/page_counter.c`; here in bytes, and never over the limit.
//!
//! One struct. The kernel adds first and takes back what went over, so that readers can see usage above `max`
//! and two charges can refuse each other. Here a charge is a compare-exchange: it happens whole and within the limit, or
//! not at all. It runs once a batch, not once an object, so the retry under contention does not show.
//!
//! | bits of the usage word | meaning |
//! |---|---|
//! | 63–51 | version of the limits: a charge that compared with old ones fails its exchange |
//! | 50 | the mark is one of the whole subtree |
//! | 49 | marked: the group was chosen to end |
//! | 48 | granted: charges may use the reserve above `max` |
//! | 47–0 | bytes |
//!
//! Mark and usage are one word, so that a mark is taken off ([`PageCounter::unmark`]) only while usage is within the limit, and a
//! charge that goes into the reserve finds its mark or sets it.

use crate::sync::{AtomicU64, Ordering};

/// No limit.
pub(crate) const UNLIMITED: u64 = u64::MAX;

/// Bytes in the usage word.
const BYTES: u64 = (1 << 48) - 1;
/// Charges may use the reserve.
pub(crate) const GRANTED: u64 = 1 << 48;
/// The group was chosen to end.
pub(crate) const MARKED: u64 = 1 << 49;
/// And so were its descendants.
pub(crate) const SUBTREE: u64 = 1 << 50;
const VERSION: u64 = 1 << 51;

/// The default reserve is this share of the limit,
const RESERVE_SHARE: u64 = 8;
/// and at least this.
const MIN_RESERVE: u64 = 64 << 10;

#[repr(C)]
#[cfg_attr(loom, derive(Default))]
pub(crate) struct PageCounter {
    usage: AtomicU64,
    max: AtomicU64,
    high: AtomicU64,
    low: AtomicU64,
    /// [`UNLIMITED`] for the default.
    reserve: AtomicU64,
    peak: AtomicU64,
    /// The most since the last reset by a reader of peaks; never above `peak`.
    recent_peak: AtomicU64,
}

/// The usage before a return, and whether the return leaves less than a limit that it was over before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Returned {
    /// Bytes charged before.
    pub(crate) before: u64,
    /// Usage is not over `high` any more.
    pub(crate) passed_high: bool,
    /// Usage is within `max`, and the group was granted its reserve without being marked.
    pub(crate) ends_grant: bool,
}

impl PageCounter {
    /// Starts afresh: nothing used, no limit, no mark. The caller owns the group.
    pub(crate) fn reset(&self) {
        self.usage.store(0, Ordering::Relaxed);
        self.max.store(UNLIMITED, Ordering::Relaxed);
        self.high.store(UNLIMITED, Ordering::Relaxed);
        self.low.store(0, Ordering::Relaxed);
        self.reserve.store(UNLIMITED, Ordering::Relaxed);
        self.peak.store(0, Ordering::Relaxed);
        self.recent_peak.store(0, Ordering::Relaxed);
    }

    /// Adds `nr_bytes` if usage stays within the limit, or, once it was granted, within limit and reserve.
    ///
    /// Races with [`PageCounter::set_max`], which changes the version in the usage word: a charge that compared with the
    /// old limit fails its exchange and looks again.
    pub(crate) fn try_charge(&self, nr_bytes: u64) -> bool {
        self.charge_within(nr_bytes, |word| if word & GRANTED == 0 { self.max() } else { self.max_and_reserve() })
    }

    /// Adds `nr_bytes` if usage stays within limit and reserve, granted or not. Who does this sets the mark that goes with it,
    /// or takes the bytes back.
    pub(crate) fn try_charge_reserve(&self, nr_bytes: u64) -> bool {
        self.charge_within(nr_bytes, |_| self.max_and_reserve())
    }

    /// Adds `nr_bytes` whatever the limit is. False if the word has no room.
    pub(crate) fn force_charge(&self, nr_bytes: u64) -> bool {
        self.charge_within(nr_bytes, |_| UNLIMITED)
    }

    fn charge_within(&self, nr_bytes: u64, limit: impl Fn(u64) -> u64) -> bool {
        // Acquire pairs with the Release in `set_max`: who sees the version sees its limit.
        let mut word = self.usage.load(Ordering::Acquire);
        loop {
            let Some(new) = (word & BYTES).checked_add(nr_bytes) else { return false };
            if new > limit(word).min(BYTES) {
                return false;
            }
            match self.usage.compare_exchange_weak(word, word + nr_bytes, Ordering::Relaxed, Ordering::Acquire) {
                Ok(_) => return true,
                Err(seen) => word = seen,
            }
        }
    }

    /// Takes `nr_bytes` off. More than was charged is the caller's bug, and his to report.
    pub(crate) fn uncharge(&self, nr_bytes: u64) -> Returned {
        let word = self.usage.fetch_sub(nr_bytes, Ordering::Relaxed);
        let before = word & BYTES;
        let after = before.wrapping_sub(nr_bytes);
        let high = self.high();
        Returned {
            before,
            passed_high: before > high && after <= high,
            ends_grant: word & (GRANTED | MARKED) == GRANTED && after <= self.max(),
        }
    }

    /// Raises the peaks to the present usage. Called once a charge has succeeded at every level, so that a refused one
    /// leaves no peak. A free on another CPU between the charge and this may hide up to what it freed.
    pub(crate) fn note_peak(&self) {
        let usage = self.usage();
        if usage > self.recent_peak.load(Ordering::Relaxed) {
            self.recent_peak.fetch_max(usage, Ordering::Relaxed);
            self.peak.fetch_max(usage, Ordering::Relaxed);
        }
    }

    /// The most bytes since the last call of this, which starts anew at the present usage.
    pub(crate) fn take_recent_peak(&self) -> u64 {
        let recent = self.recent_peak.swap(self.usage(), Ordering::Relaxed);
        // What was charged between the look and the exchange.
        self.note_peak();
        recent
    }

    /// The most bytes since the last [`PageCounter::take_recent_peak`].
    pub(crate) fn recent_peak(&self) -> u64 {
        self.recent_peak.load(Ordering::Relaxed)
    }

    /// Sets bits of the mark; returns those that were not set before.
    pub(crate) fn mark(&self, bits: u64) -> u64 {
        // Release pairs with the Acquire in `marks`.
        bits & !self.usage.fetch_or(bits, Ordering::Release)
    }

    /// The bits of the mark.
    pub(crate) fn marks(&self) -> u64 {
        self.usage.load(Ordering::Acquire) & (GRANTED | MARKED | SUBTREE)
    }

    /// Takes all bits of the mark off, of a counter that nobody else uses any more; returns those that were set.
    pub(crate) fn take_marks(&self) -> u64 {
        self.usage.fetch_and(!(GRANTED | MARKED | SUBTREE), Ordering::Relaxed) & (GRANTED | MARKED | SUBTREE)
    }

    /// Whether a bit of the mark is set or usage is over `high`.
    #[inline]
    pub(crate) fn is_marked_or_over_high(&self, bits: u64) -> bool {
        // Acquire as in `marks`.
        let word = self.usage.load(Ordering::Acquire);
        word & bits != 0 || word & BYTES > self.high()
    }

    /// Takes all bits of the mark off if usage is within the limit, and returns those that were set; else by how much it is over.
    pub(crate) fn unmark(&self) -> Result<u64, u64> {
        self.clear_if(|_| true)
    }

    /// Ends a grant that has no mark beside it, if usage is within the limit.
    pub(crate) fn end_grant(&self) {
        // Over the limit again: a later return ends it.
        let _still_over = self.clear_if(|word| word & MARKED == 0);
    }

    /// Ends a grant that has no mark beside it, wherever usage is: the next charge over the limit marks somebody.
    pub(crate) fn withdraw_grant(&self) {
        let mut word = self.usage.load(Ordering::Relaxed);
        while word & (GRANTED | MARKED) == GRANTED {
            // Release pairs with the Acquire in `charge_within`.
            match self.usage.compare_exchange_weak(word, word & !GRANTED, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
    }

    fn clear_if(&self, test: impl Fn(u64) -> bool) -> Result<u64, u64> {
        // Acquire as in `charge_within`.
        let mut word = self.usage.load(Ordering::Acquire);
        loop {
            if !test(word) {
                return Ok(0);
            }
            match (word & BYTES).checked_sub(self.max()) {
                None | Some(0) => {}
                Some(excess) => return Err(excess),
            }
            let cleared = word & !(GRANTED | MARKED | SUBTREE);
            match self.usage.compare_exchange_weak(word, cleared, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(word & !cleared),
                Err(seen) => word = seen,
            }
        }
    }

    /// Bytes charged now.
    pub(crate) fn usage(&self) -> u64 {
        self.usage.load(Ordering::Relaxed) & BYTES
    }

    /// The most bytes that were charged at once.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// The limit in bytes.
    pub(crate) fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// The soft limit in bytes: no charge asks it.
    pub(crate) fn high(&self) -> u64 {
        self.high.load(Ordering::Relaxed)
    }

    pub(crate) fn set_high(&self, nr_bytes: u64) {
        self.high.store(nr_bytes, Ordering::Relaxed);
    }

    /// Bytes that reclaim leaves alone.
    pub(crate) fn low(&self) -> u64 {
        self.low.load(Ordering::Relaxed)
    }

    pub(crate) fn set_low(&self, nr_bytes: u64) {
        self.low.store(nr_bytes, Ordering::Relaxed);
    }

    /// Bytes above the limit that a marked group may use.
    pub(crate) fn reserve(&self) -> u64 {
        match self.reserve.load(Ordering::Relaxed) {
            UNLIMITED => (self.max() / RESERVE_SHARE).max(MIN_RESERVE),
            set => set,
        }
    }

    /// Sets the reserve; [`UNLIMITED`] for the default.
    pub(crate) fn set_reserve(&self, nr_bytes: u64) {
        self.reserve.store(nr_bytes, Ordering::Relaxed);
        self.limits_changed();
    }

    fn max_and_reserve(&self) -> u64 {
        self.max().checked_add(self.reserve()).unwrap_or(UNLIMITED)
    }

    pub(crate) fn set_max(&self, nr_bytes: u64) {
        self.max.store(nr_bytes, Ordering::Relaxed);
        self.limits_changed();
    }

    fn limits_changed(&self) {
        // Release pairs with the Acquire in `charge_within`. A charge that compared with the old limit fails its exchange.
        self.usage.fetch_add(VERSION, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{GRANTED, MARKED, PageCounter, SUBTREE};
    use crate::sync::{AtomicU64, Ordering};

    fn counter(max: u64) -> PageCounter {
        let [usage, max_bytes, high, low, reserve, peak, recent_peak] = [const { AtomicU64::new(0) }; 7];
        let counter = PageCounter { usage, max: max_bytes, high, low, reserve, peak, recent_peak };
        counter.reset();
        counter.set_max(max);
        counter
    }

    #[test]
    fn a_return_to_the_soft_limit_passes_it_and_one_at_it_does_not() {
        let counter = counter(1000);
        counter.set_high(100);
        assert!(counter.try_charge(110));
        assert!(!counter.uncharge(5).passed_high, "still over it");
        assert!(counter.uncharge(5).passed_high, "at it");
        assert!(!counter.uncharge(5).passed_high, "it was not over it");
    }

    #[test]
    fn a_return_to_the_limit_ends_a_grant_unless_the_group_is_marked() {
        let counter = counter(100);
        counter.set_reserve(50);
        assert!(counter.try_charge_reserve(120));
        assert!(!counter.uncharge(10).ends_grant, "nothing was granted");
        counter.mark(GRANTED);
        assert!(!counter.uncharge(5).ends_grant, "still over it");
        assert!(counter.uncharge(5).ends_grant, "at it");
        counter.mark(MARKED);
        assert!(!counter.uncharge(5).ends_grant, "that one ends by its revival");
    }

    #[test]
    fn marks_are_taken_all_at_once() {
        let counter = counter(100);
        assert!(counter.try_charge(7));
        assert_eq!(counter.take_marks(), 0);
        counter.mark(GRANTED | MARKED | SUBTREE);
        assert_eq!(counter.take_marks(), GRANTED | MARKED | SUBTREE);
        assert_eq!((counter.marks(), counter.usage()), (0, 7));
    }

    #[test]
    fn only_a_mark_that_is_asked_for_or_usage_over_the_soft_limit_is_seen() {
        let counter = counter(100);
        counter.set_high(10);
        assert!(counter.try_charge(10));
        assert!(!counter.is_marked_or_over_high(MARKED | SUBTREE), "at the soft limit");
        counter.mark(GRANTED);
        assert!(!counter.is_marked_or_over_high(MARKED | SUBTREE), "another bit");
        assert!(counter.is_marked_or_over_high(GRANTED));
        assert!(counter.try_charge(1) && counter.is_marked_or_over_high(MARKED), "over it");
    }

    #[test]
    fn the_recent_peak_starts_anew_at_the_present_usage() {
        let counter = counter(100);
        assert!(counter.try_charge(50));
        counter.note_peak();
        counter.uncharge(20);
        assert_eq!((counter.take_recent_peak(), counter.recent_peak(), counter.peak()), (50, 30, 50));
    }

    /// What a charge compares with is in its exchange: see `charge_within`.
    #[test]
    fn a_new_limit_or_reserve_changes_the_word_that_charges_exchange() {
        let counter = counter(100);
        let word = || counter.usage.load(Ordering::Relaxed);
        let mut last = word();
        for change in [|counter: &PageCounter| counter.set_max(90), |counter: &PageCounter| counter.set_reserve(5)] {
            change(&counter);
            assert_ne!(core::mem::replace(&mut last, word()), last);
        }
        assert_eq!(counter.usage(), 0);
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;

    use super::{GRANTED, MARKED, PageCounter};

    /// Two charges of which only one fits, and an observer: exactly one succeeds, usage is never over the limit, and
    /// after the return it is zero.
    #[test]
    fn loom_i3_usage_never_passes_max() {
        loom::model(|| {
            let counter = Arc::new(PageCounter::default());
            counter.set_max(10);
            let charge = |counter: &PageCounter| {
                let charged = counter.try_charge(6);
                assert!(counter.usage() <= 10);
                charged
            };
            let other = Arc::clone(&counter);
            let thread = loom::thread::spawn(move || charge(&other));
            let mine = charge(&counter);
            let theirs = thread.join().unwrap();
            assert!(mine != theirs, "one charge fits, not both and not none");
            counter.note_peak();
            assert_eq!((counter.usage(), counter.peak()), (6, 6));
            assert_eq!(counter.uncharge(6).before, 6);
            assert_eq!(counter.usage(), 0);
        });
    }

    /// A return while others charge: the sum is exact afterwards.
    #[test]
    fn loom_i1_charges_and_returns_balance() {
        loom::model(|| {
            let counter = Arc::new(PageCounter::default());
            counter.set_max(100);
            assert!(counter.try_charge(5));
            let other = Arc::clone(&counter);
            let thread = loom::thread::spawn(move || other.uncharge(5).before);
            assert!(counter.try_charge(7));
            thread.join().unwrap();
            assert_eq!(counter.usage(), 7);
        });
    }

    const MAX: u64 = 10;
    const RESERVE: u64 = 4;

    fn limited() -> Arc<PageCounter> {
        let counter = Arc::new(PageCounter::default());
        counter.set_reserve(RESERVE);
        counter.set_max(MAX);
        counter
    }

    /// As the charging side does: within the limit, else into the reserve with a mark.
    fn charge_or_kill(counter: &PageCounter, nr_bytes: u64) -> bool {
        if counter.try_charge(nr_bytes) {
            return true;
        }
        let granted = counter.try_charge_reserve(nr_bytes);
        if granted {
            counter.mark(MARKED | GRANTED);
        }
        granted
    }

    /// Two charges that break the limit, against each other: never over limit and reserve, and marked if anything was granted.
    #[test]
    fn loom_i3_the_reserve_is_never_passed() {
        loom::model(|| {
            let counter = limited();
            assert!(counter.try_charge(9));
            let other = Arc::clone(&counter);
            let thread = loom::thread::spawn(move || charge_or_kill(&other, 3));
            let mine = charge_or_kill(&counter, 3);
            assert!(counter.usage() <= MAX + RESERVE);
            let theirs = thread.join().unwrap();
            assert!(mine != theirs, "one of them fits the reserve");
            assert_eq!(counter.marks(), MARKED | GRANTED);
        });
    }

    /// A charge that kills, against a drop that makes room and a revival: whoever is over the limit at the end is marked, and
    /// who was revived is within it or was marked again.
    #[test]
    fn loom_kill_against_drop_and_revival() {
        loom::model(|| {
            let counter = limited();
            assert!(counter.try_charge(9));
            let killer = Arc::clone(&counter);
            let killer = loom::thread::spawn(move || charge_or_kill(&killer, 3));
            let dropper = Arc::clone(&counter);
            let dropper = loom::thread::spawn(move || {
                dropper.uncharge(1);
                dropper.unmark().is_ok()
            });
            assert!(killer.join().unwrap(), "it fits the reserve at any time");
            let revived = dropper.join().unwrap();
            let is_over = counter.usage() > MAX;
            assert!(is_over && counter.marks() & MARKED != 0, "over the limit without a mark (revived: {revived})");
            counter.uncharge(11);
            assert_eq!((counter.unmark().is_ok(), counter.marks()), (true, 0));
        });
    }

    /// A grant on behalf of a victim below ends by the return that comes back to the limit, never by one while usage is over it.
    #[test]
    fn loom_a_grant_ends_within_the_limit() {
        loom::model(|| {
            let counter = limited();
            assert!(counter.try_charge(9));
            assert!(counter.try_charge_reserve(3));
            counter.mark(GRANTED);
            let other = Arc::clone(&counter);
            let returner = loom::thread::spawn(move || {
                if other.uncharge(5).ends_grant {
                    other.end_grant();
                }
            });
            let charged = counter.try_charge(2);
            returner.join().unwrap();
            assert!(charged, "it fits before the return, by the grant, and after it");
            assert!(counter.usage() <= MAX && counter.marks() == 0 || counter.marks() == GRANTED);
        });
    }
}
