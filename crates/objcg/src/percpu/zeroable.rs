//! Types for which memory that is zero is a value.

#![expect(unsafe_code, reason = "vouches for types")]

use std::sync::atomic::{
    AtomicBool, AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicPtr, AtomicU8, AtomicU16, AtomicU32,
    AtomicU64, AtomicUsize,
};

/// A type of which all bytes zero is a value: what [`PerCpu::new`](crate::PerCpu::new) can make.
///
/// # Safety
/// All bytes zero is a valid value of the type.
///
/// ```
/// # #[global_allocator] static GLOBAL: objcg::Objcg = objcg::Objcg;
/// use std::sync::atomic::AtomicU64;
///
/// use objcg::{PerCpu, Zeroable};
///
/// #[repr(C)]
/// struct Traffic {
///     nr_packets: AtomicU64,
///     nr_bytes: AtomicU64,
/// }
///
/// // SAFETY: zero is a valid value of both fields.
/// unsafe impl Zeroable for Traffic {}
///
/// let traffic = PerCpu::<Traffic>::new()?;
/// assert_eq!(traffic.get().nr_packets.load(std::sync::atomic::Ordering::Relaxed), 0);
/// # Ok::<(), objcg::AllocError>(())
/// ```
pub unsafe trait Zeroable {}

macro_rules! zeroable {
    ($($type:ty),*) => {
        // SAFETY: a number, or a flag, that is zero is 0, or false.
        $(unsafe impl Zeroable for $type {})*
    };
}

zeroable!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, bool, char, ());
zeroable!(AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, AtomicBool);
zeroable!(AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize);

// SAFETY: a null pointer is a value.
unsafe impl<T> Zeroable for AtomicPtr<T> {}
// SAFETY: an array of values.
unsafe impl<T: Zeroable, const N: usize> Zeroable for [T; N] {}
