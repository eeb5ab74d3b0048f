//! Random operations on objects and groups against a reference model of plain vectors (I1, I2).
//!
//! Objects of all sizes are allocated inside groups at random depth, resized, freed in other groups and on other threads;
//! groups are created and deleted under them. At quiet points every group is held against the model: objects and bytes by
//! kind as found by looking at the heap, and the counter against all of it.

use std::ptr::NonNull;
use std::sync::mpsc;
use std::thread;

use objcg::{Memcg, MemcgStat, Objcg};
use objcg_core::kmalloc;

#[path = "support/random.rs"]
mod random;
use random::Random;

#[global_allocator]
static GLOBAL: Objcg = Objcg;

const NR_OPERATIONS: usize = 200_000;
const CHECK_EVERY: usize = 4_000;
const MAX_GROUPS: usize = 40;
const MAX_OBJECTS: usize = 3_000;
const OWNER_BYTES: u64 = 4;
const MAX_SLAB_OBJECT: usize = 32 << 10;
const MAX_SLAB_ALIGN: usize = 4 << 10;
const MAX_LARGE_OBJECT: usize = 4 << 20;

struct Object {
    address: NonNull<u8>,
    nr_bytes: usize,
    align: usize,
    tag: u8,
    owner: usize,
}

// SAFETY: an object is handed to one thread, which frees it.
unsafe impl Send for Object {}

impl Object {
    fn alloc(nr_bytes: usize, align: usize, tag: u8, owner: usize) -> Option<Object> {
        let address = kmalloc::alloc(nr_bytes, align)?;
        assert!((address.as_ptr() as usize).is_multiple_of(align), "{nr_bytes} bytes at {align}");
        let object = Object { address, nr_bytes, align, tag, owner };
        object.write();
        Some(object)
    }

    /// Marks both ends: whole objects up to 256 bytes, 128 bytes at each end of larger ones.
    fn ends(&self) -> impl Iterator<Item = usize> {
        let head = self.nr_bytes.min(128);
        let tail = self.nr_bytes.max(128) - 128;
        (0..head).chain(tail..self.nr_bytes)
    }

    fn write(&self) {
        for offset in self.ends() {
            // SAFETY: the object's own byte.
            unsafe { byte_at(self.address, offset).write(self.tag) };
        }
    }

    fn check(&self) {
        for offset in self.ends() {
            // SAFETY: the object's own byte, which was written.
            let byte = unsafe { byte_at(self.address, offset).read() };
            assert_eq!(byte, self.tag, "byte {offset} of {} was overwritten", self.nr_bytes);
        }
    }

    fn free(self) {
        self.check();
        // SAFETY: the object is live and given up here.
        unsafe { kmalloc::free(self.address) };
    }

    fn is_in_slab(&self) -> bool {
        self.nr_bytes <= MAX_SLAB_OBJECT && self.align <= MAX_SLAB_ALIGN
    }

    fn usable(&self) -> usize {
        // SAFETY: the object is live.
        unsafe { kmalloc::usable_size(self.address) }
    }

    /// Resizes inside the group that is current; the new owner is that group if the object moved.
    fn resize(&mut self, nr_bytes: usize, current: usize) {
        self.check();
        let kept = self.nr_bytes.min(nr_bytes).min(128);
        // SAFETY: the object is live, of this alignment, and the old address is not used again.
        let Some(moved) = (unsafe { kmalloc::realloc(self.address, nr_bytes, self.align) }) else { return };
        for offset in 0..kept {
            // SAFETY: both sizes have that offset, and it was written.
            let byte = unsafe { byte_at(moved, offset).read() };
            assert_eq!(byte, self.tag, "realloc lost byte {offset}");
        }
        // A huge object that stays huge takes its pages and its owner along.
        let took_pages =
            self.nr_bytes > MAX_LARGE_OBJECT && nr_bytes > MAX_LARGE_OBJECT && self.align <= MAX_SLAB_ALIGN;
        if moved != self.address && !took_pages {
            self.owner = current;
        }
        self.address = moved;
        self.nr_bytes = nr_bytes;
        self.write();
    }
}

fn byte_at(address: NonNull<u8>, offset: usize) -> NonNull<u8> {
    // SAFETY: callers stay inside an object.
    unsafe { address.add(offset) }
}

struct Group {
    memcg: Option<Memcg>,
    parent: usize,
    nr_children: usize,
}

struct Model {
    random: Random,
    /// 0 is the top group of the test, which is never deleted.
    groups: Vec<Group>,
    objects: Vec<Object>,
    remote: mpsc::Sender<Object>,
    done: mpsc::Receiver<()>,
    nr_sent: usize,
}

impl Model {
    fn step(&mut self) {
        match self.random.below(20) {
            0 => self.create_group(),
            1 => self.delete_group(),
            2..=10 if self.objects.len() < MAX_OBJECTS => self.alloc(),
            11 | 12 => self.resize(),
            _ => self.free(),
        }
    }

    fn living(&mut self) -> usize {
        loop {
            let group = self.random.below(self.groups.len());
            if self.groups[group].memcg.is_some() {
                return group;
            }
        }
    }

