//! Cache lines that are fetched before they are asked for.

#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "an intrinsic of the architecture"))]

use core::ptr::NonNull;

/// Has the CPU fetch the cache line at an address that will be read soon. A hint: other architectures have no stable way to give it.
#[inline]
pub(crate) fn prefetch(address: NonNull<u8>) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction, which changes nothing that a program can see, at any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.as_ptr().cast::<i8>()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
