//! The hooks: the one place where the slab side and the memcg side meet.
//!
//! The price of an object is its slot plus its owner slot of 4 bytes; of a large object, its pages. On alloc the price is
//! charged first, then the object is taken, then its owner is noted; each failure takes back what was done before it. On
//! free the owner is read and cleared before the object can be reused, and the price goes back to that owner, whichever
//! thread, CPU or group frees it. Outside every group all of this is one compare (alloc) and one load (free).

use core::ptr::NonNull;

use crate::cpu::CpuId;
use crate::memcg::{self, ROOT_VESSEL};
use crate::slab::{Cache, SlabObject};
use crate::sync::Ordering;

/// Bytes of an object's owner slot.
pub(crate) const OWNER_BYTES: usize = size_of::<u32>();

/// Takes an object of a cache, charged to the current group.
#[inline]
pub(crate) fn alloc(cache: &'static Cache, cpu: CpuId) -> Option<NonNull<u8>> {
    match memcg::current() {
        ROOT_VESSEL => cache.alloc(cpu),
        vessel => alloc_charged(cache, cpu, vessel),
    }
}

fn alloc_charged(cache: &'static Cache, cpu: CpuId, vessel: u32) -> Option<NonNull<u8>> {
    let price = price_of(cache);
    let owner = memcg::charge_object(cpu, vessel, price).ok()?;
    let noted = cache.alloc(cpu).and_then(|address| note_owner(cache, cpu, address, owner));
    if noted.is_none() {
        memcg::uncharge_object(cpu, owner, price);
    }
    noted
}

/// Notes the owner of an object that was just taken; without memory for the owner vector the object goes back.
fn note_owner(cache: &'static Cache, cpu: CpuId, address: NonNull<u8>, owner: u32) -> Option<NonNull<u8>> {
    let object = SlabObject::of(address);
    let Some(vector) = cache.owner_vector(&object) else {
        cache.free(cpu, &object);
        return None;
    };
    object.owner_in(vector).store(owner, Ordering::Relaxed);
    Some(address)
}

/// Gives an object back to its cache, and its price to its owner.
#[inline]
pub(crate) fn free(cache: &'static Cache, cpu: CpuId, object: &SlabObject) {
    if let Some(slot) = object.owner() {
        // Relaxed: the object's owner is whoever has the object; handing it over orders the accesses.
        let owner = slot.load(Ordering::Relaxed);
        if owner != ROOT_VESSEL {
            slot.store(ROOT_VESSEL, Ordering::Relaxed);
            memcg::uncharge_object(cpu, owner, price_of(cache));
        }
    }
    cache.free(cpu, object);
}

#[inline]
fn price_of(cache: &Cache) -> u64 {
    (cache.size() + OWNER_BYTES) as u64
}

/// Charges pages of a large object to the current group: the owner, or `None` if a limit refuses.
pub(crate) fn charge_pages(nr_bytes: usize) -> Option<u32> {
    match memcg::current() {
        ROOT_VESSEL => Some(ROOT_VESSEL),
        vessel => memcg::charge_ahead(CpuId::current(), vessel, nr_bytes as u64).ok(),
    }
}

/// Charges `nr_bytes` more to an object's owner. False if a limit refuses, or if the owner's group was deleted: one
/// object has one owner.
pub(crate) fn charge_more_pages(owner: u32, nr_bytes: usize) -> bool {
    if owner == ROOT_VESSEL {
        return true;
    }
    let cpu = CpuId::current();
    match memcg::charge_ahead(cpu, owner, nr_bytes as u64) {
        Ok(charged) if charged == owner => true,
        Ok(charged) => {
            memcg::uncharge_object(cpu, charged, nr_bytes as u64);
            false
        }
        Err(_) => false,
    }
}

/// Pages that were charged are there now: their owner's peak may be raised.
pub(crate) fn pages_taken(owner: u32) {
    if owner != ROOT_VESSEL {
        memcg::note_peak(owner);
    }
}

/// Gives the price of pages back to their owner.
pub(crate) fn uncharge_pages(owner: u32, nr_bytes: usize) {
    memcg::uncharge_object(CpuId::current(), owner, nr_bytes as u64);
}