    fn memcg(&self, group: usize) -> &Memcg {
        self.groups[group].memcg.as_ref().expect("a living group")
    }

    fn create_group(&mut self) {
        let parent = self.living();
        if self.groups.iter().filter(|group| group.memcg.is_some()).count() >= MAX_GROUPS {
            return;
        }
        let memcg = self.memcg(parent).create(&format!("g{}", self.groups.len())).expect("no limit");
        self.groups[parent].nr_children += 1;
        self.groups.push(Group { memcg: Some(memcg), parent, nr_children: 0 });
    }

    fn delete_group(&mut self) {
        let group = self.living();
        if group == 0 || self.groups[group].nr_children > 0 {
            return;
        }
        let memcg = self.groups[group].memcg.take().expect("a living group");
        if self.random.below(2) == 0 {
            memcg.delete().expect("alive, and without children");
        }
        drop(memcg);
        let parent = self.groups[group].parent;
        self.groups[parent].nr_children -= 1;
    }

    fn size(&mut self) -> usize {
        match self.random.below(1000) {
            0 => 4 << 20 | self.random.below(8 << 20),
            1..=8 => 32 << 10 | self.random.below(2 << 20),
            9..=80 => 1 + self.random.below(40 << 10),
            _ => 1 + self.random.below(1024),
        }
    }

    fn alloc(&mut self) {
        let owner = self.living();
        let align = if self.random.below(8) == 0 { 8 << self.random.below(14) } else { 8 };
        let nr_bytes = self.size();
        let tag = self.random.below(255) as u8 + 1;
        let object = self.memcg(owner).scope(|| Object::alloc(nr_bytes, align, tag, owner));
        self.objects.push(object.expect("no limit"));
    }

    fn resize(&mut self) {
        if self.objects.is_empty() {
            return;
        }
        let nth = self.random.below(self.objects.len());
        let current = self.living();
        let nr_bytes = self.size();
        let memcg = self.memcg(current).clone();
        memcg.scope(|| self.objects[nth].resize(nr_bytes, current));
    }

    /// Frees here, in a stranger's group, or on another thread.
    fn free(&mut self) {
        if self.objects.is_empty() {
            return;
        }
        let nth = self.random.below(self.objects.len());
        let object = self.objects.swap_remove(nth);
        match self.random.below(3) {
            0 => object.free(),
            1 => {
                let stranger = self.living();
                self.memcg(stranger).scope(|| object.free());
            }
            _ => {
                self.remote.send(object).expect("the other thread runs");
                self.nr_sent += 1;
            }
        }
    }

    /// The living group that an owner's objects belong to now.
    fn heir(&self, owner: usize) -> usize {
        let mut group = owner;
        while self.groups[group].memcg.is_none() {
            group = self.groups[group].parent;
        }
        group
    }

    fn is_below(&self, group: usize, top: usize) -> bool {
        let mut at = group;
        while at != top && at != 0 {
            at = self.groups[at].parent;
        }
        at == top
    }

    fn check(&mut self) {
        for _ in 0..std::mem::take(&mut self.nr_sent) {
            self.done.recv().expect("the other thread runs");
        }
        self.memcg(0).drain();
        for group in (0..self.groups.len()).filter(|group| self.groups[*group].memcg.is_some()) {
            let mut expected = MemcgStat::default();
            for object in self.objects.iter().filter(|object| self.is_below(self.heir(object.owner), group)) {
                let usable = object.usable();
                if object.is_in_slab() {
                    expected.slab_objects += 1;
                    expected.slab_bytes += usable as u64;
                    expected.owner_bytes += OWNER_BYTES;
                } else {
                    expected.large_objects += 1;
                    expected.large_bytes += usable as u64;
                }
            }
            let found = self.memcg(group).stat();
            expected.group_bytes = found.group_bytes;
            assert_eq!(found, expected, "group {group}");
            assert_eq!(self.memcg(group).usage(), found.total_bytes(), "group {group}: counter against heap");
            assert!(self.memcg(group).peak() >= self.memcg(group).usage());
        }
    }
}

#[test]
fn i1_i2_random_operations_agree_with_the_model() {
    let (remote, inbox) = mpsc::channel::<Object>();
    let (report, done) = mpsc::channel();
    let other = thread::spawn(move || {
        for object in inbox {
            object.free();
            report.send(()).expect("the test waits");
        }
    });
    let top = Memcg::root().create("conservation").expect("a new name");
    let mut model = Model {
        random: Random::from_environment(),
        groups: vec![Group { memcg: Some(top.clone()), parent: 0, nr_children: 0 }],
        objects: Vec::new(),
        remote,
        done,
        nr_sent: 0,
    };
    for operation in 0..NR_OPERATIONS {
        model.step();
        if operation % CHECK_EVERY == 0 {
            model.check();
        }
    }
    model.check();
    model.objects.drain(..).for_each(Object::free);
    model.check();
    model.groups.truncate(1);
    drop(model);
    other.join().expect("the other thread ends well");
    top.drain();
    assert_eq!((top.usage(), top.stat()), (0, MemcgStat::default()), "nothing is left, not even a vessel");
}
