//! What `objcg run` preloads: `objcg-malloc`, and what puts a whole program, which knows nothing of it, into a group.
//!
//! The command says what it wants in an environment variable (`objcg_report::Order`). `program` makes the group before `main` and
//! fills the report; `threads` takes new threads along, or gives each a group of its own; `endings` sees the program end. A
//! process that was not meant (one that the program started, unless that was asked for) has a plain `malloc` here, and takes this
//! library out of its environment.

#![deny(unsafe_code)]
#![cfg_attr(panic = "abort", no_std)]

// Its functions are this library's.
use objcg_malloc as _;

pub mod endings;
mod next;
mod program;
pub mod threads;
