//! Moving a charge from one vessel to another, without a moment in which it is charged twice where the paths meet.
//!
//! Only the levels below the nearest common ancestor change: the new ones are charged, all or none, then the old ones are
//! uncharged. So a move within a limited subtree needs no room there, and raises no peak that the memory did not make. Also the
//! way to charge bytes that are no object's, from nobody, and nothing of them through a stock.

use super::charge::{self, OnLimit, PinnedNode, VESSELS, ancestors};
use super::node::node;
use super::{ROOT_VESSEL, Refused};
use crate::sync::Ordering;

/// Moves bytes that are charged to `from` to the group that `to` leads to. [`ROOT_VESSEL`] stands for not charged, on both sides.
/// Returns the vessel that they are charged to now. A refusal leaves everything as it was; it kills nobody.
pub(crate) fn move_charge(from: u32, to: u32, nr_bytes: u64) -> Result<u32, Refused> {
    let old = PinnedNode::of_vessel(from).unwrap_or_else(PinnedNode::of_root);
    let new = PinnedNode::of_vessel(to).unwrap_or_else(PinnedNode::of_root);
    let live = node(new.idx).objcg.load(Ordering::Relaxed);
    // What is the root's is not counted at the root either.
    let is_between_groups = from != ROOT_VESSEL && live != ROOT_VESSEL;
    let common = if is_between_groups {
        ancestors(old.idx).find(|at| ancestors(new.idx).any(|above| above == *at))
    } else {
        None
    };
    if live != ROOT_VESSEL {
        charge::charge_below(new.idx, common, nr_bytes, OnLimit::Refuse)?;
        charge::note_peak_below(new.idx, common);
        VESSELS.note_charge(live, nr_bytes);
    }
    if from != ROOT_VESSEL {
        charge::uncharge_below(old.idx, common, nr_bytes);
        drop(old);
        charge::forget(from, nr_bytes);
    }
    drop(new);
    charge::call_watcher();
    Ok(live)
}
