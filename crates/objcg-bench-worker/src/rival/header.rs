//! What a careful user would build: a header with the owner before each object, over mimalloc v3.
//!
//! The thread keeps bytes that it charged in advance, its stock, for one group at a time; they come and go in batches, by
//! atomic additions to the group's counter. An object of another group is given back to that group's counter at once. The
//! header takes 8 bytes, or the object's alignment if that is more. A limit is checked when a batch is charged.
#![expect(unsafe_code, reason = "an allocator")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use mimalloc::MiMalloc;

use crate::object::Object;

#[global_allocator]
static GLOBAL: Header = Header;

const BATCH: i64 = 64 << 10;
const NR_GROUPS: usize = 8192;
/// Outside every group.
const NOBODY: u32 = 0;

struct Header;

/// A group's counters, with a cache line of their own.
#[repr(align(64))]
struct Counter {
    usage: AtomicI64,
    max: AtomicI64,
}

static COUNTERS: [Counter; NR_GROUPS] =
    [const { Counter { usage: AtomicI64::new(0), max: AtomicI64::new(i64::MAX) } }; NR_GROUPS];
/// Numbers of groups that were given back, and the number that nobody had yet.
static NUMBERS: Mutex<(Vec<u32>, u32)> = Mutex::new((Vec::new(), NOBODY + 1));

/// Which group the thread is in, and what it holds in advance and for whom.
struct Current {
    group: Cell<u32>,
    stock_of: Cell<u32>,
    stock: Cell<i64>,
}

thread_local! {
    static CURRENT: Current =
        const { Current { group: Cell::new(NOBODY), stock_of: Cell::new(NOBODY), stock: Cell::new(0) } };
    /// Gives the stock back when the thread ends.
    static AT_EXIT: AtExit = const { AtExit };
}

struct AtExit;

impl Drop for AtExit {
    fn drop(&mut self) {
        CURRENT.with(Current::give_back);
    }
}

impl Current {
    /// Takes `nr_bytes` for the group that the thread is in; false if its limit refuses.
    #[inline(always)]
    fn charge(&self, group: u32, nr_bytes: i64) -> bool {
        if group == NOBODY {
            return true;
        }
        let stock = self.stock.get();
        if self.stock_of.get() == group && stock >= nr_bytes {
            self.stock.set(stock - nr_bytes);
            return true;
        }
        self.charge_batch(group, nr_bytes)
    }

    #[cold]
    #[inline(never)]
    fn charge_batch(&self, group: u32, nr_bytes: i64) -> bool {
        if self.stock_of.get() != group {
            self.give_back();
            self.stock_of.set(group);
        }
        let counter = &COUNTERS[group as usize];
        let more = nr_bytes.max(BATCH);
        if counter.usage.fetch_add(more, Ordering::Relaxed) + more > counter.max.load(Ordering::Relaxed) {
            counter.usage.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.stock.set(self.stock.get() + more - nr_bytes);
        true
    }

    #[inline(always)]
    fn uncharge(&self, group: u32, nr_bytes: i64) {
        if group == NOBODY {
            return;
        }
        let stock = self.stock.get() + nr_bytes;
        if self.stock_of.get() == group && stock <= 2 * BATCH {
            self.stock.set(stock);
            return;
        }
        self.uncharge_slowly(group, nr_bytes);
    }

    #[cold]
    #[inline(never)]
    fn uncharge_slowly(&self, group: u32, nr_bytes: i64) {
        if self.stock_of.get() == group {
            let stock = self.stock.get() + nr_bytes;
            self.stock.set(BATCH);
            COUNTERS[group as usize].usage.fetch_sub(stock - BATCH, Ordering::Relaxed);
        } else {
            COUNTERS[group as usize].usage.fetch_sub(nr_bytes, Ordering::Relaxed);
        }
    }

    fn give_back(&self) {
        COUNTERS[self.stock_of.get() as usize].usage.fetch_sub(self.stock.take(), Ordering::Relaxed);
        self.stock_of.set(NOBODY);
    }
}

/// Bytes before an object of this alignment.
#[inline(always)]
fn head(align: usize) -> usize {
    align.max(8)
}

// SAFETY: memory is mimalloc's, behind a head that keeps the alignment.
unsafe impl GlobalAlloc for Header {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let head = head(layout.align());
        let nr_bytes = layout.size() + head;
        let group = CURRENT.with(|current| {
            let group = current.group.get();
            current.charge(group, nr_bytes as i64).then_some(group)
        });
        let Some(group) = group else { return ptr::null_mut() };
        // SAFETY: the alignment is a power of two, and the sum of a layout and its head does not overflow.
        let whole = unsafe { Layout::from_size_align_unchecked(nr_bytes, head) };
        // SAFETY: the size is not 0.
        let at = unsafe { MiMalloc.alloc(whole) };
        if at.is_null() {
            CURRENT.with(|current| current.uncharge(group, nr_bytes as i64));
            return at;
        }
        // SAFETY: the head is a part of it.
        let object = unsafe { at.add(head) };
        // SAFETY: the head has 8 bytes at least.
        let owner = unsafe { object.cast::<u32>().sub(1) };
        // SAFETY: as above, and aligned to 8.
        unsafe { owner.write(group) };
        object
    }

