//! Runs belong to their owner alone, are zero when they say so, are aligned, and grow and shrink in place.

#![expect(unsafe_code, reason = "writes into the runs that it owns")]

extern crate std;

use std::collections::BTreeMap;
use std::vec::Vec;

use super::{PageKind, Run, Touches, alloc, extend, free, shrink};
use crate::os::PAGE_SIZE;

/// A small generator, so that the sequence is the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}

fn bytes(run: &mut Run) -> &mut [u8] {
    let len = run.nr_pages as usize * PAGE_SIZE;
    // SAFETY: the test owns the run, and the slice borrows it.
    unsafe { std::slice::from_raw_parts_mut(run.address().as_ptr(), len) }
}

/// A run of the test's, with the tag that its first pages are filled with.
struct Tagged {
    run: Run,
    tag: u8,
    nr_tagged: u32,
}

impl Tagged {
    /// Nobody else has written into the pages that have the tag.
    fn check(&mut self) {
        let tagged = &bytes(&mut self.run)[..self.nr_tagged as usize * PAGE_SIZE];
        assert!(tagged.iter().all(|byte| *byte == self.tag), "somebody else wrote into a run");
    }
}

#[test]
fn random_runs_never_overlap_and_are_zero_when_they_say_so() {
    let mut random = Random(42);
    let mut live: Vec<Tagged> = Vec::new();
    // Of both kinds, each given back as either; of half of them only the first page is touched, so that some are patchy.
    let touches = |random: &mut Random| if random.below(2) == 0 { Touches::All } else { Touches::Some };
    for round in 0..6000u32 {
        let tag = (round % 251 + 1) as u8;
        if live.len() > 60 || (!live.is_empty() && random.below(5) < 2) {
            let mut it = live.swap_remove(random.below(live.len() as u32) as usize);
            it.check();
            free(it.run, touches(&mut random));
            continue;
        }
        if !live.is_empty() && random.below(4) == 0 {
            let at = random.below(live.len() as u32) as usize;
            let it = &mut live[at];
            let nr_pages = 1 + random.below(40);
            if nr_pages < it.run.nr_pages {
                shrink(&mut it.run, nr_pages);
                it.nr_tagged = it.nr_tagged.min(nr_pages);
            } else if nr_pages > it.run.nr_pages && extend(&mut it.run, nr_pages) {
                assert_eq!(it.run.nr_pages, nr_pages);
            }
            it.check();
            continue;
        }
        let align_pages = 1 << random.below(6);
        let longest = if random.below(10) == 0 { 700 } else { 20 };
        let nr_pages = 1 + random.below(longest);
        let mut run = alloc(nr_pages, align_pages, PageKind::Large, touches(&mut random)).expect("pages");
        assert!((run.address().as_ptr() as usize).is_multiple_of(align_pages as usize * PAGE_SIZE));
        if run.zeroed {
            assert!(bytes(&mut run).iter().all(|byte| *byte == 0), "a clean run has old bytes");
        }
        let nr_tagged = if random.below(2) == 0 { 1 } else { nr_pages };
        bytes(&mut run)[..nr_tagged as usize * PAGE_SIZE].fill(tag);
        live.push(Tagged { run, tag, nr_tagged });
    }
    let by_address: BTreeMap<u32, u32> = live.iter().map(|it| (it.run.head.0, it.run.nr_pages)).collect();
    let ends = by_address.iter().map(|(head, nr_pages)| head + nr_pages);
    assert!(by_address.keys().skip(1).zip(ends).all(|(next, end)| end <= *next));
    live.into_iter().for_each(|it| free(it.run, touches(&mut random)));
}

#[test]
fn a_run_that_shrinks_can_grow_back_into_what_it_gave() {
    let mut run = alloc(40, 1, PageKind::Large, Touches::Some).expect("pages");
    bytes(&mut run).fill(7);
    shrink(&mut run, 8);
    assert_eq!(run.nr_pages, 8);
    // Another test may have taken the pages behind; then it says so and nothing changed.
    if extend(&mut run, 40) {
        assert_eq!(run.nr_pages, 40);
    }
    assert!(bytes(&mut run)[..8 * PAGE_SIZE].iter().all(|byte| *byte == 7));
    free(run, Touches::Some);
}
