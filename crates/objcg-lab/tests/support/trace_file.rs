//! Writes small traces, sound or broken on purpose, as Parquet.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

pub(crate) const ALLOC: i32 = 0;
pub(crate) const FREE: i32 = 1;
pub(crate) const CREATE: i32 = 3;
pub(crate) const REMOVE: i32 = 4;
pub(crate) const PERCPU_ALLOC: i32 = 5;
pub(crate) const PERCPU_FREE: i32 = 6;

/// Four objects a slab and eight a slab.
pub(crate) const GEOMETRY: &str = "cache,slab_size,objs_per_slab,pages_per_slab\nfour,1024,4,1\neight,512,8,1\n";

/// The columns of a trace: name, Parquet type, annotation.
const SCHEMA: [(&str, &str, &str); 9] = [
    ("ts_ns", "INT64", "(INTEGER(64,false))"),
    ("cpu", "INT32", "(INTEGER(16,false))"),
    ("cgroup", "INT32", "(INTEGER(32,false))"),
    ("op", "INT32", "(INTEGER(8,false))"),
    ("obj", "INT64", "(INTEGER(64,false))"),
    ("size", "INT32", "(INTEGER(32,false))"),
    ("alloc_size", "INT32", "(INTEGER(32,false))"),
    ("cache", "BYTE_ARRAY", "(STRING)"),
    ("accounted", "BOOLEAN", ""),
];

/// One row, in Parquet's signed carriers, so that a test can write what no `u8` or `u16` holds.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) ts_ns: i64,
    pub(crate) cpu: i32,
    pub(crate) cgroup: i32,
    pub(crate) op: i32,
    pub(crate) obj: i64,
    pub(crate) size: i32,
    pub(crate) alloc_size: i32,
    pub(crate) cache: &'static str,
    pub(crate) accounted: bool,
}

impl Row {
    fn object(op: i32, obj: i64, cgroup: i32, cache: &'static str) -> Row {
        let alloc_size = if cache == "eight" { 512 } else { 1024 };
        Row { ts_ns: 0, cpu: 0, cgroup, op, obj, size: alloc_size - 24, alloc_size, cache, accounted: true }
    }

    fn group(op: i32, cgroup: i32) -> Row {
        Row { ts_ns: 0, cpu: 0, cgroup, op, obj: 0, size: 0, alloc_size: 0, cache: "-", accounted: false }
    }
}

/// An accounted allocation.
pub(crate) fn alloc(obj: i64, cgroup: i32, cache: &'static str) -> Row {
    Row::object(ALLOC, obj, cgroup, cache)
}

/// The free of what [`alloc`] made.
pub(crate) fn free(obj: i64, cgroup: i32, cache: &'static str) -> Row {
    Row::object(FREE, obj, cgroup, cache)
}

/// An accounted allocation of `size` bytes on each of two CPUs, as the recording kernel charges it.
pub(crate) fn percpu_alloc(obj: i64, cgroup: i32, size: i32) -> Row {
    Row { size, alloc_size: 2 * size + size.div_euclid(4) * 8, ..Row::object(PERCPU_ALLOC, obj, cgroup, "percpu") }
}

/// The free of what [`percpu_alloc`] made.
pub(crate) fn percpu_free(obj: i64, cgroup: i32, size: i32) -> Row {
    Row { op: PERCPU_FREE, ..percpu_alloc(obj, cgroup, size) }
}

pub(crate) fn create(cgroup: i32) -> Row {
    Row::group(CREATE, cgroup)
}

pub(crate) fn remove(cgroup: i32) -> Row {
    Row::group(REMOVE, cgroup)
}

/// A file to be written. [`TraceFile::of`] is sound if its rows are.
pub(crate) struct TraceFile {
    rows: Vec<Row>,
    geometry: Option<String>,
    /// Replaces the type and annotation of a column; an empty one leaves the column out.
    column: Option<(&'static str, &'static str)>,
    /// Row from 1 and column.
    null: Option<(usize, &'static str)>,
    rows_per_group: usize,
}

impl TraceFile {
    /// The rows in this order. Times that are 0 become the row's number in microseconds.
    pub(crate) fn of(rows: impl IntoIterator<Item = Row>) -> TraceFile {
        let mut rows: Vec<Row> = rows.into_iter().collect();
        for (row, ts_ns) in rows.iter_mut().zip((0..).step_by(1000)) {
            if row.ts_ns == 0 {
                row.ts_ns = ts_ns;
            }
        }
        TraceFile { rows, geometry: Some(GEOMETRY.to_owned()), column: None, null: None, rows_per_group: usize::MAX }
    }

