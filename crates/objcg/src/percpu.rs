//! Per-CPU memory as types: a value of each CPU ([`PerCpu`]), a counter that all CPUs share ([`PerCpuCounter`]).
//!
//! The memory is `objcg_core::percpu`'s, charged to the group that is current when a value is made.

#![expect(unsafe_code, reason = "turns addresses of per-CPU memory into references")]

mod zeroable;

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use objcg_core::cpu::CpuId;
use objcg_core::percpu;

pub use objcg_core::percpu::AllocError;
pub use objcg_core::percpu::PerCpuCounter;
pub use zeroable::Zeroable;

/// A value of type `T` for each CPU that may ever come up.
///
/// Threads of one CPU share its value, and mostly they alone use it, so its cache lines stay where they are. "Mostly":
/// [`get`](PerCpu::get) says where the thread runs at that moment, and it may be moved right after. So `T` is `Sync`, an
/// atomic or a lock, and being moved costs time, never correctness. A CPU that is plugged in beyond the number that the
/// kernel had announced shares the value of another.
///
/// The memory is the size of `T`, rounded up to 4 bytes, times the number of CPUs, charged to the group that is current when
/// it is made, and 4 bytes of owner. CPUs that never use their value take no memory for it. Source: the kernel's
/// `alloc_percpu`.
///
/// ```
/// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
/// use std::sync::Mutex;
///
/// use objcg::PerCpu;
///
/// // A free list for each CPU.
/// let lists = PerCpu::with(|_| Mutex::new(Vec::<Box<[u8; 512]>>::new()))?;
/// lists.get().lock().unwrap().push(Box::new([0; 512]));
/// let recycled = lists.iter().find_map(|list| list.lock().unwrap().pop());
/// assert!(recycled.is_some());
/// # Ok::<(), objcg::AllocError>(())
/// ```
///
/// # Invariants
/// `first` is an allocation of the size and alignment of `T` (at least a byte), this value's own, with a `T` on each CPU.
pub struct PerCpu<T> {
    first: NonNull<T>,
    _owns: PhantomData<T>,
}

// SAFETY: a `PerCpu<T>` has its values as a `Vec<T>` has; the memory can be freed by any thread.
unsafe impl<T: Send> Send for PerCpu<T> {}
// SAFETY: shared, it gives out shared references to its values and nothing else.
unsafe impl<T: Sync> Sync for PerCpu<T> {}

impl<T: Zeroable> PerCpu<T> {
    /// A zero on each CPU. O(1) in the number of CPUs where the memory is fresh.
    ///
    /// # Errors
    /// `T` is larger than 64 KiB or aligned to more than 4096 bytes, a limit refuses, or the process is out of memory.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    ///
    /// use objcg::PerCpu;
    ///
    /// let hits = PerCpu::<AtomicU64>::new()?;
    /// hits.get().fetch_add(1, Relaxed);
    /// assert_eq!(hits.sum(), 1);
    /// # Ok::<(), objcg::AllocError>(())
    /// ```
    pub fn new() -> Result<PerCpu<T>, AllocError> {
        let first = alloc::<T>()?;
        // INVARIANT: just allocated; it is zero, which `Zeroable` says is a `T`.
        Ok(PerCpu { first, _owns: PhantomData })
    }
}

impl<T> PerCpu<T> {
    /// The value that `init` makes for each CPU, in ascending order.
    ///
    /// # Errors
    /// As for [`PerCpu::new`]; `init` is not called then.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use objcg::{CpuId, PerCpu};
    ///
    /// let names = PerCpu::with(|cpu: CpuId| format!("cpu{}", cpu.index()))?;
    /// assert_eq!(names.iter().next().map(String::as_str), Some("cpu0"));
    /// # Ok::<(), objcg::AllocError>(())
    /// ```
    pub fn with(mut init: impl FnMut(CpuId) -> T) -> Result<PerCpu<T>, AllocError> {
        let mut unfinished = Unfinished { first: alloc::<T>()?, nr_made: 0 };
        for cpu in CpuId::all() {
            let value = init(cpu);
            // SAFETY: the allocation was just made.
            let place = unsafe { place(unfinished.first, cpu) };
            // SAFETY: it has room for a `T` on each CPU, and nobody else knows of it.
            unsafe { place.write(value) };
            unfinished.nr_made += 1;
        }
        let first = unfinished.first;
        std::mem::forget(unfinished);
        // INVARIANT: just allocated, and a value written for each CPU.
        Ok(PerCpu { first, _owns: PhantomData })
    }

    /// The value of the CPU that this thread runs on at this moment. The thread may be moved at any time; the reference stays
    /// good, and is then to another CPU's value.
    #[inline]
    #[must_use]
    pub fn get(&self) -> &T {
        self.of_cpu(CpuId::current())
    }

    /// The value of a CPU.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use objcg::{CpuId, PerCpu};
    ///
    /// let numbers = PerCpu::with(CpuId::index)?;
    /// assert_eq!(*numbers.of_cpu(CpuId::fold(0)), 0);
    /// # Ok::<(), objcg::AllocError>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn of_cpu(&self, cpu: CpuId) -> &T {
        // SAFETY: by the invariant `first` is an allocation.
        let place = unsafe { place(self.first, cpu) };
        // SAFETY: by the invariant each CPU has a value, which lives as long as `self`.
        unsafe { place.as_ref() }
    }

    /// The values of all CPUs, in ascending order.
    ///
    /// ```
    /// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
    /// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    ///
    /// use objcg::PerCpu;
    ///
    /// let latest = PerCpu::<AtomicU32>::new()?;
    /// latest.get().store(7, Relaxed);
    /// assert_eq!(latest.iter().map(|number| number.load(Relaxed)).max(), Some(7));
    /// # Ok::<(), objcg::AllocError>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        CpuId::all().map(|cpu| self.of_cpu(cpu))
    }
}

impl PerCpu<AtomicU64> {
    /// The sum of all CPUs' numbers, modulo 2^64. What others add in the meantime may be in it or not.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.iter().map(|number| number.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

fn alloc<T>() -> Result<NonNull<T>, AllocError> {
    percpu::alloc(size_of::<T>().max(1), align_of::<T>()).map(NonNull::cast)
}

/// The place of a CPU's value.
///
/// # Safety
/// `first` came from [`alloc`] and was not freed.
#[inline]
unsafe fn place<T>(first: NonNull<T>, cpu: CpuId) -> NonNull<T> {
    // SAFETY: the caller's promise.
    unsafe { percpu::of_cpu(first.cast(), cpu) }.cast()
}

/// An allocation of which the first values are made: what is left when an initialiser panics.
struct Unfinished<T> {
    first: NonNull<T>,
    nr_made: usize,
}

impl<T> Drop for Unfinished<T> {
    fn drop(&mut self) {
        /// Frees the memory even if a value's destructor panics.
        struct Memory(NonNull<u8>);

        impl Drop for Memory {
            fn drop(&mut self) {
                // SAFETY: the allocation is given up, and its values are gone.
                unsafe { percpu::free(self.0) };
            }
        }

        let _memory = Memory(self.first.cast());
        for cpu in CpuId::all().take(self.nr_made) {
            // SAFETY: the memory is freed after this loop.
            let place = unsafe { place(self.first, cpu) };
            // SAFETY: the value was written, and nobody has a reference to it any more.
            unsafe { place.drop_in_place() };
        }
    }
}

impl<T> Drop for PerCpu<T> {
    fn drop(&mut self) {
        drop(Unfinished { first: self.first, nr_made: objcg_core::cpu::nr_cpus() });
    }
}

impl<T: fmt::Debug> fmt::Debug for PerCpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
