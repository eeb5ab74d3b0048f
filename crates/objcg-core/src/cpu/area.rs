//! The per-CPU area: for each CPU a part with the tops of its stacks of free objects and the words of its stock, changed by
//! restartable sequences of the threads that run there.
//!
//! A part is `1 << SHIFT` bytes of address space; only what is used takes memory. The area is made once, when a thread is found
//! without a CPU or a cache needs its stacks, and never given back. A number's stacks are empty at first: their tops point at
//! [`EMPTY`], the stopper that neither a pop nor a push gets past. They stay so in two parts before CPU 0's, where threads
//! without registration come to, and in those of CPUs beyond [`nr_cpus`]: so no pop or push compares the CPU's number.

#![expect(unsafe_code, reason = "hands addresses of the area to restartable sequences")]

use core::ptr::{self, NonNull};

use objcg_rseq::{PerCpu, Registration, Stack, Stopper, TaggedWord};

use super::afar::keep_away;
use super::{CpuId, nr_cpus, unregister_at_exit};
use crate::os;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Lock, Ordering};

/// log2 of the bytes of one CPU's part.
const SHIFT: u32 = 17;
/// Stacks of a CPU: one a cache.
const NR_STACKS: usize = 1024;
/// Words of a CPU's stock: four thousand busy groups with neighbouring ids do not evict each other.
pub(crate) const NR_WORDS: usize = 4096;

/// One CPU's part.
#[repr(C, align(64))]
struct Part {
    stacks: [AtomicUsize; NR_STACKS],
    words: [TaggedWord; NR_WORDS],
    /// Not 0 while the words are kept from sections.
    guard: AtomicU32,
    /// Held by whoever changes words or limits otherwise than by `compare_add`.
    words_lock: Lock<()>,
}

const _: () = assert!(size_of::<Part>() <= 1 << SHIFT);

/// Parts before CPU 0's: as many as there are numbers of no CPU.
const NR_UNREGISTERED: usize = 2;

/// The stack without places.
static EMPTY: Stopper = Stopper::new();

/// CPU 0's part; null until the area is made.
static AREA: AtomicPtr<Part> = AtomicPtr::new(ptr::null_mut());
/// Parts of CPUs; set before `AREA`. None where it was decided that there are no sections.
static NR_PARTS: AtomicUsize = AtomicUsize::new(0);
/// Whether it was decided that there are no sections.
static MAKING: Lock<bool> = Lock::new(false);
/// As many CPUs Linux can have. Unless address space is limited the area reserves room for as many, so that a number beyond all that were
/// announced (a process that was moved to a wider machine) is a bad access and nothing worse.
const MOST_CPUS: usize = 8192;

/// Makes the area, once, and has sections run; false without memory for it. Where CPUs' numbers have no bound, or there is no memory for
/// a part of each, there are no sections, and the area has the parts of threads without registration only.
///
/// Whoever has an address of the area has it by way of `AREA`, so sections are ready when he calls one. Whoever has an object
/// has a slab, whose making called this.
pub(super) fn init() -> bool {
    if !AREA.load(Ordering::Acquire).is_null() {
        return true;
    }
    let mut has_none = MAKING.lock();
    if !AREA.load(Ordering::Acquire).is_null() {
        return true;
    }
    let nr_parts = if *has_none { None } else { os::nr_cpu_numbers().map(|nr_numbers| nr_numbers.max(nr_cpus())) };
    let of_all = nr_parts.and_then(|nr_parts| Some((nr_parts, map_parts(nr_parts)?)));
    *has_none = of_all.is_none();
    let registration = objcg_rseq::init(if *has_none { 0 } else { nr_cpus() as u32 });
    let Some((nr_parts, first)) = of_all.or_else(|| Some((0, map_parts(0)?))) else { return false };
    NR_PARTS.store(nr_parts, Ordering::Relaxed);
    make_empty(Stacks::of_part(first, NOBODYS));
    // Release pairs with the Acquire of whoever asks for an address in it.
    AREA.store(first.as_ptr(), Ordering::Release);
    drop(has_none);
    if registration == Registration::Own {
        // This thread was the first. Under no lock: libc may allocate for it.
        unregister_at_exit();
    }
    true
}

/// Parts of so many CPUs, behind those of threads that are not registered: CPU 0's.
fn map_parts(nr_parts: usize) -> Option<NonNull<Part>> {
    let nr_used = (NR_UNREGISTERED + nr_parts) << SHIFT;
    let nr_reserved =
        if os::address_space_limit().is_none() { nr_used.max((NR_UNREGISTERED + MOST_CPUS) << SHIFT) } else { nr_used };
    let area = os::reserve(nr_reserved)?;
    // SAFETY: a part of a reservation that nobody else knows of.
    if !unsafe { os::commit(area, nr_used) } {
        // SAFETY: as above, and nothing refers to it.
        unsafe { os::unmap(area, nr_reserved) };
        return None;
    }
    // SAFETY: inside the mapping.
    Some(unsafe { area.byte_add(NR_UNREGISTERED << SHIFT) }.cast())
}