    #[inline]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        let head = head(layout.align());
        let nr_bytes = layout.size() + head;
        // SAFETY: `alloc` wrote it there.
        let owner = unsafe { object.cast::<u32>().sub(1) };
        // SAFETY: as above.
        let group = unsafe { owner.read() };
        CURRENT.with(|current| current.uncharge(group, nr_bytes as i64));
        // SAFETY: `alloc` began here.
        let at = unsafe { object.sub(head) };
        // SAFETY: as in `alloc`.
        let whole = unsafe { Layout::from_size_align_unchecked(nr_bytes, head) };
        // SAFETY: it came from there, with this layout.
        unsafe { MiMalloc.dealloc(at, whole) };
    }

    #[inline]
    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let head = head(layout.align());
        // SAFETY: `alloc` wrote it there.
        let owner = unsafe { object.cast::<u32>().sub(1) };
        // SAFETY: as above.
        let group = unsafe { owner.read() };
        let more = new_size as i64 - layout.size() as i64;
        if more > 0 && !CURRENT.with(|current| current.charge(group, more)) {
            return ptr::null_mut();
        }
        // SAFETY: `alloc` began here.
        let at = unsafe { object.sub(head) };
        // SAFETY: as in `alloc`.
        let whole = unsafe { Layout::from_size_align_unchecked(layout.size() + head, head) };
        // SAFETY: it came from there, with this layout.
        let moved = unsafe { MiMalloc.realloc(at, whole, new_size + head) };
        let back = if moved.is_null() { more.max(0) } else { (-more).max(0) };
        if back > 0 {
            CURRENT.with(|current| current.uncharge(group, back));
        }
        // SAFETY: the head is a part of it.
        if moved.is_null() { moved } else { unsafe { moved.add(head) } }
    }
}

/// The counter of a group follows an object.
pub(crate) fn prove() -> Result<String, String> {
    let group = Group::top()?;
    let usage = || {
        CURRENT.with(Current::give_back);
        COUNTERS[group.0 as usize].usage.load(Ordering::Relaxed)
    };
    // What the first object in a group brings along once stays with the group, and is not this object's.
    drop(group.scope(|| Object::new(1000)));
    let before = usage();
    let object = group.scope(|| Object::new(1000));
    let counted = usage() - before;
    drop(object);
    let left = usage() - before;
    if counted != 1008 || left != 0 {
        return Err(format!("the counter has {counted} bytes of an object of 1000 and {left} of none"));
    }
    Ok(format!("a group's counter has {counted} B of an object of 1000 B, and {left} B when it was freed"))
}

/// A group by its number.
pub(crate) struct Group(u32);

impl Group {
    pub(crate) fn top() -> Result<Group, String> {
        let mut numbers = NUMBERS.lock().expect("nobody panics with it");
        let number = numbers.0.pop().unwrap_or(numbers.1);
        if number == numbers.1 {
            numbers.1 += 1;
        }
        if number as usize >= NR_GROUPS { Err("no group left".to_owned()) } else { Ok(Group(number)) }
    }

    /// Groups are flat.
    pub(crate) fn child(&self, _nth: usize) -> Result<Group, String> {
        Group::top()
    }

    pub(crate) fn limit(&self, max: u64) -> Result<(), String> {
        COUNTERS[self.0 as usize].max.store(max as i64, Ordering::Relaxed);
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn scope<R>(&self, work: impl FnOnce() -> R) -> R {
        AT_EXIT.with(|_| ());
        let outer = CURRENT.with(|current| current.group.replace(self.0));
        let result = work();
        CURRENT.with(|current| current.group.set(outer));
        result
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        NUMBERS.lock().expect("nobody panics with it").0.push(self.0);
    }
}
