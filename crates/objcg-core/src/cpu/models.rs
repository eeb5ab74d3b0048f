//! What stands for the machine in models: two CPUs.

/// The number of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuId(usize);

/// The number of CPUs.
pub(crate) fn nr_cpus() -> usize {
    2
}

impl CpuId {
    pub(crate) fn all() -> impl Iterator<Item = CpuId> {
        (0..nr_cpus()).map(CpuId)
    }

    pub(crate) fn index(self) -> usize {
        self.0
    }
}
