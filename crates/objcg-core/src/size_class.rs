//! Size classes: one const table, both directions, and the slab that each class is cut from.
//!
//! Up to 128 bytes the classes are 8 bytes apart. Above, they are sixteenths of the power of two below, closer where they are small, since
//! there are more of the smaller sizes: nine to a doubling up to 1 KiB, six up to 4 KiB, four up to 32 KiB, which is the largest class. So an
//! object wastes at most 1/11, 1/7 and 1/6 of its slot, and less on the whole. Each class has some objects at hand on every CPU and a slab
//! that is not full. Many objects are a power of two with a header: just above each there is another class, of which fifteen fill the space
//! of sixteen powers of two.
//!
//! Of the sizes that a class serves none is a multiple of a higher power of two than the class itself, up to 2 KiB: so a size that was
//! rounded up to its alignment has a class of that alignment, however it was found.

use crate::os::PAGE_SIZE;

const NR_FINE: usize = FINE_MAX / FINE_STEP;
/// Bytes of the smallest objects.
pub(crate) const SMALLEST: usize = FINE_STEP;
const FINE_STEP: usize = 8;
const FINE_MAX: usize = 128;
/// What classes above 160 bytes are multiples of at least: what the C library promises.
const ALIGN: usize = 16;
const FINE_MAX_SHIFT: u32 = 7;
/// log2 of the steps of a doubling, by which a class is found: each has one or two, or none of its own.
const STEPS_SHIFT: u32 = 3;
const NR_STEPS: usize = 1 << STEPS_SHIFT;
const COARSE: usize = 1024;
const NR_DOUBLINGS: usize = 8;

/// The number of classes.
pub(crate) const NR_CLASSES: usize = nr_classes();
/// The class of the smallest size of each step.
const FIRST_OF_STEP: [[u8; NR_STEPS]; NR_DOUBLINGS] = first_of_steps();
/// Bytes of the largest class; anything larger is a run of pages.
pub(crate) const MAX_SIZE: usize = FINE_MAX << NR_DOUBLINGS;

/// Bytes of the class for a power of two with a header, by doubling.
const WITH_HEADER: [u32; NR_DOUBLINGS] = with_header();
const CACHE_LINE: usize = 64;
/// Bytes of each class, ascending.
const SIZES: [u32; NR_CLASSES] = sizes();

/// Objects of more bytes than this are [dear](is_dear).
const DEAR: usize = 8 << 10;

/// Whether objects of that size are so large that a few which wait are dear: a CPU has one at hand, and slabs are small and go as
/// soon as they are empty.
pub(crate) const fn is_dear(size: usize) -> bool {
    size > DEAR
}

/// The index of a class, less than [`NR_CLASSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SizeClass(u8);

impl SizeClass {
    /// The smallest class that holds `nr_bytes`, if one does.
    #[inline]
    pub(crate) const fn of_size(nr_bytes: usize) -> Option<SizeClass> {
        if nr_bytes <= FINE_MAX {
            // Nothing at all is of the smallest class.
            let last = if nr_bytes == 0 { 0 } else { nr_bytes - 1 };
            return Some(SizeClass((last / FINE_STEP) as u8));
        }
        if nr_bytes > MAX_SIZE {
            return None;
        }
        let last = nr_bytes - 1;
        let log2 = last.ilog2();
        let doubling = (log2 - FINE_MAX_SHIFT) as usize;
        let step = (last >> (log2 - STEPS_SHIFT)) & (NR_STEPS - 1);
        let class = FIRST_OF_STEP[doubling][step];
        // The next one holds all sizes of the step.
        let is_larger = nr_bytes > SIZES[class as usize] as usize;
        Some(SizeClass(class + is_larger as u8))
    }

    /// The class of the engine's own small memory: whole cache lines, or neighbours of different CPUs would share some. Two classes to a
    /// doubling, for there is little of most sizes, and each class has a slab that is not full.
    pub(crate) const fn for_engine(nr_bytes: usize) -> Option<SizeClass> {
        if nr_bytes <= CACHE_LINE {
            return Self::of_size(CACHE_LINE);
        }
        let power = nr_bytes.next_power_of_two();
        let less = power / 4 * 3;
        Self::of_size(if nr_bytes <= less && less.is_multiple_of(CACHE_LINE) { less } else { power })
    }

