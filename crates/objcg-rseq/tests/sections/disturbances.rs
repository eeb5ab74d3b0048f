//! That sections are really disturbed, and a `fork` in the middle of it all.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::area::{Area, entry, number};
use crate::child::in_child;
use crate::conservation::filled_area;
use crate::storm::{NR_ROUNDS, NR_THREADS, catch_signals, let_handlers_use, storm, stretch};

/// Has the kernel send SIGALRM to the process all the time; `nr_us` of 0 ends it.
fn set_timer(nr_us: i64) {
    let time = libc::timeval { tv_sec: 0, tv_usec: nr_us };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: the timer is valid.
    let result = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
    assert_eq!(result, 0);
}

#[test]
fn a_timer_strikes_inside_of_sections() {
    in_child("disturbances::a_timer_strikes_inside_of_sections", &[], || {
        let area = filled_area();
        let nr_handled = let_handlers_use(area);
        catch_signals();
        set_timer(100);
        // More loops than a timer's period: no section ends but between two strikes, or with luck.
        let mut nr_additions = 0;
        for nr_loops in [0, 100, 10_000, 30_000] {
            stretch(nr_loops);
            let nr_before = nr_handled.load(Ordering::Relaxed);
            while nr_handled.load(Ordering::Relaxed) < nr_before + 200 {
                assert!(area.add(1));
                nr_additions += 1;
            }
        }
        set_timer(0);
        assert_eq!(area.count(), nr_additions + nr_handled.load(Ordering::Relaxed));
        #[cfg(feature = "delay")]
        assert!(objcg_rseq::nr_aborts() >= 10, "{}", objcg_rseq::nr_aborts());
    });
}

#[cfg(feature = "delay")]
#[test]
fn sections_are_aborted_in_a_storm() {
    in_child("disturbances::sections_are_aborted_in_a_storm", &[], || {
        let area = filled_area();
        storm(|_, _| {
            assert!(area.add(1));
            if let Some(entry) = area.pop() {
                assert!(area.push(entry));
            }
        });
        assert_eq!(area.count(), (NR_THREADS * NR_ROUNDS) as u64);
        let nr_aborts = objcg_rseq::nr_aborts();
        println!("{nr_aborts} aborts in {} sections", 3 * NR_THREADS * NR_ROUNDS);
        assert!(nr_aborts > 100, "{nr_aborts}");
    });
}

/// What the child finds wrong is its exit status; it takes no lock, which another thread may have held.
fn child_of_a_fork(area: Area) -> i32 {
    const NR_ADDITIONS: u64 = 1_000;
    let count = area.count();
    if (0..NR_ADDITIONS).any(|_| !area.add(1)) || area.count() != count + NR_ADDITIONS {
        return 2;
    }
    let mut seen = [false; crate::area::NR_PLACES];
    let mut taken = None;
    while let Some(popped) = area.pop() {
        let number = number(popped);
        if std::mem::replace(&mut seen[number], true) {
            return 3;
        }
        taken = Some(number);
    }
    match taken {
        Some(number) if !area.push(entry(number)) => 4,
        _ if !objcg_rseq::fence(0) => 5,
        _ => 0,
    }
}

#[test]
fn a_forked_child_goes_on_with_sections() {
    in_child("disturbances::a_forked_child_goes_on_with_sections", &[], || fork_in_a_storm());
}

#[test]
fn a_forked_child_goes_on_with_sections_under_own_registration() {
    let name = "disturbances::a_forked_child_goes_on_with_sections_under_own_registration";
    in_child(name, &[crate::child::NO_LIBC_RSEQ], || fork_in_a_storm());
}

fn fork_in_a_storm() {
    let area = filled_area();
    let nr_forks = AtomicU64::new(0);
    storm(|thread, round| {
        assert!(area.add(1));
        if let Some(entry) = area.pop() {
            assert!(area.push(entry));
        }
        if thread > 0 || round % (NR_ROUNDS / 20) != 0 {
            return;
        }
        // SAFETY: the child uses sections only, and ends without the rest of the program.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let status = child_of_a_fork(area);
            // SAFETY: ends the process.
            unsafe { libc::_exit(status) };
        }
        let mut status = 0;
        // SAFETY: the status is valid.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!((waited, status), (child, 0));
        nr_forks.fetch_add(1, Ordering::Relaxed);
    });
    assert!(nr_forks.into_inner() >= 20);
    assert_eq!(area.count(), (NR_THREADS * NR_ROUNDS) as u64);
}
