//! Sequences of operations on objects, per-CPU memory, groups and limits, against a model of plain vectors.
//!
//! After each operation: contents, alignment, limits (I3) and that a refusal left no trace (I8). At checks and at the end:
//! each group's objects and bytes as the model has them, the counter against both (I1, I2), and nothing left when all is
//! freed (I4).

#![no_main]

use std::ptr::NonNull;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use objcg_core::memcg::{self, Memcg};
use objcg_core::{cpu, kmalloc, percpu};

#[derive(Arbitrary, Debug)]
enum Op {
    Alloc {
        group: u8,
        size: Size,
        align: u8,
        zeroed: bool,
    },
    Free {
        nth: u16,
        group: u8,
    },
    Realloc {
        nth: u16,
        group: u8,
        size: Size,
    },
    PercpuAlloc {
        group: u8,
        nr_bytes: u16,
        align: u8,
    },
    PercpuFree {
        nth: u16,
    },
    Create {
        parent: u8,
    },
    Delete {
        group: u8,
    },
    SetMax {
        group: u8,
        max: Option<u32>,
    },
    SetHigh {
        group: u8,
        high: Option<u32>,
    },
    Drain {
        group: u8,
    },
    Trim,
    Check {
        group: u8,
    },
    /// Many objects of one size: whole slabs.
    Fill {
        group: u8,
        nr_objects: u8,
        nr_bytes: u16,
    },
    /// All of a group's objects, oldest first.
    Clear {
        group: u8,
    },
}

#[derive(Arbitrary, Debug)]
enum Size {
    Small(u8),
    Medium(u16),
    Large(u32),
}

const MAX_GROUPS: usize = 24;
const MAX_OBJECTS: usize = 2000;
const MAX_BYTES: usize = 6 << 20;
const MAX_HELD: usize = 64 << 20;
const OWNER_BYTES: u64 = 4;
const MAX_SLAB_BYTES: usize = 32 << 10;
const MAX_SLAB_ALIGN: usize = 4 << 10;
const MAX_RUN_BYTES: usize = 4 << 20;

impl Size {
    fn nr_bytes(&self) -> usize {
        match *self {
            Size::Small(nr_bytes) => usize::from(nr_bytes),
            Size::Medium(nr_bytes) => usize::from(nr_bytes),
            Size::Large(nr_bytes) => nr_bytes as usize % MAX_BYTES,
        }
    }
}

struct Object {
    address: NonNull<u8>,
    nr_bytes: usize,
    align: usize,
    tag: u8,
    owner: usize,
}

impl Object {
    /// The first and last 32 bytes.
    fn places(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.nr_bytes.min(32)).chain(self.nr_bytes.saturating_sub(32)..self.nr_bytes)
    }

    fn write(&self) {
        self.places().for_each(|place| unsafe { self.address.add(place).write(self.tag) });
    }

    fn check(&self) {
        for place in self.places() {
            let byte = unsafe { self.address.add(place).read() };
            assert_eq!(byte, self.tag, "byte {place} of {} was overwritten", self.nr_bytes);
        }
    }

    fn usable(&self) -> u64 {
        unsafe { kmalloc::usable_size(self.address) as u64 }
    }

    /// By what it has, not by what was asked for: an object that shrinks stays where it is if a limit refuses a smaller one.
    fn is_in_slab(&self) -> bool {
        self.usable() <= MAX_SLAB_BYTES as u64 && self.align <= MAX_SLAB_ALIGN
    }
}

struct Group {
    memcg: Option<Memcg>,
    parent: usize,
    /// Usage is never over it: `max`, or what usage was when `max` was set below it.
    ceiling: u64,
}

struct Percpu {
    address: NonNull<u8>,
    nr_bytes: u64,
    owner: usize,
}

struct Model {
    groups: Vec<Group>,
    objects: Vec<Object>,
    percpu: Vec<Percpu>,
    held: usize,
    next_tag: u8,
}

