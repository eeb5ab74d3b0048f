//! The kernel's slab geometry: how many slots of which size a slab of each cache has.
//!
//! A trace carries it as CSV in its metadata (`slab_geometry`), one line a cache, as the recording kernel showed it in
//! `/sys/kernel/slab`. [`GeometryTable`] is that table by cache name.

use std::collections::HashMap;

use crate::trace::Fault;

/// Bytes of a page of the recording kernel.
pub const PAGE_SIZE: u32 = 4096;

/// One slab of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlabShape {
    /// Bytes of a slot: the object, its padding and alignment.
    pub slot: u32,
    /// Slots of a slab.
    pub objects: u32,
    /// Pages of a slab, of [`PAGE_SIZE`] bytes.
    pub pages: u32,
}

/// Shapes by cache name.
#[derive(Clone, Debug, Default)]
pub struct GeometryTable {
    shapes: HashMap<Box<str>, SlabShape>,
}

impl GeometryTable {
    /// Parses the CSV. Columns are found by their names; others than these are ignored: `cache`, `slab_size` (the
    /// slot), `objs_per_slab`, `pages_per_slab`.
    ///
    /// # Errors
    ///
    /// [`Fault::GeometryBroken`] with the line, if a column is missing, a number does not parse, a cache is listed
    /// twice, or the objects do not fit the pages.
    ///
    /// # Examples
    ///
    /// ```
    /// use objcg_lab::GeometryTable;
    ///
    /// let table = GeometryTable::parse("cache,slab_size,objs_per_slab,pages_per_slab\ndentry,192,21,1\n")?;
    /// assert_eq!(table.get("dentry").map(|shape| shape.objects), Some(21));
    /// # Ok::<(), objcg_lab::Fault>(())
    /// ```
    pub fn parse(text: &str) -> Result<GeometryTable, Fault> {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let headers = reader.headers().map_err(|error| broken(1, &error))?.clone();
        let column = |name: &str| {
            headers
                .iter()
                .position(|header| header == name)
                .ok_or_else(|| Fault::GeometryBroken { line: 1, reason: format!("column {name} is missing") })
        };
        let columns = [column("cache")?, column("slab_size")?, column("objs_per_slab")?, column("pages_per_slab")?];
        let mut table = GeometryTable::default();
        for record in reader.records() {
            let record = record.map_err(|error| broken(error.position().map_or(0, csv::Position::line), &error))?;
            let line = record.position().map_or(0, csv::Position::line);
            let (name, shape) =
                parse_record(&record, columns).map_err(|reason| Fault::GeometryBroken { line, reason })?;
            if table.shapes.insert(name.into(), shape).is_some() {
                return Err(Fault::GeometryBroken { line, reason: format!("cache {name} is listed twice") });
            }
        }
        Ok(table)
    }

    /// The shape of the cache of that name.
    #[must_use]
    pub fn get(&self, cache: &str) -> Option<SlabShape> {
        self.shapes.get(cache).copied()
    }

    /// How many caches are listed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shapes.len()
    }

    /// Whether no cache is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shapes.is_empty()
    }
}

fn parse_record(record: &csv::StringRecord, columns: [usize; 4]) -> Result<(&str, SlabShape), String> {
    let [name, slot, objects, pages] = columns.map(|column| record.get(column).unwrap_or_default());
    let number = |what: &str, text: &str| match text.parse::<u32>() {
        Ok(0) => Err(format!("{what} of {name} is 0")),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("{what} of {name} is {text:?}, not a number")),
    };
    let shape = SlabShape {
        slot: number("slab_size", slot)?,
        objects: number("objs_per_slab", objects)?,
        pages: number("pages_per_slab", pages)?,
    };
    if u64::from(shape.slot) * u64::from(shape.objects) > u64::from(shape.pages) * u64::from(PAGE_SIZE) {
        return Err(format!("{objects} objects of {slot} bytes do not fit {pages} pages ({name})"));
    }
    Ok((name, shape))
}

fn broken(line: u64, error: &csv::Error) -> Fault {
    Fault::GeometryBroken { line, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::GeometryTable;

    fn reason(text: &str) -> String {
        GeometryTable::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_broken_table_is_refused_with_its_line() {
        const HEAD: &str = "cache,slab_size,objs_per_slab,pages_per_slab\n";
        assert_eq!(reason("cache,slab_size\n"), "slab_geometry, line 1: column objs_per_slab is missing");
        assert_eq!(reason(&format!("{HEAD}a,x,2,1\n")), "slab_geometry, line 2: slab_size of a is \"x\", not a number");
        assert_eq!(reason(&format!("{HEAD}a,8,0,1\n")), "slab_geometry, line 2: objs_per_slab of a is 0");
        assert_eq!(
            reason(&format!("{HEAD}a,8,2,1\nb,4096,3,2\n")),
            "slab_geometry, line 3: 3 objects of 4096 bytes do not fit 2 pages (b)"
        );
        assert_eq!(reason(&format!("{HEAD}a,8,2,1\na,8,2,1\n")), "slab_geometry, line 3: cache a is listed twice");
        assert!(reason(&format!("{HEAD}a,8\n")).starts_with("slab_geometry, line 2: "));
    }
}
