//! Cache lines that are fetched before they are asked for.

#![expect(unsafe_code, reason = "an intrinsic of the architecture")]

use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use core::ptr::NonNull;

/// Has the CPU fetch the cache line at an address that will be read soon: a hint.
#[inline]
pub(crate) fn prefetch(address: NonNull<u8>) {
    // SAFETY: every x86-64 has the instruction, which changes nothing that a program can see, at any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.as_ptr().cast::<i8>()) };
}
