//! Decodes the Parquet file, a row group at a time, into the columns of a [`Trace`].
//!
//! The schema is `shared/traces/README.md`'s: nine flat columns, found by name; further columns are ignored. Values may
//! be declared optional but must be there. Nothing of the file is believed before it is checked: rows are counted against
//! the file's size before they are decoded, and each row passes `check` before it is kept.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::column::reader::{get_column_reader, get_typed_column_reader};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::schema::types::ColumnDescriptor;

use super::check::{Checker, Contents};
use super::error::{Fault, FaultAt};
use super::pages::HonestPages;
use super::{CacheId, Event, GroupId, Op, Rows, Trace};
use crate::geometry::GeometryTable;

const MAGIC: &[u8; 4] = b"PAR1";
/// Values decoded at a time.
const BATCH: usize = 16 * 1024;
/// Recordings have a row in 4 to 5 bytes. A file with more rows than this a byte is refused, so that a small one cannot take
/// memory without bound: at most about 250 bytes of it for each of the file's, and a decompressed page.
const MAX_ROWS_PER_BYTE: u64 = 4;

pub(super) fn read(path: &Path) -> Result<Trace, FaultAt> {
    let mut file = File::open(path).map_err(Fault::Io)?;
    let nr_bytes = check_magic(&mut file)?;
    let reader = SerializedFileReader::new(file)?;
    let columns = Columns::find(reader.metadata())?;
    let geometry = read_geometry(reader.metadata())?;

    let nr_rows = u64::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(0);
    let mut rows = Rows::default();
    rows.reserve(usize::try_from(nr_rows.min(nr_bytes * MAX_ROWS_PER_BYTE)).unwrap_or(0));
    let mut names = Names::default();
    let mut checker = Checker::default();
    for index in 0..reader.num_row_groups() {
        check_density(rows.ts_ns.len(), reader.metadata().row_group(index).num_rows(), nr_bytes)?;
        let group = RawGroup::read(reader.get_row_group(index)?.as_ref(), &columns, &mut names, rows.ts_ns.len())?;
        checker.add_caches(&names.list, &geometry);
        group.append(&mut rows, &mut checker)?;
    }
    if rows.ts_ns.is_empty() {
        return Err(Fault::Empty.into());
    }
    let Contents { caches, nr_objects, nr_groups, nr_removed } = checker.finish();
    Ok(Trace { path: path.to_owned(), rows, caches, geometry, nr_objects, nr_groups, nr_removed })
}

/// Tells foreign and truncated files apart before the decoder sees them. Returns the file's length.
fn check_magic(file: &mut File) -> Result<u64, Fault> {
    let mut word = [0; 4];
    let nr_bytes = file.metadata().map_err(Fault::Io)?.len();
    if nr_bytes < 4 {
        return Err(Fault::NotParquet);
    }
    file.read_exact(&mut word).map_err(Fault::Io)?;
    if &word != MAGIC {
        return Err(Fault::NotParquet);
    }
    file.seek(SeekFrom::End(-4)).map_err(Fault::Io)?;
    file.read_exact(&mut word).map_err(Fault::Io)?;
    if nr_bytes < 12 || &word != MAGIC {
        return Err(Fault::Truncated);
    }
    file.rewind().map_err(Fault::Io)?;
    Ok(nr_bytes)
}

/// Whether the rows so far, and those of the next row group, can be in that many bytes.
fn check_density(nr_before: usize, nr_more: i64, nr_bytes: u64) -> Result<(), Fault> {
    // A negative number is found by the decoder.
    let nr_rows = (nr_before as u64).saturating_add(u64::try_from(nr_more).unwrap_or(0));
    if nr_rows > nr_bytes * MAX_ROWS_PER_BYTE { Err(Fault::TooDense { nr_rows, nr_bytes }) } else { Ok(()) }
}

fn read_geometry(metadata: &ParquetMetaData) -> Result<GeometryTable, Fault> {
    let text = metadata
        .file_metadata()
        .key_value_metadata()
        .into_iter()
        .flatten()
        .find(|pair| pair.key == "slab_geometry")
        .and_then(|pair| pair.value.as_deref())
        .ok_or(Fault::GeometryMissing)?;
    GeometryTable::parse(text)
}

