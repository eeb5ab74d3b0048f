//! An area with all that sections work on, and its sums at rest.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::mem::offset_of;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Once, OnceLock};

use objcg_rseq::{END, PerCpu, Registration, Stack, Stopper, Sum, TaggedWord};

pub(crate) const SHIFT: u32 = 14;
/// Places of each stack: all objects of a test fit one CPU's.
pub(crate) const NR_PLACES: usize = 512;
/// The tags of the two words.
pub(crate) const TAGS: [u32; 2] = [7, 1 << 31];
/// Their limit.
pub(crate) const LIMIT: u32 = 100;

/// Parts of threads that are not registered, before those of the CPUs.
const NR_UNREGISTERED: usize = 2;

static STOPPER: Stopper = Stopper::new();

fn nr_parts() -> usize {
    NR_UNREGISTERED + nr_cpus() as usize
}

/// One CPU's part.
#[repr(C, align(64))]
pub(crate) struct Part {
    pub(crate) stack: Stack,
    pub(crate) counter: u64,
    pub(crate) words: [TaggedWord; 2],
    pub(crate) guard: u32,
    /// Not of this area's stack: the empty one, to take the stack away with.
    pub(crate) stopper: Stopper,
    pub(crate) places: [usize; NR_PLACES + 2],
}

const _: () = assert!(size_of::<Part>() <= 1 << SHIFT);

/// Never freed: threads of a test may outlive it in a child.
#[derive(Clone, Copy)]
pub(crate) struct Area {
    first: NonNull<Part>,
}

// SAFETY: what it points at is reached by sections and by raw pointers of tests that say why they may.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

/// CPUs that the machine may have, as it was asked first: musl counts those that the thread may run on, and tests pin theirs.
pub(crate) fn nr_cpus() -> u32 {
    static NR_CPUS: OnceLock<u32> = OnceLock::new();
    *NR_CPUS.get_or_init(|| {
        // SAFETY: no memory is passed.
        let nr_cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
        u32::try_from(nr_cpus).expect("a number of CPUs")
    })
}

/// Lets sections run, once a process.
pub(crate) fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        assert_ne!(objcg_rseq::init(nr_cpus()), Registration::Absent, "these tests need a kernel with rseq")
    });
}

/// The number's object: no two have the same.
pub(crate) fn object(number: usize) -> NonNull<u8> {
    NonNull::new(ptr::without_provenance_mut((number + 1) << 4)).expect("not 0")
}

/// The number of an object.
pub(crate) fn number(of: NonNull<u8>) -> usize {
    let number = (of.addr().get() >> 4) - 1;
    assert_eq!(of, object(number), "nobody's object");
    number
}

impl Area {
    /// Parts for every CPU, the stacks empty, the words at half their limit.
    pub(crate) fn new() -> Area {
        init();
        Area::without_init()
    }

    pub(crate) fn without_init() -> Area {
        let layout = Layout::from_size_align(nr_parts() << SHIFT, 1 << SHIFT).expect("a layout");
        // SAFETY: the size is not 0.
        let memory = unsafe { alloc_zeroed(layout) };
        let memory = NonNull::new(memory.cast::<Part>()).unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: within the memory.
        let area = Area { first: unsafe { memory.byte_add(NR_UNREGISTERED << SHIFT) } };
        for stack in area.stack().of_unregistered() {
            // SAFETY: within the memory, whose first parts these are; nobody else knows of them.
            unsafe { stack.write(ptr::with_exposed_provenance_mut(STOPPER.top())) };
        }
        for cpu in 0..nr_cpus() {
            // SAFETY: zeroes are a valid part, and nobody else knows of it.
            let part = unsafe { &mut *area.part(cpu) };
            part.stopper = Stopper::new();
            part.places[0] = END;
            part.places[NR_PLACES + 1] = END;
            part.stack = part.places.as_mut_ptr();
            part.words = TAGS.map(|tag| TaggedWord { word: u64::from(tag) << 32 | u64::from(LIMIT / 2), limit: LIMIT });
        }
        area
    }

    pub(crate) fn part(self, cpu: u32) -> *mut Part {
        PerCpu::<Part, SHIFT>::new(self.first.as_ptr()).of_cpu(cpu)
    }

    fn field<T>(self, offset: usize) -> PerCpu<T, SHIFT> {
        PerCpu::new(self.first.as_ptr().wrapping_byte_add(offset).cast())
    }

    pub(crate) fn stack(self) -> PerCpu<Stack, SHIFT> {
        self.field(offset_of!(Part, stack))
    }

    pub(crate) fn counter(self) -> PerCpu<u64, SHIFT> {
        self.field(offset_of!(Part, counter))
    }

    fn guard(self) -> PerCpu<u32, SHIFT> {
        self.field(offset_of!(Part, guard))
    }

