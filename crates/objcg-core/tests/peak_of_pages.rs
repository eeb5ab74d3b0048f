//! When more pages are in use than ever, free ones that do not serve go back first.
//!
//! What was in use is the process's: this program has one test.

use std::ptr::NonNull;

use objcg_core::{kmalloc, stat};

const PAGE_SIZE: usize = 4096;
/// More free pages than these do not stay when more are in use than ever.
const FEW: usize = 2 * 16 * PAGE_SIZE;

fn pages(nr_pages: usize) -> NonNull<u8> {
    kmalloc::alloc(nr_pages * PAGE_SIZE, 8).expect("memory")
}

fn free(object: NonNull<u8>) {
    // SAFETY: it is live, and nothing uses it.
    unsafe { kmalloc::free(object) };
}

#[test]
fn holes_that_are_too_small_do_not_add_to_the_peak() {
    let mut holes = Vec::new();
    let mut kept = Vec::new();
    for _ in 0..10 {
        holes.push(pages(30));
        kept.push(pages(10));
    }
    let most_used = stat::pages().used_bytes;
    holes.into_iter().for_each(free);
    let full_of_holes = stat::pages();
    assert!(full_of_holes.dirty_bytes >= 300 * PAGE_SIZE, "within the bound they stay: {full_of_holes:?}");
    // No hole has room for these. While there were as many in use before, the holes are left alone.
    while stat::pages().used_bytes + 40 * PAGE_SIZE <= most_used {
        kept.push(pages(40));
    }
    assert_eq!(stat::pages().nr_releases, full_of_holes.nr_releases);
    for _ in 0..10 {
        kept.push(pages(40));
        let now = stat::pages();
        assert!(now.used_bytes > most_used && now.dirty_bytes <= FEW, "{now:?}");
    }
    let released = stat::pages().nr_releases;
    assert!(released > full_of_holes.nr_releases);
    // What was in use once may be so again.
    kept.drain(..12).for_each(free);
    kept.extend((0..3).map(|_| pages(50)));
    assert!(stat::pages().dirty_bytes > FEW);
    assert_eq!(stat::pages().nr_releases, released);
    kept.into_iter().for_each(free);
}
