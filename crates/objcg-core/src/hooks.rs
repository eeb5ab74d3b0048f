//! The hooks: the one place where the slab side and the memcg side meet.
//!
//! The price of an object is its slot plus its owner slot of 4 bytes; of a large object, its pages. A free object waits in
//! its sheaf *with its charge*: freeing it changes nothing, and if the same group takes it next, nothing changes either. Only
//! when an object goes from one group to another ([`change_owner`]), or from a sheaf back into its slab ([`discharge`]), are
//! bytes moved: given back to the owner's stock, taken from the stock of the group that gets it. The charge is there before the
//! object is handed out; each failure takes back what was done before it. Outside every group all of this is one compare,
//! but for an object that was another's, or comes from a slab that was one group's alone.
//!
//! Per-CPU memory is charged like pages: ahead, at its size on all CPUs plus an owner slot.

use core::mem;

use crate::faults::{self, Site};
use crate::memcg::{self, Charged, Memcg, OnLimit, ROOT_VESSEL};
use crate::sync::{AtomicU32, Ordering};

pub(crate) use crate::memcg::{Refused, UNCHARGED, current, current_mark, leads_to, set_discharge};

/// Bytes of an object's owner slot.
pub(crate) const OWNER_BYTES: usize = size_of::<u32>();

/// Makes the current group the owner of an object that is in nobody's hands and has been `old`'s, and charges it. False if a
/// limit refuses: then the object is nobody's.
pub(crate) fn change_owner(owner: &AtomicU32, old: u32, price: u64) -> bool {
    // First back, then forth: what the old owner had may be what the new one needs.
    if old != ROOT_VESSEL {
        owner.store(ROOT_VESSEL, Ordering::Relaxed);
        memcg::uncharge_object(old, price);
    }
    let group = current();
    if group == ROOT_VESSEL {
        return true;
    }
    if faults::strikes(Site::Charge) {
        return false;
    }
    match memcg::charge_object(group, price) {
        Ok(charged) => {
            owner.store(charged, Ordering::Relaxed);
            true
        }
        Err(_) => false,
    }
}

/// Bytes that are charged to a group already, for free objects that are being taken for it. What is left goes into the stock.
pub(crate) struct Purse {
    group: u32,
    nr_objects: u32,
    price: u64,
    nr_bytes: u64,
    went_up: bool,
    has_paid: bool,
}

impl Purse {
    /// An empty one of a group, which can be filled for `nr_objects` of that price.
    pub(crate) fn of(group: u32, nr_objects: u32, price: u64) -> Purse {
        Purse { group, nr_objects, price, nr_bytes: 0, went_up: false, has_paid: false }
    }

    /// One that stays empty.
    pub(crate) fn nobodys() -> Purse {
        Purse::of(ROOT_VESSEL, 0, 0)
    }

    /// The group that would pay.
    pub(crate) fn group(&self) -> u32 {
        self.group
    }

    /// Fills it, once, if no limit is near: nobody is asked for room. Not with slab lists held. No point of [`faults`]: what it does not pay
    /// for is charged when it is handed out.
    pub(crate) fn fill(&mut self) {
        let nr_objects = mem::take(&mut self.nr_objects);
        if self.group != ROOT_VESSEL && nr_objects > 0 {
            let nr_bytes = u64::from(nr_objects) * self.price;
            self.nr_bytes = memcg::charge_refill(self.group, nr_bytes, self.price, &mut self.went_up);
        }
    }

    /// Whose it is; [`ROOT_VESSEL`] if it cannot pay for an object.
    pub(crate) fn payer(&self) -> u32 {
        if self.nr_bytes >= self.price { self.group } else { ROOT_VESSEL }
    }

    /// Pays for as many of `nr_objects` as it can.
    pub(crate) fn pay(&mut self, nr_objects: u32) -> u32 {
        let nr_paid = self.nr_bytes.checked_div(self.price).unwrap_or(0).min(u64::from(nr_objects));
        self.nr_bytes -= nr_paid * self.price;
        self.has_paid |= nr_paid > 0;
        nr_paid as u32
    }

    /// Whether its group was charged up the tree: then [`went_up`] is owed.
    pub(crate) fn went_up(&self) -> bool {
        self.went_up
    }
}

impl Drop for Purse {
    fn drop(&mut self) {
        if self.nr_bytes == 0 {
            return;
        }
        if self.went_up && !self.has_paid {
            // Nothing is handed out that would count it in the peak: what comes out of the stock later must have been.
            memcg::uncharge_past_stocks(self.group, self.nr_bytes);
        } else {
            memcg::uncharge_object(self.group, self.nr_bytes);
        }
    }
}