/// Has the stacks of a number be empty, unless they are or were that already: words of no stack are 0.
fn make_empty(stacks: Stacks) {
    let words = PerCpu::<AtomicUsize, SHIFT>::new(stacks.0.cast());
    let [last, other] = words.of_unregistered().map(|word| {
        // SAFETY: the parts before CPU 0's are inside the area, which is never freed.
        unsafe { &*word }
    });
    // Acquire pairs with the Release below: all others are set.
    if last.load(Ordering::Acquire) != 0 {
        return;
    }
    let of_cpus = (0..NR_PARTS.load(Ordering::Relaxed)).map(|cpu| {
        // SAFETY: as above, for the parts of the CPUs.
        unsafe { &*words.of_cpu(cpu as u32) }
    });
    for word in of_cpus.chain([other, last]) {
        // Another thread may be at it, and lay a sheaf as soon as it is through.
        let _was_set = word.compare_exchange(0, empty(), Ordering::Release, Ordering::Relaxed);
    }
}

/// What an empty stack's top word holds.
#[inline]
pub(crate) fn empty() -> usize {
    EMPTY.top()
}

/// By how many bytes the commit of a section has moved an empty stack's top; `None` if it is another stack's.
pub(crate) fn drift(top: usize) -> Option<isize> {
    EMPTY.drift(top)
}

fn part(cpu: CpuId) -> Option<&'static Part> {
    let first = NonNull::new(AREA.load(Ordering::Acquire))?;
    if cpu.index() >= NR_PARTS.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: each CPU's part is inside the area.
    let part = unsafe { first.byte_add(cpu.index() << SHIFT) };
    // SAFETY: the area is never freed. What sections change in it is only accessed as atomics.
    Some(unsafe { part.as_ref() })
}

/// Whether there are words of a CPU.
pub(crate) fn has_words(cpu: CpuId) -> bool {
    part(cpu).is_some()
}

/// The stacks of one number: a top word in each part; or null, of who has not asked for any yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stacks(*mut Stack);

/// The number whose stacks stay empty: all that have no stacks of their own share them. The first one, for what is used of a part
/// shall be close together.
const NOBODYS: usize = 0;

impl Stacks {
    /// The stacks of a number, in an area that is made now; `None` without memory for it. Numbers that are too high share stacks
    /// that stay empty.
    pub(crate) fn of_number(number: usize) -> Option<Stacks> {
        let nobodys = Stacks::nobodys()?;
        if number + 1 >= NR_STACKS {
            return Some(nobodys);
        }
        // SAFETY: the first part has a stack of that number.
        let stacks = Stacks(unsafe { nobodys.0.add(number + 1) });
        make_empty(stacks);
        Some(stacks)
    }

    /// Stacks that stay empty.
    pub(crate) fn nobodys() -> Option<Stacks> {
        if !init() {
            return None;
        }
        NonNull::new(AREA.load(Ordering::Acquire)).map(|first| Stacks::of_part(first, NOBODYS))
    }

    fn of_part(first: NonNull<Part>, place: usize) -> Stacks {
        // SAFETY: the field is inside the first part.
        Stacks(unsafe { &raw mut (*first.as_ptr()).stacks[place] }.cast())
    }

    /// Whether sheaves can be laid on them.
    pub(crate) fn are_usable(self) -> bool {
        !self.0.is_null() && Some(self) != Stacks::nobodys()
    }

    /// Whether somebody has asked for them: an address, which may be nobody's.
    pub(crate) fn are_found(self) -> bool {
        !self.0.is_null()
    }

    pub(crate) fn from_ptr(address: *mut u8) -> Stacks {
        Stacks(address.cast())
    }

    pub(crate) fn as_ptr(self) -> *mut u8 {
        self.0.cast()
    }

    /// Takes the top object of this CPU's stack; without one it is `NO_OBJECT`.
    ///
    /// `None` if the stacks are null: a thread may have read the address before the area was made.
    #[inline(always)]
    pub(crate) fn pop(self) -> Option<NonNull<u8>> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: the area has a stack of this number for each CPU of the machine, and stoppers before them; sheaves keep the
        // rules (`slab::cpu_sheaves`), and their memory, the engine's, stays mapped.
        Some(unsafe { objcg_rseq::pop_raw(PerCpu::<Stack, SHIFT>::new(self.0)) })
    }

    /// Puts an object onto this CPU's stack, if there is room. Not of null: caches find their stacks before they have a first
    /// object, so whoever has an object to put knows them.
    #[inline(always)]
    pub(crate) fn push(self, object: NonNull<u8>) -> bool {
        // SAFETY: as in `pop`.
        unsafe { objcg_rseq::push(PerCpu::<Stack, SHIFT>::new(self.0), object) }
    }

    /// Replaces the top word of `cpu`'s stack, if the thread is still there; returns the one before.
    pub(crate) fn exchange(self, cpu: CpuId, top: usize) -> Option<usize> {
        // SAFETY: the caller has stacks that are not null, and holds the lock of their sheaves on that CPU.
        unsafe { objcg_rseq::exchange(PerCpu::<usize, SHIFT>::new(self.0.cast()), cpu.0, top) }
    }

    /// The top word of `cpu`'s stack, to be looked at, or changed by the rules of `slab::cpu_sheaves`.
    pub(crate) fn top(self, cpu: CpuId) -> &'static AtomicUsize {
        let word = PerCpu::<AtomicUsize, SHIFT>::new(self.0.cast()).of_cpu(cpu.0);
        // SAFETY: the caller has stacks that are not null; their words are inside the area, which is never freed.
        unsafe { &*word }
    }
}

