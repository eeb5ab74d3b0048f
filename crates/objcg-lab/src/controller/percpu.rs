//! Per-CPU memory of the engine, as move-only tokens.

#![expect(unsafe_code, reason = "touches and frees per-CPU memory of the engine")]

use std::ptr::NonNull;

use objcg_core::cpu::{CpuId, nr_cpus};
use objcg_core::percpu;

use crate::replay::ReplayError;

/// Bytes that an owner takes.
const OWNER_BYTES: u64 = 4;

/// A live allocation of per-CPU memory, freed when it is dropped.
///
/// # Invariants
///
/// `address` is per-CPU memory of the engine, and is the lab's to use.
#[derive(Debug)]
pub struct PercpuObject {
    address: NonNull<u8>,
    /// On all CPUs.
    nr_bytes: u64,
    charged_bytes: u64,
}

impl PercpuObject {
    /// Allocates and touches `nr_bytes` on every CPU, charged to the engine group that is current, if one is.
    pub(super) fn alloc(nr_bytes: u32, is_charged: bool) -> Result<PercpuObject, ReplayError> {
        // As the kernel's `alloc_percpu` of most types: aligned to 8, what is smaller to its size.
        let align = if nr_bytes < 8 { percpu::GRANULE_BYTES } else { 8 };
        let address = percpu::alloc(nr_bytes as usize, align).map_err(ReplayError::Percpu)?;
        for cpu in CpuId::all() {
            // SAFETY: just allocated.
            let of_cpu = unsafe { percpu::of_cpu(address, cpu) };
            // SAFETY: ours, and at least a byte.
            unsafe { of_cpu.write_volatile(1) };
        }
        let on_one_cpu = u64::from(nr_bytes).next_multiple_of(percpu::GRANULE_BYTES as u64);
        let on_all_cpus = on_one_cpu * nr_cpus() as u64;
        let charged_bytes = if is_charged { on_all_cpus + OWNER_BYTES } else { 0 };
        // INVARIANT: just allocated.
        Ok(PercpuObject { address, nr_bytes: on_all_cpus, charged_bytes })
    }

    /// Bytes on all CPUs.
    #[must_use]
    pub fn nr_bytes(&self) -> u64 {
        self.nr_bytes
    }

    /// Bytes that its group is charged for it, the owner's among them; 0 if nobody is.
    #[must_use]
    pub fn charged_bytes(&self) -> u64 {
        self.charged_bytes
    }
}

impl Drop for PercpuObject {
    fn drop(&mut self) {
        // SAFETY: by the invariant the memory is the lab's, which gives it up.
        unsafe { percpu::free(self.address) };
    }
}
