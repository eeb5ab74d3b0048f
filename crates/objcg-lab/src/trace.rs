//! A recorded kernel allocation trace in memory.
//!
//! [`Trace::open`] reads a Parquet file, refuses what is inconsistent ([`TraceError`] carries file, row and reason) and
//! keeps the rows as a structure of arrays: 29 bytes a row, so that a fleet's hour fits in memory. Everything after it
//! may rely on the rules of `check`: an object is freed at most once and as what it was allocated, and no group is
//! used before it exists or after it is removed.
//!
//! Neighbours: `columns` decodes Parquet, `check` validates row by row, [`crate::geometry`] parses the slab geometry that
//! the file carries in its metadata. `replay` and `info` consume.

use std::path::{Path, PathBuf};

use crate::geometry::{GeometryTable, SlabShape};

mod check;
mod columns;
mod error;
mod pages;

pub use error::{Fault, TraceError};

/// A cgroup of the trace: 1, 2, 3 … in order of creation; 0 is the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The root: the kernel's own threads, interrupts, and whatever is not charged.
    pub const ROOT: GroupId = GroupId(0);

    /// As an index into a table that has the root at 0.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A slab cache of the trace, by order of first appearance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheId(pub u16);

impl CacheId {
    /// As an index into [`Trace::caches`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What a row says that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// An object was allocated.
    Alloc = 0,
    /// An object was freed.
    Free = 1,
    /// An object was freed without an event (bulk free, RCU batch); the row stands where its address was next used.
    FreeInferred = 2,
    /// A cgroup was created.
    GroupCreate = 3,
    /// A cgroup was removed.
    GroupRemove = 4,
    /// Per-CPU memory was allocated.
    PercpuAlloc = 5,
    /// Per-CPU memory was freed.
    PercpuFree = 6,
}

impl Op {
    const ALL: [Op; 7] =
        [Op::Alloc, Op::Free, Op::FreeInferred, Op::GroupCreate, Op::GroupRemove, Op::PercpuAlloc, Op::PercpuFree];

    fn from_code(code: u8) -> Option<Op> {
        Op::ALL.get(usize::from(code)).copied()
    }
}

/// Where the objects of a cache live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheKind {
    /// In slabs of this shape.
    Slab(SlabShape),
    /// In pages of their own: `kmalloc-large`.
    Large,
    /// In per-CPU chunks: `percpu`.
    Percpu,
    /// Nowhere: `-`, the cache of rows that are about groups.
    None,
}

/// A cache of the trace: the kernel's name of it and where its objects live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceCache {
    /// The kernel's name, as `dentry` or `kmalloc-cg-64`.
    pub name: Box<str>,
    /// Slab, large, per-CPU or none.
    pub kind: CacheKind,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since the recording began.
    pub ts_ns: u64,
    /// The CPU that it happened on.
    pub cpu: u16,
    /// The owner; on a free the owner of the object, not of the freeing task.
    pub group: GroupId,
    /// What happened.
    pub op: Op,
    /// Object number from 1; 0 on rows about groups.
    pub obj: u32,
    /// Bytes asked for.
    pub size: u32,
    /// Bytes of the slot.
    pub alloc_size: u32,
    /// The slab cache.
    pub cache: CacheId,
    /// Whether the allocation asked to be charged.
    pub accounted: bool,
}

/// A validated trace. See the module's head for what may be relied on.
///
/// # Examples
///
/// ```
/// use objcg_lab::Trace;
///
/// let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../traces/mixed.parquet");
/// let trace = Trace::open(path)?;
/// assert_eq!(trace.nr_rows(), 1_471_082);
/// assert_eq!(trace.nr_groups(), 206);
/// # Ok::<(), objcg_lab::TraceError>(())
/// ```
#[derive(Debug)]
pub struct Trace {
    path: PathBuf,
    rows: Rows,
    caches: Vec<TraceCache>,
    geometry: GeometryTable,
    nr_objects: u32,
    nr_groups: u32,
    nr_removed: u32,
}

/// The rows, a column each. `op_bits` is the op with [`ACCOUNTED`] or-ed in.
#[derive(Debug, Default)]
struct Rows {
    ts_ns: Vec<u64>,
    obj: Vec<u32>,
    group: Vec<u32>,
    size: Vec<u32>,
    alloc_size: Vec<u32>,
    cpu: Vec<u16>,
    cache: Vec<u16>,
    op_bits: Vec<u8>,
}

const ACCOUNTED: u8 = 0x80;

