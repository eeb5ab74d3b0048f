//! The C API with handles that are good, stale, or none's, and arguments out of range: it answers with an error, never with a
//! crash, and a stale handle never works again. The process's `malloc` is objcg's, too.

#![no_main]

use std::ffi::{CString, c_int};
use std::ptr;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use objcg_malloc::{group as api, memory, surface};

#[derive(Arbitrary, Debug)]
enum Op {
    Create { parent: Handle, name: Vec<u8> },
    Delete { group: Handle },
    Find { parent: Handle, name: Vec<u8> },
    Parent { group: Handle },
    Children { group: Handle, room: u8, has_buffer: bool },
    Name { group: Handle, room: u8, has_buffer: bool },
    Enter { group: Handle, has_previous: bool },
    Leave { group: Handle },
    SetMax { group: Handle, nr_bytes: u64 },
    SetHigh { group: Handle, nr_bytes: u64 },
    Look { group: Handle, nr_bytes: u8 },
    Malloc { group: Handle, nr_bytes: u32 },
    Calloc { group: Handle, nr_items: u64, item_bytes: u64 },
    AlignedAlloc { group: Handle, align: u32, nr_bytes: u32 },
    Realloc { nth: u8, nr_bytes: u32 },
    Free { nth: u8 },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Handle {
    Root,
    Known(u8),
    Stale(u8),
    Any(u64),
    /// A known one with another generation.
    Near(u8, u8),
}

const OK: c_int = 0;
const STALE: c_int = 2;
const MAX_GROUPS: usize = 50;
const MAX_OBJECTS: usize = 200;

#[derive(Default)]
struct Model {
    known: Vec<u64>,
    stale: Vec<u64>,
    objects: Vec<*mut libc::c_void>,
}

fn pick<T: Copy>(list: &[T], nth: u8) -> Option<T> {
    list.get(usize::from(nth) % list.len().max(1)).copied()
}

impl Model {
    fn handle(&self, handle: Handle) -> u64 {
        match handle {
            Handle::Root => api::objcg_root(),
            Handle::Known(nth) => pick(&self.known, nth).unwrap_or_default(),
            Handle::Stale(nth) => pick(&self.stale, nth).unwrap_or_default(),
            Handle::Any(handle) => handle,
            Handle::Near(nth, by) => {
                pick(&self.known, nth).unwrap_or_default().wrapping_add(u64::from(by) << u32::BITS)
            }
        }
    }

    fn is_alive(&self, handle: u64) -> bool {
        handle == api::objcg_root() || self.known.contains(&handle)
    }

    /// A call on a handle of no living group is refused as stale, and no other is.
    fn check(&self, handle: u64, status: c_int) {
        assert_eq!(status == STALE, !self.is_alive(handle), "handle {handle:#x}, status {status}");
    }

    fn keep(&mut self, object: *mut libc::c_void, handle: u64) {
        if object.is_null() {
            return;
        }
        assert!(self.is_alive(handle), "memory of a group that is none");
        self.objects.push(object);
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Create { parent, ref name } if self.known.len() < MAX_GROUPS => {
                let parent = self.handle(parent);
                let name = text(name);
                let mut group = 0;
                match unsafe { api::objcg_create(parent, name.as_ptr(), &raw mut group) } {
                    OK => self.known.push(group),
                    status => self.check(parent, status),
                }
            }
            Op::Create { .. } => {}
            Op::Delete { group } => {
                let group = self.handle(group);
                match api::objcg_delete(group) {
                    OK => {
                        self.known.retain(|known| *known != group);
                        self.stale.push(group);
                    }
                    status => self.check(group, status),
                }
            }
            Op::Find { parent, ref name } => {
                let parent = self.handle(parent);
                let name = text(name);
                let mut found = 0;
                let status = unsafe { api::objcg_find(parent, name.as_ptr(), &raw mut found) };
                self.check(parent, status);
                assert!(status != OK || self.is_alive(found));
            }
            Op::Parent { group } => {
                let group = self.handle(group);
                let mut parent = 0;
                let status = unsafe { api::objcg_parent(group, &raw mut parent) };
                self.check(group, status);
                assert!(status != OK || self.is_alive(parent));
            }
            Op::Children { group, room, has_buffer } => self.children(self.handle(group), room, has_buffer),
            Op::Name { group, room, has_buffer } => {
                let group = self.handle(group);
                let mut buffer = vec![0x7f; usize::from(room)];
                let place = if has_buffer { buffer.as_mut_ptr() } else { ptr::null_mut() };
                let status = unsafe { api::objcg_name(group, place, buffer.len()) };
                self.check(group, status);
                assert!(status != OK || buffer.contains(&0), "a name without its end");
            }
            Op::Enter { group, has_previous } => {
                let group = self.handle(group);
                let mut previous = 0;
                let place = if has_previous { &raw mut previous } else { ptr::null_mut() };
                self.check(group, unsafe { api::objcg_enter(group, place) });
            }
            Op::Leave { group } => {
                let group = self.handle(group);
                self.check(group, api::objcg_leave(group));
            }
            Op::SetMax { group, nr_bytes } => {
                let group = self.handle(group);
                // The fuzzer itself allocates in the group that was entered, and does not survive a refusal.
                self.check(group, api::objcg_set_max(group, nr_bytes | 1 << 40));
            }
            Op::SetHigh { group, nr_bytes } => {
                let group = self.handle(group);
                self.check(group, api::objcg_set_high(group, nr_bytes));
            }
            Op::Look { group, nr_bytes } => self.look(self.handle(group), usize::from(nr_bytes)),
            _ => self.apply_to_memory(op),
        }
    }