    /// The class of what slabs have outside of them, which any CPU reads and writes that has one of their objects: a quarter or half of a
    /// cache line will do.
    pub(crate) const fn beside_slabs(nr_bytes: usize) -> Option<SizeClass> {
        if nr_bytes <= CACHE_LINE / 4 {
            Self::of_size(CACHE_LINE / 4)
        } else if nr_bytes <= CACHE_LINE / 2 {
            Self::of_size(CACHE_LINE / 2)
        } else {
            Self::of_size(if nr_bytes < CACHE_LINE { CACHE_LINE } else { nr_bytes })
        }
    }

    /// The smallest class that holds `nr_bytes` and whose objects all lie at multiples of `align`, a power of two.
    #[inline]
    pub(crate) const fn of_layout(nr_bytes: usize, align: usize) -> Option<SizeClass> {
        let class = Self::of_size(nr_bytes);
        if align <= 8 {
            return class;
        }
        match class {
            Some(class) if class.natural_align() < align => class.aligned(align),
            class => class,
        }
    }

    #[cold]
    const fn aligned(self, align: usize) -> Option<SizeClass> {
        let mut index = self.0 as usize;
        while index < NR_CLASSES {
            let class = SizeClass(index as u8);
            if class.natural_align() >= align {
                return Some(class);
            }
            index += 1;
        }
        None
    }

    /// Every class, ascending.
    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = SizeClass> {
        (0..NR_CLASSES as u8).map(SizeClass)
    }

    /// The class of an index below [`NR_CLASSES`].
    pub(crate) const fn from_index(index: usize) -> SizeClass {
        assert!(index < NR_CLASSES);
        SizeClass(index as u8)
    }

    /// As an index into an array of [`NR_CLASSES`].
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// Bytes of an object of this class.
    #[inline]
    pub(crate) const fn size(self) -> usize {
        SIZES[self.0 as usize] as usize
    }

    /// The power of two at whose multiples all objects of the class lie: slabs start at a page.
    const fn natural_align(self) -> usize {
        let align = 1 << self.size().trailing_zeros();
        if align < PAGE_SIZE { align } else { PAGE_SIZE }
    }
}

/// How one slab is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlabGeometry {
    /// Pages of 4 KiB of one slab.
    pub pages: u32,
    /// Objects of one slab.
    pub objects: u32,
}

impl SlabGeometry {
    /// Smallest slab: of one page too few objects would share the lock's and the lists' cost.
    const MIN_PAGES: u32 = 2;
    /// Slabs up to this are looked for one that wastes nearly nothing.
    const FEW_PAGES: u32 = 9;
    const MAX_PAGES: u32 = 256;
    const MIN_OBJECTS: u32 = 4;

    /// The smallest slab of two to nine pages that wastes at most 1/128 of its bytes, at its end and behind the owner words of its
    /// objects; if there is none the smallest of at least two that wastes at most 1/32 at its end. Of at least four objects. Of dear ones
    /// the smallest at all that wastes at most 1/32.
    pub(crate) const fn for_size(size: usize) -> SlabGeometry {
        let (min_pages, min_objects) = if is_dear(size) { (1, 1) } else { (Self::MIN_PAGES, Self::MIN_OBJECTS) };
        let mut pages = min_pages;
        while !is_dear(size) && pages <= Self::FEW_PAGES {
            let tight = Self::of_pages(size, pages);
            if tight.objects >= min_objects && (tight.tail(size) + tight.owner_slack()) * 128 <= tight.nr_bytes() {
                return tight;
            }
            pages += 1;
        }
        let mut geometry = Self::of_pages(size, min_pages);
        while geometry.objects < min_objects || geometry.tail(size) * 32 > geometry.nr_bytes() {
            if geometry.pages == Self::MAX_PAGES {
                break;
            }
            geometry = Self::of_pages(size, geometry.pages + 1);
        }
        geometry
    }

    const fn of_pages(size: usize, pages: u32) -> SlabGeometry {
        SlabGeometry { pages, objects: (pages as usize * PAGE_SIZE / size) as u32 }
    }

    const fn nr_bytes(self) -> usize {
        self.pages as usize * PAGE_SIZE
    }

    /// Bytes behind the last object.
    const fn tail(self, size: usize) -> usize {
        self.nr_bytes() - self.objects as usize * size
    }

    /// Bytes behind the owner words in the engine's memory for them.
    const fn owner_slack(self) -> usize {
        let nr_bytes = self.objects as usize * size_of::<u32>();
        match SizeClass::beside_slabs(nr_bytes) {
            Some(class) => class.size() - nr_bytes,
            None => nr_bytes.next_multiple_of(PAGE_SIZE) - nr_bytes,
        }
    }

