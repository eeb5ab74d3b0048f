//! A group's slot: counter, events, links of the tree, name. Type-stable, reused under a new generation.
//!
//! A slot is in use while its group lives or anything still pins it: handles to a deleted group, charges under way, slots
//! of children. Links and counts of users are guarded by the tree lock; `parent` and `objcg` are fixed for a life.

#![expect(unsafe_code, reason = "vouches for types that may start as zeroes")]

use super::name::Name;
use super::page_counter::PageCounter;
use super::pin::Pin;
use super::signal::Signal;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::table::{Slot, Table};

/// Chunks of 1024 groups: 8 million.
pub(super) static NODES: Table<Node, 8192> = Table::new();
static LONG_NAMES: Table<LongName, 1024> = Table::new();

/// The root's number; also "none" among the links, since the root is nobody's child or sibling.
pub(super) const ROOT: u32 = 0;

const INLINE_WORDS: usize = 7;
const INLINE_BYTES: usize = INLINE_WORDS * size_of::<u64>();

/// Four cache lines: 8 (pin) + 56 (counter) + 64 (events) + 68 (links and the like) + 4 (name's length) + 56 (its text) = 256.
#[repr(C, align(64))]
pub(super) struct Node {
    pub(super) pin: Pin,
    pub(super) counter: PageCounter,
    pub(super) events: NodeEvents,
    pub(super) parent: AtomicU32,
    /// The group's own vessel.
    pub(super) objcg: AtomicU32,
    /// Handles, and children that are alive. The last one's end deletes the group.
    pub(super) nr_users: AtomicU32,
    /// 1 while the users together hold a pin.
    pub(super) users_pin: AtomicU32,
    pub(super) nr_children: AtomicU32,
    pub(super) first_child: AtomicU32,
    pub(super) next_sibling: AtomicU32,
    pub(super) prev_sibling: AtomicU32,
    pub(super) hash: AtomicU32,
    pub(super) hash_next: AtomicU32,
    next_free: AtomicU32,
    /// What those wait for who wait for the group.
    pub(super) signal: Signal,
    /// Policy and scope of an overrun: see `oom`.
    pub(super) oom_settings: AtomicU32,
    /// One more than the number of the first event descriptor, or 0.
    pub(super) first_event_fd: AtomicU32,
    /// One more than the number of the first reader of peaks, or 0.
    pub(super) first_peak_reader: AtomicU32,
    /// A long name's slot.
    long_name: AtomicU32,
    name_len: AtomicU32,
    name: [AtomicU64; INLINE_WORDS],
}

const _: () = assert!(size_of::<Node>() == 256);

/// How often a group's limits were met: at the group itself, and with its descendants.
#[repr(C)]
pub(super) struct NodeEvents {
    pub(super) local: EventCounts,
    pub(super) all: EventCounts,
}

/// A count for each kind of event.
#[repr(C)]
pub(super) struct EventCounts {
    pub(super) high: AtomicU64,
    pub(super) max: AtomicU64,
    pub(super) oom: AtomicU64,
    pub(super) oom_kill: AtomicU64,
}

impl NodeEvents {
    pub(super) fn reset(&self) {
        for counts in [&self.local, &self.all] {
            [&counts.high, &counts.max, &counts.oom, &counts.oom_kill]
                .into_iter()
                .for_each(|count| count.store(0, Ordering::Relaxed));
        }
    }
}

#[repr(C)]
struct LongName {
    words: [AtomicU64; super::name::MAX_LEN.div_ceil(size_of::<u64>())],
    next_free: AtomicU32,
}

// SAFETY: zero is a valid value of every field, and all are atomics.
unsafe impl Slot for Node {
    fn next_free(&self) -> &AtomicU32 {
        &self.next_free
    }
}

// SAFETY: as for `Node`.
unsafe impl Slot for LongName {
    fn next_free(&self) -> &AtomicU32 {
        &self.next_free
    }
}

/// The slot of a number that was handed out.
#[inline]
pub(super) fn node(idx: u32) -> &'static Node {
    NODES.get(idx)
}

/// What a group of this name costs its parent, beside its vessel.
pub(super) fn node_bytes(name: &Name) -> u64 {
    let long = if name.len() > INLINE_BYTES { size_of::<LongName>() } else { 0 };
    (size_of::<Node>() + long) as u64
}

impl Node {
    /// Stores the name of a new group; false without memory.
    pub(super) fn set_name(&self, name: &Name) -> bool {
        self.name_len.store(name.len() as u32, Ordering::Relaxed);
        if name.len() <= INLINE_BYTES {
            name.store(&self.name);
            return true;
        }
        let Some(slot) = LONG_NAMES.alloc() else { return false };
        self.long_name.store(slot, Ordering::Relaxed);
        name.store(&LONG_NAMES.get(slot).words);
        true
    }

    pub(super) fn name(&self) -> Name {
        // A name's length fits a byte.
        let len = self.name_len.load(Ordering::Relaxed) as u8;
        if usize::from(len) <= INLINE_BYTES {
            return Name::load(&self.name, len);
        }
        Name::load(&LONG_NAMES.get(self.long_name.load(Ordering::Relaxed)).words, len)
    }

    /// Gives the memory of a long name back.
    pub(super) fn drop_name(&self) {
        if self.name_len.load(Ordering::Relaxed) as usize > INLINE_BYTES {
            LONG_NAMES.free(self.long_name.load(Ordering::Relaxed));
            self.name_len.store(0, Ordering::Relaxed);
        }
    }
}

pub(super) fn hold_for_fork() {
    NODES.hold_for_fork();
    LONG_NAMES.hold_for_fork();
}

pub(super) fn release_after_fork() {
    LONG_NAMES.release_after_fork();
    NODES.release_after_fork();
}
