//! What stands for groups and their charges in models: a sum for each owner, which no limit refuses and loom does not see.

use std::cell::Cell;
use std::fmt;
use std::mem;
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

/// What is charged for memory that is still to be had.
#[must_use = "memory that is there is `taken`"]
pub(crate) struct Ahead {
    owner: u32,
    nr_bytes: usize,
}

impl Ahead {
    pub(crate) fn owner(&self) -> u32 {
        self.owner
    }

    pub(crate) fn taken(self) -> u32 {
        let owner = self.owner;
        mem::forget(self);
        owner
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        uncharge_pages(self.owner, self.nr_bytes);
    }
}

pub(crate) fn charge_ahead(nr_bytes: usize) -> Result<Ahead, Refused> {
    let owner = CURRENT.with(Cell::get);
    CHARGED.lock().unwrap()[owner as usize] += nr_bytes;
    Ok(Ahead { owner, nr_bytes })
}

pub(crate) fn uncharge_pages(owner: u32, nr_bytes: usize) {
    let sum = &mut CHARGED.lock().unwrap()[owner as usize];
    *sum = sum.checked_sub(nr_bytes).expect("given back to who had not paid it");
}
