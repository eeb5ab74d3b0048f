//! The barn: the store of full and empty sheaves of one cache, between the CPUs and the slabs.
//!
//! A CPU that runs dry swaps its empty sheaf for a full one here, a CPU that overflows the other way round, so a
//! producer and a consumer on different CPUs trade whole sheaves without touching the slab lists. One barn a node; there
//! is one node so far.
//!
//! Full sheaves lie in a pile that is linked through the sheaves themselves: room for as many as a busy cache may have would be two thirds
//! of each cache, and most never have one.
//!
//! What a barn has it needed once, in the worst moment; without more it would keep that for ever. So it looks now and then at how few
//! full sheaves there were since the last look: nobody needed those, and half of them go, one with each sheaf that comes.

use core::iter;

use crate::sync::Lock;

/// The most full sheaves that may be there: see [`SheafSize`](super::sheaf_size::SheafSize).
pub(super) const MAX_FULL: u32 = if cfg!(loom) { 1 } else { 64 };
/// Full sheaves that come between two looks at how many are idle.
const STORED_TO_LOOK: u32 = 32;

/// What can lie in a pile: it has room for what lies below it.
pub(crate) trait Piled: Sized {
    /// Lays it onto a pile of which that is the top; it lies on none.
    fn put_on(&mut self, below: Self);
    /// Takes it off what is below it, which is returned.
    fn take_off(&mut self) -> Option<Self>;
    /// What is below it.
    fn below(&self) -> Option<&Self>;
    /// The same, to be changed.
    fn below_mut(&mut self) -> Option<&mut Self>;
}

pub(crate) struct Barn<S> {
    shelves: Lock<Shelves<S>>,
}

struct Shelves<S> {
    full: Pile<S>,
    /// One at most: they cost memory, and others are soon made.
    empty: Option<S>,
    /// Full sheaves that came since the last look, and those that are to go.
    nr_stored: u32,
    nr_idle: u32,
}

struct Pile<S> {
    top: Option<S>,
    len: u32,
    /// The fewest since the last look.
    fewest: u32,
}

impl<S: Piled> Barn<S> {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Barn { shelves: Lock::new(Shelves::EMPTY) }
    }

    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Barn { shelves: Lock::new(Shelves::EMPTY) }
    }

    /// Trades an empty sheaf for a full one; `Err` gives the empty one back when there is no full one.
    pub(super) fn trade_empty(&self, empty: S) -> Result<Traded<S>, S> {
        let mut shelves = self.shelves.lock();
        let Some(full) = shelves.full.pop() else { return Err(empty) };
        let surplus = shelves.keep_empty(empty);
        Ok(Traded { sheaf: full, surplus })
    }

    /// Stores a full sheaf, if fewer than `limit` are there, and takes an empty one in return where there is one.
    /// `Err` gives the full one back.
    pub(super) fn trade_full(&self, full: S, limit: u32) -> Result<Stored<S>, S> {
        let mut shelves = self.shelves.lock();
        shelves.full.push(full, limit)?;
        Ok(Stored { empty: shelves.empty.take(), idle: shelves.take_idle() })
    }

    /// Takes an empty sheaf.
    pub(super) fn take_empty(&self) -> Option<S> {
        self.shelves.lock().empty.take()
    }

    /// Takes a full sheaf.
    pub(super) fn take_full(&self) -> Option<S> {
        self.shelves.lock().full.pop()
    }

    /// Visits the full sheaves.
    #[cfg(not(loom))]
    pub(super) fn for_each_full(&self, visit: impl FnMut(&S)) {
        self.shelves.lock().full.iter().for_each(visit);
    }

    /// Runs `work` while nobody else has the barn.
    #[cfg(not(loom))]
    pub(super) fn held<R>(&self, work: impl FnOnce() -> R) -> R {
        let _shelves = self.shelves.lock();
        work()
    }

    #[cfg(not(loom))]
    pub(super) fn hold_for_fork(&self) {
        self.shelves.hold_for_fork();
    }

    #[cfg(not(loom))]
    pub(super) fn release_after_fork(&self) {
        self.shelves.force_unlock();
    }
}

impl<S: Piled> Shelves<S> {
    const EMPTY: Shelves<S> = Shelves { full: Pile::EMPTY, empty: None, nr_stored: 0, nr_idle: 0 };

    /// Keeps an empty sheaf, or returns it if there is one.
    fn keep_empty(&mut self, empty: S) -> Option<S> {
        if self.empty.is_some() {
            return Some(empty);
        }
        self.empty = Some(empty);
        None
    }

    /// Counts a full sheaf that has come; takes the one that has waited longest, if some are idle.
    fn take_idle(&mut self) -> Option<S> {
        self.nr_stored += 1;
        if self.nr_stored == STORED_TO_LOOK {
            self.nr_idle = self.full.fewest.div_ceil(2);
            (self.full.fewest, self.nr_stored) = (self.full.len, 0);
        }
        self.nr_idle = self.nr_idle.checked_sub(1)?;
        self.full.take_oldest()
    }
}

/// What came of trading an empty sheaf: the full one, and the empty one again if its shelf was full.
pub(super) struct Traded<S> {
    pub(super) sheaf: S,
    pub(super) surplus: Option<S>,
}

/// What came of storing a full sheaf: an empty one, and a full one that is idle.
pub(super) struct Stored<S> {
    pub(super) empty: Option<S>,
    pub(super) idle: Option<S>,
}

impl<S: Piled> Pile<S> {
    const EMPTY: Pile<S> = Pile { top: None, len: 0, fewest: 0 };

    fn push(&mut self, mut item: S, limit: u32) -> Result<(), S> {
        debug_assert!(limit <= MAX_FULL);
        if self.len >= limit {
            return Err(item);
        }
        if let Some(below) = self.top.take() {
            item.put_on(below);
        }
        self.top = Some(item);
        self.len += 1;
        Ok(())
    }

