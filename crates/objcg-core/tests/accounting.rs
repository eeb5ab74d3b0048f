//! What a group's slot keeps from one life to the next (nothing), soft limits, watchers, tickets, threads that are moved.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use objcg_core::cpu::{CpuId, nr_cpus};
use objcg_core::memcg::{self, DeleteError, Memcg, NoFail, OomPolicy, Watcher};
use objcg_core::{kmalloc, percpu, stat};

/// Some tests look at process-wide counts, or at what this CPU's stocks hold: nothing is left of earlier tests, and the thread stays
/// on the CPU that it runs on.
fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    stay_on_this_cpu();
    Memcg::root().drain();
    guard
}

fn stay_on_this_cpu() {
    // SAFETY: a set of CPUs is plain bits; zero is the empty one.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is a local one, and CPU ids are below its size.
    unsafe { libc::CPU_SET(CpuId::current().index(), &mut one) };
    // SAFETY: the set is a local one, of the size that is given.
    assert_eq!(unsafe { libc::sched_setaffinity(0, size_of_val(&one), &raw const one) }, 0);
}

fn group(name: &str) -> Memcg {
    Memcg::root().create(name).expect("a new name")
}

fn take(group: &Memcg, nr_bytes: usize) -> std::ptr::NonNull<u8> {
    let _inside = group.enter();
    kmalloc::alloc(nr_bytes, 8).expect("memory")
}

fn give_back(memory: std::ptr::NonNull<u8>) {
    // SAFETY: callers hand over what they took, once.
    unsafe { kmalloc::free(memory) };
}

#[test]
fn i4_a_slot_keeps_nothing_of_an_earlier_life() {
    let _alone = alone();
    let first = group("first");
    first.set_max(Some(1 << 20)).expect("alive");
    first.set_high(Some(1 << 10)).expect("alive");
    give_back(take(&first, 100_000));
    first.drain();
    assert!(first.peak() >= 100_000 && first.events().high > 0);
    let slot = first.id();
    drop(first);
    let second = group("second");
    assert_eq!(second.id(), slot, "the free slot is the next one");
    assert_eq!((second.max(), second.high(), second.usage(), second.peak()), (None, None, 0, 0));
    assert_eq!((second.events().high, second.events().max, second.events().oom), (0, 0, 0));
    give_back(take(&second, 2 << 20));
    drop(second);
}

#[test]
fn i4_a_long_name_goes_with_its_group() {
    // More than a chunk of the names' table has.
    const NR_LIVES: usize = 3000;
    let _alone = alone();
    let name = "n".repeat(255);
    drop(group(&name));
    let before = stat::pages().used_bytes;
    (0..NR_LIVES).for_each(|_| drop(group(&name)));
    assert_eq!(stat::pages().used_bytes, before);
}

#[test]
fn usage_at_the_soft_limit_is_no_event_and_above_it_is_one() {
    let _alone = alone();
    let tenant = group("soft");
    let memory = take(&tenant, 40_000);
    tenant.drain();
    let usage = tenant.usage();
    assert_eq!(tenant.set_high(Some(2 * usage)).expect("alive"), 0);
    assert_eq!(tenant.high(), Some(2 * usage));
    let same_again = take(&tenant, 40_000);
    assert_eq!((tenant.usage(), tenant.events().high), (2 * usage, 0));
    let more = take(&tenant, 40_000);
    assert_eq!(tenant.events().high, 1);
    [memory, same_again, more].into_iter().for_each(give_back);
    tenant.set_high(None).expect("alive");
    assert_eq!(tenant.high(), None);
}

#[test]
fn a_watcher_is_called_for_charges_and_for_refusals() {
    static NR_CALLS: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn count() {
        NR_CALLS.fetch_add(1, Ordering::Relaxed);
    }
    static WATCHER: Watcher = Watcher(count);
    let _alone = alone();
    memcg::watch(&WATCHER);
    let nr_calls = || NR_CALLS.swap(0, Ordering::Relaxed);
    let tenant = group("watched");
    nr_calls();
    let small = take(&tenant, 100);
    assert!(nr_calls() > 0, "a batch for a small object");
    let large = take(&tenant, 100_000);
    assert!(nr_calls() > 0, "a large object");
    tenant.set_max(Some(tenant.usage())).expect("alive");
    nr_calls();
    let refused = {
        let _inside = tenant.enter();
        kmalloc::alloc(200_000, 8)
    };
    assert!(refused.is_none() && nr_calls() > 0, "a refusal");
    [small, large].into_iter().for_each(give_back);
}

