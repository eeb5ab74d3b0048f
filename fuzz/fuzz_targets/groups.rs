//! Trees of groups against a model: names, links, handles, tickets, limits, threads moved into groups, and every refusal.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use objcg_core::memcg::{self, CreateError, DeleteError, LimitError, Memcg, NameError};

#[derive(Arbitrary, Debug)]
enum Op {
    Create { handle: u8, name: Name },
    Child { handle: u8, name: Name },
    Parent { handle: u8 },
    Children { handle: u8, room: u8 },
    Delete { handle: u8 },
    Clone { handle: u8 },
    Drop { handle: u8 },
    Ticket { ticket: u8 },
    AnyTicket { ticket: u64 },
    SetMax { handle: u8, max: Option<u64> },
    SetHigh { handle: u8, high: Option<u64> },
    MoveInto { handle: u8 },
    Look { handle: u8 },
}

#[derive(Arbitrary, Debug)]
enum Name {
    /// One of a few, so that names meet.
    Short(u8),
    Any(String),
    Long(u8, u16),
}

impl Name {
    fn text(&self) -> String {
        match self {
            Name::Short(nth) => format!("n{}", nth % 6),
            Name::Any(text) => text.clone(),
            Name::Long(byte, len) => char::from(byte % 26 + b'a').to_string().repeat(usize::from(*len) % 300),
        }
    }
}

fn name_error(name: &str) -> Option<NameError> {
    match name {
        "" => Some(NameError::Empty),
        name if name.contains('/') => Some(NameError::Slash),
        name if name.len() > 255 => Some(NameError::TooLong),
        _ => None,
    }
}

const MAX_HANDLES: usize = 100;
const ROOT: usize = 0;

/// What the model knows of a group, by its number in order of creation.
struct Group {
    parent: usize,
    name: String,
    alive: bool,
    nr_handles: usize,
    ticket: u64,
    max: Option<u64>,
    high: Option<u64>,
    /// By name, with the group's number.
    children: BTreeMap<String, usize>,
}

struct Model {
    groups: Vec<Group>,
    handles: Vec<(usize, Memcg)>,
    /// The group that this thread was moved into.
    moved_into: usize,
}

impl Group {
    fn new(parent: usize, name: &str, ticket: u64) -> Group {
        let children = BTreeMap::new();
        Group { parent, name: name.to_owned(), alive: true, nr_handles: 0, ticket, max: None, high: None, children }
    }
}

impl Model {
    fn new() -> Model {
        let root = Memcg::root();
        let mut model =
            Model { groups: vec![Group::new(ROOT, "", root.ticket())], handles: Vec::new(), moved_into: ROOT };
        model.keep(ROOT, root);
        model
    }

    fn keep(&mut self, group: usize, handle: Memcg) {
        self.groups[group].nr_handles += 1;
        self.handles.push((group, handle));
    }

