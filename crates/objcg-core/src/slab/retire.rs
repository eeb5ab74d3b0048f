//! Sheaves that are full, or empty, or wanted elsewhere: into the barn, or back to the slabs.

use core::iter;

use super::cache::Cache;
use super::sheaf::Sheaf;
use super::sheaf_size;
use crate::cpu::CpuId;
use crate::sync::{AtomicU64, AtomicUsize, Ordering, OwnLines};

/// So many CPUs are asked at most for what they have to spare: each costs a line of its slot.
const NR_ASKED: usize = 4;

/// The CPUs that ever put objects into their sheaves: most of those that are possible never come.
static SEEN: OwnLines<Seen> = OwnLines(Seen {
    end: AtomicUsize::new(1),
    nr_cpus: AtomicUsize::new(0),
    cpus: [const { AtomicU64::new(0) }; MAX_COUNTED / 64],
});

/// CPUs whose numbers are equal but for a multiple of this count as one.
const MAX_COUNTED: usize = 1024;

struct Seen {
    /// One more than the highest.
    end: AtomicUsize,
    /// How many.
    nr_cpus: AtomicUsize,
    cpus: [AtomicU64; MAX_COUNTED / 64],
}

/// That CPU has sheaves.
pub(super) fn note_cpu(cpu: CpuId) {
    let (word, bit) = seen_bit(cpu);
    if word.load(Ordering::Relaxed) & bit != 0 {
        return;
    }
    SEEN.0.end.fetch_max(cpu.index() + 1, Ordering::Relaxed);
    if word.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
        SEEN.0.nr_cpus.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether that CPU may have sheaves.
fn may_have_sheaves(cpu: CpuId) -> bool {
    let (word, bit) = seen_bit(cpu);
    word.load(Ordering::Relaxed) & bit != 0
}

fn seen_bit(cpu: CpuId) -> (&'static AtomicU64, u64) {
    let number = cpu.index() % MAX_COUNTED;
    (&SEEN.0.cpus[number / 64], 1 << (number % 64))
}

/// How many CPUs have sheaves, at least 1.
pub(super) fn nr_cpus_seen() -> usize {
    SEEN.0.nr_cpus.load(Ordering::Relaxed).max(1)
}

impl Cache {
    /// Puts a full sheaf into the barn, if it may wait there, for an empty one if there is one.
    pub(super) fn shelve(&self, full: Sheaf) -> Result<Option<Sheaf>, Sheaf> {
        let nr_objects = full.nr_objects();
        if !self.sheaf_size.shelve(nr_objects) {
            return Err(full);
        }
        match self.barn.trade_full(full, self.sheaf_size.barn_limit()) {
            Ok(stored) => {
                if let Some(idle) = stored.idle {
                    self.retire_shelved(idle);
                }
                Ok(stored.empty)
            }
            Err(full) => {
                self.sheaf_size.unshelve(nr_objects);
                Err(full)
            }
        }
    }

    /// Gives a sheaf of the barn back if too much waits in barns: one for each that could not be shelved is soon enough.
    pub(super) fn thin_barn(&self) {
        if sheaf_size::has_shelved_too_much() {
            self.retire_of_barn();
        }
    }

    /// Gives a full sheaf of the barn back to the slabs; false if there is none.
    fn retire_of_barn(&self) -> bool {
        let Some(sheaf) = self.barn.take_full() else { return false };
        self.retire_shelved(sheaf);
        true
    }

    /// Gives a sheaf that was in the barn back to the slabs.
    fn retire_shelved(&self, sheaf: Sheaf) {
        self.sheaf_size.unshelve(sheaf.nr_objects());
        self.retire(sheaf);
    }

    /// Empties all sheaves and the barn into the slabs and gives empty slabs back until `keep` are left.
    pub(crate) fn shrink_to(&self, keep: u32) {
        self.for_each_slot(|cpu, slot| {
            // Most CPUs never come, and to look into a slot touches its memory.
            if !may_have_sheaves(cpu) {
                return;
            }
            let sheaves = slot.take(self, cpu).take_sheaves();
            sheaves.into_iter().flatten().for_each(|sheaf| self.retire(sheaf));
        });
        while self.retire_of_barn() {}
        iter::from_fn(|| self.barn.take_empty()).for_each(|sheaf| self.retire(sheaf));
        self.trim_empty(keep);
    }

    /// Empties all sheaves if it is they that hold the slabs.
    pub(super) fn let_slabs_go(&self) {
        if self.sheaf_size.is_holding_slabs(self.nr_taken(), self.nr_places()) {
            self.shrink_to(self.keep_empty());
        }
    }

    /// Empties another CPU's spare sheaf into the slabs before the cache has more slabs than ever; false if none was found.
    pub(super) fn call_in(&self) -> bool {
        let Some(spare) = self.take_others_spare() else { return false };
        self.retire(spare);
        true
    }

    /// The same sheaf as a whole, where slabs have no object left: the CPU that frees what another allocates has them.
    pub(super) fn take_over(&self) -> Option<Sheaf> {
        if self.nr_taken() < self.nr_places() { None } else { self.take_others_spare() }
    }

    /// Another CPU's spare sheaf before the cache has more slabs than ever, if one is found. What waits elsewhere would otherwise make slabs
    /// that stay: of a CPU whose objects are freed while another's grow.
    fn take_others_spare(&self) -> Option<Sheaf> {
        let most_slabs = &self.counters.most_slabs;
        let nr_slabs = self.counters.nr_slabs.load(Ordering::Relaxed);
        if nr_slabs < most_slabs.load(Ordering::Relaxed) {
            return None;
        }
        // Others first as slabs come, and nobody twice.
        let nr_cpus = SEEN.0.end.load(Ordering::Relaxed);
        let mut asked = (0..NR_ASKED.min(nr_cpus)).map(|nth| CpuId::fold((nr_slabs as usize + nth) % nr_cpus));
        let spare = asked.find_map(|cpu| self.slot_if_made(cpu)?.take_spare());
        if spare.is_none() {
            most_slabs.fetch_max(nr_slabs + 1, Ordering::Relaxed);
        }
        spare
    }

    fn retire(&self, mut sheaf: Sheaf) {
        self.put_all(&mut sheaf);
        sheaf.free();
    }
}
