//! Sections under whatever a kernel does to them: preemption, migration, signals, fences, forks; in each kind of process.
//!
//! Every test runs with feature `delay` as well, which stretches the sections so that most disturbances hit inside of one.
#![cfg(target_os = "linux")]

mod area;
mod child;
mod conservation;
mod disturbances;
mod fences;
mod many;
mod storm;
mod worlds;