/// Restarts the sections that are under way on `cpu`. False if the kernel refuses.
pub(crate) fn fence(cpu: CpuId) -> bool {
    objcg_rseq::fence(cpu.0)
}

/// The words of one number: one in each CPU's part.
#[derive(Clone, Copy)]
pub(crate) struct Words {
    first: NonNull<Part>,
    number: usize,
}

impl Words {
    /// The words of a number, modulo [`NR_WORDS`]; `None` if the area was not made. Sections find those
    /// of the CPU, if it has a part.
    #[inline]
    pub(crate) fn of_number(number: usize) -> Option<Words> {
        let first = NonNull::new(AREA.load(Ordering::Acquire))?;
        Some(Words { first, number: number % NR_WORDS })
    }

    #[inline]
    fn address(self) -> *mut TaggedWord {
        // SAFETY: the number is below NR_WORDS, so the field is inside the first part.
        unsafe { &raw mut (*self.first.as_ptr()).words[self.number] }
    }

    /// Adds `delta` to this CPU's word, if it has the tag and stays within zero and its limit.
    #[inline]
    pub(crate) fn compare_add(self, tag: u32, delta: i64) -> bool {
        // SAFETY: the field is inside the first part.
        let guard = unsafe { &raw mut (*self.first.as_ptr()).guard };
        let words = PerCpu::<TaggedWord, SHIFT>::new(self.address());
        // SAFETY: the area has words and a guard for each CPU; `CpuWords` keeps the rules.
        unsafe { objcg_rseq::compare_add(words, PerCpu::new(guard.cast()), tag, delta) }
    }

    /// This number's word of a CPU that [`has_words`], to be looked at.
    pub(crate) fn of_cpu(self, cpu: CpuId) -> &'static AtomicU64 {
        let word = PerCpu::<AtomicU64, SHIFT>::new(self.address().cast()).of_cpu(cpu.0);
        // SAFETY: the word is inside the area, which is never freed; it is the first field of a `TaggedWord`.
        unsafe { &*word }
    }

    /// Replaces `cpu`'s word and its limit, if the thread is still there; returns the word before. The caller holds the CPU's
    /// words.
    pub(crate) fn exchange(self, _held: &CpuWords, cpu: CpuId, word: u64, limit: u32) -> Option<u64> {
        let at = PerCpu::<TaggedWord, SHIFT>::new(self.address()).of_cpu(cpu.0);
        // SAFETY: the field is inside the area; it changes only under the lock that the caller holds.
        let limit_field = unsafe { &raw mut (*at).limit }.cast::<AtomicU32>();
        // SAFETY: aligned and valid as above; sections only read it.
        unsafe { &*limit_field }.store(limit, Ordering::Relaxed);
        // SAFETY: the area has a word for each CPU, and nobody but sections and the lock's holder changes it.
        let old =
            unsafe { objcg_rseq::exchange(PerCpu::<usize, SHIFT>::new(self.address().cast()), cpu.0, word as usize) };
        old.map(|old| old as u64)
    }
}

/// A CPU's words, held: nobody changes them but sections.
pub(crate) struct CpuWords {
    part: &'static Part,
    cpu: CpuId,
    _lock: crate::sync::Guard<'static, ()>,
}

impl CpuWords {
    /// Waits for the CPU's words; `None` if the area was not made, or has no part of the CPU.
    pub(crate) fn hold(cpu: CpuId) -> Option<CpuWords> {
        let part = part(cpu)?;
        Some(CpuWords { part, cpu, _lock: part.words_lock.lock() })
    }

    /// Runs `look` while no section changes a word of this CPU: it may change them all. Without the kernel's help it is not run.
    pub(crate) fn alone(&self, look: impl FnOnce(&[AtomicU64; 2 * NR_WORDS])) {
        keep_away(
            &self.part.guard,
            || fence(self.cpu),
            || {
                let words = (&raw const self.part.words).cast::<[AtomicU64; 2 * NR_WORDS]>();
                // SAFETY: a tagged word is two words of 64 bits, of which the first is the word; sections keep away.
                look(unsafe { &*words });
            },
        );
    }
}

/// Takes the locks of all CPUs' words for a `fork`, and the one of the area's making first: so the parts are the same when they
/// are given back.
pub(crate) fn hold_for_fork() {
    MAKING.hold_for_fork();
    CpuId::all().filter_map(part).for_each(|part| part.words_lock.hold_for_fork());
}

/// Gives back what [`hold_for_fork`] took.
pub(crate) fn release_after_fork() {
    CpuId::all().filter_map(part).for_each(|part| part.words_lock.force_unlock());
    MAKING.force_unlock();
}
