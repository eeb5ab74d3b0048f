//! An object of any size, with a pattern in it that is looked at when it is resized or freed.

use std::ptr::NonNull;

use objcg_core::kmalloc;

/// Bytes that are marked at each end of a long object.
const END_BYTES: usize = 128;

pub(crate) struct Object {
    pub(crate) address: NonNull<u8>,
    pub(crate) nr_bytes: usize,
    pub(crate) align: usize,
    tag: u8,
}

// SAFETY: an object is handed to one thread, which frees it.
unsafe impl Send for Object {}

impl Object {
    /// Allocates in the group that is current; `None` if that is refused.
    pub(crate) fn alloc(nr_bytes: usize, align: usize, tag: u8, zeroed: bool) -> Option<Object> {
        let alloc = if zeroed { kmalloc::alloc_zeroed } else { kmalloc::alloc };
        let object = Object { address: alloc(nr_bytes, align)?, nr_bytes, align, tag };
        assert!(object.address.as_ptr().addr().is_multiple_of(align), "{nr_bytes} bytes at {align}");
        assert!(!zeroed || object.ends().all(|offset| object.byte(offset) == 0), "zeroed memory is zero");
        object.write();
        Some(object)
    }

    /// Resizes in the group that is current; whether the object moved, or `None` if that is refused.
    pub(crate) fn resize(&mut self, nr_bytes: usize) -> Option<bool> {
        self.check();
        // SAFETY: the object is live, of this alignment, and the old address is not used again if it moves.
        let address = unsafe { kmalloc::realloc(self.address, nr_bytes, self.align) }?;
        let has_moved = address != self.address;
        let nr_kept = self.nr_bytes.min(nr_bytes).min(END_BYTES);
        self.address = address;
        self.nr_bytes = nr_bytes;
        (0..nr_kept).for_each(|offset| assert_eq!(self.byte(offset), self.tag, "realloc lost byte {offset}"));
        self.write();
        Some(has_moved)
    }

    pub(crate) fn free(self) {
        self.check();
        // SAFETY: the object is live and given up here.
        unsafe { kmalloc::free(self.address) };
    }

    pub(crate) fn usable(&self) -> usize {
        // SAFETY: the object is live.
        unsafe { kmalloc::usable_size(self.address) }
    }

    fn ends(&self) -> impl Iterator<Item = usize> + use<> {
        let head = self.nr_bytes.min(END_BYTES);
        let tail = self.nr_bytes.max(END_BYTES) - END_BYTES;
        (0..head).chain(tail..self.nr_bytes)
    }

    fn write(&self) {
        for offset in self.ends() {
            // SAFETY: the object's own byte.
            let byte = unsafe { self.address.add(offset) };
            // SAFETY: as above.
            unsafe { byte.write(self.tag) };
        }
    }

    fn byte(&self, offset: usize) -> u8 {
        // SAFETY: the object's own byte.
        let byte = unsafe { self.address.add(offset) };
        // SAFETY: as above, and it was written.
        unsafe { byte.read() }
    }

    fn check(&self) {
        self.ends().for_each(|offset| assert_eq!(self.byte(offset), self.tag, "byte {offset} of {}", self.nr_bytes));
    }
}
