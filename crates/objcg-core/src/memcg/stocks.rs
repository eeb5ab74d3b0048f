//! Where the stocks are, and the moves in and out of them, on both arms of the `cpu` layer.
//!
//! | arm | words | changed by | taken by another CPU |
//! |---|---|---|---|
//! | rseq | in the per-CPU area | one restartable sequence; installed and evicted under the CPU's words lock | under that lock, behind guard and fence |
//! | portable | a table of [`StockSlot`] a CPU, made when the first group is | compare-exchange | compare-exchange |
//!
//! Both keep a vessel's bytes in the word of its id modulo the number of words.

#![expect(unsafe_code, reason = "one array of words, reached through a pointer")]

use core::ptr;

use super::charge::VESSELS;
use super::stock::{NR_SLOTS, Residue, StockSlot, after_refill};
use crate::cpu::{CpuId, CpuWords, NR_WORDS, Words, has_words, nr_cpus, this_cpu};
use crate::os::PAGE_SIZE;
use crate::page_alloc;
use crate::sync::{AtomicPtr, Ordering};

static STOCKS: AtomicPtr<StockSlot> = AtomicPtr::new(ptr::null_mut());

/// Residues that have to go back to their groups: what one refill can displace.
pub(super) type Displaced = [Option<Residue>; 2];

/// Makes the portable table. Called under the tree lock before the first group exists; without memory there are no stocks
/// on that arm, and every charge goes up the tree by itself.
pub(super) fn init() {
    let nr_bytes = nr_cpus() * NR_SLOTS * size_of::<StockSlot>();
    let nr_pages = nr_bytes.div_ceil(PAGE_SIZE) as u32;
    let Some(run) = page_alloc::alloc_zeroed(nr_pages) else { return };
    // Zero is an empty stock.
    // Release pairs with the Acquire in `at`.
    STOCKS.store(run.address().as_ptr().cast(), Ordering::Release);
}

/// Takes `nr_bytes` of a vessel out of this CPU's stock; false if it does not have them.
#[inline]
pub(super) fn consume(vessel: u32, nr_bytes: u32) -> bool {
    let words = Words::of_number(vessel as usize);
    words.is_some_and(|words| words.compare_add(vessel, -i64::from(nr_bytes))) || consume_portable(vessel, nr_bytes)
}

#[cold]
#[inline(never)]
fn consume_portable(vessel: u32, nr_bytes: u32) -> bool {
    this_cpu().is_none() && slot(CpuId::current(), vessel).is_some_and(|stock| stock.consume(vessel, nr_bytes))
}

/// Puts `nr_bytes` of a vessel into this CPU's stock, which may keep `keep` of them; what does not stay comes back.
#[inline]
pub(super) fn refill(vessel: u32, nr_bytes: u32, keep: impl FnOnce() -> u32) -> Displaced {
    let words = Words::of_number(vessel as usize);
    if words.is_some_and(|words| words.compare_add(vessel, i64::from(nr_bytes))) {
        return [None; 2];
    }
    refill_slow(words, vessel, nr_bytes, keep())
}

#[cold]
#[inline(never)]
fn refill_slow(words: Option<Words>, vessel: u32, nr_bytes: u32, keep: u32) -> Displaced {
    let refused = [Some(Residue { vessel, nr_bytes }), None];
    while let Some(cpu) = this_cpu() {
        // The words may be new: this thread's first look at its CPU makes them.
        let Some(words) = words.or_else(|| Words::of_number(vessel as usize)) else { return refused };
        let Some(held) = CpuWords::hold(cpu) else { return refused };
        let seen = Residue::from_word(words.of_cpu(cpu).load(Ordering::Relaxed));
        if after_refill(seen, vessel, nr_bytes, keep).is_none() {
            return refused;
        }
        // Taken out first: sections consume from it until this very moment.
        let Some(taken) = words.exchange(&held, cpu, 0, keep) else { continue };
        let taken = Residue::from_word(taken);
        let Some((kept, excess)) = after_refill(taken, vessel, nr_bytes, keep) else {
            return [refused[0], taken];
        };
        let kept = Residue { vessel, nr_bytes: kept };
        return match words.exchange(&held, cpu, kept.word(), keep) {
            // Nothing goes into an empty word but by whoever holds it, and the root's own bytes.
            Some(found) => [excess, Residue::from_word(found)],
            None => [excess, Residue::from_word(kept.word())],
        };
    }
    match slot(CpuId::current(), vessel) {
        Some(stock) => [stock.refill(vessel, nr_bytes, keep), None],
        None => refused,
    }
}

/// Whether this CPU has a stock at all.
pub(super) fn have_stock() -> bool {
    this_cpu().is_some() || slot(CpuId::current(), 0).is_some()
}

/// Takes out what this CPU's stock holds for a vessel.
pub(super) fn drain_here(vessel: u32) -> Option<Residue> {
    let Some(cpu) = this_cpu() else {
        return slot(CpuId::current(), vessel)?.drain_if(|id| id == vessel);
    };
    let words = Words::of_number(vessel as usize)?;
    let holds_it = |word| Residue::from_word(word).is_some_and(|residue| residue.vessel == vessel);
    if !holds_it(words.of_cpu(cpu).load(Ordering::Relaxed)) {
        return None;
    }
    let held = CpuWords::hold(cpu)?;
    Residue::from_word(words.exchange(&held, cpu, 0, 0)?)
}