impl Model {
    fn new() -> Model {
        let top = Memcg::root().create("top").expect("the end of the last input left nothing");
        let top = Group { memcg: Some(top), parent: 0, ceiling: u64::MAX };
        Model { groups: vec![top], objects: Vec::new(), percpu: Vec::new(), held: 0, next_tag: 1 }
    }

    /// The living group that a number means.
    fn group(&self, number: u8) -> usize {
        let living: Vec<usize> = (0..self.groups.len()).filter(|nth| self.groups[*nth].memcg.is_some()).collect();
        living[usize::from(number) % living.len()]
    }

    fn memcg(&self, group: usize) -> &Memcg {
        self.groups[group].memcg.as_ref().expect("alive")
    }

    fn is_below(&self, group: usize, above: usize) -> bool {
        let mut at = group;
        while at != above && at != 0 {
            at = self.groups[at].parent;
        }
        at == above
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Alloc { group, ref size, align, zeroed } => {
                self.alloc(self.group(group), size.nr_bytes(), 1 << (align % 14), zeroed);
            }
            Op::Fill { group, nr_objects, nr_bytes } => {
                let group = self.group(group);
                (0..nr_objects).for_each(|_| self.alloc(group, usize::from(nr_bytes) % 4096, 8, false));
            }
            Op::Free { nth, group } => self.free(usize::from(nth), self.group(group)),
            Op::Realloc { nth, group, ref size } => {
                self.realloc(usize::from(nth), self.group(group), size.nr_bytes());
            }
            Op::PercpuAlloc { group, nr_bytes, align } => {
                self.percpu_alloc(self.group(group), nr_bytes, 1 << (align % 14));
            }
            Op::PercpuFree { nth } if !self.percpu.is_empty() => {
                let nth = usize::from(nth) % self.percpu.len();
                unsafe { percpu::free(self.percpu.swap_remove(nth).address) };
            }
            Op::PercpuFree { .. } => {}
            Op::Create { parent } => self.create(self.group(parent)),
            Op::Delete { group } => self.delete(self.group(group)),
            Op::SetMax { group, max } => {
                let group = self.group(group);
                let max = max.map(u64::from);
                let excess = self.memcg(group).set_max(max).expect("alive, and not the root");
                let usage = self.memcg(group).usage();
                let expected = max.map_or(0, |max| usage.saturating_sub(max));
                assert_eq!(excess, expected);
                self.groups[group].ceiling = max.unwrap_or(u64::MAX).max(usage);
            }
            Op::SetHigh { group, high } => {
                let group = self.group(group);
                self.memcg(group).set_high(high.map(u64::from)).expect("alive, and not the root");
                assert_eq!(self.memcg(group).high(), high.map(u64::from));
            }
            Op::Drain { group } => self.memcg(self.group(group)).drain(),
            Op::Trim => {
                kmalloc::trim();
                percpu::trim();
            }
            Op::Check { group } => self.check(self.group(group)),
            Op::Clear { group } => {
                let group = self.group(group);
                while let Some(nth) = self.objects.iter().position(|object| object.owner == group) {
                    self.free(nth, 0);
                }
            }
        }
    }

    fn alloc(&mut self, group: usize, nr_bytes: usize, align: usize, zeroed: bool) {
        if self.objects.len() >= MAX_OBJECTS || self.held + nr_bytes > MAX_HELD {
            return;
        }
        let peaks = self.peaks();
        let take = if zeroed { kmalloc::alloc_zeroed } else { kmalloc::alloc };
        let inside = self.memcg(group).enter();
        let memory = take(nr_bytes, align);
        drop(inside);
        let Some(address) = memory else { return assert_eq!(self.peaks(), peaks, "I8: a refusal left a peak") };
        assert_eq!(address.addr().get() % align, 0);
        self.next_tag = self.next_tag.wrapping_add(1) | 1;
        let object = Object { address, nr_bytes, align, tag: self.next_tag, owner: group };
        if zeroed {
            object.places().for_each(|place| assert_eq!(unsafe { address.add(place).read() }, 0));
        }
        object.write();
        self.held += nr_bytes;
        self.objects.push(object);
    }

    fn free(&mut self, nth: usize, current: usize) {
        if self.objects.is_empty() {
            return;
        }
        let object = self.objects.swap_remove(nth % self.objects.len());
        object.check();
        self.held -= object.nr_bytes;
        let inside = self.groups[current].memcg.as_ref().map(Memcg::enter);
        unsafe { kmalloc::free(object.address) };
        drop(inside);
    }

    fn realloc(&mut self, nth: usize, current: usize, nr_bytes: usize) {
        if self.objects.is_empty() || self.held + nr_bytes > MAX_HELD {
            return;
        }
        let nth = nth % self.objects.len();
        let inside = self.groups[current].memcg.as_ref().expect("alive").enter();
        let object = &mut self.objects[nth];
        object.check();
        let had = object.usable() as usize;
        let moved = unsafe { kmalloc::realloc(object.address, nr_bytes, object.align) };
        drop(inside);
        let Some(moved) = moved else {
            assert!(nr_bytes > object.nr_bytes, "a shrink was refused");
            return object.check();
        };
        assert_eq!(moved.addr().get() % object.align, 0);
        for place in 0..object.nr_bytes.min(nr_bytes).min(32) {
            assert_eq!(unsafe { moved.add(place).read() }, object.tag, "realloc lost byte {place}");
        }
        // A huge object that stays huge takes its pages and its owner along.
        let is_huge = |nr_bytes: usize| nr_bytes > MAX_RUN_BYTES;
        let took_pages = is_huge(had) && is_huge(nr_bytes) && object.align <= MAX_SLAB_ALIGN;
        if moved != object.address && !took_pages {
            object.owner = current;
        }
        self.held = self.held - object.nr_bytes + nr_bytes;
        (object.address, object.nr_bytes) = (moved, nr_bytes);
        object.write();
    }

    fn percpu_alloc(&mut self, group: usize, nr_bytes: u16, align: usize) {
        if self.percpu.len() >= 200 {
            return;
        }
        let peaks = self.peaks();
        let inside = self.memcg(group).enter();
        let memory = percpu::alloc(usize::from(nr_bytes), align);
        drop(inside);
        let Ok(address) = memory else { return assert_eq!(self.peaks(), peaks, "I8: a refusal left a peak") };
        assert_eq!(address.addr().get() % align, 0);
        for cpu in cpu::CpuId::all() {
            let copy = unsafe { percpu::of_cpu(address, cpu) };
            assert_eq!(unsafe { copy.read() }, 0, "per-CPU memory is zero");
            unsafe { copy.write(0xff) };
        }
        let nr_bytes = u64::from(nr_bytes).next_multiple_of(percpu::GRANULE_BYTES as u64) * cpu::nr_cpus() as u64;
        self.percpu.push(Percpu { address, nr_bytes, owner: group });
    }

    fn create(&mut self, parent: usize) {
        if self.groups.iter().filter(|group| group.memcg.is_some()).count() >= MAX_GROUPS {
            return;
        }
        let peaks = self.peaks();
        match self.memcg(parent).create(&format!("g{}", self.groups.len())) {
            Ok(memcg) => self.groups.push(Group { memcg: Some(memcg), parent, ceiling: u64::MAX }),
            Err(memcg::CreateError::Limit(_)) => assert_eq!(self.peaks(), peaks, "I8: a refusal left a peak"),
            Err(other) => panic!("{other}"),
        }
    }

    fn delete(&mut self, group: usize) {
        let has_children = (0..self.groups.len())
            .any(|nth| nth != group && self.groups[nth].memcg.is_some() && self.groups[nth].parent == group);
        if group == 0 || has_children {
            let refused = group == 0 || self.memcg(group).delete() == Err(memcg::DeleteError::HasChildren);
            return assert!(refused, "a group with children was deleted");
        }
        let memcg = self.groups[group].memcg.take().expect("alive");
        memcg.delete().expect("alive, and without children");
        assert_eq!(memcg.usage(), 0);
        drop(memcg);
        assert_eq!(memcg::nr_dying(), 0, "I4");
        let parent = self.groups[group].parent;
        let owners = self.objects.iter_mut().map(|object| &mut object.owner);
        for owner in owners.chain(self.percpu.iter_mut().map(|memory| &mut memory.owner)) {
            if *owner == group {
                *owner = parent;
            }
        }
    }

    fn peaks(&self) -> Vec<u64> {
        self.groups.iter().flat_map(|group| group.memcg.as_ref().map(Memcg::peak)).collect()
    }

    /// I3: no charge takes usage over `max`.
    fn check_ceilings(&mut self) {
        for group in &mut self.groups {
            let Some(memcg) = &group.memcg else { continue };
            let (usage, max) = (memcg.usage(), memcg.max().unwrap_or(u64::MAX));
            assert!(usage <= group.ceiling, "I3: usage {usage} over {}", group.ceiling);
            group.ceiling = max.max(usage.min(group.ceiling));
        }
    }

    /// I1 and I2 of a group's subtree.
    fn check(&self, group: usize) {
        let stat = self.memcg(group).stat();
        let own = |owner: usize| self.is_below(owner, group);
        let objects: Vec<_> = self.objects.iter().filter(|object| own(object.owner)).collect();
        let (slab, large): (Vec<&&Object>, Vec<&&Object>) = objects.iter().partition(|object| object.is_in_slab());
        let bytes = |objects: &[&&Object]| objects.iter().map(|object| object.usable()).sum::<u64>();
        assert_eq!((stat.slab_objects, stat.slab_bytes), (slab.len() as u64, bytes(&slab)), "slab objects");
        assert_eq!((stat.large_objects, stat.large_bytes), (large.len() as u64, bytes(&large)), "large objects");
        let percpu: Vec<_> = self.percpu.iter().filter(|memory| own(memory.owner)).collect();
        let percpu_bytes = percpu.iter().map(|memory| memory.nr_bytes).sum::<u64>();
        assert_eq!((stat.percpu_objects, stat.percpu_bytes), (percpu.len() as u64, percpu_bytes), "per-CPU memory");
        assert_eq!(stat.owner_bytes, (slab.len() + percpu.len()) as u64 * OWNER_BYTES);
        assert_eq!(self.memcg(group).usage(), stat.total_bytes(), "I1");
    }

    fn end(mut self) {
        self.objects.iter().for_each(Object::check);
        (0..self.groups.len()).filter(|nth| self.groups[*nth].memcg.is_some()).for_each(|nth| self.check(nth));
        while !self.objects.is_empty() {
            self.free(0, 0);
        }
        self.percpu.drain(..).for_each(|memory| unsafe { percpu::free(memory.address) });
        let top = self.groups.swap_remove(0).memcg.expect("never deleted");
        // Children before parents: they were made later.
        while let Some(group) = self.groups.pop() {
            drop(group);
        }
        assert_eq!((top.stat().total_bytes(), top.usage()), (top.stat().group_bytes, top.stat().group_bytes));
        drop(top);
        Memcg::root().drain();
        assert_eq!((memcg::nr_groups(), memcg::nr_dying(), memcg::nr_vessels()), (0, 0, 0), "I4");
        assert_eq!(Memcg::root().usage(), 0, "I1");
    }
}

fuzz_target!(|ops: Vec<Op>| {
    let mut model = Model::new();
    for op in &ops {
        model.apply(op);
        model.check_ceilings();
    }
    model.end();
});