/// Where each column of the schema is in the file.
struct Columns {
    ts_ns: Column,
    cpu: Column,
    cgroup: Column,
    op: Column,
    obj: Column,
    size: Column,
    alloc_size: Column,
    cache: Column,
    accounted: Column,
}

#[derive(Clone, Copy)]
struct Column {
    name: &'static str,
    wanted: &'static str,
    index: usize,
}

impl Columns {
    fn find(metadata: &ParquetMetaData) -> Result<Columns, Fault> {
        let schema = metadata.file_metadata().schema_descr();
        let find = |name: &'static str, wanted: &'static str, fits: fn(&ColumnDescriptor) -> bool| {
            let index = schema
                .columns()
                .iter()
                .position(|column| column.path().parts() == [name])
                .ok_or(Fault::MissingColumn(name))?;
            let column = schema.column(index);
            if column.max_rep_level() == 0 && fits(&column) {
                Ok(Column { name, wanted, index })
            } else {
                Err(Fault::ColumnType { column: name, found: describe(&column), wanted })
            }
        };
        Ok(Columns {
            ts_ns: find("ts_ns", "u64", |c| is_unsigned(c, 64))?,
            cpu: find("cpu", "u16", |c| is_unsigned(c, 16))?,
            cgroup: find("cgroup", "u32", |c| is_unsigned(c, 32))?,
            op: find("op", "u8", |c| is_unsigned(c, 8))?,
            obj: find("obj", "u64", |c| is_unsigned(c, 64))?,
            size: find("size", "u32", |c| is_unsigned(c, 32))?,
            alloc_size: find("alloc_size", "u32", |c| is_unsigned(c, 32))?,
            cache: find("cache", "string", is_string)?,
            accounted: find("accounted", "bool", |c| c.physical_type() == PhysicalType::BOOLEAN)?,
        })
    }
}

fn is_unsigned(column: &ColumnDescriptor, bits: i8) -> bool {
    let (physical, converted) = match bits {
        8 => (PhysicalType::INT32, ConvertedType::UINT_8),
        16 => (PhysicalType::INT32, ConvertedType::UINT_16),
        32 => (PhysicalType::INT32, ConvertedType::UINT_32),
        _ => (PhysicalType::INT64, ConvertedType::UINT_64),
    };
    column.physical_type() == physical
        && (column.converted_type() == converted
            || column.logical_type_ref() == Some(&LogicalType::integer(bits, false)))
}

fn is_string(column: &ColumnDescriptor) -> bool {
    column.physical_type() == PhysicalType::BYTE_ARRAY
        && (column.converted_type() == ConvertedType::UTF8 || column.logical_type_ref() == Some(&LogicalType::String))
}

fn describe(column: &ColumnDescriptor) -> String {
    if column.max_rep_level() > 0 {
        return "a list".to_owned();
    }
    match column.converted_type() {
        ConvertedType::NONE => column.physical_type().to_string(),
        converted => converted.to_string(),
    }
}

/// The cache names of a file, numbered by first appearance.
#[derive(Default)]
struct Names {
    ids: HashMap<Box<[u8]>, u16>,
    list: Vec<Box<str>>,
}

impl Names {
    fn intern(&mut self, name: &[u8]) -> Result<u16, Fault> {
        if let Some(&id) = self.ids.get(name) {
            return Ok(id);
        }
        let id = u16::try_from(self.list.len()).map_err(|_| Fault::TooMany("caches"))?;
        // Names are printed: control characters and broken UTF-8 must not reach a terminal.
        self.list.push(String::from_utf8_lossy(name).escape_debug().to_string().into());
        self.ids.insert(name.into(), id);
        Ok(id)
    }
}

/// One row group as it stands in the file, before any row is believed.
struct RawGroup {
    first_row: usize,
    ts_ns: Vec<u64>,
    cpu: Vec<u16>,
    cgroup: Vec<u32>,
    op: Vec<u8>,
    obj: Vec<u64>,
    size: Vec<u32>,
    alloc_size: Vec<u32>,
    cache: Vec<u16>,
    accounted: Vec<bool>,
}