fn resize(object: std::ptr::NonNull<u8>, nr_bytes: usize) -> std::ptr::NonNull<u8> {
    // SAFETY: callers' objects are live and of this alignment, and they use only what comes back.
    unsafe { kmalloc::realloc(object, nr_bytes, 8) }.expect("memory")
}

#[test]
fn a_large_object_grows_in_place_where_pages_are_free_and_its_group_has_room() {
    let _alone = alone();
    let tenant = group("grows");
    let object = take(&tenant, 1 << 20);
    tenant.drain();
    // The pages behind it are free once it was shrunk.
    assert_eq!(resize(object, 512 << 10), object);
    assert_eq!(tenant.usage(), 512 << 10);
    assert_eq!(resize(object, 1 << 20), object);
    assert_eq!(tenant.usage(), 1 << 20, "the group pays for what it grew by, wherever it was resized");
    give_back(object);
}

#[test]
fn an_object_of_a_deleted_group_moves_when_it_grows_and_its_heir_pays_for_neither() {
    let _alone = alone();
    let top = group("heir");
    top.drain();
    let before = top.usage();
    // In pages that are free behind it, and in a mapping of its own.
    for (shrunk, full) in [(512 << 10, 1 << 20), (9 << 20, 12 << 20)] {
        let tenant = top.create("gone").expect("a new name");
        let object = resize(take(&tenant, full), shrunk);
        tenant.delete().expect("nobody is in it");
        drop(tenant);
        top.drain();
        assert!(top.usage() >= shrunk as u64, "the heir has it");
        let moved = resize(object, full);
        assert_ne!(moved, object, "one object has one owner");
        top.drain();
        assert_eq!(top.usage(), before, "it is nobody's now, and what was charged for the growth is given back");
        give_back(moved);
    }
}

/// Per-CPU memory of a group, which goes back to its stock byte by byte.
fn take_percpu(group: &Memcg, nr_bytes: usize) -> std::ptr::NonNull<u8> {
    let _inside = group.enter();
    percpu::alloc(nr_bytes, 8).expect("memory")
}

fn give_back_percpu(memory: std::ptr::NonNull<u8>) {
    // SAFETY: callers hand over what they took, once.
    unsafe { percpu::free(memory) };
}

#[test]
fn a_batch_is_charged_ahead_and_the_next_charges_come_out_of_it() {
    const BATCH: u64 = 4096;
    let _alone = alone();
    let take = |group: &Memcg| take_percpu(group, percpu::GRANULE_BYTES);
    // Neighbours: each has a stock of its own.
    let tenants = [group("stocked"), group("stocked too")];
    let expect = |usage| tenants.iter().for_each(|tenant| assert_eq!(tenant.usage(), usage));
    let [first, second] = [(); 2].map(|()| {
        let memory = tenants.each_ref().map(take);
        expect(BATCH);
        memory
    });
    first.into_iter().chain(second).for_each(give_back_percpu);
    expect(BATCH);
    // What is larger than a batch is charged by itself, and leaves the stock as it was.
    let large = tenants.each_ref().map(|tenant| take_percpu(tenant, percpu::UNIT_BYTES));
    expect(BATCH + (percpu::UNIT_BYTES * nr_cpus() + percpu::GRANULE_BYTES) as u64);
    large.into_iter().for_each(give_back_percpu);
    expect(BATCH);
    tenants.iter().for_each(Memcg::drain);
    expect(0);
}

#[test]
fn a_thread_adds_to_the_word_of_its_cpu_whatever_serves_it() {
    let _alone = alone();
    let words = percpu::Words::new().expect("memory");
    assert_eq!(words.add(5), percpu::Sum::Added);
    assert_eq!(words.iter().sum::<i64>(), 5);
}

