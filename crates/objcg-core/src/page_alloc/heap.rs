//! An intrusive pairing heap of page runs, lowest address first.
//!
//! Insert and merge are O(1), taking the lowest or any member is O(log n) amortised. The links are in the descriptors, so
//! a heap costs nothing but its root. Free runs of one length and the partial slabs of a cache are kept in such heaps:
//! low addresses fill up, high ones empty and go back.
//!
//! Links of a node: `child` the first child, `next` the next sibling, `prev` the previous sibling or, of a first child,
//! the parent. A root has neither sibling nor parent.

use super::page::{Page, PageIdx};
use super::region::page;
use crate::sync::{AtomicU32, Ordering};

/// The root of a heap. Whoever owns it holds the lock that guards the links of all its members.
pub(crate) struct RunHeap {
    root: PageIdx,
}

impl RunHeap {
    pub(crate) const EMPTY: RunHeap = RunHeap { root: PageIdx::NONE };

    #[inline]
    pub(crate) fn lowest(&self) -> Option<PageIdx> {
        if self.root.is_none() { None } else { Some(self.root) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Adds a run that is in no heap.
    pub(crate) fn insert(&mut self, run: PageIdx) {
        let links = page(run);
        set(&links.child, PageIdx::NONE);
        set(&links.next, PageIdx::NONE);
        set(&links.prev, PageIdx::NONE);
        self.root = merge(self.root, run);
    }

    pub(crate) fn pop_lowest(&mut self) -> Option<PageIdx> {
        let lowest = self.lowest()?;
        self.remove(lowest);
        Some(lowest)
    }

    /// Takes out a member of this heap.
    pub(crate) fn remove(&mut self, run: PageIdx) {
        let orphans = merge_siblings(get(&page(run).child));
        if run == self.root {
            self.root = orphans;
        } else {
            unlink(run);
            self.root = merge(self.root, orphans);
        }
    }
}

fn get(link: &AtomicU32) -> PageIdx {
    PageIdx(link.load(Ordering::Relaxed))
}

fn set(link: &AtomicU32, to: PageIdx) {
    link.store(to.0, Ordering::Relaxed);
}

/// Takes a node that is not a root out of its parent's list of children.
fn unlink(run: PageIdx) {
    let links: &Page = page(run);
    let (prev, next) = (get(&links.prev), get(&links.next));
    let before = page(prev);
    if get(&before.child) == run {
        set(&before.child, next);
    } else {
        set(&before.next, next);
    }
    if !next.is_none() {
        set(&page(next).prev, prev);
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
    let first = get(&page(parent).child);
    set(&page(child).next, first);
    set(&page(child).prev, parent);
    if !first.is_none() {
        set(&page(first).prev, child);
    }
    set(&page(parent).child, child);
    parent
}

/// Makes one heap of a list of siblings: pairs from left to right, then one after another from right to left.
fn merge_siblings(first: PageIdx) -> PageIdx {
    let mut pairs = PageIdx::NONE;
    let mut rest = first;
    while !rest.is_none() {
        let left = rest;
        let right = get(&page(left).next);
        rest = if right.is_none() { right } else { get(&page(right).next) };
        make_root(left);
        make_root(right);
        let pair = merge(left, right);
        set(&page(pair).next, pairs);
        pairs = pair;
    }
    let mut root = PageIdx::NONE;
    while !pairs.is_none() {
        let pair = pairs;
        pairs = get(&page(pair).next);
        set(&page(pair).next, PageIdx::NONE);
        root = merge(root, pair);
    }
    root
}

fn make_root(run: PageIdx) {
    if !run.is_none() {
        set(&page(run).next, PageIdx::NONE);
        set(&page(run).prev, PageIdx::NONE);
    }
}
