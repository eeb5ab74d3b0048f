//! The rules that a trace must hold to, row by row.
//!
//! Time does not go back. Objects are numbered 1, 2, 3 … in order of allocation, each is freed at most once and as what
//! it was allocated. Groups are numbered 1, 2, 3 … in order of creation; none is used before it exists, and none
//! allocates after its removal (a free may come later: that is what the lab is about). An object is asked for with at
//! least one byte and its slot is the one that the geometry gives its cache.

use super::error::Fault;
use super::{CacheKind, Event, GroupId, Op, Rows, TraceCache};
use crate::geometry::GeometryTable;

/// The largest `CONFIG_NR_CPUS` of any architecture.
const MAX_CPUS: u16 = 8192;
/// Set in an object's word once it is freed; the rest is the row of its allocation.
const FREED: u32 = 1 << 31;

#[derive(Default)]
pub(super) struct Checker {
    caches: Vec<CheckedCache>,
    /// By object number - 1: the row of its allocation, [`FREED`] or-ed in.
    objects: Vec<u32>,
    /// By group number - 1.
    removed: Vec<bool>,
    last_ts_ns: u64,
}

/// What a file held in all.
pub(super) struct Contents {
    pub(super) caches: Vec<TraceCache>,
    pub(super) nr_objects: u32,
    pub(super) nr_groups: u32,
    pub(super) nr_removed: u32,
}

/// A cache whose shape is not known is refused when an object of it appears, so that the error has a row.
struct CheckedCache {
    name: Box<str>,
    kind: Option<CacheKind>,
}

impl Checker {
    /// Classifies the caches that have appeared since the last call.
    pub(super) fn add_caches(&mut self, names: &[Box<str>], geometry: &GeometryTable) {
        for name in &names[self.caches.len()..] {
            let kind = match &**name {
                "-" => Some(CacheKind::None),
                "percpu" => Some(CacheKind::Percpu),
                "kmalloc-large" => Some(CacheKind::Large),
                _ => geometry.get(name).map(CacheKind::Slab),
            };
            self.caches.push(CheckedCache { name: name.clone(), kind });
        }
    }

    /// The object's number, known to be next (allocation), allocated (free) or 0 (group rows).
    pub(super) fn object_number(&self, op: Op, obj: u64) -> Result<u32, Fault> {
        let nr_objects = self.objects.len() as u64;
        match op {
            Op::Alloc | Op::PercpuAlloc if obj != nr_objects + 1 => {
                return Err(Fault::ObjectNotNext { obj, expected: nr_objects + 1 });
            }
            Op::Free | Op::FreeInferred | Op::PercpuFree if obj == 0 || obj > nr_objects => {
                return Err(Fault::FreeUnknown(obj));
            }
            Op::GroupCreate | Op::GroupRemove if obj != 0 => {
                return Err(Fault::ObjectOnGroupRow(obj));
            }
            _ => {}
        }
        u32::try_from(obj).ok().filter(|&obj| obj < FREED).ok_or(Fault::TooMany("objects"))
    }

    /// Checks `event`, which is the row that follows `rows`.
    pub(super) fn check(&mut self, event: &Event, rows: &Rows) -> Result<(), Fault> {
        if event.cpu >= MAX_CPUS {
            return Err(Fault::Cpu(event.cpu));
        }
        if event.ts_ns < self.last_ts_ns {
            return Err(Fault::TimeGoesBack { ts_ns: event.ts_ns, previous: self.last_ts_ns });
        }
        self.last_ts_ns = event.ts_ns;
        let row = u32::try_from(rows.ts_ns.len()).ok().filter(|&row| row < FREED).ok_or(Fault::TooMany("rows"))?;
        self.check_cache(event)?;
        match event.op {
            Op::Alloc | Op::PercpuAlloc => self.check_alloc(event, row),
            Op::Free | Op::FreeInferred | Op::PercpuFree => self.check_free(event, rows),
            Op::GroupCreate => self.check_create(event.group),
            Op::GroupRemove => self.check_remove(event.group),
        }
    }

    /// What the file held.
    pub(super) fn finish(self) -> Contents {
        let caches = self
            .caches
            .into_iter()
            .map(|cache| TraceCache { name: cache.name, kind: cache.kind.unwrap_or(CacheKind::None) })
            .collect();
        Contents {
            caches,
            nr_objects: count(self.objects.len()),
            nr_groups: count(self.removed.len()),
            nr_removed: count(self.removed.iter().filter(|&&removed| removed).count()),
        }
    }

