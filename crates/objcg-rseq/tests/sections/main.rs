//! Sections under whatever a kernel does to them: preemption, migration, signals, fences, forks; in each kind of process.
//!
//! Every test runs with feature `delay` as well, which stretches the sections so that most disturbances hit inside of one.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(objcg_rseq_absent)))]

mod area;
mod child;
mod conservation;
mod disturbances;
mod fences;
mod linking;
mod many;
mod storm;
mod worlds;