/// Bytes that are charged to a group, by its vessel.
pub(crate) fn charged(owner: u32) -> u64 {
    memcg::charged(owner)
}

/// What was charged up the tree for free objects of the current group is counted in its peak, and seen by watchers, once one of
/// them was handed out: I8. Called under no lock.
pub(crate) fn went_up() {
    memcg::note_peak(current());
}

/// What was charged up the tree for free objects of the current group goes back with them, since none was handed out: it is not in the
/// peak. Called under no lock, after the objects went back into their slabs.
pub(crate) fn went_up_in_vain() {
    memcg::drain_vessel(current());
}

/// Gives the price of objects back to their owners, if they have any: that of neighbours of one owner together.
pub(crate) fn discharge(owners: impl Iterator<Item = u32>, price: u64) {
    let (mut last, mut nr_bytes) = (ROOT_VESSEL, 0);
    for owner in owners {
        if owner != last {
            memcg::uncharge_object(last, nr_bytes);
            (last, nr_bytes) = (owner, 0);
        }
        nr_bytes += price;
    }
    memcg::uncharge_object(last, nr_bytes);
}

/// What is charged for memory that is still to be had; `None` for nobody. Dropping it gives the bytes back.
#[must_use = "memory that is there is `taken`"]
pub(crate) struct Ahead(Option<Charged>);

impl Ahead {
    /// Who was charged; [`ROOT_VESSEL`] for nobody.
    pub(crate) fn owner(&self) -> u32 {
        self.0.as_ref().map_or(ROOT_VESSEL, |charged| charged.vessel)
    }

    /// The memory is there: its owner's peak may be raised. Returns the owner.
    pub(crate) fn taken(mut self) -> u32 {
        self.0.take().map_or(ROOT_VESSEL, Charged::settle)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Some(charged) = self.0.take() {
            charged.give_up();
        }
    }
}

/// Charges pages of a large object to the current group; `None` if a limit refuses.
pub(crate) fn charge_pages(nr_bytes: usize) -> Option<Ahead> {
    charge_current(nr_bytes as u64, OnLimit::AskPolicy).ok()
}

/// Charges memory that is still to be had to the current group, or says who refused. The caller has an error for that, so nobody is
/// killed.
pub(crate) fn charge_ahead(nr_bytes: usize) -> Result<Ahead, Refused> {
    charge_current(nr_bytes as u64, OnLimit::Refuse)
}

fn charge_current(nr_bytes: u64, on_limit: OnLimit) -> Result<Ahead, Refused> {
    let charged = match current() {
        ROOT_VESSEL => return Ok(Ahead(None)),
        _ if faults::strikes(Site::Charge) => return Err(Refused::on_order(nr_bytes)),
        vessel => Ahead(Some(memcg::charge_ahead(vessel, nr_bytes, on_limit)?)),
    };
    // Where the path ends at the root nobody is charged: what was is given up here.
    Ok(if charged.owner() == ROOT_VESSEL { Ahead(None) } else { charged })
}

/// Charges `nr_bytes` more to an object's owner. `None` if a limit refuses, or if the owner's group was deleted: one
/// object has one owner.
pub(crate) fn charge_more_pages(owner: u32, nr_bytes: usize) -> Option<Ahead> {
    match owner {
        ROOT_VESSEL => Some(Ahead(None)),
        _ if faults::strikes(Site::Charge) => None,
        owner => memcg::charge_more_ahead(owner, nr_bytes as u64).map(|charged| Ahead(Some(charged))),
    }
}

/// Gives the price of pages back to their owner.
pub(crate) fn uncharge_pages(owner: u32, nr_bytes: usize) {
    memcg::uncharge_object(owner, nr_bytes as u64);
}

/// Makes a group the owner of a live object. The error is who refuses; then nothing has changed.
pub(crate) fn move_owner(owner: &AtomicU32, group: &Memcg, price: u64) -> Result<(), Refused> {
    // Relaxed: the owner word is its holder's, who is here.
    let moved = moved_owner(owner.load(Ordering::Relaxed), group, price)?;
    owner.store(moved, Ordering::Relaxed);
    Ok(())
}

/// The same for an owner that is no word of its own: returns the new one.
pub(crate) fn moved_owner(owner: u32, group: &Memcg, price: u64) -> Result<u32, Refused> {
    memcg::move_charge(owner, group.vessel(), price)
}