    fn check_cache(&self, event: &Event) -> Result<(), Fault> {
        let cache = &self.caches[event.cache.index()];
        let fits = match (event.op, cache.kind) {
            (Op::Alloc | Op::Free | Op::FreeInferred, None) => {
                return Err(Fault::CacheWithoutGeometry(cache.name.to_string()));
            }
            (Op::Alloc | Op::Free | Op::FreeInferred, Some(CacheKind::Slab(shape))) => {
                if event.size != 0 && event.size <= event.alloc_size && event.alloc_size != shape.slot {
                    return Err(Fault::WrongSlot {
                        cache: cache.name.to_string(),
                        alloc_size: event.alloc_size,
                        slot: shape.slot,
                    });
                }
                true
            }
            (Op::Alloc | Op::Free | Op::FreeInferred, Some(kind)) => kind == CacheKind::Large,
            (Op::PercpuAlloc | Op::PercpuFree, kind) => kind == Some(CacheKind::Percpu),
            (Op::GroupCreate | Op::GroupRemove, kind) => kind == Some(CacheKind::None),
        };
        if fits { Ok(()) } else { Err(Fault::WrongCache { op: event.op as u8, cache: cache.name.to_string() }) }
    }

    fn check_alloc(&mut self, event: &Event, row: u32) -> Result<(), Fault> {
        if event.size == 0 {
            return Err(Fault::SizeZero);
        }
        if event.alloc_size < event.size {
            return Err(Fault::SlotTooSmall { size: event.size, alloc_size: event.alloc_size });
        }
        if event.group != GroupId::ROOT {
            match self.removed.get(event.group.index() - 1) {
                None => return Err(Fault::GroupUnknown(event.group.0)),
                Some(true) => return Err(Fault::GroupRemoved(event.group.0)),
                Some(false) => {}
            }
        }
        self.objects.push(row);
        Ok(())
    }

    fn check_free(&mut self, event: &Event, rows: &Rows) -> Result<(), Fault> {
        let word = &mut self.objects[event.obj as usize - 1];
        if *word & FREED != 0 {
            return Err(Fault::DoubleFree(event.obj));
        }
        let row = *word as usize;
        let allocation = rows.event(row);
        let mismatch = |field, freed: &dyn std::fmt::Display, allocated: &dyn std::fmt::Display| {
            Err(Fault::FreeMismatch {
                obj: event.obj,
                field,
                freed: freed.to_string(),
                allocated: allocated.to_string(),
                row: row as u64 + 1,
            })
        };
        if event.cache != allocation.cache {
            let name = |event: &Event| &self.caches[event.cache.index()].name;
            return mismatch("cache", name(event), name(&allocation));
        }
        if event.group != allocation.group {
            return mismatch("cgroup", &event.group.0, &allocation.group.0);
        }
        if event.size != allocation.size {
            return mismatch("size", &event.size, &allocation.size);
        }
        if event.alloc_size != allocation.alloc_size {
            return mismatch("alloc_size", &event.alloc_size, &allocation.alloc_size);
        }
        if event.accounted != allocation.accounted {
            return mismatch("accounted", &event.accounted, &allocation.accounted);
        }
        *word |= FREED;
        Ok(())
    }

    fn check_create(&mut self, group: GroupId) -> Result<(), Fault> {
        let expected = count(self.removed.len()) + 1;
        if group.0 != expected {
            return Err(Fault::GroupNotNext { group: group.0, expected });
        }
        self.removed.push(false);
        Ok(())
    }

    fn check_remove(&mut self, group: GroupId) -> Result<(), Fault> {
        let index = group.index().checked_sub(1).ok_or(Fault::RootRemoved)?;
        let removed = self.removed.get_mut(index).ok_or(Fault::GroupUnknown(group.0))?;
        if std::mem::replace(removed, true) {
            return Err(Fault::GroupRemoved(group.0));
        }
        Ok(())
    }
}

/// Rows are fewer than 2^31, and what is counted here has a row each.
fn count(len: usize) -> u32 {
    u32::try_from(len).expect("bounded by the rows")
}