#[test]
fn i4_what_a_deleted_group_had_goes_back_at_once_and_past_the_stocks() {
    let _alone = alone();
    let tenant = group("deleted");
    let memory = take_percpu(&tenant, 8);
    drop(tenant);
    assert_eq!(memcg::nr_vessels(), 1, "for what is left");
    give_back_percpu(memory);
    assert_eq!(memcg::nr_vessels(), 0);
}

#[test]
fn i4_vessels_that_only_led_to_others_are_freed_once_the_path_is_shortened() {
    let _alone = alone();
    let top = group("top");
    let middle = top.create("middle").expect("a new name");
    let low = middle.create("low").expect("a new name");
    let nr_vessels = memcg::nr_vessels() - 2;
    let memory = [take_percpu(&low, 8), take_percpu(&low, 8)];
    drop(low);
    drop(middle);
    let [first, second] = memory;
    // Two led on: the way from the lower one is shortened, and the one between them has nothing.
    give_back_percpu(first);
    assert_eq!(memcg::nr_vessels(), nr_vessels + 1);
    give_back_percpu(second);
    assert_eq!(memcg::nr_vessels(), nr_vessels);
    top.drain();
    assert_eq!(top.usage(), 0);
}

#[test]
fn i1_percpu_memory_of_any_number_of_chunks_is_found_and_its_pages_are_given_back() {
    // A chunk each; their numbers do not fit one word of the map.
    const NR_CHUNKS: usize = 70;
    let _alone = alone();
    percpu::trim();
    let tenant = group("many chunks");
    let memory: Vec<_> = (0..NR_CHUNKS).map(|_| take_percpu(&tenant, percpu::UNIT_BYTES)).collect();
    let found = tenant.stat();
    let nr_bytes = NR_CHUNKS * percpu::UNIT_BYTES * nr_cpus();
    assert_eq!((found.percpu_objects, found.percpu_bytes), (NR_CHUNKS as u64, nr_bytes as u64));
    let stat = percpu::stat();
    assert!(stat.owner_bytes > 0 && stat.metadata_bytes > 0);
    assert_eq!(stat.held_bytes(), stat.populated_bytes + stat.owner_bytes + stat.metadata_bytes);
    assert_eq!(stat.populated_bytes, stat.used_bytes, "whole units are used, and nothing else is");
    memory.into_iter().for_each(give_back_percpu);
    percpu::trim();
    assert_eq!(percpu::stat().held_bytes(), 0);
    // Three pages in each unit: so few stay populated when they are free.
    give_back_percpu(take_percpu(&tenant, 3 << 12));
    let populated = percpu::stat().populated_bytes;
    assert_eq!(populated, (3 << 12) * nr_cpus());
    assert_eq!(percpu::trim(), populated);
    tenant.drain();
    assert_eq!(tenant.usage(), 0);
}

#[test]
fn i4_a_ticket_is_good_for_one_life() {
    let _alone = alone();
    let tenant = group("ticketed");
    let ticket = tenant.ticket();
    let again = Memcg::of_ticket(ticket).expect("alive");
    assert_eq!(again.id(), tenant.id());
    drop(tenant);
    assert!(!again.is_deleted(), "a handle is left");
    drop(again);
    assert!(Memcg::of_ticket(ticket).is_none());
    let next = group("next life");
    assert!(Memcg::of_ticket(ticket).is_none(), "the slot is another group's now");
    assert!(Memcg::of_ticket(u64::MAX).is_none());
    let root = Memcg::root();
    assert_eq!(Memcg::of_ticket(root.ticket()).expect("the root lives for ever").id(), root.id());
    let mut tickets = Vec::new();
    assert_eq!(root.child_tickets(10, |ticket| tickets.push(ticket)), 1);
    assert_eq!(tickets, [next.ticket()]);
    assert_eq!(root.child_tickets(0, |_| panic!("none is wanted")), 1);
}

#[test]
fn i4_a_ticket_of_a_deleted_group_that_is_still_held_leaves_no_user() {
    let _alone = alone();
    let tenant = group("held");
    let ticket = tenant.ticket();
    tenant.delete().expect("alive, and without children");
    assert!(Memcg::of_ticket(ticket).is_none(), "deleted");
    assert_eq!(memcg::nr_dying(), 1, "its handle is left");
    drop(tenant);
    assert_eq!(memcg::nr_dying(), 0);
}