/// Takes out what all CPUs' stocks hold for vessels that satisfy `test`, and hands it to `sink`, under no lock. `test` is also
/// called while sections are kept away: it must be short, and take no lock.
pub(super) fn drain(test: impl Fn(u32) -> bool, mut sink: impl FnMut(Residue)) {
    portable().filter_map(|stock| stock.drain_if(&test)).for_each(&mut sink);
    CpuId::all().for_each(|cpu| drain_words(cpu, &test, &mut sink));
}

/// How many of a table's words there are vessels for yet: a word's number is its vessel's, modulo the number of words.
fn nr_in_use(nr_words: usize) -> usize {
    nr_words.min(VESSELS.nr_made() as usize)
}

/// The portable words that there are vessels for, of all CPUs.
fn portable() -> impl Iterator<Item = &'static StockSlot> {
    let nr_in_use = nr_in_use(NR_SLOTS);
    CpuId::all().flat_map(move |cpu| (0..nr_in_use).map_while(move |number| at(cpu.index() * NR_SLOTS + number)))
}

fn drain_words(cpu: CpuId, test: &impl Fn(u32) -> bool, sink: &mut impl FnMut(Residue)) {
    const BATCH: usize = 32;
    let wanted = |word: u64| Residue::from_word(word).filter(|residue| test(residue.vessel));
    // A fence costs microseconds: only where there is something.
    while residues_of(cpu).any(|residue| test(residue.vessel)) {
        let mut batch = [None; BATCH];
        let mut nr_taken = 0;
        let Some(held) = CpuWords::hold(cpu) else { return };
        held.alone(|words| {
            for word in words.iter().step_by(2).take(nr_in_use(NR_WORDS)) {
                let Some(residue) = wanted(word.load(Ordering::Relaxed)) else { continue };
                let Some(place) = batch.get_mut(nr_taken) else { break };
                *place = Some(residue);
                nr_taken += 1;
                word.store(0, Ordering::Relaxed);
            }
        });
        drop(held);
        batch.into_iter().flatten().for_each(&mut *sink);
        if nr_taken < BATCH {
            return;
        }
    }
}

fn residues_of(cpu: CpuId) -> impl Iterator<Item = Residue> {
    let nr_words = if has_words(cpu) { nr_in_use(NR_WORDS) } else { 0 };
    let words = (0..nr_words).map_while(Words::of_number);
    words.filter_map(move |word| Residue::from_word(word.of_cpu(cpu).load(Ordering::Relaxed)))
}

/// What all words of all CPUs hold at this moment.
pub(super) fn residues() -> impl Iterator<Item = Residue> {
    portable().filter_map(StockSlot::peek).chain(CpuId::all().flat_map(residues_of))
}

/// The portable word of a vessel.
fn slot(cpu: CpuId, vessel: u32) -> Option<&'static StockSlot> {
    at(cpu.index() * NR_SLOTS + vessel as usize % NR_SLOTS)
}

fn at(index: usize) -> Option<&'static StockSlot> {
    let stocks = STOCKS.load(Ordering::Acquire);
    if stocks.is_null() {
        return None;
    }
    // SAFETY: every CPU id and slot number is inside the table that `init` made.
    let stock = unsafe { stocks.add(index) };
    // SAFETY: the table is never freed and its elements are atomics.
    Some(unsafe { &*stock })
}

#[cfg(test)]
mod tests {
    use core::ptr;
    use std::vec::Vec;

    use super::{NR_SLOTS, Residue, drain, refill, residues, slot};
    use crate::cpu::CpuId;
    use crate::memcg::Memcg;
    use crate::memcg::node::node;
    use crate::sync::Ordering;

    #[test]
    fn what_is_in_a_stock_is_found_and_drained_from_any_cpu() {
        let group = Memcg::root().create("stock").expect("a new name");
        let vessel = node(group.id()).objcg.load(Ordering::Relaxed);
        let found = || residues().find(|residue| residue.vessel == vessel);
        assert_eq!(found(), None);
        // As if they had been charged.
        assert_eq!(refill(vessel, 500, || 1000), [None; 2]);
        let kept = Some(Residue { vessel, nr_bytes: 500 });
        assert_eq!(found(), kept);
        let mut drained = None;
        drain(|id| id == vessel, |residue| drained = Some(residue));
        assert_eq!((drained, found()), (kept, None));
    }

    #[test]
    fn each_cpu_has_a_portable_word_for_a_vessel() {
        let _root = Memcg::root();
        let word = |cpu, vessel| ptr::from_ref(slot(cpu, vessel).expect("the table is made with the root"));
        let mut of_cpus = CpuId::all().map(|cpu| word(cpu, 7)).collect::<Vec<_>>();
        assert!(of_cpus.is_sorted());
        of_cpus.dedup();
        assert_eq!(of_cpus.len(), CpuId::all().count());
        let cpu = CpuId::current();
        assert_ne!(word(cpu, 7), word(cpu, 8));
        assert_eq!(word(cpu, 7), word(cpu, 7 + NR_SLOTS as u32));
    }
}