    /// For the engine's own small memory, of which there is little: the smallest slab of at least two pages, so that a descriptor has room
    /// for its links, that wastes at most 1/8 of itself at its end, behind `nr_first` bytes that are not for objects.
    pub(crate) const fn for_engine(size: usize, nr_first: usize) -> SlabGeometry {
        let mut pages = Self::MIN_PAGES;
        loop {
            let nr_bytes = pages as usize * PAGE_SIZE - nr_first;
            if nr_bytes >= size && (nr_bytes % size) * 8 <= nr_bytes {
                return SlabGeometry { pages, objects: (nr_bytes / size) as u32 };
            }
            pages += 1;
        }
    }
}

/// Sizes of the classes above a power of two, in sixteenths of it: as many as there are in a doubling, less that with a header.
const fn sixteenths(base: usize) -> &'static [usize] {
    if base < COARSE {
        return &[18, 19, 20, 22, 24, 26, 28, 30, 32];
    }
    if base < COARSE * 4 { &[18, 20, 22, 24, 28, 32] } else { &[20, 24, 28, 32] }
}

const fn nr_classes() -> usize {
    let mut nr_classes = NR_FINE;
    let mut doubling = 0;
    while doubling < NR_DOUBLINGS {
        nr_classes += 1 + sixteenths(FINE_MAX << doubling).len();
        doubling += 1;
    }
    nr_classes
}

const fn first_of_steps() -> [[u8; NR_STEPS]; NR_DOUBLINGS] {
    assert!(NR_CLASSES < 1 << u8::BITS && SIZES[NR_CLASSES - 1] as usize == MAX_SIZE);
    let mut first = [[0; NR_STEPS]; NR_DOUBLINGS];
    let mut class = NR_FINE;
    let mut nth = 0;
    while nth < NR_DOUBLINGS * NR_STEPS {
        let (doubling, step) = (nth / NR_STEPS, nth % NR_STEPS);
        let step_bytes = (FINE_MAX << doubling) / NR_STEPS;
        let start = (NR_STEPS + step) * step_bytes;
        while (SIZES[class] as usize) <= start {
            class += 1;
        }
        first[doubling][step] = class as u8;
        let is_last = class + 1 == NR_CLASSES;
        assert!(is_last || SIZES[class + 1] as usize >= start + step_bytes, "more than two classes in a step");
        nth += 1;
    }
    first
}

const fn sizes() -> [u32; NR_CLASSES] {
    let mut sizes = [0; NR_CLASSES];
    let mut index = 0;
    while index < NR_FINE {
        sizes[index] = ((index + 1) * FINE_STEP) as u32;
        index += 1;
    }
    let mut doubling = 0;
    while doubling < NR_DOUBLINGS {
        let base = FINE_MAX << doubling;
        sizes[index] = WITH_HEADER[doubling];
        index += 1;
        let mut step = 0;
        while step < sixteenths(base).len() {
            sizes[index] = (base / 16 * sixteenths(base)[step]) as u32;
            index += 1;
            step += 1;
        }
        doubling += 1;
    }
    sizes
}