    fn handle(&self, nth: u8) -> (usize, &Memcg) {
        let (group, handle) = &self.handles[usize::from(nth) % self.handles.len()];
        (*group, handle)
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { handle, name } => self.create(*handle, &name.text()),
            Op::Child { handle, name } => self.child(*handle, &name.text()),
            Op::Parent { handle } => {
                let (group, handle) = self.handle(*handle);
                let found = handle.parent();
                let has_parent = group != ROOT && self.groups[group].alive;
                assert_eq!(found.is_some(), has_parent);
                if let Some(found) = found {
                    let parent = self.groups[group].parent;
                    assert_eq!(found.ticket(), self.groups[parent].ticket);
                }
            }
            Op::Children { handle, room } => self.children(*handle, *room),
            Op::Delete { handle } => self.delete(*handle),
            Op::Clone { handle } if self.handles.len() < MAX_HANDLES => {
                let (group, handle) = self.handle(*handle);
                let handle = handle.clone();
                self.keep(group, handle);
            }
            Op::Clone { .. } => {}
            Op::Drop { handle } if self.handles.len() > 1 => {
                // The first is the root's, which stays.
                let nth = 1 + usize::from(*handle) % (self.handles.len() - 1);
                let (group, handle) = self.handles.swap_remove(nth);
                drop(handle);
                self.release(group);
            }
            Op::Drop { .. } => {}
            Op::Ticket { ticket } => {
                let group = usize::from(*ticket) % self.groups.len();
                let found = Memcg::of_ticket(self.groups[group].ticket);
                assert_eq!(found.is_some(), self.groups[group].alive, "the ticket of {}", self.groups[group].name);
                if let Some(found) = found {
                    assert_eq!(found.name().as_str(), self.groups[group].name);
                }
            }
            Op::AnyTicket { ticket } => {
                let is_known = self.groups.iter().any(|group| group.alive && group.ticket == *ticket);
                assert_eq!(Memcg::of_ticket(*ticket).is_some(), is_known, "ticket {ticket:#x}");
            }
            Op::SetMax { handle, max } => {
                // A limit below what the tree itself takes would refuse groups that the model expects.
                let max = max.map(|max| max | 1 << 40);
                let (group, handle) = self.handle(*handle);
                let expected = self.limit_error(group);
                assert_eq!(handle.set_max(max).err(), expected);
                if expected.is_none() {
                    self.groups[group].max = max.filter(|max| *max != u64::MAX);
                }
            }
            Op::SetHigh { handle, high } => {
                let (group, handle) = self.handle(*handle);
                let expected = self.limit_error(group);
                assert_eq!(handle.set_high(*high).err(), expected);
                if expected.is_none() {
                    self.groups[group].high = high.filter(|high| *high != u64::MAX);
                }
            }
            Op::MoveInto { handle } => self.move_into(*handle),
            Op::Look { handle } => self.look(*handle),
        }
    }

    fn children(&self, handle: u8, room: u8) {
        let (group, handle) = self.handle(handle);
        let mut room: Vec<Option<Memcg>> = (0..room % 16).map(|_| None).collect();
        let nr_children = handle.children(&mut room);
        // Newest first.
        let mut expected: Vec<usize> = self.groups[group].children.values().copied().collect();
        expected.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(nr_children, expected.len());
        let found: Vec<u64> = room.iter().flatten().map(Memcg::ticket).collect();
        let expected = expected.iter().take(room.len()).map(|nth| self.groups[*nth].ticket);
        assert_eq!(found, expected.collect::<Vec<_>>());
    }

    fn move_into(&mut self, handle: u8) {
        let (group, handle) = self.handle(handle);
        let handle = handle.clone();
        // The thread's handle counts as one.
        self.groups[group].nr_handles += 1;
        let before = memcg::move_into(handle).expect("there is memory");
        let previous = std::mem::replace(&mut self.moved_into, group);
        assert_eq!(before, self.groups[previous].ticket);
        self.release(previous);
    }

    fn limit_error(&self, group: usize) -> Option<LimitError> {
        match group {
            ROOT => Some(LimitError::Root),
            group => (!self.groups[group].alive).then_some(LimitError::Deleted),
        }
    }

    fn create(&mut self, handle: u8, name: &str) {
        if self.handles.len() >= MAX_HANDLES {
            return;
        }
        let (parent, handle) = self.handle(handle);
        let expected = match name_error(name) {
            Some(error) => Some(CreateError::Name(error)),
            None if !self.groups[parent].alive => Some(CreateError::ParentDeleted),
            None => self.groups[parent].children.contains_key(name).then_some(CreateError::Exists),
        };
        let created = handle.create(name);
        assert_eq!(created.as_ref().err(), expected.as_ref(), "{name:?}");
        if let Ok(created) = created {
            let number = self.groups.len();
            self.groups[parent].children.insert(name.to_owned(), number);
            // A living child is a user of its parent.
            self.groups[parent].nr_handles += 1;
            self.groups.push(Group::new(parent, name, created.ticket()));
            self.keep(number, created);
        }
    }

    fn child(&mut self, handle: u8, name: &str) {
        let (parent, handle) = self.handle(handle);
        let found = handle.child(name);
        let expected = self.groups[parent].children.get(name).copied();
        assert_eq!(found.as_ref().map(Memcg::ticket), expected.map(|nth| self.groups[nth].ticket), "{name:?}");
        if let (Some(number), Some(found), true) = (expected, found, self.handles.len() < MAX_HANDLES) {
            self.keep(number, found);
        }
    }

    fn delete(&mut self, handle: u8) {
        let (group, handle) = self.handle(handle);
        let expected = match group {
            ROOT => Some(DeleteError::Root),
            _ if !self.groups[group].alive => Some(DeleteError::Deleted),
            _ => (!self.groups[group].children.is_empty()).then_some(DeleteError::HasChildren),
        };
        assert_eq!(handle.delete().err(), expected);
        if expected.is_none() {
            self.end(group);
        }
    }

    /// The group is gone, and its parent loses a user.
    fn end(&mut self, group: usize) {
        self.groups[group].alive = false;
        let (parent, name) = (self.groups[group].parent, self.groups[group].name.clone());
        self.groups[parent].children.remove(&name);
        self.release(parent);
    }

    /// A handle is gone; the last one's end deletes the group.
    fn release(&mut self, group: usize) {
        if group == ROOT {
            return;
        }
        self.groups[group].nr_handles -= 1;
        if self.groups[group].nr_handles == 0 && self.groups[group].alive {
            self.end(group);
        }
    }

    fn look(&self, handle: u8) {
        let (group, handle) = self.handle(handle);
        let known = &self.groups[group];
        assert_eq!(handle.name().as_str(), known.name);
        assert_eq!(handle.is_deleted(), !known.alive);
        assert_eq!(handle.ticket(), known.ticket);
        if known.alive {
            assert_eq!((handle.max(), handle.high()), (known.max, known.high));
            handle.drain();
            assert_eq!(handle.usage(), handle.stat().total_bytes());
        } else {
            assert_eq!((handle.usage(), handle.stat().total_bytes()), (0, 0));
        }
    }

    fn check(&self) {
        let nr_alive = self.groups.iter().filter(|group| group.alive).count();
        assert_eq!(memcg::nr_groups(), nr_alive - 1);
        assert_eq!(memcg::moved_into(), self.groups[self.moved_into].ticket);
    }
}

fuzz_target!(|ops: Vec<Op>| {
    let mut model = Model::new();
    for op in &ops {
        model.apply(op);
        model.check();
    }
    memcg::move_into(Memcg::root()).expect("there is memory");
    drop(model);
    Memcg::root().drain();
    assert_eq!((memcg::nr_groups(), memcg::nr_dying(), memcg::nr_vessels()), (0, 0, 0));
    assert_eq!(Memcg::root().usage(), 0);
});
