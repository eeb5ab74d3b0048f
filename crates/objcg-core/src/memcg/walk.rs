//! Looking at all vessels and stocks, for statistics: exact at a quiet point, safe at any time.
//!
//! Nothing is pinned and no lock is taken: state words and links are read as they are. While the tree changes, a look can
//! land in a slot's next life; it then counts something for the wrong group once, and ends all the same.

use super::ROOT_VESSEL;
use super::charge::{VESSELS, ancestors};
use super::node::{ROOT, node, node_bytes};
use super::objcg::{Target, VESSEL_BYTES};
use super::stocks;
use crate::sync::Ordering;

/// Steps after which a path that keeps changing is given up: deeper than any tree.
const MAX_STEPS: usize = 1 << 24;

/// Whether a vessel leads to the group or to a descendant of it. False of a number that no vessel ever had: owners are seen while
/// others are at work, and may be anything.
pub(crate) fn leads_to(vessel: u32, top: u32) -> bool {
    if vessel >= VESSELS.nr_made() {
        return false;
    }
    group_of(vessel).is_some_and(|group| is_below(group, top))
}

fn is_below(group: u32, top: u32) -> bool {
    ancestors(group).take(MAX_STEPS).any(|at| at == top)
}

pub(super) fn group_of(vessel: u32) -> Option<u32> {
    let mut id = vessel;
    for _ in 0..MAX_STEPS {
        match VESSELS.target(id) {
            Target::Node { idx, .. } => return Some(idx),
            Target::Forwarded => id = VESSELS.forwarded_to(id)?,
            Target::Nowhere => return None,
        }
    }
    None
}

/// Bytes of descendants' own memory that are charged to the group or to one below it.
pub(crate) fn group_bytes(top: u32) -> u64 {
    (ROOT_VESSEL + 1..VESSELS.nr_made())
        .map(|vessel| match VESSELS.target(vessel) {
            Target::Node { idx, .. } if idx != ROOT => {
                let parent = node(idx).parent.load(Ordering::Relaxed);
                if is_below(parent, top) { VESSEL_BYTES + node_bytes(&node(idx).name()) } else { 0 }
            }
            Target::Forwarded if leads_to(vessel, top) => VESSEL_BYTES,
            _ => 0,
        })
        .sum()
}

/// Bytes that stocks hold for the group and its descendants.
pub(crate) fn stock_bytes(top: u32) -> u64 {
    let mine = stocks::residues().filter(|residue| leads_to(residue.vessel, top));
    mine.map(|residue| u64::from(residue.nr_bytes)).sum()
}
