//! What may be done to a CPU's words from another CPU: in front of a fence that restarts the sections under way there.
//!
//! A section's commit is a plain store of its own CPU, so no atomic instruction of another is safe from it. Two things are:
//!
//! | | before the fence | after it |
//! |---|---|---|
//! | [`take_top`] | the stopper replaces the top | no section has the old top in hand: what it did shows in the word |
//! | [`keep_away`] | the guard is set | no section that had read it as 0 is left: the words are the caller's until it is 0 again |
//!
//! The fence is the caller's: the kernel's, or a model's.

use crate::sync::{AtomicU32, AtomicUsize, Ordering};

/// Puts the stopper in a top's place; returns the top that was there after the last section that moved it. `drift` tells by
/// how many bytes a commit has moved the stopper, or `None` if a word is no stopper's. The caller holds the stack's lock.
pub(crate) fn take_top(
    word: &AtomicUsize,
    stopper: usize,
    fence: impl Fn(),
    drift: impl Fn(usize) -> Option<isize>,
) -> usize {
    loop {
        // SeqCst, before the fence: sections that start after it see the stopper.
        let top = word.swap(stopper, Ordering::SeqCst);
        fence();
        // A section that began before the swap may have committed after it. Either it has moved the stopper, as it would
        // have moved the top, or it has written over it.
        if let Some(drift) = drift(word.load(Ordering::Acquire)) {
            word.store(stopper, Ordering::Relaxed);
            return top.wrapping_add_signed(drift);
        }
    }
}

/// Runs `look` while no section changes what the guard keeps, if the fence could be made. The caller holds the words' lock.
pub(crate) fn keep_away(guard: &AtomicU32, fence: impl FnOnce() -> bool, look: impl FnOnce()) {
    // SeqCst, before the fence: sections that start after it see the guard.
    guard.store(1, Ordering::SeqCst);
    if fence() {
        look();
    }
    // Release: what was changed is seen by the sections that run again.
    guard.store(0, Ordering::Release);
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    use super::{keep_away, take_top};

    const PLACE: usize = 8;
    const BOTTOM: usize = 0x1000;
    const STOPPER: usize = 0x9000;
    const NR_OBJECTS: usize = 2;

    /// A CPU as a fence sees it: a section runs from its start to its commit, and a fence waits for its end. A section that
    /// the kernel restarts instead is one that starts after the fence.
    #[derive(Default)]
    struct Cpu(Mutex<()>);

    impl Cpu {
        fn section<R>(&self, work: impl FnOnce() -> R) -> R {
            let _running = self.0.lock().unwrap();
            work()
        }

        fn fence(&self) {
            drop(self.0.lock().unwrap());
        }
    }

    /// How a section's commit moves the top: from what it has read before, as on aarch64, or in one instruction that reads
    /// the word again, which other CPUs may still come between, as on x86-64.
    #[derive(Clone, Copy)]
    enum Commit {
        FromRead,
        InPlace,
    }

    /// A CPU's top. Loom takes two stores to one word for unordered that nothing else orders, where a processor has an order of
    /// them; so sections read and write by exchanges here.
    struct Stack {
        cpu: Cpu,
        top: AtomicUsize,
        commit: Commit,
    }

    fn drift(top: usize) -> Option<isize> {
        let drift = top.wrapping_sub(STOPPER).cast_signed();
        (drift.unsigned_abs() <= PLACE).then_some(drift)
    }

    impl Stack {
        fn read(&self) -> usize {
            self.top.fetch_add(0, Ordering::AcqRel)
        }

        fn move_top(&self, is_end: impl Fn(usize) -> bool, by: isize) -> bool {
            self.cpu.section(|| {
                let read = self.read();
                // All four places of the stopper are ends.
                if read >= STOPPER - PLACE || is_end(read) {
                    return false;
                }
                let moved = match self.commit {
                    Commit::FromRead => read,
                    Commit::InPlace => self.read(),
                };
                self.top.swap(moved.wrapping_add_signed(by), Ordering::AcqRel);
                true
            })
        }

        fn pop(&self) -> bool {
            self.move_top(|top| top == BOTTOM, -(PLACE as isize))
        }

        fn push(&self) -> bool {
            self.move_top(|top| top == BOTTOM + 4 * PLACE, PLACE as isize)
        }

        fn take(&self) -> usize {
            (take_top(&self.top, STOPPER, || self.cpu.fence(), drift) - BOTTOM) / PLACE
        }
    }

    /// Sections take and put while another CPU takes the whole sheaf: every object is in one hand, and the stack stays empty.
    fn every_object_is_in_one_hand(commit: Commit) {
        loom::model(move || {
            let top = AtomicUsize::new(BOTTOM + NR_OBJECTS * PLACE);
            let stack = Arc::new(Stack { cpu: Cpu::default(), top, commit });
            let here = Arc::clone(&stack);
            let sections =
                thread::spawn(move || usize::from(here.pop()) + usize::from(here.pop()) - usize::from(here.push()));
            let nr_taken = stack.take();
            assert!(!stack.pop() && !stack.push(), "the stopper lets nobody past");
            let nr_popped = sections.join().unwrap();
            assert_eq!(stack.top.load(Ordering::Relaxed), STOPPER);
            assert_eq!(nr_taken + nr_popped, NR_OBJECTS, "{nr_taken} taken, {nr_popped} popped");
        });
    }

    #[test]
    fn loom_i1_a_sheaf_is_taken_from_afar() {
        every_object_is_in_one_hand(Commit::FromRead);
    }

    #[test]
    fn loom_i1_a_sheaf_is_taken_from_afar_while_its_top_moves_in_place() {
        every_object_is_in_one_hand(Commit::InPlace);
    }

    struct Words {
        cpu: Cpu,
        guard: AtomicU32,
        word: AtomicU32,
    }

    impl Words {
        fn consume(&self, nr_bytes: u32) -> u32 {
            self.cpu.section(|| {
                // As the sections do: Acquire, since what the guard kept is read after it.
                if self.guard.load(Ordering::Acquire) != 0 {
                    return 0;
                }
                let had = self.word.load(Ordering::Relaxed);
                if had < nr_bytes {
                    return 0;
                }
                self.word.store(had - nr_bytes, Ordering::Relaxed);
                nr_bytes
            })
        }
    }

    /// Sections consume a stock's word while another CPU takes what is in it: no byte is lost, none is there twice.
    #[test]
    fn loom_i1_a_stock_is_drained_from_afar() {
        loom::model(|| {
            let words = Words { cpu: Cpu::default(), guard: AtomicU32::new(0), word: AtomicU32::new(10) };
            let words = Arc::new(words);
            let here = Arc::clone(&words);
            let sections = thread::spawn(move || here.consume(3) + here.consume(4));
            let mut nr_drained = 0;
            let fence = || {
                words.cpu.fence();
                true
            };
            keep_away(&words.guard, fence, || {
                nr_drained = words.word.load(Ordering::Relaxed);
                words.word.store(0, Ordering::Relaxed);
            });
            let nr_consumed = sections.join().unwrap();
            assert_eq!(nr_drained + nr_consumed + words.word.load(Ordering::Relaxed), 10);
        });
    }
}
