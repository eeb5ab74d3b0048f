//! Objects whose content is known: each byte that is looked at follows from the object's tag and its place.

#![expect(unsafe_code, reason = "memory as the allocator gives it")]

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::ptr::NonNull;

use objcg_core::kmalloc;

use crate::random::Random;

/// Up to this size all bytes are written and compared; of larger objects the ends, and one in each [`STRIDE`].
const MAX_WHOLE: usize = 2048;
const END: usize = 64;
const STRIDE: usize = 509;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Memory with its content.
pub(crate) struct Object {
    memory: NonNull<u8>,
    layout: Layout,
    tag: u8,
}

// SAFETY: an object has one holder at a time.
unsafe impl Send for Object {}

/// What a server's objects are like: most of them small.
pub(crate) fn draw_layout(random: &mut Random) -> Layout {
    let nr_bytes = match random.below(1000) {
        0 => 1 + random.below(6 * MIB),
        1..=5 => 1 + random.below(256 * KIB),
        6..=60 => 1 + random.below(16 * KIB),
        61..=300 => 1 + random.below(2 * KIB),
        _ => 1 + random.below(256),
    };
    let align = if random.once_in(20) { 1 << random.below(13) } else { 8 };
    Layout::from_size_align(nr_bytes, align).expect("a small size")
}

impl Object {
    /// Allocates in the group that is current; `None` if a limit refuses.
    pub(crate) fn alloc(layout: Layout, random: &mut Random) -> Option<Object> {
        let tag = random.next() as u8;
        let take = if tag & 1 == 0 { alloc } else { alloc_zeroed };
        // SAFETY: no layout here has size 0.
        let memory = NonNull::new(unsafe { take(layout) })?;
        assert!(memory.addr().get().is_multiple_of(layout.align()), "{memory:p} is not aligned for {layout:?}");
        let object = Object { memory, layout, tag };
        if tag & 1 == 1 {
            for place in places(layout.size()) {
                assert_eq!(object.read(place), 0, "byte {place} of zeroed {layout:?} at {memory:p}");
            }
        }
        object.write();
        Some(object)
    }

    /// Resizes in the group that is current; a refusal leaves it as it was, and is false.
    pub(crate) fn resize(&mut self, nr_bytes: usize) -> bool {
        self.check();
        let old = self.memory;
        // SAFETY: the object has this layout, and the new size is not 0.
        let Some(memory) = NonNull::new(unsafe { realloc(old.as_ptr(), self.layout, nr_bytes) }) else {
            self.check();
            return false;
        };
        let nr_kept = self.layout.size().min(nr_bytes).min(END);
        self.memory = memory;
        self.layout = Layout::from_size_align(nr_bytes, self.layout.align()).expect("a small size");
        for place in 0..nr_kept {
            assert_eq!(self.read(place), self.expected(place), "realloc of {:?} lost byte {place}", self.layout);
        }
        self.write();
        true
    }

    /// Compares the content.
    pub(crate) fn check(&self) {
        for place in places(self.layout.size()) {
            let (found, expected) = (self.read(place), self.expected(place));
            assert_eq!(found, expected, "byte {place} of {:?} at {:p} was overwritten", self.layout, self.memory);
        }
    }

    /// Bytes that the object takes, as the engine counts them.
    pub(crate) fn nr_usable(&self) -> u64 {
        // SAFETY: the object is live.
        unsafe { kmalloc::usable_size(self.memory) as u64 }
    }

    fn expected(&self, place: usize) -> u8 {
        self.tag.wrapping_add((place as u8).wrapping_mul(7))
    }

    fn write(&self) {
        for place in places(self.layout.size()) {
            let byte = self.expected(place);
            // SAFETY: the object's own byte.
            unsafe { self.at(place).write(byte) };
        }
    }

    fn read(&self, place: usize) -> u8 {
        // SAFETY: the object's own byte, which was written, or is zero from the start.
        unsafe { self.at(place).read() }
    }

    fn at(&self, place: usize) -> NonNull<u8> {
        // SAFETY: places are inside the object.
        unsafe { self.memory.add(place) }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.check();
        // SAFETY: the object has this layout, and is given up here.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}

/// The places that are written and compared.
fn places(nr_bytes: usize) -> impl Iterator<Item = usize> {
    let whole = if nr_bytes <= MAX_WHOLE { nr_bytes } else { END };
    (0..whole).chain((whole..nr_bytes).step_by(STRIDE)).chain(nr_bytes - nr_bytes.min(END)..nr_bytes)
}
