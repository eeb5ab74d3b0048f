//! The current group of a thread: one word, the vessel that its new objects are charged to.
//!
//! With `std` it is a native thread-local without a destructor, good before `main` and after other thread-locals are
//! gone. Without `std` it is a pthread key: slower, and only setting it may allocate.

#[cfg(feature = "std")]
mod word {
    extern crate std;

    use crate::sync::Cell;

    std::thread_local! {
        static CURRENT: Cell<u32> = const { Cell::new(super::super::ROOT_VESSEL) };
    }

    #[inline]
    pub(super) fn get() -> u32 {
        CURRENT.get()
    }

    #[inline]
    pub(super) fn replace(vessel: u32) -> u32 {
        CURRENT.replace(vessel)
    }
}

#[cfg(not(feature = "std"))]
mod word {
    use crate::os::ThreadWord;

    static CURRENT: ThreadWord = ThreadWord::new();

    #[inline]
    pub(super) fn get() -> u32 {
        CURRENT.get()
    }

    #[inline]
    pub(super) fn replace(vessel: u32) -> u32 {
        CURRENT.replace(vessel)
    }
}

/// The vessel that this thread's new objects are charged to.
#[inline]
pub(crate) fn current() -> u32 {
    word::get()
}

/// Changes it, and returns the one before.
#[inline]
pub(super) fn replace(vessel: u32) -> u32 {
    word::replace(vessel)
}