    pub(crate) fn geometry(mut self, geometry: Option<&str>) -> TraceFile {
        self.geometry = geometry.map(str::to_owned);
        self
    }

    /// Declares a column to be of another type: `"INT64 (INTEGER(64,true))"`.
    pub(crate) fn retyped(mut self, column: &'static str, declaration: &'static str) -> TraceFile {
        self.column = Some((column, declaration));
        self
    }

    pub(crate) fn without(self, column: &'static str) -> TraceFile {
        self.retyped(column, "")
    }

    /// Makes a value null; `row` is from 1.
    pub(crate) fn null(mut self, row: usize, column: &'static str) -> TraceFile {
        self.null = Some((row, column));
        self
    }

    pub(crate) fn rows_per_group(mut self, nr_rows: usize) -> TraceFile {
        self.rows_per_group = nr_rows;
        self
    }

    /// Writes it as `name` in `directory`.
    pub(crate) fn write(&self, directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(name);
        let columns: Vec<_> = SCHEMA.iter().filter(|(name, ..)| self.column != Some((name, ""))).collect();
        let mut schema = "message trace {\n".to_owned();
        for (name, carrier, annotation) in columns.iter().copied() {
            let (carrier, annotation) = match self.column {
                Some((other, declaration)) if other == *name => {
                    declaration.split_once(' ').unwrap_or((declaration, ""))
                }
                _ => (*carrier, *annotation),
            };
            let repetition = if self.null.is_some_and(|(_, column)| column == *name) { "OPTIONAL" } else { "REQUIRED" };
            schema += &format!("{repetition} {carrier} {name} {annotation};\n");
        }
        let schema = Arc::new(parse_message_type(&(schema + "}")).expect("a schema"));
        let geometry = self.geometry.clone().map(|text| vec![KeyValue::new("slab_geometry".to_owned(), text)]);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(parquet::basic::ZstdLevel::default()))
            .set_key_value_metadata(geometry);
        let file = File::create(&path).expect("a writable directory");
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties.build())).expect("a writer");
        for (nth, rows) in self.rows.chunks(self.rows_per_group.min(self.rows.len().max(1))).enumerate() {
            let mut group = writer.next_row_group().expect("a row group");
            for (name, ..) in columns.iter().copied() {
                self.write_column(&mut group, name, rows, nth * self.rows_per_group);
            }
            group.close().expect("a whole row group");
        }
        writer.close().expect("a whole file");
        path
    }

    fn write_column(&self, group: &mut SerializedRowGroupWriter<'_, File>, name: &str, rows: &[Row], first: usize) {
        let null = self.null.filter(|(_, column)| *column == name);
        let levels: Option<Vec<i16>> =
            null.map(|(null, _)| (0..rows.len()).map(|at| i16::from(first + at + 1 != null)).collect());
        let is_there = |at: &usize| levels.as_ref().is_none_or(|levels| levels[*at] == 1);
        let rows: Vec<&Row> = (0..rows.len()).filter(is_there).map(|at| &rows[at]).collect();
        let levels = levels.as_deref();
        let mut column = group.next_column().expect("a column").expect("as many as the schema has");
        let written = match column.untyped() {
            ColumnWriter::Int64ColumnWriter(writer) => {
                writer.write_batch(&rows.iter().map(|row| long(row, name)).collect::<Vec<_>>(), levels, None)
            }
            ColumnWriter::Int32ColumnWriter(writer) => {
                writer.write_batch(&rows.iter().map(|row| int(row, name)).collect::<Vec<_>>(), levels, None)
            }
            ColumnWriter::BoolColumnWriter(writer) => {
                writer.write_batch(&rows.iter().map(|row| row.accounted).collect::<Vec<_>>(), levels, None)
            }
            ColumnWriter::ByteArrayColumnWriter(writer) => {
                writer.write_batch(&rows.iter().map(|row| ByteArray::from(row.cache)).collect::<Vec<_>>(), levels, None)
            }
            _ => unreachable!("no schema here has another type"),
        };
        written.expect("values that fit the column");
        column.close().expect("a whole column");
    }
}

fn long(row: &Row, column: &str) -> i64 {
    match column {
        "ts_ns" => row.ts_ns,
        "obj" => row.obj,
        narrow => int(row, narrow).into(),
    }
}

fn int(row: &Row, column: &str) -> i32 {
    match column {
        "cpu" => row.cpu,
        "cgroup" => row.cgroup,
        "op" => row.op,
        "size" => row.size,
        "alloc_size" => row.alloc_size,
        other => unreachable!("{other} is not written as INT32"),
    }
}
