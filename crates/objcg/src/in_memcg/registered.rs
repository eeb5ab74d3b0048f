//! The wakers of futures that are pending in a group: who is to be woken when the group is killed, since nothing else may ever wake
//! a future that waits.
//!
//! A future registers when it is first pending, and again when it is given another waker; a poll that finds the same waker only
//! compares two pointers. The lists are sharded by CPU, not by group: a kill is rare and looks at all, a busy group has no lock
//! of its own to meet at. Wakers are cloned, woken and dropped under no lock, since they are anybody's code; the lists themselves
//! are the root's memory.

use std::mem;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use objcg_core::cpu::CpuId;
use objcg_core::{memcg as engine, nr_forks};

use crate::Memcg;
use crate::memcg::root;
use crate::unwind::quietly;

const NR_SHARDS: usize = 32;
/// Between two looks at the lists.
const REST: Duration = Duration::from_millis(1);

static SHARDS: [Mutex<Shard>; NR_SHARDS] = [const { Mutex::new(Shard::EMPTY) }; NR_SHARDS];

/// Entries by number; free ones are linked.
struct Shard {
    entries: Vec<Entry>,
    first_free: Option<usize>,
}

enum Entry {
    Taken(Memcg, Arc<Waker>),
    Free { next: Option<usize> },
}

/// A future's place in the lists, given up when it is dropped.
#[derive(Default)]
pub(super) struct Registered(Option<Place>);

struct Place {
    shard: usize,
    number: usize,
    waker: Arc<Waker>,
}

impl Registered {
    /// Has `waker` woken when the group is killed; at once if it was killed before.
    #[inline]
    pub(super) fn keep(&mut self, memcg: &Memcg, waker: &Waker) {
        let is_kept = self.0.as_ref().is_some_and(|place| place.waker.will_wake(waker));
        if !is_kept {
            self.renew(memcg, waker);
        }
    }

    #[cold]
    #[inline(never)]
    fn renew(&mut self, memcg: &Memcg, waker: &Waker) {
        let _outside = root().enter();
        watch_for_kills();
        drop(mem::take(self));
        let shard = CpuId::current().index() % NR_SHARDS;
        let waker = Arc::new(waker.clone());
        let entry = Entry::Taken(memcg.clone(), Arc::clone(&waker));
        let number = lock(shard).insert(entry);
        // The watcher looks at the list after the kill: one of the two sees the other.
        let is_killed = memcg.is_oom_killed();
        let place = self.0.insert(Place { shard, number, waker });
        if is_killed {
            place.waker.wake_by_ref();
        }
    }
}

impl Drop for Registered {
    #[inline]
    fn drop(&mut self) {
        if let Some(place) = self.0.take() {
            place.give_up();
        }
    }
}

impl Place {
    #[cold]
    fn give_up(self) {
        let entry = lock(self.shard).remove(self.number);
        // Under no lock: a waker's end can be that of a task, and of futures in it.
        drop(entry);
    }
}

/// Starts the thread that waits for kills, if this process has none. Without one, futures of a killed group end when they are polled.
fn watch_for_kills() {
    /// One more than the number of forks after which a thread was started; 0 if none was.
    static WATCHED: AtomicU32 = AtomicU32::new(0);
    let here = nr_forks().wrapping_add(1);
    // Acquire pairs with the Release below: what is marked after this is after what the thread has seen.
    if WATCHED.load(Ordering::Acquire) == here {
        return;
    }
    let seen = engine::marks_version();
    if WATCHED.swap(here, Ordering::AcqRel) != here {
        // Nothing is lost if there is none.
        let _ = thread::Builder::new().name("objcg-kills".to_owned()).spawn(move || watch(seen));
    }
}

fn watch(mut seen: u32) {
    loop {
        seen = engine::wait_for_marks(seen);
        wake_killed();
        // A storm of kills is looked at a thousand times a second.
        thread::sleep(REST);
    }
}

/// Wakes all whose group was killed.
fn wake_killed() {
    let mut wakers = Vec::new();
    for shard in 0..NR_SHARDS {
        for entry in &lock(shard).entries {
            if let Entry::Taken(memcg, waker) = entry
                && memcg.is_oom_killed()
            {
                wakers.push(Arc::clone(waker));
            }
        }
        wakers.drain(..).for_each(|waker| quietly(move || waker.wake_by_ref()));
    }
}

fn lock(shard: usize) -> MutexGuard<'static, Shard> {
    // Nothing under the lock panics half way.
    SHARDS[shard].lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    const EMPTY: Shard = Shard { entries: Vec::new(), first_free: None };

    fn insert(&mut self, taken: Entry) -> usize {
        let Some(number) = self.first_free else {
            self.entries.push(taken);
            return self.entries.len() - 1;
        };
        if let Entry::Free { next } = mem::replace(&mut self.entries[number], taken) {
            self.first_free = next;
        }
        number
    }

    fn remove(&mut self, number: usize) -> Entry {
        let free = Entry::Free { next: self.first_free.replace(number) };
        mem::replace(&mut self.entries[number], free)
    }
}