const fn with_header() -> [u32; NR_DOUBLINGS] {
    let mut sizes = [0; NR_DOUBLINGS];
    let mut doubling = 0;
    while doubling < NR_DOUBLINGS {
        let base = (FINE_MAX as u32) << doubling;
        // But for 128 bytes, where the next step is 16 above.
        let align = if doubling == 0 { FINE_STEP as u32 } else { ALIGN as u32 };
        sizes[doubling] = base * 16 / 15 / align * align;
        doubling += 1;
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::{COARSE, MAX_SIZE, NR_CLASSES, SizeClass, SlabGeometry, is_dear};

    #[test]
    fn every_size_gets_the_smallest_class_that_holds_it() {
        for nr_bytes in 0..=MAX_SIZE {
            let class = SizeClass::of_size(nr_bytes).unwrap();
            assert!(class.size() >= nr_bytes);
            if class.index() > 0 {
                assert!(SizeClass(class.0 - 1).size() < nr_bytes, "{nr_bytes} fits a smaller class");
            }
        }
        assert_eq!(SizeClass::of_size(MAX_SIZE + 1), None);
        assert_eq!(SizeClass::all().count(), NR_CLASSES);
    }

    #[test]
    fn waste_above_128_bytes_is_at_most_an_eleventh_and_above_a_kibibyte_a_seventh_or_sixth() {
        for nr_bytes in 129..=MAX_SIZE {
            let size = SizeClass::of_size(nr_bytes).unwrap().size();
            let share = if nr_bytes <= COARSE {
                11
            } else if nr_bytes <= 4 * COARSE {
                7
            } else {
                6
            };
            assert!((size - nr_bytes) * share <= size, "{nr_bytes} in {size}");
        }
    }

    #[test]
    fn a_power_of_two_with_a_header_wastes_at_most_a_sixteenth() {
        for power in (8..15).map(|shift| 1 << shift) {
            for header in 1..=power / 15 / 16 * 16 {
                let size = SizeClass::of_size(power + header).unwrap().size();
                assert!((size - power - header) * 16 <= size, "{power} and {header} in {size}");
            }
        }
        assert_eq!(SizeClass::of_size(4096 + 272).unwrap().size(), 65_536 / 15 / 16 * 16);
    }

    #[test]
    fn a_layout_gets_a_class_of_its_alignment_or_none() {
        for align_shift in 0..=12 {
            let align = 1 << align_shift;
            for nr_bytes in (0..=MAX_SIZE).step_by(7) {
                if let Some(class) = SizeClass::of_layout(nr_bytes, align) {
                    assert!(class.size() >= nr_bytes && class.size().is_multiple_of(align));
                }
            }
        }
        assert_eq!(SizeClass::of_layout(8, 8192), None);
    }

    /// What `kmalloc` finds stacks by: sizes up to 2 KiB, rounded up to their alignments.
    #[test]
    fn a_size_that_is_a_multiple_of_an_alignment_has_a_class_of_that_alignment() {
        for nr_bytes in (8..=2048_usize).step_by(8) {
            let align = 1 << nr_bytes.trailing_zeros();
            let class = SizeClass::of_size(nr_bytes).unwrap();
            assert!(class.natural_align() >= align, "{nr_bytes} in {}", class.size());
        }
    }

    #[test]
    fn slabs_of_classes_waste_next_to_nothing() {
        for class in SizeClass::all() {
            let size = class.size();
            let geometry = SlabGeometry::for_size(size);
            let slab_bytes = geometry.pages as usize * 4096;
            let used_bytes = geometry.objects as usize * size;
            // No few pages are nearly full of those of 4,368 bytes.
            let is_tight = !is_dear(size) && size != 4368;
            let share = if is_tight { 128 } else { 32 };
            assert!(used_bytes <= slab_bytes, "{geometry:?} of {size}");
            assert!((slab_bytes - used_bytes) * share <= slab_bytes, "{geometry:?} of {size}");
            assert!(geometry.objects >= if is_dear(size) { 1 } else { 4 });
            assert!(!is_tight || (2..=9).contains(&geometry.pages), "{geometry:?} of {size}");
        }
    }

    #[test]
    fn slabs_are_the_smallest_that_waste_so_little() {
        let shape = |size| {
            let geometry = SlabGeometry::for_size(size);
            (geometry.pages, geometry.objects)
        };
        assert_eq!([8, 64, 128, 192, 576].map(shape), [(2, 1024), (2, 128), (2, 64), (3, 64), (9, 64)]);
        assert_eq!([640, 1024, 1792, 2048, 8192].map(shape), [(5, 32), (2, 8), (7, 16), (2, 4), (8, 4)]);
        // Dear ones: one is a slab, but where three waste less.
        assert_eq!([16_384, 17_472, 32_768].map(shape), [(4, 1), (13, 3), (8, 1)]);
    }

    #[test]
    fn slabs_of_any_size_waste_at_most_a_thirty_second() {
        for size in 1..=MAX_SIZE {
            let geometry = SlabGeometry::for_size(size);
            let slab_bytes = geometry.pages as usize * 4096;
            assert!((slab_bytes - geometry.objects as usize * size) * 32 <= slab_bytes, "{geometry:?} of {size}");
            assert!(geometry.pages <= 40, "{geometry:?} of {size}");
        }
    }

    #[test]
    fn owner_words_fill_what_the_engine_takes_for_them() {
        let (mut nr_bytes, mut slack) = (0, 0);
        for class in SizeClass::all().filter(|class| !is_dear(class.size())) {
            let geometry = SlabGeometry::for_size(class.size());
            nr_bytes += geometry.pages as usize * 4096;
            slack += geometry.owner_slack();
        }
        assert!(slack * 256 <= nr_bytes, "{slack} of {nr_bytes}");
    }
}
