//! The allocator against a reference that has a flag for each granule, with calls of the operating system refused, on
//! simulated machines of up to 512 CPUs.

use std::collections::BTreeMap;
use std::println;
use std::time::SystemTime;
use std::vec;
use std::vec::Vec;

use core::ptr::NonNull;

use super::{AllocError, BLOCK_GRANULES, GRANULE_BYTES, NR_GRANULES, Percpu, Stranger, UNIT_BYTES, UNIT_SHIFT};
use crate::memcg::Memcg;
use crate::os::{PAGE_SIZE, refusals};

/// Linear congruential; seeded by `OBJCG_SEED`, else by the clock, and the seed printed.
struct Random(u64);

impl Random {
    fn from_environment() -> Random {
        let clock = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64);
        let seed = std::env::var("OBJCG_SEED").map_or(clock, |text| text.parse().expect("OBJCG_SEED is a number"));
        println!("OBJCG_SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }

    /// Mostly a few bytes, now and then up to a unit.
    fn size(&mut self) -> usize {
        let bound = match self.below(60) {
            0 => UNIT_BYTES,
            1..=3 => 20_000,
            4..=9 => 4096,
            10..=19 => 512,
            _ => 64,
        };
        1 + self.below(bound)
    }

    fn align(&mut self) -> usize {
        let bound = if self.below(10) == 0 { 13 } else { 5 };
        1 << self.below(bound)
    }
}

struct Allocation {
    address: NonNull<u8>,
    nr_bytes: usize,
}

impl Allocation {
    fn first_word(&self, unit: usize) -> *mut u32 {
        self.address.as_ptr().wrapping_byte_add(unit << UNIT_SHIFT).cast()
    }

    fn nr_words(&self) -> usize {
        self.nr_bytes.div_ceil(GRANULE_BYTES)
    }

    fn fill(&self, unit: usize, word: u32) {
        // SAFETY: the allocation's own granules, used by the test's thread that has it.
        unsafe { std::slice::from_raw_parts_mut(self.first_word(unit), self.nr_words()) }.fill(word);
    }