    fn apply_to_memory(&mut self, op: &Op) {
        match *op {
            Op::Malloc { group, nr_bytes } if self.objects.len() < MAX_OBJECTS => {
                let group = self.handle(group);
                self.keep(memory::objcg_malloc(group, nr_bytes as usize % (1 << 20)), group);
            }
            Op::Calloc { group, nr_items, item_bytes } if self.objects.len() < MAX_OBJECTS => {
                let group = self.handle(group);
                let small =
                    nr_items.checked_mul(item_bytes).is_none_or(|nr_bytes| nr_bytes < 1 << 20 || nr_bytes > 1 << 50);
                if small {
                    self.keep(memory::objcg_calloc(group, nr_items as usize, item_bytes as usize), group);
                }
            }
            Op::AlignedAlloc { group, align, nr_bytes } if self.objects.len() < MAX_OBJECTS => {
                let group = self.handle(group);
                let object =
                    memory::objcg_aligned_alloc(group, align as usize % (1 << 23), nr_bytes as usize % (1 << 20));
                self.keep(object, group);
            }
            Op::Realloc { nth, nr_bytes } if !self.objects.is_empty() => {
                let nth = usize::from(nth) % self.objects.len();
                let moved = unsafe { surface::realloc(self.objects[nth], 1 + nr_bytes as usize % (1 << 20)) };
                if !moved.is_null() {
                    self.objects[nth] = moved;
                }
            }
            Op::Free { nth } if !self.objects.is_empty() => {
                let nth = usize::from(nth) % self.objects.len();
                unsafe { surface::free(self.objects.swap_remove(nth)) };
            }
            _ => {}
        }
    }

    fn children(&self, group: u64, room: u8, has_buffer: bool) {
        let mut buffer = vec![0u64; usize::from(room)];
        let mut nr_children = 0;
        let place = if has_buffer { buffer.as_mut_ptr() } else { ptr::null_mut() };
        let status = unsafe { api::objcg_children(group, place, buffer.len(), &raw mut nr_children) };
        self.check(group, status);
        if status == OK && has_buffer {
            assert!(buffer.iter().take(nr_children).all(|child| self.is_alive(*child)));
        }
    }

    fn look(&self, group: u64, nr_bytes: usize) {
        let mut word = 0;
        self.check(group, unsafe { api::objcg_usage(group, &raw mut word) });
        self.check(group, unsafe { api::objcg_peak(group, &raw mut word) });
        self.check(group, unsafe { api::objcg_max(group, &raw mut word) });
        self.check(group, unsafe { api::objcg_high(group, &raw mut word) });
        self.check(group, api::objcg_drain(group));
        assert_ne!(unsafe { api::objcg_usage(group, ptr::null_mut()) }, OK);
        // A caller that knows less of the structure, or more.
        let mut bytes = vec![0x7fu64; 64];
        let status = unsafe { api::objcg_stat(group, bytes.as_mut_ptr().cast(), nr_bytes.max(1)) };
        self.check(group, status);
        let status = unsafe { api::objcg_events(group, bytes.as_mut_ptr().cast(), nr_bytes.max(1)) };
        self.check(group, status);
        assert!(bytes[32..].iter().all(|word| *word == 0x7f7f_7f7f || *word == 0x7f), "more was written than was room");
    }

    fn end(mut self) {
        api::objcg_leave(api::objcg_root());
        for object in self.objects.drain(..) {
            unsafe { surface::free(object) };
        }
        // Children go before their parents: a parent with children refuses.
        while !self.known.is_empty() {
            let nr_before = self.known.len();
            self.known.retain(|group| api::objcg_delete(*group) != OK);
            assert!(self.known.len() < nr_before, "groups that cannot be deleted");
        }
        assert!(self.stale.iter().all(|group| api::objcg_drain(*group) == STALE), "a stale handle works");
    }
}

/// A C string: up to the first 0.
fn text(bytes: &[u8]) -> CString {
    CString::new(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).expect("without a 0")
}

fuzz_target!(|ops: Vec<Op>| {
    let mut model = Model::default();
    for op in &ops {
        model.apply(op);
    }
    model.end();
});
