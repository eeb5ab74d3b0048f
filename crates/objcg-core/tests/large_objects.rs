//! Large objects: those of which only the start is used take little memory, however often others were there before; and they grow over
//! all that is free behind them.

use std::ptr::NonNull;
use std::sync::Mutex;

use objcg_core::kmalloc;

const PAGE_SIZE: usize = 4096;
const NR_LARGE: usize = 24;

/// Which pages are free is the process's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound
    }
}

/// An object of which the first word is used.
struct Object {
    at: NonNull<u8>,
    nr_bytes: usize,
}

impl Object {
    fn new(nr_bytes: usize) -> Object {
        let at = kmalloc::alloc(nr_bytes, 8).expect("memory");
        // SAFETY: it is new, and larger than a word.
        unsafe { at.cast::<usize>().write(nr_bytes) };
        Object { at, nr_bytes }
    }

    /// Its pages, and how many of them are resident.
    fn nr_pages(&self) -> (usize, usize) {
        let start = self.at.as_ptr().wrapping_sub(self.at.as_ptr().addr() % PAGE_SIZE);
        let nr_bytes = self.at.as_ptr().addr() + self.nr_bytes - start.addr();
        let mut states = vec![0u8; nr_bytes.div_ceil(PAGE_SIZE)];
        // SAFETY: the pages are mapped while the object is live, and there is a state for each.
        let result = unsafe { libc::mincore(start.cast(), nr_bytes, states.as_mut_ptr()) };
        assert_eq!(result, 0);
        (states.len(), states.iter().filter(|state| **state & 1 != 0).count())
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: it is live, and nothing uses it.
        unsafe { kmalloc::free(self.at) };
    }
}

#[test]
fn pages_of_large_objects_that_nobody_touches_stay_away() {
    let _alone = ALONE.lock();
    let mut random = Random(7);
    let mut large: Vec<Object> = Vec::new();
    for _ in 0..200 {
        // Slabs come and go, and leave some pages that are resident.
        drop((0..5000).map(|_| Object::new(200)).collect::<Vec<_>>());
        for _ in 0..20 {
            if large.len() == NR_LARGE {
                large.swap_remove(random.below(NR_LARGE));
            }
            large.push(Object::new((33 << 10) + random.below(31 << 10)));
        }
    }
    let (nr_pages, nr_resident) = large
        .iter()
        .map(Object::nr_pages)
        .fold((0, 0), |(all, all_resident), (pages, resident)| (all + pages, all_resident + resident));
    assert!(nr_pages > 8 * NR_LARGE);
    assert!(nr_resident <= 2 * NR_LARGE, "{nr_resident} of {nr_pages} pages are resident");
}

#[test]
fn a_large_object_grows_over_all_that_it_gave_up() {
    const MIB: usize = 1 << 20;
    let _alone = ALONE.lock();
    let mut object = Object::new(4 * MIB);
    let mut resize = |nr_bytes: usize| {
        // SAFETY: it is live, and used under its new address from here on.
        let at = unsafe { kmalloc::realloc(object.at, nr_bytes, 8) }.expect("memory");
        assert_eq!(at, object.at, "it has room for {nr_bytes} bytes where it is");
        object.nr_bytes = nr_bytes;
    };
    // Each time what it gives up is a free run of its own.
    [3, 2, 1].into_iter().for_each(|nr_mib| resize(nr_mib * MIB));
    resize(4 * MIB);
    // SAFETY: it has so many bytes.
    unsafe { object.at.write_bytes(1, 4 * MIB) };
}