    fn pop(&mut self) -> Option<S> {
        let mut item = self.top.take()?;
        self.top = item.take_off();
        self.shorten();
        Some(item)
    }

    /// Takes the item at the bottom.
    fn take_oldest(&mut self) -> Option<S> {
        if self.len <= 1 {
            return self.pop();
        }
        let mut last_but_one = self.top.as_mut()?;
        for _ in 2..self.len {
            last_but_one = last_but_one.below_mut()?;
        }
        let oldest = last_but_one.take_off();
        self.shorten();
        oldest
    }

    fn shorten(&mut self) {
        self.len -= 1;
        self.fewest = self.fewest.min(self.len);
    }

    /// The newest first.
    fn iter(&self) -> impl Iterator<Item = &S> {
        iter::successors(self.top.as_ref(), |item| item.below())
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;

    use super::{Barn, Piled};

    /// A sheaf that has nothing below it: one is the most that there can be.
    impl Piled for u32 {
        fn put_on(&mut self, below: u32) {
            unreachable!("on {below}");
        }

        fn take_off(&mut self) -> Option<u32> {
            None
        }

        fn below(&self) -> Option<&u32> {
            None
        }

        fn below_mut(&mut self) -> Option<&mut u32> {
            None
        }
    }

    /// Producer and consumer trade sheaves: none is lost, none is in two hands.
    #[test]
    fn loom_barn_keeps_every_sheaf_once() {
        loom::model(|| {
            let barn = Arc::new(Barn::<u32>::new());
            let other = Arc::clone(&barn);
            let producer = loom::thread::spawn(move || match other.trade_full(1, 1) {
                Ok(stored) => {
                    assert!(stored.idle.is_none(), "one sheaf is no history");
                    stored.empty.unwrap_or(0)
                }
                Err(full) => full,
            });
            let (mine, surplus) = match barn.trade_empty(2) {
                Ok(traded) => (traded.sheaf, traded.surplus),
                Err(empty) => (empty, None),
            };
            assert!(surplus.is_none(), "the shelf for empty sheaves was free");
            let theirs = producer.join().unwrap();
            let stored = [barn.take_full(), barn.take_empty()].into_iter().flatten();
            let mut all: Vec<u32> = stored.chain([mine, theirs].into_iter().filter(|s| *s != 0)).collect();
            all.sort_unstable();
            assert_eq!(all, [1, 2]);
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::boxed::Box;
    use std::vec::Vec;

    use super::{Barn, MAX_FULL, Piled, STORED_TO_LOOK};

    #[derive(Debug)]
    struct Numbered {
        number: u32,
        below: Option<Box<Numbered>>,
    }

    impl Piled for Numbered {
        fn put_on(&mut self, below: Numbered) {
            self.below = Some(Box::new(below));
        }

        fn take_off(&mut self) -> Option<Numbered> {
            self.below.take().map(|below| *below)
        }

        fn below(&self) -> Option<&Numbered> {
            self.below.as_deref()
        }

        fn below_mut(&mut self) -> Option<&mut Numbered> {
            self.below.as_deref_mut()
        }
    }

    fn sheaf(number: u32) -> Numbered {
        Numbered { number, below: None }
    }

    /// Stores a sheaf, and takes one again; the idle sheaf that went.
    fn turn(barn: &Barn<Numbered>, number: u32) -> Option<u32> {
        let stored = barn.trade_full(sheaf(number), MAX_FULL).unwrap();
        assert!(barn.take_full().is_some_and(|newest| newest.number == number));
        stored.idle.map(|idle| idle.number)
    }

    fn nr_full(barn: &Barn<Numbered>) -> usize {
        let mut nr_full = 0;
        barn.for_each_full(|_| nr_full += 1);
        nr_full
    }

    #[test]
    fn sheaves_that_nobody_needs_go_the_oldest_first() {
        let barn = Barn::new();
        for number in 0..8 {
            assert!(barn.trade_full(sheaf(number), MAX_FULL).is_ok_and(|stored| stored.idle.is_none()));
        }
        let gone = (0..1000).filter_map(|number| turn(&barn, 100 + number)).collect::<Vec<_>>();
        assert_eq!(gone, [0, 1, 2, 3, 4, 5, 6, 7], "all that waited for nothing");
        assert_eq!(nr_full(&barn), 0);
        assert!((0..1000).all(|number| turn(&barn, number).is_none()), "what is needed stays");
    }

    #[test]
    fn sheaves_that_are_needed_stay() {
        let barn = Barn::new();
        for round in 0..1000 {
            let stored = (0..8).map(|_| barn.trade_full(sheaf(round), MAX_FULL).unwrap());
            assert!(stored.into_iter().all(|stored| stored.idle.is_none()));
            assert_eq!((0..8).filter_map(|_| barn.take_full()).count(), 8);
        }
    }

    #[test]
    fn half_of_the_idle_ones_go_after_each_look() {
        let barn = Barn::new();
        let nr_idle = STORED_TO_LOOK / 2;
        assert!((0..nr_idle).all(|number| barn.trade_full(sheaf(number), MAX_FULL).is_ok()));
        // Up to the first look nobody knows how few there were: it is at the end of as many more.
        let nr_quiet = nr_idle + STORED_TO_LOOK - 1;
        assert!((0..nr_quiet).all(|number| turn(&barn, number).is_none()));
        let nr_gone = (0..STORED_TO_LOOK).filter(|number| turn(&barn, *number).is_some()).count();
        assert_eq!(nr_gone, nr_idle as usize / 2);
        assert_eq!(nr_full(&barn), nr_idle as usize / 2);
    }
}