impl Trace {
    /// Reads and validates the file at `path`.
    ///
    /// # Errors
    ///
    /// A file that is missing, truncated, no Parquet, of another schema or inconsistent with itself. The error
    /// prints as one line: file, row (from 1) where there is one, reason.
    pub fn open(path: impl AsRef<Path>) -> Result<Trace, TraceError> {
        let path = path.as_ref();
        columns::read(path).map_err(|at| TraceError { path: path.to_owned(), row: at.row, fault: at.fault })
    }

    /// The file that it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's name without directory and extension; fit to be printed: `?` stands for control characters.
    #[must_use]
    pub fn name(&self) -> String {
        let stem = self.path.file_stem().map_or("trace".into(), |stem| stem.to_string_lossy());
        stem.replace(char::is_control, "?")
    }

    /// Rows of all kinds.
    #[must_use]
    pub fn nr_rows(&self) -> usize {
        self.rows.ts_ns.len()
    }

    /// Objects that are allocated anywhere in the trace; their numbers are 1 ..= this.
    #[must_use]
    pub fn nr_objects(&self) -> usize {
        self.nr_objects as usize
    }

    /// Cgroups that are created anywhere in the trace; their numbers are 1 ..= this.
    #[must_use]
    pub fn nr_groups(&self) -> usize {
        self.nr_groups as usize
    }

    /// Cgroups that are removed anywhere in the trace.
    #[must_use]
    pub fn nr_removed(&self) -> usize {
        self.nr_removed as usize
    }

    /// The caches, by [`CacheId`].
    #[must_use]
    pub fn caches(&self) -> &[TraceCache] {
        &self.caches
    }

    /// The kernel's slab geometry as the file carries it.
    #[must_use]
    pub fn geometry(&self) -> &GeometryTable {
        &self.geometry
    }

    /// The row at `row`, from 0.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    #[must_use]
    pub fn event(&self, row: usize) -> Event {
        self.rows.event(row)
    }

    /// All rows in time order.
    pub fn events(&self) -> impl Iterator<Item = Event> + '_ {
        (0..self.nr_rows()).map(|row| self.event(row))
    }

    /// Whether the object of this alloc or free row is in a slab: neither `kmalloc-large` nor per-CPU.
    #[must_use]
    pub fn in_slab(&self, event: &Event) -> bool {
        matches!(self.caches[event.cache.index()].kind, CacheKind::Slab(_))
    }

    /// Whether the object of this row is charged object by object: accounted, of a cgroup, and in a slab.
    #[must_use]
    pub fn is_charged(&self, event: &Event) -> bool {
        self.asks_for_charge(event) && self.in_slab(event)
    }

    /// Whether the object of this row, wherever it lives, is accounted and of a cgroup.
    #[must_use]
    pub fn asks_for_charge(&self, event: &Event) -> bool {
        event.accounted && event.group != GroupId::ROOT
    }

    /// From the first row to the last, in nanoseconds.
    #[must_use]
    pub fn span_ns(&self) -> u64 {
        match (self.rows.ts_ns.first(), self.rows.ts_ns.last()) {
            (Some(first), Some(last)) => last - first,
            _ => 0,
        }
    }
}

impl Rows {
    fn event(&self, row: usize) -> Event {
        let bits = self.op_bits[row];
        Event {
            ts_ns: self.ts_ns[row],
            cpu: self.cpu[row],
            group: GroupId(self.group[row]),
            op: Op::ALL[usize::from(bits & !ACCOUNTED)],
            obj: self.obj[row],
            size: self.size[row],
            alloc_size: self.alloc_size[row],
            cache: CacheId(self.cache[row]),
            accounted: bits & ACCOUNTED != 0,
        }
    }

    fn push(&mut self, event: &Event) {
        self.ts_ns.push(event.ts_ns);
        self.obj.push(event.obj);
        self.group.push(event.group.0);
        self.size.push(event.size);
        self.alloc_size.push(event.alloc_size);
        self.cpu.push(event.cpu);
        self.cache.push(event.cache.0);
        self.op_bits.push(event.op as u8 | if event.accounted { ACCOUNTED } else { 0 });
    }

    fn reserve(&mut self, rows: usize) {
        self.ts_ns.reserve_exact(rows);
        self.obj.reserve_exact(rows);
        self.group.reserve_exact(rows);
        self.size.reserve_exact(rows);
        self.alloc_size.reserve_exact(rows);
        self.cpu.reserve_exact(rows);
        self.cache.reserve_exact(rows);
        self.op_bits.reserve_exact(rows);
    }
}