    /// The top of a CPU's stack as other CPUs see it.
    pub(crate) fn top(self, cpu: u32) -> &'static AtomicPtr<usize> {
        // SAFETY: the part is never freed; a pointer and an atomic one have the same layout.
        unsafe { &*self.stack().of_cpu(cpu).cast() }
    }

    /// A CPU's guard as other CPUs see it.
    pub(crate) fn guard_word(self, cpu: u32) -> &'static AtomicU32 {
        // SAFETY: as above.
        unsafe { &*self.guard().of_cpu(cpu).cast() }
    }

    pub(crate) fn pop(self) -> Option<NonNull<u8>> {
        // SAFETY: the area is valid for all CPUs, and its stacks change as the crate's rules allow.
        unsafe { objcg_rseq::pop(self.stack()) }
    }

    pub(crate) fn push(self, object: NonNull<u8>) -> bool {
        // SAFETY: as above.
        unsafe { objcg_rseq::push(self.stack(), object) }
    }

    pub(crate) fn add(self, delta: u64) -> bool {
        // SAFETY: as above.
        unsafe { objcg_rseq::add(self.counter(), delta) }
    }

    pub(crate) fn add_overflowing(self, delta: i64) -> Sum {
        // SAFETY: as above; signed and unsigned counters add alike.
        unsafe { objcg_rseq::add_overflowing(self.field(offset_of!(Part, counter)), delta) }
    }

    /// `idx` is that of a word and its tag.
    pub(crate) fn compare_add(self, idx: usize, delta: i64) -> bool {
        let word = self.field(offset_of!(Part, words) + idx * size_of::<TaggedWord>());
        // SAFETY: as above.
        unsafe { objcg_rseq::compare_add(word, self.guard(), TAGS[idx], delta) }
    }

    /// Replaces the top of `cpu`'s stack, if the thread is there.
    pub(crate) fn exchange_top(self, cpu: u32, top: Stack) -> Option<Stack> {
        // SAFETY: as above.
        let top = unsafe { objcg_rseq::exchange(self.field(offset_of!(Part, stack)), cpu, top.expose_provenance()) };
        top.map(ptr::with_exposed_provenance_mut)
    }

    /// An empty stack without places.
    pub(crate) fn stopper(self, cpu: u32) -> &'static Stopper {
        // SAFETY: within the area, which is never freed; nobody changes it.
        unsafe { &(*self.part(cpu)).stopper }
    }

    /// What stands for that stack's top.
    pub(crate) fn stopper_top(self, cpu: u32) -> Stack {
        ptr::with_exposed_provenance_mut(self.stopper(cpu).top())
    }

    /// The sum of all CPUs' counters; nobody uses them any more.
    pub(crate) fn count(self) -> u64 {
        // SAFETY: the area is valid.
        let counts = (0..nr_cpus()).map(|cpu| unsafe { self.counter().of_cpu(cpu).read() });
        counts.fold(0, u64::wrapping_add)
    }

    /// The sum of all CPUs' counters, taken as signed ones and divided by `unit`; nobody uses them any more.
    pub(crate) fn signed_count_in(self, unit: i64) -> i64 {
        // SAFETY: the area is valid.
        (0..nr_cpus()).map(|cpu| unsafe { self.counter().of_cpu(cpu).read() }.cast_signed() / unit).sum()
    }

    /// What all CPUs' words of a tag hold above what they began with; nobody uses them any more.
    pub(crate) fn balance(self, idx: usize) -> i64 {
        let balance = |cpu| {
            // SAFETY: the area is valid.
            let word = unsafe { (*self.part(cpu)).words[idx].word };
            assert_eq!((word >> 32) as u32, TAGS[idx], "the tag never changes");
            assert!(word as u32 <= LIMIT);
            i64::from(word as u32) - i64::from(LIMIT / 2)
        };
        (0..nr_cpus()).map(balance).sum()
    }

    /// A store into any part ends the process from now on.
    pub(crate) fn forbid_stores(self) {
        let start = self.first.as_ptr().wrapping_byte_sub(NR_UNREGISTERED << SHIFT);
        // SAFETY: the parts are whole pages of this area alone, and never freed.
        let result = unsafe { libc::mprotect(start.cast(), nr_parts() << SHIFT, libc::PROT_READ) };
        assert_eq!(result, 0);
    }

    /// Leaves a CPU no stack that anything could be put on.
    pub(crate) fn close(self, cpu: u32) {
        self.top(cpu).store(self.stopper_top(cpu), Ordering::Relaxed);
    }

    /// Takes everything that is on a stack of this area's places, by hand: it is this thread's alone.
    pub(crate) fn drain(self, mut top: Stack) -> (Stack, Vec<usize>) {
        let mut numbers = Vec::new();
        loop {
            // SAFETY: the top points into the places of a part, and the bottom ends the loop.
            let place = unsafe { top.read() };
            if place == END {
                return (top, numbers);
            }
            numbers.push(number(NonNull::new(ptr::without_provenance_mut(place)).expect("objects are not at 0")));
            top = top.wrapping_sub(1);
        }
    }

    /// Takes all objects of all CPUs; nobody uses them any more.
    pub(crate) fn drain_all(self) -> Vec<usize> {
        // SAFETY: the area is valid.
        let tops = (0..nr_cpus()).map(|cpu| unsafe { (*self.part(cpu)).stack });
        tops.flat_map(|top| self.drain(top).1).collect()
    }
}

/// Each of the numbers below `nr_objects` is there once.
pub(crate) fn assert_conserved(mut numbers: Vec<usize>, nr_objects: usize) {
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..nr_objects), "lost or doubled: {numbers:?}");
}