impl RawGroup {
    fn read(
        group: &dyn RowGroupReader,
        columns: &Columns,
        names: &mut Names,
        first_row: usize,
    ) -> Result<RawGroup, FaultAt> {
        let source = Source { group, first_row };
        // Unsigned values stand in Parquet's signed types. Where they fill them, the casts below give the bits back.
        #[expect(clippy::cast_sign_loss, reason = "unsigned in a signed carrier")]
        Ok(RawGroup {
            first_row,
            ts_ns: source.column::<Int64Type, _>(columns.ts_ns, |v| Ok(*v as u64))?,
            cpu: source.column::<Int32Type, _>(columns.cpu, |v| narrow(columns.cpu, *v))?,
            cgroup: source.column::<Int32Type, _>(columns.cgroup, |v| Ok(*v as u32))?,
            op: source.column::<Int32Type, _>(columns.op, |v| narrow(columns.op, *v))?,
            obj: source.column::<Int64Type, _>(columns.obj, |v| Ok(*v as u64))?,
            size: source.column::<Int32Type, _>(columns.size, |v| Ok(*v as u32))?,
            alloc_size: source.column::<Int32Type, _>(columns.alloc_size, |v| Ok(*v as u32))?,
            cache: source.column::<ByteArrayType, _>(columns.cache, |v: &ByteArray| names.intern(v.data()))?,
            accounted: source.column::<BoolType, _>(columns.accounted, |v| Ok(*v))?,
        })
    }

    fn append(self, rows: &mut Rows, checker: &mut Checker) -> Result<(), FaultAt> {
        for i in 0..self.ts_ns.len() {
            let at = |fault| FaultAt { row: Some((self.first_row + i) as u64 + 1), fault };
            let op = Op::from_code(self.op[i]).ok_or_else(|| at(Fault::UnknownOp(self.op[i])))?;
            let obj = checker.object_number(op, self.obj[i]).map_err(at)?;
            let event = Event {
                ts_ns: self.ts_ns[i],
                cpu: self.cpu[i],
                group: GroupId(self.cgroup[i]),
                op,
                obj,
                size: self.size[i],
                alloc_size: self.alloc_size[i],
                cache: CacheId(self.cache[i]),
                accounted: self.accounted[i],
            };
            checker.check(&event, rows).map_err(at)?;
            rows.push(&event);
        }
        Ok(())
    }
}

/// A value of a type that is narrower than its carrier. A writer can put there what the type cannot hold.
fn narrow<T: TryFrom<i32>>(column: Column, value: i32) -> Result<T, Fault> {
    T::try_from(value).map_err(|_| Fault::Overflow { column: column.name, value, wanted: column.wanted })
}

struct Source<'a> {
    group: &'a dyn RowGroupReader,
    first_row: usize,
}

impl Source<'_> {
    /// Decodes one column of the row group, `convert`ing each value.
    fn column<T: DataType, V>(
        &self,
        column: Column,
        mut convert: impl FnMut(&T::T) -> Result<V, Fault>,
    ) -> Result<Vec<V>, FaultAt> {
        let nr_rows = usize::try_from(self.group.metadata().num_rows()).unwrap_or(0);
        let at = |row: usize, fault| FaultAt { row: Some((self.first_row + row) as u64 + 1), fault };
        let chunk = self.group.metadata().column(column.index);
        let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
        if start < 0 || chunk.compressed_size() < 0 {
            // The decoder would panic.
            return Err(Fault::Parquet(format!("column {} lies at a negative place", column.name)).into());
        }
        let pages = HonestPages(self.group.get_column_page_reader(column.index)?);
        let declared = self.group.metadata().schema_descr().column(column.index);
        let mut reader = get_typed_column_reader::<T>(get_column_reader(declared, Box::new(pages)));
        let mut values = Vec::new();
        let (mut batch, mut levels) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        while values.len() < nr_rows {
            batch.clear();
            levels.clear();
            let wanted = BATCH.min(nr_rows - values.len());
            let (nr_records, nr_values, _) = reader
                .read_records(wanted, Some(&mut levels), None, &mut batch)
                .map_err(|error| at(values.len(), error.into()))?;
            if nr_records == 0 {
                return Err(at(values.len(), Fault::ShortColumn(column.name)));
            }
            if nr_values < nr_records {
                let null = levels.iter().position(|&level| level == 0).unwrap_or(0);
                return Err(at(values.len() + null, Fault::Null(column.name)));
            }
            for value in &batch {
                let value = convert(value).map_err(|fault| at(values.len(), fault))?;
                values.push(value);
            }
        }
        Ok(values)
    }
}
