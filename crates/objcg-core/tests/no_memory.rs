//! Groups that cannot be made for want of memory leave nothing behind (I8): no slot, no name, no entry of the index.
//!
//! The operating system refuses everything and the pages that are there are used up, so that each table in turn finds no room for its
//! next chunk. Orders are the process's: this program has one test.

use std::ptr::NonNull;

use objcg_core::faults::{MILLION, Site, fail_often, pass_all};
use objcg_core::kmem_cache::{CacheConfig, KmemCache, Sheaves};
use objcg_core::memcg::{self, CreateError, ExternalCharge, Memcg};
use objcg_core::{SlabGeometry, kmalloc, stat};

/// What a table of groups, of long names or of vessels grows by.
const CHUNK_BYTES: usize = 256 << 10;
/// More groups than a chunk has slots for, and than it has for long names.
const MANY: usize = 1100;

/// Objects of a page, each a slab.
fn single_pages() -> KmemCache {
    let geometry = Some(SlabGeometry { pages: 1, objects: 1 });
    KmemCache::create(&CacheConfig { geometry, sheaves: Sheaves::Off, ..CacheConfig::new(4096) }).expect("memory")
}

/// Takes all pages that are left: runs, then slabs of all classes, then single pages.
fn use_up(held: &mut Vec<NonNull<u8>>, pages: &KmemCache) {
    let slabs = (1..=256).rev().map(|step| step * 16);
    for nr_bytes in [CHUNK_BYTES, 40 << 10, 32 << 10].into_iter().chain(slabs) {
        held.extend(std::iter::from_fn(|| kmalloc::alloc(nr_bytes, 8)));
    }
    held.extend(std::iter::from_fn(|| pages.alloc()));
}

fn long(nth: usize) -> String {
    format!("{nth:0>200}")
}

fn refused(name: &str) {
    let before = (memcg::nr_groups(), memcg::nr_vessels());
    let root = Memcg::root();
    assert_eq!(root.create(name).err(), Some(CreateError::NoMemory), "{name}");
    assert!(root.child(name).is_none(), "{name}");
    assert_eq!((memcg::nr_groups(), memcg::nr_vessels()), before);
    assert_eq!(memcg::nr_dying(), 0, "its slot was given back");
}

#[test]
fn i8_a_group_that_is_not_made_leaves_no_slot_and_no_name() {
    // The tables of groups and of vessels have their first chunk, and so has that of external charges.
    let root = Memcg::root();
    drop(root.charge_external(1).expect("memory"));
    let chunk = kmalloc::alloc(CHUNK_BYTES, 8).expect("memory");
    // And the per-CPU area is there, without which there is no slab.
    let mut held = vec![kmalloc::alloc(8, 8).expect("memory")];
    let pages = single_pages();
    fail_often(Site::Os, MILLION, 0);
    use_up(&mut held, &pages);
    // No room for long names; then room for them, and none for the index.
    refused(&long(0));
    // SAFETY: live, and nothing uses it.
    unsafe { kmalloc::free(chunk) };
    (0..MANY).for_each(|nth| refused(&long(nth)));
    refused("short");
    assert!(kmalloc::alloc(CHUNK_BYTES, 8).is_none(), "long names have taken it");

    // The index has room: groups are made until their table has none.
    pass_all(Site::Os);
    drop(root.create("first").expect("memory"));
    fail_often(Site::Os, MILLION, 0);
    use_up(&mut held, &pages);
    let mut groups: Vec<_> = (0..MANY).map_while(|nth| root.create(&format!("g{nth}")).ok()).collect();
    assert!(groups.len() > MANY / 2 && groups.len() < MANY, "{} groups", groups.len());
    refused("one more");
    let next = groups.len() as u64 + 1;
    assert!(Memcg::of_ticket(next).is_none(), "a number that no chunk has yet: {next}");
    groups.truncate(10);

    // Vessels outlive their groups for what is charged to them: now theirs is the table that is full, and no other.
    let tenant = &groups[0];
    let leave_one = |nth: usize| -> Option<ExternalCharge> {
        let leaves = tenant.create(&format!("leaves {nth}")).ok()?;
        Some(leaves.charge_external(1).expect("a slot"))
    };
    let mut left: Vec<_> = (0..10_000).map_while(leave_one).collect();
    assert!(left.len() > 8000 && left.len() < 10_000, "{} vessels", left.len());
    (0..MANY).for_each(|nth| refused(&long(nth)));
    refused("short");

    // With memory all of the long names' slots are there, in the chunk that they had.
    pass_all(Site::Os);
    left.clear();
    drop(groups);
    let before = stat::pages().used_bytes;
    let named: Vec<_> = (0..900).map(|nth| root.create(&long(nth)).expect("memory")).collect();
    assert!(stat::pages().used_bytes < before + CHUNK_BYTES, "a second chunk of long names");
    drop(named);
    // Where the thread has been moved between a charge and its group's end, the other CPU's stock still has some of it.
    root.drain();
    assert_eq!((memcg::nr_groups(), memcg::nr_dying(), memcg::nr_vessels()), (0, 0, 0));
    // SAFETY: each is live, and nothing uses it.
    held.into_iter().for_each(|object| unsafe { kmalloc::free(object) });
}
