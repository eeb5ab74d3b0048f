//! What stands for the kernel's futex in models: looks at the word and falls asleep in one step, as the kernel does under its own
//! lock. Nobody wakes for no reason here, so a wake that is missing leaves loom with threads that all sleep, which it reports.

use loom::sync::{Condvar, Mutex};

use crate::sync::{AtomicU32, Ordering};

pub(super) struct Sleepers {
    kernel: Mutex<()>,
    woken: Condvar,
}

impl Default for Sleepers {
    fn default() -> Sleepers {
        Sleepers { kernel: Mutex::new(()), woken: Condvar::new() }
    }
}

impl Sleepers {
    pub(super) fn wait(&self, word: &AtomicU32, expected: u32) {
        let kernel = self.kernel.lock().unwrap();
        // An exchange that changes nothing: it sees the newest value, as the kernel does, where a load might see an older one.
        if word.compare_exchange(expected, expected, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            drop(self.woken.wait(kernel).unwrap());
        }
    }

    pub(super) fn wake(&self) {
        let _kernel = self.kernel.lock().unwrap();
        self.woken.notify_one();
    }
}
