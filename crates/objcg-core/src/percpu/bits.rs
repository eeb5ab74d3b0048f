//! A bit for each granule of a unit.

#![forbid(unsafe_code)]

use core::ops::Range;

use super::NR_GRANULES;

const WORD_BITS: usize = u64::BITS as usize;
const NR_WORDS: usize = NR_GRANULES.div_ceil(WORD_BITS);

pub(super) struct Bits([u64; NR_WORDS]);

impl Bits {
    #[inline]
    pub(super) fn get(&self, granule: usize) -> bool {
        self.0[granule / WORD_BITS] >> (granule % WORD_BITS) & 1 != 0
    }

    pub(super) fn set(&mut self, granule: usize) {
        self.0[granule / WORD_BITS] |= 1 << (granule % WORD_BITS);
    }

    pub(super) fn clear(&mut self, granule: usize) {
        self.0[granule / WORD_BITS] &= !(1 << (granule % WORD_BITS));
    }

    pub(super) fn set_range(&mut self, granules: Range<usize>) {
        for_each_word(granules, |word, mask| self.0[word] |= mask);
    }

    pub(super) fn clear_range(&mut self, granules: Range<usize>) {
        for_each_word(granules, |word, mask| self.0[word] &= !mask);
    }

    /// The first set bit from `from` on; `end` if there is none before it.
    #[inline]
    pub(super) fn next_set(&self, from: usize, end: usize) -> usize {
        next(from, end, |word| self.0[word])
    }

    /// The first clear bit from `from` on; `end` if there is none before it.
    #[inline]
    pub(super) fn next_clear(&self, from: usize, end: usize) -> usize {
        next(from, end, |word| !self.0[word])
    }

    /// The first bit from `from` on that is set in `others`, or clear here; `end` if there is none before it.
    #[inline]
    pub(super) fn next_clear_or_set_in(&self, others: &Bits, from: usize, end: usize) -> usize {
        next(from, end, |word| others.0[word] | !self.0[word])
    }

    /// One more than the last set bit before `end`; `start` if there is none from it on.
    #[inline]
    pub(super) fn end_of_last_set(&self, start: usize, end: usize) -> usize {
        let mut at = end;
        while at > start {
            let word = (at - 1) / WORD_BITS;
            // Those from `at` on are shifted out.
            let below = self.0[word] << (WORD_BITS - 1 - (at - 1) % WORD_BITS);
            if below != 0 {
                return (at - below.leading_zeros() as usize).max(start);
            }
            at = word * WORD_BITS;
        }
        start
    }
}

#[inline]
fn next(from: usize, end: usize, bits_of: impl Fn(usize) -> u64) -> usize {
    let mut at = from;
    while at < end {
        let bits = bits_of(at / WORD_BITS) >> (at % WORD_BITS);
        if bits != 0 {
            return (at + bits.trailing_zeros() as usize).min(end);
        }
        at = (at / WORD_BITS + 1) * WORD_BITS;
    }
    end
}

/// Calls `change` with each word that has bits of the range, and those bits.
#[inline]
fn for_each_word(range: Range<usize>, mut change: impl FnMut(usize, u64)) {
    let mut at = range.start;
    while at < range.end {
        let first = at % WORD_BITS;
        let nr_bits = (WORD_BITS - first).min(range.end - at);
        change(at / WORD_BITS, (u64::MAX >> (WORD_BITS - nr_bits)) << first);
        at += nr_bits;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Bits, NR_GRANULES, NR_WORDS};

    #[test]
    fn ranges_and_searches_cross_words() {
        let mut bits = Bits([0; NR_WORDS]);
        bits.set_range(60..200);
        assert!(!bits.get(59) && bits.get(60) && bits.get(199) && !bits.get(200));
        assert_eq!((bits.next_set(0, NR_GRANULES), bits.next_set(0, 50), bits.next_set(70, NR_GRANULES)), (60, 50, 70));
        assert_eq!((bits.next_clear(60, NR_GRANULES), bits.next_clear(60, 100), bits.next_clear(3, 9)), (200, 100, 3));
        assert_eq!((bits.end_of_last_set(0, NR_GRANULES), bits.end_of_last_set(0, 100)), (200, 100));
        assert_eq!((bits.end_of_last_set(0, 60), bits.end_of_last_set(10, 40)), (0, 10));
        bits.clear_range(64..128);
        assert_eq!((bits.next_clear(60, 200), bits.end_of_last_set(0, 128)), (64, 64));
        let mut others = Bits([0; NR_WORDS]);
        others.set(150);
        assert_eq!(bits.next_clear_or_set_in(&others, 130, NR_GRANULES), 150);
        others.clear(150);
        assert_eq!(bits.next_clear_or_set_in(&others, 130, NR_GRANULES), 200);
    }
}