    fn holds(&self, unit: usize, word: u32) -> bool {
        // SAFETY: as above.
        let words = unsafe { std::slice::from_raw_parts(self.first_word(unit), self.nr_words()) };
        *words == vec![word; words.len()]
    }
}

fn alloc(percpu: &Percpu, nr_bytes: usize, align: usize) -> Allocation {
    let address = percpu.alloc(nr_bytes, align).expect("memory");
    Allocation { address, nr_bytes }
}

fn free(percpu: &Percpu, allocation: &Allocation) {
    percpu.free(allocation.address);
}

/// Units that a test looks into: all, or a few of many.
fn units(percpu: &Percpu) -> impl Iterator<Item = usize> {
    let nr_units = percpu.nr_units();
    (0..nr_units).filter(move |unit| unit % nr_units.div_ceil(4) == 0 || unit + 1 == nr_units)
}

/// The first run of `nr` that is not taken and starts at a multiple of `align`: what first fit means.
fn first_fit(taken: &[bool], nr: usize, align: usize) -> Option<usize> {
    let (mut nr_free, mut fit) = (0, None);
    // Backwards, so that each start knows how long its run is.
    for at in (0..taken.len()).rev() {
        nr_free = if taken[at] { 0 } else { nr_free + 1 };
        if nr_free >= nr && at % align == 0 {
            fit = Some(at);
        }
    }
    fit
}

/// Random allocations and frees; each place is the reference's, each byte that is handed out zero.
fn against_the_reference(width: usize, nr_operations: usize) {
    let mut random = Random::from_environment();
    let percpu = Percpu::of_width(width);
    let mut chunks: BTreeMap<u32, Vec<bool>> = BTreeMap::new();
    let mut live: Vec<Allocation> = Vec::new();
    for nth in 0..nr_operations {
        // Waves, so that chunks fill and empty.
        let grows = nth / 1500 % 2 == 0;
        if live.is_empty() || random.below(10) < if grows { 7 } else { 3 } {
            let (nr_bytes, align) = (random.size(), random.align());
            let nr = nr_bytes.div_ceil(GRANULE_BYTES);
            let align_granules = align.div_ceil(GRANULE_BYTES);
            let allocation = alloc(&percpu, nr_bytes, align);
            let place = percpu.lock().find(allocation.address).expect("in the region");
            assert_eq!((place.unit, place.offset % align), (0, 0));
            let start = place.offset / GRANULE_BYTES;
            if !chunks.contains_key(&place.chunk) {
                let with_room = chunks.iter().find(|(_, taken)| first_fit(taken, nr, align_granules).is_some());
                assert!(with_room.is_none(), "a chunk was made though {:?} has room", with_room.map(|(idx, _)| idx));
                chunks.insert(place.chunk, [false; NR_GRANULES].to_vec());
            }
            let taken = chunks.get_mut(&place.chunk).expect("just seen to");
            assert_eq!(first_fit(taken, nr, align_granules), Some(start), "{nr} granules at {align_granules}");
            taken[start..start + nr].fill(true);
            for unit in units(&percpu) {
                assert!(allocation.holds(unit, 0), "unit {unit} has old bytes");
                allocation.fill(unit, 0x5a5a_0000 | unit as u32);
            }
            live.push(allocation);
        } else {
            let allocation = live.swap_remove(random.below(live.len()));
            for unit in units(&percpu) {
                assert!(allocation.holds(unit, 0x5a5a_0000 | unit as u32), "unit {unit} was overwritten");
            }
            let place = percpu.lock().find(allocation.address).expect("in the region");
            let start = place.offset / GRANULE_BYTES;
            let taken = chunks.get_mut(&place.chunk).expect("a chunk that something is in");
            taken[start..start + allocation.nr_bytes.div_ceil(GRANULE_BYTES)].fill(false);
            free(&percpu, &allocation);
        }
        if nth % 1000 == 0 {
            percpu.lock().check();
            percpu.release_down_to(random.below(8));
            percpu.lock().check();
            let nr_taken: usize = chunks.values().flatten().map(|taken| usize::from(*taken)).sum();
            assert_eq!(percpu.lock().stat().used_bytes, nr_taken * GRANULE_BYTES * width);
            assert_eq!(percpu.lock().stat().nr_allocations, live.len());
        }
    }
    live.iter().for_each(|allocation| free(&percpu, allocation));
    assert_empty(&percpu);
}

fn assert_empty(percpu: &Percpu) {
    percpu.release_down_to(0);
    percpu.lock().check();
    let stat = percpu.lock().stat();
    assert_eq!((stat.nr_allocations, stat.used_bytes, stat.held_bytes()), (0, 0, 0));
}

#[test]
fn places_are_those_of_the_reference() {
    against_the_reference(3, 8_000);
}

#[test]
fn places_are_those_of_the_reference_with_64_cpus() {
    against_the_reference(64, 3_000);
}

#[test]
fn places_are_those_of_the_reference_with_512_cpus() {
    against_the_reference(512, 1_000);
}

#[test]
fn wrong_sizes_and_alignments_are_refused() {
    let percpu = Percpu::of_width(2);
    assert_eq!(percpu.alloc(0, 1), Err(AllocError::Size(0)));
    assert_eq!(percpu.alloc(UNIT_BYTES + 1, 1), Err(AllocError::Size(UNIT_BYTES + 1)));
    assert_eq!(percpu.alloc(usize::MAX, 1), Err(AllocError::Size(usize::MAX)));
    for align in [0, 3, 2 * PAGE_SIZE, usize::MAX] {
        assert_eq!(percpu.alloc(8, align), Err(AllocError::Align(align)));
    }
    let whole = [1, 4096].map(|align| alloc(&percpu, UNIT_BYTES, align));
    whole.iter().for_each(|allocation| free(&percpu, allocation));
    assert_empty(&percpu);
}

#[test]
fn addresses_that_are_no_allocation_are_told_apart() {
    let percpu = Percpu::of_width(2);
    let addr = |allocation: &Allocation, offset: usize| allocation.address.as_ptr() as usize + offset;
    let refusal = |addr| percpu.lock().free(addr).err();
    assert_eq!(refusal(4096), Some(Stranger::Foreign), "there is no region yet");
    let allocation = alloc(&percpu, 100, 8);
    assert_eq!(refusal(addr(&allocation, 0) - 4096), Some(Stranger::Foreign));
    assert_eq!(refusal(addr(&allocation, 4)), Some(Stranger::Inside));
    assert_eq!(refusal(addr(&allocation, 1)), Some(Stranger::Inside));
    assert_eq!(refusal(addr(&allocation, 104)), Some(Stranger::Free));
    assert_eq!(refusal(addr(&allocation, UNIT_BYTES)), Some(Stranger::OtherUnit(1)));
    assert_eq!(refusal(addr(&allocation, 2 * UNIT_BYTES)), Some(Stranger::Foreign), "owner words");
    assert_eq!(refusal(addr(&allocation, 3 * UNIT_BYTES)), Some(Stranger::Foreign), "metadata");
    let next_chunk = 3 * UNIT_BYTES + super::region::METADATA_BYTES;
    assert_eq!(
        refusal(addr(&allocation, next_chunk)),
        Some(Stranger::Foreign),
        "the next chunk, which is not committed"
    );
    assert_eq!(refusal(addr(&allocation, 10 * UNIT_BYTES)), Some(Stranger::Foreign), "a chunk that is not made");
    free(&percpu, &allocation);
    assert_eq!(refusal(addr(&allocation, 0)), Some(Stranger::Free));
    assert_empty(&percpu);
    assert_eq!(refusal(addr(&allocation, 0)), Some(Stranger::Foreign), "its chunk is not made any more");
}

/// Half of many counters go at random, and come again: nothing is held that was not before.
fn refill(width: usize) {
    const NR_COUNTERS: usize = 100_000;
    let mut random = Random::from_environment();
    let percpu = Percpu::of_width(width);
    let mut counters: Vec<_> = (0..NR_COUNTERS).map(|_| alloc(&percpu, GRANULE_BYTES, GRANULE_BYTES)).collect();
    let full = percpu.lock().stat();
    let budget = GRANULE_BYTES * width * NR_COUNTERS * 5 / 4;
    assert!(full.populated_bytes + full.metadata_bytes <= budget, "{full:?}");
    for _ in 0..NR_COUNTERS / 2 {
        let victim = counters.swap_remove(random.below(counters.len()));
        free(&percpu, &victim);
    }
    counters.extend((0..NR_COUNTERS / 2).map(|_| alloc(&percpu, GRANULE_BYTES, GRANULE_BYTES)));
    let refilled = percpu.lock().stat();
    assert_eq!(refilled.used_bytes, full.used_bytes);
    assert!(refilled.used_bytes * 10 >= refilled.populated_bytes * 9, "{refilled:?}");
    percpu.lock().check();
    counters.iter().for_each(|counter| free(&percpu, counter));
    assert_empty(&percpu);
}

#[test]
fn what_was_freed_at_random_is_filled_again() {
    refill(2);
}

#[test]
fn what_was_freed_at_random_is_filled_again_with_64_cpus() {
    refill(64);
}

#[test]
fn what_was_freed_at_random_is_filled_again_with_512_cpus() {
    refill(512);
}

#[test]
fn emptied_pages_go_back_past_a_bound_and_read_as_zero() {
    const NR_PAGES: usize = 400;
    let percpu = Percpu::of_width(2);
    let pages: Vec<_> = (0..NR_PAGES).map(|_| alloc(&percpu, PAGE_SIZE, PAGE_SIZE)).collect();
    pages.iter().for_each(|page| page.fill(1, 7));
    let bytes = |nr_pages: usize| nr_pages * PAGE_SIZE * 2;
    assert_eq!(percpu.lock().stat().populated_bytes, bytes(NR_PAGES));
    pages.iter().for_each(|page| free(&percpu, page));
    let kept = percpu.lock().stat().populated_bytes;
    assert!(kept > 0 && kept <= bytes(5), "{kept}");
    let again: Vec<_> = (0..NR_PAGES).map(|_| alloc(&percpu, PAGE_SIZE, PAGE_SIZE)).collect();
    assert!(again.iter().all(|page| page.holds(1, 0)));
    again.iter().for_each(|page| free(&percpu, page));
    assert_empty(&percpu);
}

#[test]
fn pages_on_their_way_back_are_nobodys() {
    let percpu = Percpu::of_width(2);
    let [before, gone, behind] = [(); 3].map(|()| alloc(&percpu, PAGE_SIZE, PAGE_SIZE));
    gone.fill(1, 7);
    free(&percpu, &gone);
    let held = percpu.lock().hold_idle().expect("an idle page");
    // The neighbour ends where it ended, another allocation goes elsewhere, and a second free is found out.
    free(&percpu, &before);
    let other = alloc(&percpu, 2 * PAGE_SIZE, 1);
    assert_eq!(percpu.lock().find(other.address).map(|place| place.offset), Some(3 * PAGE_SIZE));
    assert_eq!(percpu.lock().free(gone.address.as_ptr() as usize).err(), Some(Stranger::Free));
    assert!(held.release());
    percpu.lock().put_idle(held, true);
    percpu.lock().check();
    let again = alloc(&percpu, 2 * PAGE_SIZE, 1);
    assert_eq!(again.address, before.address);
    assert!(again.holds(1, 0));
    [behind, other, again].iter().for_each(|allocation| free(&percpu, allocation));
    assert_empty(&percpu);
}

#[test]
fn a_search_that_a_bound_misled_corrects_it() {
    let percpu = Percpu::of_width(1);
    let granules: Vec<_> = (0..NR_GRANULES).map(|_| alloc(&percpu, GRANULE_BYTES, 1)).collect();
    // Every second one free, then the neighbours of some: runs of one and of three.
    granules.iter().step_by(2).for_each(|granule| free(&percpu, granule));
    free(&percpu, &granules[5 * BLOCK_GRANULES + 1]);
    let three = alloc(&percpu, 3 * GRANULE_BYTES, 1);
    assert_eq!(percpu.lock().find(three.address).map(|place| place.offset), Some(5 * PAGE_SIZE));
    let two = alloc(&percpu, 2 * GRANULE_BYTES, 1);
    assert_eq!(percpu.lock().find(two.address).map(|place| place.chunk), Some(1), "the first one has runs of one only");
    let one = alloc(&percpu, GRANULE_BYTES, 1);
    assert_eq!(percpu.lock().find(one.address).map(|place| (place.chunk, place.offset)), Some((0, 0)));
    percpu.lock().check();
}

/// Fills, frees, and fills again; what the system refuses is left out.
fn work(percpu: &Percpu) -> Vec<Allocation> {
    let mut live = Vec::new();
    for (round, nr_bytes) in [UNIT_BYTES, 40_000, 3 * PAGE_SIZE, 12_345, 4].into_iter().enumerate() {
        live.extend((0..6).filter_map(|_| {
            let allocation = Allocation { address: percpu.alloc(nr_bytes, 4).ok()?, nr_bytes };
            for unit in 0..percpu.nr_units() {
                assert!(allocation.holds(unit, 0), "old bytes in round {round}");
                allocation.fill(unit, 9);
            }
            Some(allocation)
        }));
        let mut nth = 0;
        live.retain(|allocation| {
            nth += 1;
            let stays = nth % 3 == 0;
            if !stays {
                free(percpu, allocation);
            }
            stays
        });
    }
    live
}

#[test]
fn every_refusal_of_the_system_is_survived() {
    for nr_refused in [1, 2, usize::MAX] {
        let nr_calls = (0..).find(|nr_passed| {
            let percpu = Percpu::of_width(3);
            refusals::plan(*nr_passed, nr_refused);
            let live = work(&percpu);
            percpu.release_down_to(0);
            let nr_left = refusals::end();
            percpu.lock().check();
            live.iter().for_each(|allocation| free(&percpu, allocation));
            assert_empty(&percpu);
            nr_left == nr_refused
        });
        assert!(nr_calls > Some(15), "the work makes more calls than {nr_calls:?}");
    }
}

#[test]
fn i8_memory_that_the_system_refused_leaves_no_trace() {
    let group = Memcg::root().create("percpu-refused").expect("a new name");
    // All that the group's side will need is there.
    drop(group.enter());
    let percpu = Percpu::of_width(2);
    let inside = group.enter();
    let warm = percpu.alloc(8, 8).expect("memory");
    group.drain();
    let before = (group.usage(), group.peak(), group.events());
    refusals::plan(0, usize::MAX);
    let refused: Vec<_> = (0..3).map(|_| percpu.alloc(UNIT_BYTES, 1)).collect();
    refusals::end();
    drop(inside);
    assert!(refused.iter().all(|result| *result == Err(AllocError::NoMemory)), "{refused:?}");
    group.drain();
    assert_eq!((group.usage(), group.peak(), group.events()), before);
    percpu.free(warm);
    group.drain();
    assert_eq!(group.usage(), 0);
}

#[test]
fn threads_allocate_free_and_release_side_by_side() {
    const NR_THREADS: usize = 4;
    const NR_ROUNDS: usize = 10_000;
    let percpu = &Percpu::of_width(2);
    let mut random = Random::from_environment();
    let seeds: Vec<_> = (0..NR_THREADS).map(|_| random.below(usize::MAX >> 40) as u64).collect();
    std::thread::scope(|scope| {
        for (thread, seed) in seeds.into_iter().enumerate() {
            scope.spawn(move || {
                let mut random = Random(seed);
                let mut live: Vec<(Allocation, u32)> = Vec::new();
                for round in 0..NR_ROUNDS {
                    if random.below(2) == 0 || live.is_empty() {
                        let tag = (thread * NR_ROUNDS + round) as u32 + 1;
                        let allocation = alloc(percpu, random.size(), random.align());
                        for unit in 0..2 {
                            assert!(allocation.holds(unit, 0));
                            allocation.fill(unit, tag);
                        }
                        live.push((allocation, tag));
                    } else {
                        let (allocation, tag) = live.swap_remove(random.below(live.len()));
                        assert!((0..2).all(|unit| allocation.holds(unit, tag)));
                        free(percpu, &allocation);
                    }
                    if round % 50 == 0 {
                        percpu.release_down_to(0);
                    }
                }
                live.iter().for_each(|(allocation, _)| free(percpu, allocation));
            });
        }
    });
    assert_empty(percpu);
}
