//! A fork while other threads are in the middle of their work: the child sees its objects, allocates, counts and ends.

#![expect(unsafe_code, reason = "fork, and a child that must not run the parent's destructors")]

use objcg::Memcg;

use crate::object::{Object, draw_layout};
use crate::protocol::Counts;
use crate::random::Random;

/// A child that is not done by then hangs.
const PATIENCE_SECONDS: u32 = 30;
const NR_OBJECTS: usize = 60;

/// Forks, works in the child, and waits for it to end well.
pub(crate) fn in_a_child(group: &Memcg, objects: &[Object], random: &mut Random, counts: &mut Counts) {
    // SAFETY: the child calls nothing but the engine, whose fork handlers are registered, and `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: no preconditions.
            unsafe { libc::alarm(PATIENCE_SECONDS) };
            work(group, objects, random);
            // SAFETY: no preconditions; nothing of the parent's is torn down.
            unsafe { libc::_exit(0) };
        }
        -1 => {
            // No memory or no process left: the machine's, not ours.
            assert!(is_transient(), "fork: {}", std::io::Error::last_os_error());
        }
        child => wait_for(child),
    }
    counts.forks += 1;
}

fn is_transient() -> bool {
    let errno = std::io::Error::last_os_error().raw_os_error();
    matches!(errno, Some(libc::EAGAIN | libc::ENOMEM))
}

/// What the child does: this thread is its only one.
fn work(group: &Memcg, objects: &[Object], random: &mut Random) {
    objects.iter().for_each(Object::check);
    // In a group of its own, of which no other thread had anything in hand, the figures are exact.
    if let Ok(own) = Memcg::root().create("child of a fork") {
        let mut held: [Option<Object>; NR_OBJECTS] = [const { None }; NR_OBJECTS];
        for place in &mut held {
            let layout = draw_layout(random);
            *place = own.scope(|| Object::alloc(layout, random));
        }
        let stat = own.stat();
        let nr_held = held.iter().flatten().count() as u64;
        assert_eq!(stat.slab_objects + stat.large_objects, nr_held, "objects of a child of a fork");
        assert_eq!(own.usage(), stat.total_bytes(), "I1 in a child of a fork");
        drop(held);
        own.drain();
        assert_eq!(own.usage(), 0, "I1 in a child of a fork, when all is freed");
        assert!(own.delete().is_ok(), "the group of a child of a fork");
    }
    // And in the parent's.
    for _ in 0..NR_OBJECTS {
        let layout = draw_layout(random);
        drop(group.scope(|| Object::alloc(layout, random)));
    }
}

fn wait_for(child: libc::pid_t) {
    let mut status = 0;
    loop {
        // SAFETY: `status` may be written to.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        if waited == child {
            break;
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "waitpid: {error}");
    }
    let is_hung = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGALRM;
    assert!(!is_hung, "a child of a fork did not end within {PATIENCE_SECONDS} s");
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "a child of a fork ended with status {status:#x}"
    );
}
