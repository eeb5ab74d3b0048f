//! That sections are really disturbed, and a `fork` in the middle of it all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::{mem, ptr};

use crate::area::{Area, number, object};
use crate::child::in_child;
use crate::conservation::filled_area;
use crate::storm::{NR_ROUNDS, NR_THREADS, catch_signals, let_handlers_use, own_id, storm, stretch};

/// Has the kernel send SIGALRM to this thread, every 100 µs until the process ends.
fn start_timer() {
    // SAFETY: zeroes are a valid description of an event.
    let mut event: libc::sigevent = unsafe { mem::zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = libc::SIGALRM;
    event.sigev_notify_thread_id = own_id();
    let mut timer = ptr::null_mut();
    // SAFETY: event and timer are valid.
    let result = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
    assert_eq!(result, 0);
    let time = libc::timespec { tv_sec: 0, tv_nsec: 100_000 };
    let times = libc::itimerspec { it_interval: time, it_value: time };
    // SAFETY: the times are valid.
    let result = unsafe { libc::timer_settime(timer, 0, &raw const times, ptr::null_mut()) };
    assert_eq!(result, 0);
}

#[test]
fn a_timer_strikes_inside_of_sections() {
    in_child("disturbances::a_timer_strikes_inside_of_sections", &[], || {
        let area = filled_area();
        let nr_handled = let_handlers_use(area);
        catch_signals();
        start_timer();
        let mut nr_additions = 0;
        for nr_loops in [0, 100, 10_000, 30_000] {
            stretch(nr_loops);
            let nr_before = nr_handled.load(Ordering::Relaxed);
            while nr_handled.load(Ordering::Relaxed) < nr_before + 200 {
                assert!(area.add(1));
                nr_additions += 1;
            }
        }
        // The handler, which may run now, adds and counts that before it returns.
        let nr_before = nr_handled.load(Ordering::Relaxed);
        let count = area.count();
        let nr_after = nr_handled.load(Ordering::Relaxed);
        assert!((nr_additions + nr_before..=nr_additions + nr_after).contains(&count));
        #[cfg(feature = "delay")]
        assert!(objcg_rseq::nr_aborts() >= 10, "{}", objcg_rseq::nr_aborts());
    });
}

#[cfg(feature = "delay")]
#[test]
fn sections_are_aborted_in_a_storm() {
    /// Storms on a machine that is busy otherwise may pass without much.
    const MAX_STORMS: u64 = 100;
    in_child("disturbances::sections_are_aborted_in_a_storm", &[], || {
        let area = filled_area();
        let mut nr_storms = 0;
        while objcg_rseq::nr_aborts() < 100 {
            assert!(nr_storms < MAX_STORMS, "{} aborts", objcg_rseq::nr_aborts());
            nr_storms += 1;
            storm(|_, _| {
                assert!(area.add(1));
                if let Some(object) = area.pop() {
                    assert!(area.push(object));
                }
            });
            assert_eq!(area.count(), nr_storms * (NR_THREADS * NR_ROUNDS) as u64);
        }
        println!("{} aborts in {nr_storms} storms", objcg_rseq::nr_aborts());
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
        Some(number) if !area.push(object(number)) => 4,
        _ if !objcg_rseq::fence(0) => 5,
        _ => 0,
    }
}

#[test]
fn a_forked_child_goes_on_with_sections() {
    in_child("disturbances::a_forked_child_goes_on_with_sections", &[], fork_in_a_storm);
}

#[test]
fn a_forked_child_goes_on_with_sections_under_own_registration() {
    let name = "disturbances::a_forked_child_goes_on_with_sections_under_own_registration";
    in_child(name, &[crate::child::NO_LIBC_RSEQ], fork_in_a_storm);
}

fn fork_in_a_storm() {
    let area = filled_area();
    let nr_forks = AtomicU64::new(0);
    storm(|thread, round| {
        assert!(area.add(1));
        if let Some(object) = area.pop() {
            assert!(area.push(object));
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
