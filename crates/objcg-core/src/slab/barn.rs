//! The barn: the store of full and empty sheaves of one cache, between the CPUs and the slabs.
//!
//! A CPU that runs dry swaps its empty sheaf for a full one here, a CPU that overflows the other way round, so a
//! producer and a consumer on different CPUs trade whole sheaves without touching the slab lists. One barn a node; there
//! is one node so far.

use crate::sync::Lock;

/// Room for this many full sheaves; how many may be there, a cache's [`SheafSize`](super::sheaf_size::SheafSize) says.
pub(super) const MAX_FULL: usize = if cfg!(loom) { 1 } else { 64 };
/// Room for this many empty ones: they cost memory, and others are soon made.
const MAX_EMPTY: usize = 1;

pub(crate) struct Barn<S> {
    shelves: Lock<Shelves<S>>,
}

struct Shelves<S> {
    full: Stack<S, MAX_FULL>,
    empty: Stack<S, MAX_EMPTY>,
}

struct Stack<S, const N: usize> {
    items: [Option<S>; N],
    len: usize,
}

impl<S> Barn<S> {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Barn { shelves: Lock::new(Shelves { full: Stack::EMPTY, empty: Stack::EMPTY }) }
    }

    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Barn { shelves: Lock::new(Shelves { full: Stack::EMPTY, empty: Stack::EMPTY }) }
    }

    /// Trades an empty sheaf for a full one; `Err` gives the empty one back when there is no full one.
    pub(super) fn trade_empty(&self, empty: S) -> Result<Traded<S>, S> {
        let mut shelves = self.shelves.lock();
        let Some(full) = shelves.full.pop() else { return Err(empty) };
        let surplus = shelves.empty.push(empty, MAX_EMPTY).err();
        Ok(Traded { sheaf: full, surplus })
    }

    /// Stores a full sheaf, if fewer than `limit` are there, and takes an empty one in return where there is one.
    /// `Err` gives the full one back.
    pub(super) fn trade_full(&self, full: S, limit: usize) -> Result<Option<S>, S> {
        let mut shelves = self.shelves.lock();
        shelves.full.push(full, limit)?;
        Ok(shelves.empty.pop())
    }

    /// Takes an empty sheaf.
    pub(super) fn take_empty(&self) -> Option<S> {
        self.shelves.lock().empty.pop()
    }

    /// Takes a full sheaf.
    pub(super) fn take_full(&self) -> Option<S> {
        self.shelves.lock().full.pop()
    }

    /// Visits the full sheaves.
    #[cfg(not(loom))]
    pub(super) fn for_each_full(&self, visit: impl FnMut(&S)) {
        self.shelves.lock().full.items.iter().flatten().for_each(visit);
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

/// What came of trading an empty sheaf: the full one, and the empty one again if its shelf was full.
pub(super) struct Traded<S> {
    pub(super) sheaf: S,
    pub(super) surplus: Option<S>,
}

impl<S, const N: usize> Stack<S, N> {
    const EMPTY: Stack<S, N> = Stack { items: [const { None }; N], len: 0 };

    fn push(&mut self, item: S, limit: usize) -> Result<(), S> {
        if self.len >= limit {
            return Err(item);
        }
        self.items[self.len] = Some(item);
        self.len += 1;
        Ok(())
    }

    fn pop(&mut self) -> Option<S> {
        self.len = self.len.checked_sub(1)?;
        self.items[self.len].take()
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;

    use super::Barn;

    /// Producer and consumer trade sheaves: none is lost, none is in two hands.
    #[test]
    fn loom_barn_keeps_every_sheaf_once() {
        loom::model(|| {
            let barn = Arc::new(Barn::<u32>::new());
            let other = Arc::clone(&barn);
            let producer = loom::thread::spawn(move || match other.trade_full(1, 1) {
                Ok(None) => 0,
                Ok(Some(empty)) => empty,
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
