//! What every section reads, with cache lines of its own: who writes to what the linker puts beside it would slow all threads.

use core::mem::offset_of;
use core::sync::atomic::{AtomicIsize, AtomicU32, Ordering};

/// One static, so that a section needs one line. The sections read it by these offsets.
#[repr(C, align(128))]
pub(crate) struct ReadMostly {
    /// Offset from the thread pointer of the area that the sections use. Before `init` it is 0, which is of nothing that may be
    /// written to: x86-64's callers saw `init` return, and aarch64's sections give up.
    offset: AtomicIsize,
    /// CPUs below this have data. 0 before `init`, and where there are no sections: all that read it give up.
    pub(crate) nr_cpus: AtomicU32,
}

pub(crate) static READ_MOSTLY: ReadMostly = ReadMostly { offset: AtomicIsize::new(0), nr_cpus: AtomicU32::new(0) };

#[allow(dead_code, reason = "where there are no sections nobody needs it")]
pub(crate) const NR_CPUS_OFFSET: usize = offset_of!(ReadMostly, nr_cpus);
const _: () = assert!(offset_of!(ReadMostly, offset) == 0);

/// Offset of the area that the sections use.
#[inline]
pub(crate) fn offset() -> isize {
    READ_MOSTLY.offset.load(Ordering::Relaxed)
}

/// Has the sections use an area.
pub(crate) fn set_offset(offset: isize) {
    READ_MOSTLY.offset.store(offset, Ordering::Relaxed);
}
