//! A free object in a sheaf, and its mark: one word that says that it is free, and to whom it is still charged.
//!
//! The mark is the owner's id more than a number that is nobody's pointer, and no small one, in the object's first word. Written by
//! a free, looked for by whoever takes the object next: one comparison then tells that nobody has written to it since, and that it
//! is the current group's already. The object's slab says the same ([`super::obj_exts`]); a free object whose
//! owner word changes is marked again.

#![expect(unsafe_code, reason = "reads and writes the mark in free objects")]

use core::ptr::NonNull;

use crate::cpu::NO_OBJECT;
use crate::hooks::{self, UNCHARGED};
use crate::report::die;

/// An object that is in nobody's hands. It has at least 8 bytes, aligned to 8, which are the engine's until it is handed out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct FreeObject(NonNull<u8>);

impl FreeObject {
    /// An object that was just given back, charged to `owner`: gets its mark.
    #[inline(always)]
    pub(super) fn freed(address: NonNull<u8>, owner: u32) -> FreeObject {
        let object = FreeObject(address);
        object.mark(owner);
        object
    }

    /// An object that comes from its slab, charged to `owner` or nobody. Marked without a look: a fresh page that is read first
    /// faults twice, and the second time every CPU is interrupted.
    #[inline]
    pub(super) fn of_slab(address: NonNull<u8>, owner: u32) -> FreeObject {
        FreeObject::freed(address, owner)
    }

    /// An object that was taken out of a sheaf, or that never is in one.
    #[inline(always)]
    pub(super) fn at(address: NonNull<u8>) -> FreeObject {
        FreeObject(address)
    }

    #[inline(always)]
    pub(crate) fn address(self) -> NonNull<u8> {
        self.0
    }

    /// Whether this is an object at all, and not what an empty stack gives.
    pub(crate) fn exists(self) -> bool {
        !core::ptr::addr_eq(self.0.as_ptr(), &raw const NO_OBJECT)
    }

    /// Whether the object has its mark and is charged to `owner`. False of what an empty stack gives.
    #[inline(always)]
    pub(super) fn is_of(self, owner: u32) -> bool {
        self.marked() == u64::from(owner)
    }

    /// Whether the object has its mark and is charged to the current group. False of what an empty stack gives.
    #[inline(always)]
    pub(super) fn is_currents(self) -> bool {
        self.word() == hooks::current_mark()
    }

    #[inline(always)]
    fn word(self) -> u64 {
        // SAFETY: the object is the engine's; it has at least 8 aligned bytes, as `NO_OBJECT` has. Volatile: a user who writes to a
        // free object is what this is looking for.
        unsafe { self.0.cast::<u64>().read_volatile() }
    }

    /// Whom the mark names; no vessel's number if the object has lost its mark.
    #[inline(always)]
    pub(super) fn marked(self) -> u64 {
        self.word().wrapping_sub(UNCHARGED)
    }

    /// Ends the process: the object, of `size` bytes, is in two sheaves, or somebody has written to it.
    #[cold]
    #[inline(never)]
    pub(super) fn report_lost_mark(self, size: usize) -> ! {
        die!("{:p}: freed twice, or written to after it was freed: {size} bytes", self.0)
    }

    /// Marks the object as charged to `owner`. A live object that holds this by chance or design only costs a search.
    #[inline(always)]
    pub(super) fn mark(self, owner: u32) {
        let word = u64::from(owner).wrapping_add(UNCHARGED);
        // SAFETY: the object is the engine's, with at least 8 aligned bytes.
        unsafe { self.0.cast::<u64>().write(word) };
    }

    /// The memory, without the mark, for whoever gets the object.
    #[inline(always)]
    pub(super) fn hand_out(self) -> NonNull<u8> {
        // SAFETY: as in `mark`.
        unsafe { self.0.cast::<u64>().write(0) };
        self.0
    }
}
