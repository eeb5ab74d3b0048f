//! Models of the lock: loom sees every access to the guarded data, and a thread that nobody wakes.

use loom::sync::Arc;
use loom::thread;

use super::Lock;

/// Two threads change the data: one at a time, and each sees what the other did.
#[test]
fn loom_lock_guards_its_data() {
    loom::model(|| {
        let lock = Arc::new(Lock::new(0));
        let other = Arc::clone(&lock);
        let thread = thread::spawn(move || *other.lock() += 1);
        *lock.lock() += 1;
        thread.join().unwrap();
        assert_eq!(*lock.lock(), 2);
    });
}

/// Three threads meet: whoever falls asleep is woken, although one wakes only one.
#[test]
fn loom_lock_wakes_every_sleeper() {
    loom::model(|| {
        let lock = Arc::new(Lock::new(0));
        let threads = [(); 2].map(|()| {
            let other = Arc::clone(&lock);
            thread::spawn(move || *other.lock() += 1)
        });
        *lock.lock() += 1;
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(*lock.lock(), 3);
    });
}
