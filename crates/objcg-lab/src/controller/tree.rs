//! The engine groups of a replay: one parent for all, a child for each cgroup of the trace.
//!
//! Every controller makes real groups, so that their creation, their death and what a pinned one costs compare.

use std::sync::atomic::{AtomicU64, Ordering};

use objcg_core::memcg::Memcg;

use crate::replay::ReplayError;
use crate::trace::GroupId;

pub(super) struct GroupTree {
    parent: Memcg,
    /// By [`GroupId`]; `None` before creation and once gone.
    groups: Vec<Option<Memcg>>,
}

impl GroupTree {
    pub(super) fn new() -> Result<GroupTree, ReplayError> {
        // Replays may run side by side in one process; siblings need different names.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("lab-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let parent = Memcg::root().create(&name).map_err(ReplayError::CreateGroup)?;
        Ok(GroupTree { parent, groups: Vec::new() })
    }

    pub(super) fn create(&mut self, group: GroupId) -> Result<(), ReplayError> {
        let mut digits = [0; 10];
        let memcg = self.parent.create(decimal(group.0, &mut digits)).map_err(ReplayError::CreateGroup)?;
        if self.groups.len() <= group.index() {
            self.groups.resize_with(group.index() + 1, || None);
        }
        self.groups[group.index()] = Some(memcg);
        Ok(())
    }

    /// Deletes the group at once.
    pub(super) fn delete(&mut self, group: GroupId) -> Result<(), ReplayError> {
        let memcg = self.groups[group.index()].take().expect("a trace removes only groups that exist");
        memcg.delete().map_err(ReplayError::DeleteGroup)
    }

    /// The group, if it exists.
    pub(super) fn get(&self, group: GroupId) -> Option<&Memcg> {
        self.groups.get(group.index())?.as_ref()
    }

    /// What is charged to all groups, living and dead, in bytes.
    pub(super) fn usage(&self) -> u64 {
        self.parent.usage()
    }
}

/// Formats into `digits` rather than on the heap, which `create_ns` would show.
fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &str {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
        if number == 0 {
            return std::str::from_utf8(&digits[at..]).expect("ASCII");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 4_294_967_295] {
            assert_eq!(decimal(number, &mut [0; 10]), number.to_string());
        }
    }
}
