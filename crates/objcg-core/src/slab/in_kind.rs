//! Charges that are kept in kind: free objects wait in sheaves with their charge, so that the group that takes them next pays
//! nothing if it is the one that had them. To that group they are stock, like the bytes in `memcg::stock`: already charged,
//! ready to be used, and given back by a drain.

use super::cache::Cache;
use super::free_object::FreeObject;
use super::sheaf::Sheaf;
use super::sheaf_size::most_shelved;
use super::{SlabObject, caches, typed_caches};
use crate::cpu::nr_cpus;
use crate::hooks::{self, Purse};
use crate::memcg::ROOT_VESSEL;
use crate::report::die;
use crate::size_class::SMALLEST;
use crate::sync::Ordering;

/// Lets drains reach the sheaves.
pub(super) fn init() {
    hooks::set_discharge(discharge);
}

/// Gives back what free objects keep charged to a group and its descendants.
fn discharge(top: u32) {
    let mut members = Members::of(top);
    caches().iter().chain(typed_caches()).for_each(|cache| cache.discharge_members(&mut members));
}

/// The most bytes that free objects can keep charged to one group.
pub(crate) fn bound() -> u64 {
    let on_cpus: u64 = caches().iter().chain(typed_caches()).map(Cache::in_kind_bound).sum();
    // What costs the most above its size is the smallest object.
    let nr_bytes = most_shelved();
    on_cpus + (nr_bytes + nr_bytes / SMALLEST * hooks::OWNER_BYTES) as u64
}

/// How many answers [`Members`] keeps; a power of two.
const NR_ANSWERS: usize = 128;

/// Which owners belong to a subtree. Neighbouring objects have few owners, which alternate: answers are kept.
pub(crate) struct Members {
    top: u32,
    answers: [(u32, bool); NR_ANSWERS],
}

impl Members {
    pub(crate) fn of(top: u32) -> Members {
        Members { top, answers: [(ROOT_VESSEL, false); NR_ANSWERS] }
    }

    pub(crate) fn contain(&mut self, owner: u32) -> bool {
        if owner == ROOT_VESSEL {
            return false;
        }
        let answer = &mut self.answers[owner as usize % NR_ANSWERS];
        if answer.0 != owner {
            *answer = (owner, hooks::leads_to(owner, self.top));
        }
        answer.1
    }
}

impl Cache {
    fn discharge_members(&self, members: &mut Members) {
        if !self.may_have_owners() {
            return;
        }
        self.for_each_slot(|cpu, slot| {
            // A look first: taking a sheaf off another CPU's stack costs a fence.
            if slot.any_owner(self, cpu, |owner| members.contain(owner)) {
                let pair = slot.take(self, cpu);
                pair.sheaves().for_each(|sheaf| self.discharge_sheaf(sheaf, members));
            }
        });
        self.barn.for_each_full(|sheaf| self.discharge_sheaf(sheaf, members));
    }

    fn discharge_sheaf(&self, sheaf: &Sheaf, members: &mut Members) {
        let members = sheaf.iter().filter(|free| members.contain(SlabObject::of(free.address()).owner_id()));
        hooks::discharge(members.filter_map(|free| self.disown(free)), self.price());
    }

    /// Gives the price of a free object back, which is nobody's then; false without memory for an owner vector.
    pub(super) fn discharge_one(&self, free: FreeObject) -> bool {
        if SlabObject::of(free.address()).owner_id() == ROOT_VESSEL {
            return true;
        }
        let owner = self.disown(free);
        hooks::discharge(owner.into_iter(), self.price());
        owner.is_some()
    }

    /// Makes a free object nobody's and returns whose it was; `None` without memory for an owner vector: then nothing changes.
    fn disown(&self, free: FreeObject) -> Option<u32> {
        let object = SlabObject::of(free.address());
        // Relaxed: as in `change_owner`, the object is in this hand alone.
        let owner = self.owner_word(&object)?.swap(ROOT_VESSEL, Ordering::Relaxed);
        free.mark(ROOT_VESSEL);
        Some(owner)
    }

    /// Charges objects of a sheaf that are nobody's: as many of those that are taken next as the purse pays for.
    pub(super) fn charge_from(&self, purse: &mut Purse, sheaf: &Sheaf) {
        let group = purse.payer();
        if group == ROOT_VESSEL {
            return;
        }
        let nobodys = || sheaf.newest_first().filter(|free| free.is_of(ROOT_VESSEL));
        // Vectors first: nothing can fail once it is paid.
        let has_word = |free: &FreeObject| self.owner_word(&SlabObject::of(free.address())).is_some();
        let nr_objects = nobodys().take_while(has_word).count() as u32;
        let nr_paid = purse.pay(nr_objects);
        for free in nobodys().take(nr_paid as usize) {
            let Some(owner) = SlabObject::of(free.address()).own_word() else {
                die!("{:p}: its slab has lost its owner vector", free.address());
            };
            // Relaxed: as in `change_owner`, the object is in this hand alone.
            owner.store(group, Ordering::Relaxed);
            free.mark(group);
        }
    }

    /// Of three sheaves a CPU, with that of threads without rseq.
    fn in_kind_bound(&self) -> u64 {
        3 * nr_cpus() as u64 * u64::from(self.sheaf_size.largest()) * self.price()
    }
}
