//! An intrusive pairing heap of page runs, lowest address first.
//!
//! Insert and merge are O(1), taking the lowest or any member is O(log n) amortised. The links are in the descriptors, so
//! a heap costs nothing but its root. Free runs of one length and the partial slabs of a cache are kept in such heaps:
//! low addresses fill up, high ones empty and go back.
//!
//! Links of a node: `child` the first child, `next` the next sibling, `prev` the previous sibling or, of a first child,
//! the parent. A root has neither sibling nor parent.
//!
//! | members | links are in the descriptor of |
//! |---|---|
//! | free runs | their first page |
//! | slabs, whose first page's has their free objects in that place | their second page |
//! | slabs of one page | that page, the spare one: there are few, and the array of spare ones takes memory only where they are |

use core::marker::PhantomData;

use super::page::{Page, PageIdx};
use super::region::{page, spare};

/// What the members of a heap are: where their links are.
pub(crate) trait Member {
    fn links(run: PageIdx) -> &'static Page;
}

pub(crate) struct FreeRun;
pub(crate) struct SlabRun;

impl Member for FreeRun {
    fn links(run: PageIdx) -> &'static Page {
        page(run)
    }
}

impl Member for SlabRun {
    fn links(run: PageIdx) -> &'static Page {
        if page(run).nr_pages() > 1 { page(run.add(1)) } else { spare(run) }
    }
}

/// The root of a heap. Whoever owns it holds the lock that guards the links of all its members.
pub(crate) struct RunHeap<M> {
    root: PageIdx,
    members: PhantomData<M>,
}

impl<M: Member> RunHeap<M> {
    pub(crate) const EMPTY: Self = RunHeap { root: PageIdx::NONE, members: PhantomData };

    #[inline]
    pub(crate) fn lowest(&self) -> Option<PageIdx> {
        if self.root.is_none() { None } else { Some(self.root) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Adds a run that is in no heap.
    pub(crate) fn insert(&mut self, run: PageIdx) {
        let links = M::links(run);
        links.set_child(PageIdx::NONE);
        links.set_siblings(PageIdx::NONE, PageIdx::NONE);
        self.root = Self::merge(self.root, run);
    }

    pub(crate) fn pop_lowest(&mut self) -> Option<PageIdx> {
        let lowest = self.lowest()?;
        self.remove(lowest);
        Some(lowest)
    }

    /// Takes out a member of this heap.
    pub(crate) fn remove(&mut self, run: PageIdx) {
        let orphans = Self::merge_siblings(M::links(run).child());
        if run == self.root {
            self.root = orphans;
        } else {
            Self::unlink(run);
            self.root = Self::merge(self.root, orphans);
        }
    }

    /// Takes a node that is not a root out of its parent's list of children.
    fn unlink(run: PageIdx) {
        let links = M::links(run);
        let (prev, next) = (links.prev(), links.next());
        let before = M::links(prev);
        if before.child() == run {
            before.set_child(next);
        } else {
            before.set_next(next);
        }
        if !next.is_none() {
            M::links(next).set_prev(prev);
        }
    }

    /// Makes one heap of two; either may be empty.
    fn merge(a: PageIdx, b: PageIdx) -> PageIdx {
        if a.is_none() {
            return b;
        }
        if b.is_none() {
            return a;
        }
        let (parent, child) = if a < b { (a, b) } else { (b, a) };
        let first = M::links(parent).child();
        M::links(child).set_siblings(first, parent);
        if !first.is_none() {
            M::links(first).set_prev(child);
        }
        M::links(parent).set_child(child);
        parent
    }

    /// Makes one heap of a list of siblings: pairs from left to right, then one after another from right to left.
    fn merge_siblings(first: PageIdx) -> PageIdx {
        let mut pairs = PageIdx::NONE;
        let mut rest = first;
        while !rest.is_none() {
            let left = rest;
            let right = M::links(left).next();
            rest = if right.is_none() { right } else { M::links(right).next() };
            Self::make_root(left);
            Self::make_root(right);
            let pair = Self::merge(left, right);
            M::links(pair).set_next(pairs);
            pairs = pair;
        }
        let mut root = PageIdx::NONE;
        while !pairs.is_none() {
            let pair = pairs;
            pairs = M::links(pair).next();
            M::links(pair).set_next(PageIdx::NONE);
            root = Self::merge(root, pair);
        }
        root
    }

    fn make_root(run: PageIdx) {
        if !run.is_none() {
            M::links(run).set_siblings(PageIdx::NONE, PageIdx::NONE);
        }
    }
}
