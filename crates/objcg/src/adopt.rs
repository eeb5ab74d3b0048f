//! Moving live memory to another group.

#![expect(unsafe_code, reason = "memory is moved by its address")]

use std::ptr::NonNull;

use objcg_core::kmalloc;

use crate::Memcg;

pub use kmalloc::AdoptError;

/// What owns one piece of the global allocator's memory, or none.
///
/// # Safety
/// The address is of live memory that came from the global allocator and that nothing but `self` can free or resize.
pub unsafe trait Adopt {
    /// Where the memory is; `None` if there is none.
    fn memory(&mut self) -> Option<NonNull<u8>>;
}

// SAFETY: a box owns its memory; a value without size has none.
unsafe impl<T: ?Sized> Adopt for Box<T> {
    fn memory(&mut self) -> Option<NonNull<u8>> {
        let value: &mut T = self;
        (size_of_val(value) > 0).then(|| NonNull::from(value).cast())
    }
}

// SAFETY: a vector owns its memory, which it has if it has room for elements of a size.
unsafe impl<T> Adopt for Vec<T> {
    fn memory(&mut self) -> Option<NonNull<u8>> {
        let has_memory = size_of::<T>() > 0 && self.capacity() > 0;
        NonNull::new(self.as_mut_ptr().cast()).filter(|_| has_memory)
    }
}

// SAFETY: a string is a vector of bytes.
unsafe impl Adopt for String {
    fn memory(&mut self) -> Option<NonNull<u8>> {
        let has_memory = self.capacity() > 0;
        // The address of text is the address of its buffer.
        NonNull::new(self.as_mut_ptr()).filter(|_| has_memory)
    }
}

impl Memcg {
    /// Makes this group the owner of memory that was allocated in another: its price moves, where the paths of the two groups to the
    /// root part, and whatever frees it later gives it back to this group. Only the one allocation that `owner` holds itself,
    /// not what its values point to. A few hundred nanoseconds.
    ///
    /// The program's global allocator must be [`Objcg`](crate::Objcg); memory from another one aborts the process.
    ///
    /// # Errors
    /// A limit refuses, which kills nobody, or the process is out of memory. Nothing changed then.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use objcg::Memcg;
    ///
    /// let (query, cache) = (Memcg::root().create("query")?, Memcg::root().create("cache")?);
    /// let mut rows = query.scope(|| vec![0u8; 100_000]);
    /// cache.adopt(&mut rows)?;
    /// query.drain();
    /// assert_eq!(query.usage(), 0);
    /// assert!(cache.usage() >= 100_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn adopt<T: Adopt + ?Sized>(&self, owner: &mut T) -> Result<(), AdoptError> {
        match owner.memory() {
            // SAFETY: by the contract of `Adopt` it is live memory of the global allocator's, and `owner` is borrowed mutably.
            Some(memory) => unsafe { self.adopt_memory(memory) },
            None => Ok(()),
        }
    }

    /// The same for memory by its address.
    ///
    /// # Errors
    /// As [`Memcg::adopt`].
    ///
    /// # Safety
    /// `memory` came from [`Objcg`](crate::Objcg) or from this crate's `Allocator`, is live, and nobody else frees, resizes or
    /// adopts it meanwhile.
    pub unsafe fn adopt_memory(&self, memory: NonNull<u8>) -> Result<(), AdoptError> {
        // SAFETY: the caller's contract.
        unsafe { kmalloc::adopt(memory, &self.0) }
    }
}
