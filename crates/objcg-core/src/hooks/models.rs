//! What stands for groups and their charges in models: a sum for each owner, which no limit refuses and loom does not see.

use std::cell::Cell;
use std::fmt;
use std::sync::Mutex;

/// Bytes of an object's owner slot.
pub(crate) const OWNER_BYTES: usize = size_of::<u32>();

/// Owners: nobody, and the groups from 1 on.
const NR_OWNERS: usize = 3;

/// Nobody refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

loom::thread_local! {
    static CURRENT: Cell<u32> = Cell::new(0);
}

loom::lazy_static! {
    static ref CHARGED: Mutex<[usize; NR_OWNERS]> = Mutex::default();
}

/// What this thread allocates from now on is the group's.
pub(crate) fn enter(group: u32) {
    CURRENT.with(|current| current.set(group));
}

/// What each owner is charged for.
pub(crate) fn charged() -> [usize; NR_OWNERS] {
    *CHARGED.lock().unwrap()
}

pub(crate) fn charge_ahead(nr_bytes: usize) -> Result<u32, Refused> {
    let owner = CURRENT.with(Cell::get);
    CHARGED.lock().unwrap()[owner as usize] += nr_bytes;
    Ok(owner)
}

pub(crate) fn pages_taken(_owner: u32) {}

pub(crate) fn uncharge_pages(owner: u32, nr_bytes: usize) {
    let sum = &mut CHARGED.lock().unwrap()[owner as usize];
    *sum = sum.checked_sub(nr_bytes).expect("given back to who had not paid it");
}
