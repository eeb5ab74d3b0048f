//! The engine as a drop-in `malloc` for Linux programs, and as a small C library for every other language.
//!
//! `surface` has the functions of `<stdlib.h>` and `<malloc.h>` under their own names: whoever links this library, or has it
//! preloaded, runs on objcg. `group`, `memory` and `percpu` are the C API of `include/objcg.h`: groups, limits and per-CPU
//! memory, by values that stay safe after what they name is gone. The program's memory belongs to nobody until a thread enters
//! a group.
//!
//! ```console
//! $ LD_PRELOAD=libobjcg_malloc.so python3 server.py
//! $ cc server.c $(pkg-config --cflags --libs objcg)
//! ```

#![deny(unsafe_code)]
// Without the standard library it is small, which short programs pay for. Builds that unwind, those of tests, need its runtime.
#![cfg_attr(panic = "abort", no_std)]

#[cfg(panic = "abort")]
mod panic;

pub mod group;
pub mod info;
mod line;
pub mod memory;
pub mod percpu;
pub mod status;
pub mod surface;

pub use line::Line;
