//! Models of pages that go back to the system while others allocate, use and free what lies beside them.
//!
//! A unit has four pages of two words here, a region two chunks, and there are two CPUs (`os/models.rs`, `cpu/models.rs`). Loom
//! sees every use of a word of the units and of the owner words, so a page that goes back while somebody uses it, or an
//! allocation that two have, ends the model.

#![expect(unsafe_code, reason = "frees what it has allocated, and reaches it by address")]

use core::ptr::NonNull;

use loom::thread;

use super::{GRANULE_BYTES, PERCPU, PercpuStat, UNIT_BYTES, alloc, for_each_owned, free, of_cpu, price, stat, trim};
use crate::cpu::{CpuId, nr_cpus};
use crate::hooks::{charged, enter};
use crate::os::{self, PAGE_SIZE, Word};
use crate::sync::Ordering;

/// An allocation.
struct Memory {
    first: NonNull<u8>,
    nr_bytes: usize,
}

// SAFETY: an allocation may be used and freed by any thread.
unsafe impl Send for Memory {}

impl Memory {
    /// Memory that reads as zero on every CPU.
    fn alloc(nr_bytes: usize) -> Memory {
        let first = alloc(nr_bytes, GRANULE_BYTES).expect("there is room for it");
        let memory = Memory { first, nr_bytes };
        memory.expect(0);
        memory
    }

    fn pages(nr_pages: usize) -> Memory {
        Memory::alloc(nr_pages * PAGE_SIZE)
    }

    /// Old bytes in pages that are idle then.
    fn leave_idle(nr_pages: usize) {
        let pages = Memory::pages(nr_pages);
        pages.fill(9);
        pages.free();
    }

    fn words_of(&self, cpu: CpuId) -> impl Iterator<Item = &'static Word> + use<> {
        // SAFETY: it came from `alloc`.
        let first = unsafe { of_cpu(self.first, cpu) };
        let offsets = (0..self.nr_bytes).step_by(GRANULE_BYTES);
        // SAFETY: inside the allocation.
        offsets.map(move |offset| Word::at(unsafe { first.byte_add(offset) }))
    }

    fn words(&self) -> impl Iterator<Item = &'static Word> {
        CpuId::all().flat_map(|cpu| self.words_of(cpu))
    }

    fn fill(&self, value: u32) {
        self.words().for_each(|word| word.store(value, Ordering::Relaxed));
    }

    fn expect(&self, value: u32) {
        self.words().for_each(|word| assert_eq!(word.load(Ordering::Relaxed), value));
    }

    fn free(self) {
        // SAFETY: it came from `alloc`, and whoever has this value has the allocation.
        unsafe { free(self.first) };
    }
}

/// Bytes of so many pages on all CPUs.
fn bytes(nr_pages: usize) -> usize {
    nr_pages * PAGE_SIZE * nr_cpus()
}

/// The owners that are found, and their bytes on all CPUs.
fn owned() -> Vec<(u32, u64)> {
    let mut owned = Vec::new();
    for_each_owned(|owner, nr_bytes| owned.push((owner, nr_bytes)));
    owned
}

/// At the end, when nothing is allocated: gives the idle pages back, after which all sums are zero; returns their bytes.
fn trim_to_nothing() -> usize {
    PERCPU.lock().check();
    let nr_bytes = trim();
    PERCPU.lock().check();
    assert_eq!(stat(), PercpuStat::default());
    assert_eq!(charged(), [0; 3]);
    nr_bytes
}

/// An idle page goes back. Its neighbour is in use all the time, on each CPU by another thread; what is allocated meanwhile,
/// half a page each, is zero and nobody else's.
#[test]
fn loom_percpu_pages_go_back_while_others_allocate() {
    loom::model(|| {
        let [old, used] = [(); 2].map(|()| Memory::pages(1));
        old.fill(9);
        old.free();
        let mut words = CpuId::all().map(|cpu| used.words_of(cpu).collect::<Vec<_>>());
        let [here, there] = [(); 2].map(|()| words.next().expect("there are two CPUs"));
        let trimmer = thread::spawn(trim);
        let user = thread::spawn(move || there.iter().for_each(|word| word.store(7, Ordering::Relaxed)));
        let new = [(); 2].map(|()| Memory::alloc(PAGE_SIZE / 2));
        new.iter().for_each(|memory| memory.fill(8));
        here.iter().for_each(|word| word.store(7, Ordering::Relaxed));
        user.join().unwrap();
        let nr_bytes = trimmer.join().unwrap();
        assert!([0, bytes(1)].contains(&nr_bytes), "{nr_bytes}");
        used.expect(7);
        new.iter().for_each(|memory| memory.expect(8));
        new.into_iter().for_each(Memory::free);
        used.free();
        trim_to_nothing();
    });
}

