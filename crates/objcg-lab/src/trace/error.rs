//! Why a file is refused.

use std::path::PathBuf;

use thiserror::Error;

/// A refusal: the file, the row where there is one, and the reason. Prints as one line.
#[derive(Debug, Error)]
#[error("{}: {}{fault}", .path.display(), RowPrefix(*.row))]
pub struct TraceError {
    /// The file.
    pub path: PathBuf,
    /// The row, from 1.
    pub row: Option<u64>,
    /// The reason.
    pub fault: Fault,
}

/// What is wrong with the file, or with the row.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Fault {
    /// The file cannot be opened or read.
    #[error("{0}")]
    Io(std::io::Error),
    /// The file has no Parquet magic at its start.
    #[error("not a Parquet file")]
    NotParquet,
    /// The file starts as Parquet and does not end so.
    #[error("truncated Parquet file: the footer is missing")]
    Truncated,
    /// The Parquet decoder refuses the file.
    #[error("broken Parquet file: {0}")]
    Parquet(String),
    /// A column of the schema is missing.
    #[error("not an allocation trace: column {0} is missing")]
    MissingColumn(&'static str),
    /// A column has another type.
    #[error("not an allocation trace: column {column} is {found}, not {wanted}")]
    ColumnType {
        /// The column.
        column: &'static str,
        /// Its type in the file.
        found: String,
        /// Its type in the schema.
        wanted: &'static str,
    },
    /// A column ends before its row group does.
    #[error("column {0} ends here, the others go on")]
    ShortColumn(&'static str),
    /// A value is missing.
    #[error("column {0} is null")]
    Null(&'static str),
    /// A value does not fit its column's type, only the carrier that Parquet gives it.
    #[error("column {column} has {value}, which is no {wanted}")]
    Overflow {
        /// The column.
        column: &'static str,
        /// Its value.
        value: i32,
        /// Its type.
        wanted: &'static str,
    },
    /// More rows, caches or objects than the reader's ids can number.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// More rows than any recording has in so few bytes: read, they would take memory without bound.
    #[error("{nr_rows} rows in a file of {nr_bytes} bytes: no recording is so dense")]
    TooDense {
        /// Rows up to and with the row group at which it was seen.
        nr_rows: u64,
        /// Bytes of the file.
        nr_bytes: u64,
    },
    /// There are no rows.
    #[error("the trace has no events")]
    Empty,

    /// The file carries no slab geometry.
    #[error("no slab_geometry in the file's metadata")]
    GeometryMissing,
    /// The slab geometry does not parse.
    #[error("slab_geometry, line {line}: {reason}")]
    GeometryBroken {
        /// Line of the CSV, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The row's cache is not in the slab geometry.
    #[error("cache {0} is not in slab_geometry")]
    CacheWithoutGeometry(String),
    /// The row's slot is not that of its cache.
    #[error("slot of {alloc_size} bytes, but those of cache {cache} have {slot}")]
    WrongSlot {
        /// The cache.
        cache: String,
        /// `alloc_size` of the row.
        alloc_size: u32,
        /// Slot size of the geometry.
        slot: u32,
    },

    /// `op` is not 0 ..= 6.
    #[error("unknown op {0}")]
    UnknownOp(u8),
    /// No kernel has that many CPUs.
    #[error("cpu {0} is out of range")]
    Cpu(u16),
    /// Earlier than the row before.
    #[error("time goes back from {previous} to {ts_ns} ns")]
    TimeGoesBack {
        /// Time of this row.
        ts_ns: u64,
        /// Time of the row before.
        previous: u64,
    },
    /// The op and the cache do not go together, as a slab allocation of cache `percpu`.
    #[error("op {op} with cache {cache}")]
    WrongCache {
        /// The op's code.
        op: u8,
        /// The cache's name.
        cache: String,
    },
    /// A row about a group names an object.
    #[error("object {0} on a row about a group")]
    ObjectOnGroupRow(u64),
    /// Objects are numbered 1, 2, 3 … in order of allocation; this one is not next.
    #[error("allocation of object {obj}, but {expected} is next")]
    ObjectNotNext {
        /// The object.
        obj: u64,
        /// The number that would be next.
        expected: u64,
    },
    /// Nothing was asked for.
    #[error("size is 0")]
    SizeZero,
    /// The slot is smaller than the object.
    #[error("slot of {alloc_size} bytes for an object of {size}")]
    SlotTooSmall {
        /// Bytes asked for.
        size: u32,
        /// Bytes of the slot.
        alloc_size: u32,
    },
    /// A free of what was never allocated.
    #[error("free of object {0}, which was never allocated")]
    FreeUnknown(u64),
    /// A second free.
    #[error("double free of object {0}")]
    DoubleFree(u32),
    /// The free does not fit its allocation.
    #[error("object {obj} is freed with {field} {freed}, but was allocated with {allocated} in row {row}")]
    FreeMismatch {
        /// The object.
        obj: u32,
        /// The column that differs.
        field: &'static str,
        /// Its value on the free.
        freed: String,
        /// Its value on the allocation.
        allocated: String,
        /// The allocation's row, from 1.
        row: u64,
    },
    /// Groups are numbered 1, 2, 3 … in order of creation; this one is not next.
    #[error("creation of cgroup {group}, but {expected} is next")]
    GroupNotNext {
        /// The group.
        group: u32,
        /// The number that would be next.
        expected: u32,
    },
    /// A group is used or removed before it is created.
    #[error("cgroup {0} is used before it exists")]
    GroupUnknown(u32),
    /// A group is used or removed after it is removed.
    #[error("cgroup {0} is used after it was removed")]
    GroupRemoved(u32),
    /// The root is removed.
    #[error("the root cgroup cannot be removed")]
    RootRemoved,
}

/// A fault and where it is; the path is added at the top.
pub(super) struct FaultAt {
    pub(super) row: Option<u64>,
    pub(super) fault: Fault,
}

impl From<Fault> for FaultAt {
    fn from(fault: Fault) -> FaultAt {
        FaultAt { row: None, fault }
    }
}

impl From<parquet::errors::ParquetError> for FaultAt {
    fn from(error: parquet::errors::ParquetError) -> FaultAt {
        Fault::from(error).into()
    }
}

impl From<parquet::errors::ParquetError> for Fault {
    fn from(error: parquet::errors::ParquetError) -> Fault {
        // The promise is one line; decoders below Parquet do not all keep it.
        Fault::Parquet(error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

struct RowPrefix(Option<u64>);

impl std::fmt::Display for RowPrefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |row| write!(f, "row {row}: "))
    }
}
