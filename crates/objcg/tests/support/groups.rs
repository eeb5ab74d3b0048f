//! What tests of groups begin and end with: a group, memory that may be refused, and nothing left.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use objcg::{Memcg, OomPolicy};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;

/// Drains after which what another test's thread had in hand must be back.
const MAX_DRAINS: usize = 10_000;

/// Tests that hold this run one after the other: usage is exact at a drain, and counts of the whole process are the test's own.
/// While another test runs, what its thread has in hand at that moment stays charged.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn group(name: &str) -> Memcg {
    Memcg::root().create(name).expect("a new name")
}

/// A group whose limit refuses.
pub(crate) fn strict(name: &str) -> Memcg {
    let group = group(name);
    group.set_oom_policy(Some(OomPolicy::Fail)).expect("alive");
    group
}

/// That much memory in the current group; `None` if it is refused.
pub(crate) fn try_vec(nr_bytes: u64) -> Option<Vec<u8>> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(nr_bytes as usize).ok()?;
    Some(vec)
}

/// Nothing is charged to the group, where tests do not run one after the other.
pub(crate) fn assert_empty(memcg: &Memcg) {
    // What a thread of another test has in hand at the moment of a drain stays charged: that takes a few more.
    for _ in 0..MAX_DRAINS {
        memcg.drain();
        if memcg.usage() == 0 {
            return;
        }
        thread::yield_now();
    }
    panic!("{} bytes are left: {:?}", memcg.usage(), memcg.stat());
}