/// Two threads give the pages on both sides of an allocation back, which is freed meanwhile: it ends where it ended, and every
/// page goes back once.
#[test]
fn loom_percpu_two_trims_at_once() {
    loom::model(|| {
        enter(1);
        let [before, between, behind] = [(); 3].map(|()| Memory::pages(1));
        [&before, &between, &behind].iter().for_each(|pages| pages.fill(9));
        before.free();
        behind.free();
        assert_eq!(charged(), [0, price(PAGE_SIZE / GRANULE_BYTES, nr_cpus()), 0]);
        let trimmers = [(); 2].map(|()| thread::spawn(trim));
        between.free();
        assert_eq!(charged(), [0; 3]);
        let nr_bytes: usize = trimmers.into_iter().map(|trimmer| trimmer.join().unwrap()).sum();
        assert_eq!(nr_bytes + trim_to_nothing(), bytes(3));
    });
}

/// Two threads free what lies beside idle pages, each past the bound, so that both give pages of two chunks back: who paid has
/// the price again, and no more pages stay than may.
#[test]
fn loom_percpu_two_frees_past_the_bound() {
    loom::model(|| {
        let [first, second] = [1, 2].map(|group| {
            enter(group);
            let pages = Memory::pages(1);
            pages.fill(9);
            pages
        });
        enter(0);
        let [third, fourth] = [2, 1].map(Memory::pages);
        [third, fourth].into_iter().for_each(Memory::free);
        assert_eq!(stat().populated_bytes, bytes(5));
        let other = thread::spawn(move || first.free());
        second.free();
        other.join().unwrap();
        assert_eq!(charged(), [0; 3]);
        let nr_bytes = stat().populated_bytes;
        assert!(nr_bytes <= bytes(3), "{nr_bytes}");
        assert_eq!(trim_to_nothing(), nr_bytes);
    });
}

/// The last page that a chunk has goes back while somebody allocates and frees another: the chunk is unmade when nothing is left
/// in it, and made again.
#[test]
fn loom_percpu_a_chunk_is_unmade_against_an_allocation() {
    loom::model(|| {
        Memory::leave_idle(1);
        let trimmer = thread::spawn(trim);
        enter(1);
        let new = Memory::pages(1);
        new.fill(8);
        assert_eq!(owned(), [(1, bytes(1) as u64)]);
        new.expect(8);
        new.free();
        trimmer.join().unwrap();
        trim_to_nothing();
    });
}

/// Two threads allocate while all that a chunk has goes back, one of them a whole unit: each gets zero memory of its own, in
/// that chunk or another.
#[test]
fn loom_percpu_a_whole_unit_is_allocated_while_pages_go_back() {
    loom::model(|| {
        Memory::leave_idle(2);
        let trimmer = thread::spawn(trim);
        let other = thread::spawn(|| {
            let small = Memory::pages(1);
            small.fill(7);
            small
        });
        let whole = Memory::alloc(UNIT_BYTES);
        whole.fill(8);
        let small = other.join().unwrap();
        trimmer.join().unwrap();
        small.expect(7);
        whole.expect(8);
        small.free();
        whole.free();
        trim_to_nothing();
    });
}

/// Owned memory is looked for while a page goes back that had an owner: what is held is no allocation, and the figures agree at
/// any time.
#[test]
fn loom_percpu_owners_are_visited_while_pages_go_back() {
    loom::model(|| {
        enter(1);
        let used = Memory::pages(1);
        enter(2);
        Memory::leave_idle(1);
        let trimmer = thread::spawn(trim);
        assert_eq!(owned(), [(1, bytes(1) as u64)]);
        let PercpuStat { nr_allocations, used_bytes, populated_bytes, owner_bytes, .. } = stat();
        assert_eq!((nr_allocations, used_bytes), (1, bytes(1)));
        assert!(
            [1, 2].map(|nr_pages| (bytes(nr_pages), nr_pages * PAGE_SIZE)).contains(&(populated_bytes, owner_bytes))
        );
        trimmer.join().unwrap();
        used.free();
        trim_to_nothing();
    });
}

/// The system takes an idle page on one CPU and refuses it on the other: whoever gets it next finds no old bytes.
#[test]
fn loom_percpu_a_page_that_is_refused_keeps_its_bytes() {
    loom::model(|| {
        Memory::leave_idle(1);
        os::refuse_a_release(1);
        let trimmer = thread::spawn(trim);
        let new = Memory::pages(1);
        new.fill(8);
        assert_eq!(trimmer.join().unwrap(), 0);
        new.free();
        // This one is refused, if the other had nothing to give back.
        trim();
        Memory::pages(2).free();
        trim_to_nothing();
    });
}