#[test]
fn i4_a_thread_that_was_moved_keeps_its_group() {
    let _alone = alone();
    let root = Memcg::root().ticket();
    let (first, second) = (group("first home"), group("second home"));
    let tickets = [first.ticket(), second.ticket()];
    thread::spawn(move || {
        assert_eq!(memcg::moved_into(), root);
        assert_eq!(memcg::move_into(first), Some(root));
        assert_eq!(memcg::moved_into(), tickets[0]);
        let memory = kmalloc::alloc(500, 8).expect("memory");
        assert_eq!(Memcg::of_ticket(tickets[0]).expect("the thread has it").stat().slab_objects, 1);
        assert_eq!(memcg::move_into(second), Some(tickets[0]));
        assert!(Memcg::of_ticket(tickets[0]).is_none(), "its last handle was the thread's");
        assert_eq!(memcg::move_into(Memcg::root()), Some(tickets[1]));
        give_back(memory);
    })
    .join()
    .expect("the thread ends well");
    Memcg::root().drain();
    assert_eq!((memcg::nr_groups(), memcg::nr_dying(), memcg::nr_vessels()), (0, 0, 0));
    let third = group("third home");
    let ticket = third.ticket();
    thread::spawn(move || memcg::move_into(third)).join().expect("the thread ends well");
    assert!(Memcg::of_ticket(ticket).is_none(), "the thread's end was its last handle's");
}

#[test]
fn the_root_and_groups_with_children_are_not_deleted() {
    let _alone = alone();
    assert_eq!(Memcg::root().delete(), Err(DeleteError::Root));
    let parent = group("parent");
    let child = parent.create("child").expect("a new name");
    assert_eq!(parent.delete(), Err(DeleteError::HasChildren));
    assert_eq!(child.delete(), Ok(()));
    assert_eq!(child.delete(), Err(DeleteError::Deleted));
    assert_eq!(parent.delete(), Ok(()));
}

#[test]
fn the_heap_s_figures_are_sums_of_its_classes() {
    let _alone = alone();
    let objects = [24, 100, 3_000].map(|nr_bytes| take(&Memcg::root(), nr_bytes));
    let heap = stat::heap();
    let live: u64 = stat::size_classes().map(|class| class.object_bytes()).sum();
    assert!(live >= 24 + 100 + 3_000 && live <= heap.live_bytes());
    assert!(heap.live_bytes() <= heap.held_bytes());
    assert!(heap.utilisation() > 0.0 && heap.utilisation() <= 1.0);
    assert!(stat::pages().used_bytes > 0);
    objects.into_iter().for_each(give_back);
}

#[test]
fn children_are_listed_whichever_of_them_are_deleted() {
    let _alone = alone();
    let parent = group("of many");
    let mut children: Vec<Memcg> =
        ["a", "b", "c", "d", "e"].iter().map(|name| parent.create(name).expect("a new name")).collect();
    // The middle, its neighbours, then the ends.
    for next in [2, 1, 1, 0, 0] {
        children.remove(next).delete().expect("alive, and without children");
        let mut listed = Vec::new();
        assert_eq!(parent.child_tickets(10, |ticket| listed.push(ticket)), children.len());
        let newest_first: Vec<u64> = children.iter().rev().map(Memcg::ticket).collect();
        assert_eq!(listed, newest_first);
    }
}

#[test]
fn scopes_that_must_not_fail_may_end_in_any_order() {
    let _alone = alone();
    let tenant = group("must-not-fail");
    tenant.set_max(Some(0)).expect("alive");
    tenant.set_oom_policy(Some(OomPolicy::Fail)).expect("alive");
    let is_granted = || {
        // Free objects keep their charge until then.
        tenant.drain();
        let _inside = tenant.enter();
        kmalloc::alloc(100, 8).map(give_back).is_some()
    };
    let [first, second] = [NoFail::enter(), NoFail::enter()];
    drop(first);
    assert!(is_granted(), "the second goes on");
    drop(second);
    assert!(!is_granted(), "both have ended");
}
