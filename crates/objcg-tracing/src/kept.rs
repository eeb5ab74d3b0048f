//! Groups that are made on demand below one parent, and kept.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use objcg::Memcg;

pub(crate) struct Kept {
    parent: Memcg,
    groups: Mutex<Groups>,
}

struct Groups {
    by_name: HashMap<String, Memcg>,
    /// With so many, those that were deleted are looked for.
    nr_until_sweep: usize,
}

const FIRST_SWEEP: usize = 64;

impl Kept {
    pub(crate) fn new(parent: &Memcg) -> Kept {
        let groups = Groups { by_name: HashMap::new(), nr_until_sweep: FIRST_SWEEP };
        Kept { parent: parent.clone(), groups: Mutex::new(groups) }
    }

    /// The child of that name, made if there is none; `None` if it cannot be made. Called in the root.
    pub(crate) fn find_or_create(&self, name: &str) -> Option<Memcg> {
        if let Some(group) = self.lock().by_name.get(name).filter(|group| !group.is_deleted()) {
            return Some(group.clone());
        }
        // Under no lock: its memory is the parent's, for which shrinkers may be asked, and they may use spans.
        let find = || self.parent.child(name);
        let group = find().or_else(|| self.parent.create(name).ok()).or_else(find)?;
        let mut groups = self.lock();
        groups.by_name.insert(name.to_owned(), group.clone());
        groups.sweep();
        Some(group)
    }

    fn lock(&self) -> MutexGuard<'_, Groups> {
        // Nothing under the lock can leave it half done.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Groups {
    /// Lets the deleted go whenever the number has doubled.
    fn sweep(&mut self) {
        if self.by_name.len() < self.nr_until_sweep {
            return;
        }
        self.by_name.retain(|_, group| !group.is_deleted());
        self.nr_until_sweep = (2 * self.by_name.len()).max(FIRST_SWEEP);
    }
}
