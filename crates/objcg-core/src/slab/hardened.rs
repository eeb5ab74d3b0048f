//! Freeing while an option asks to see every call: objects are looked at, buried, and may wait in quarantine.
//!
//! An object in quarantine is nobody's: its charge went back. To its slab it is taken, as if it were in a sheaf.

use core::ptr::NonNull;

use super::SlabObject;
use super::cache::Cache;
use super::free_object::FreeObject;
use crate::hardening::{self, Place};
use crate::options::{self, QUARANTINE};

impl Cache {
    /// Frees an object that its user gave up; the caches of size classes only have tracks.
    #[cold]
    pub(super) fn free_hardened(&'static self, object: FreeObject) {
        self.place(object.address()).bury();
        if !options::is_on(QUARANTINE) {
            return self.put_back(object);
        }
        if !self.discharge_one(object) {
            return self.put_back(object);
        }
        if !hardening::put(object.address(), self.size()) {
            return self.put_back(object);
        }
        while let Some(address) = hardening::take_surplus() {
            let oldest = SlabObject::of(address);
            oldest.cache().place(address).check_free();
            oldest.cache().put_back(FreeObject::at(address));
        }
    }

    fn place(&self, address: NonNull<u8>) -> Place {
        Place::new(address, self.size())
    }
}
