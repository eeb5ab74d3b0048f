//! Every way in which a file can be wrong is refused with one line: the file, the row where there is one, the reason.

#[path = "support/trace_file.rs"]
mod trace_file;

use std::fs;
use std::path::Path;

use objcg_lab::Trace;
use tempfile::TempDir;
use trace_file::{ALLOC, FREE, PERCPU_ALLOC, Row, TraceFile, alloc, create, free, remove};

/// Opens what must not open; gives back what is said of it.
fn refusal_of(path: &Path) -> String {
    let error = Trace::open(path).expect_err("the file is broken").to_string();
    assert!(!error.contains('\n'), "more than one line: {error:?}");
    let prefix = format!("{}: ", path.display());
    error.strip_prefix(&prefix).unwrap_or_else(|| panic!("{error:?} does not name the file")).to_owned()
}

fn refusal(file: &TraceFile) -> String {
    let directory = TempDir::new().unwrap();
    refusal_of(&file.write(directory.path(), "broken.parquet"))
}

fn refusal_of_rows(rows: impl IntoIterator<Item = Row>) -> String {
    refusal(&TraceFile::of(rows))
}

fn refusal_of_bytes(bytes: &[u8]) -> String {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("broken.parquet");
    fs::write(&path, bytes).unwrap();
    refusal_of(&path)
}

/// A small sound trace: two groups, three objects, one freed after its group.
fn sound() -> TraceFile {
    TraceFile::of([
        create(1),
        alloc(1, 1, "four"),
        create(2),
        alloc(2, 2, "four"),
        alloc(3, 2, "eight"),
        remove(1),
        free(1, 1, "four"),
        free(3, 2, "eight"),
    ])
}

fn sound_bytes() -> Vec<u8> {
    let directory = TempDir::new().unwrap();
    fs::read(sound().write(directory.path(), "sound.parquet")).unwrap()
}

#[test]
fn what_is_sound_is_read() {
    let directory = TempDir::new().unwrap();
    // Row groups of any length; a row of one may free what an earlier one allocated.
    for rows_per_group in [1, 3, usize::MAX] {
        let path = sound().rows_per_group(rows_per_group).write(directory.path(), "sound.parquet");
        let trace = Trace::open(&path).unwrap();
        assert_eq!((trace.nr_rows(), trace.nr_objects(), trace.nr_groups(), trace.nr_removed()), (8, 3, 2, 1));
        assert_eq!(trace.events().nth(6).map(|event| (event.obj, event.group.0)), Some((1, 1)));
    }
}

#[test]
fn a_missing_file() {
    let directory = TempDir::new().unwrap();
    assert_eq!(refusal_of(&directory.path().join("none.parquet")), "No such file or directory (os error 2)");
}

#[test]
fn a_directory() {
    assert_eq!(refusal_of(TempDir::new().unwrap().path()), "Is a directory (os error 21)");
}

/// Equal rows are next to nothing in a file, and 29 bytes each in memory.
#[test]
fn more_rows_than_any_recording_has_in_so_few_bytes() {
    let rows =
        || std::iter::once(alloc(1, 0, "four")).chain((0..200_000).map(|_| Row { ts_ns: 1, ..free(1, 0, "four") }));
    let refused = refusal_of_rows(rows());
    assert!(refused.starts_with("200001 rows in a file of "), "{refused}");
    let refused = refusal(&TraceFile::of(rows()).rows_per_group(1000));
    assert!(refused.contains(" rows in a file of ") || refused.starts_with("row 3: double free"), "{refused}");
}

#[test]
fn a_column_of_negative_length() {
    let bytes = include_bytes!("../../../fuzz/corpus/trace/negative-length");
    assert!(refusal_of_bytes(bytes).ends_with(" lies at a negative place"));
}

#[test]
fn an_encoding_that_traces_do_not_have() {
    let bytes = include_bytes!("../../../fuzz/corpus/trace/byte-stream-split");
    assert!(refusal_of_bytes(bytes).contains("a page with an encoding that traces do not have"));
}

#[test]
fn an_empty_file() {
    assert_eq!(refusal_of_bytes(b""), "not a Parquet file");
}

#[test]
fn foreign_bytes() {
    assert_eq!(refusal_of_bytes(b"ts_ns,cpu,cgroup\n0,1,2\n"), "not a Parquet file");
}

#[test]
fn a_truncated_file_at_every_length() {
    let whole = sound_bytes();
    for length in 4..whole.len() {
        assert_eq!(refusal_of_bytes(&whole[..length]), "truncated Parquet file: the footer is missing", "at {length}");
    }
}

#[test]
fn a_damaged_footer() {
    let mut bytes = sound_bytes();
    let footer = bytes.len() - 8;
    bytes[footer - 40..footer].fill(0xff);
    let refusal = refusal_of_bytes(&bytes);
    assert!(refusal.starts_with("broken Parquet file: "), "{refusal}");
}

#[test]
fn a_damaged_page() {
    let mut bytes = sound_bytes();
    bytes[4..40].fill(0xff);
    let refusal = refusal_of_bytes(&bytes);
    assert!(refusal.starts_with("row 1: broken Parquet file: "), "{refusal}");
}

#[test]
fn a_missing_column() {
    for column in ["ts_ns", "cgroup", "cache", "accounted"] {
        let wanted = format!("not an allocation trace: column {column} is missing");
        assert_eq!(refusal(&sound().without(column)), wanted);
    }
}

#[test]
fn a_column_of_another_type() {
    let of = |column, declaration| refusal(&sound().retyped(column, declaration));
    assert_eq!(of("cpu", "INT32"), "not an allocation trace: column cpu is INT32, not u16");
    assert_eq!(of("obj", "INT64 (INTEGER(64,true))"), "not an allocation trace: column obj is INT_64, not u64");
    assert_eq!(of("size", "INT32 (INTEGER(16,false))"), "not an allocation trace: column size is UINT_16, not u32");
    assert_eq!(of("cache", "BYTE_ARRAY"), "not an allocation trace: column cache is BYTE_ARRAY, not string");
}

#[test]
fn nulls() {
    assert_eq!(refusal(&sound().null(5, "size")), "row 5: column size is null");
    assert_eq!(refusal(&sound().null(1, "cache")), "row 1: column cache is null");
    assert_eq!(refusal(&sound().rows_per_group(3).null(8, "obj")), "row 8: column obj is null");
}

#[test]
fn no_rows() {
    assert_eq!(refusal_of_rows([]), "the trace has no events");
}

#[test]
fn missing_metadata() {
    assert_eq!(refusal(&sound().geometry(None)), "no slab_geometry in the file's metadata");
}

#[test]
fn broken_geometry() {
    let broken = "cache,slab_size,objs_per_slab,pages_per_slab\nfour,1024,5,1\n";
    assert_eq!(
        refusal(&sound().geometry(Some(broken))),
        "slab_geometry, line 2: 5 objects of 1024 bytes do not fit 1 pages (four)"
    );
}

#[test]
fn a_cache_without_geometry() {
    let four_only = "cache,slab_size,objs_per_slab,pages_per_slab\nfour,1024,4,1\n";
    assert_eq!(refusal(&sound().geometry(Some(four_only))), "row 5: cache eight is not in slab_geometry");
}

#[test]
fn a_slot_that_is_not_the_caches() {
    let row = Row { alloc_size: 1025, ..alloc(1, 0, "four") };
    assert_eq!(refusal_of_rows([row]), "row 1: slot of 1025 bytes, but those of cache four have 1024");
}

#[test]
fn a_free_of_what_was_never_allocated() {
    assert_eq!(refusal_of_rows([free(1, 0, "four")]), "row 1: free of object 1, which was never allocated");
    let rows = [alloc(1, 0, "four"), free(2, 0, "four")];
    assert_eq!(refusal_of_rows(rows), "row 2: free of object 2, which was never allocated");
    assert_eq!(refusal_of_rows([free(0, 0, "four")]), "row 1: free of object 0, which was never allocated");
    assert_eq!(
        refusal_of_rows([alloc(1, 0, "four"), free(-1, 0, "four")]),
        "row 2: free of object 18446744073709551615, which was never allocated"
    );
}

#[test]
fn a_double_free() {
    let rows = [alloc(1, 0, "four"), free(1, 0, "four"), free(1, 0, "four")];
    assert_eq!(refusal_of_rows(rows), "row 3: double free of object 1");
    let inferred = Row { op: 2, ..free(1, 0, "four") };
    assert_eq!(refusal_of_rows([alloc(1, 0, "four"), inferred.clone(), inferred]), "row 3: double free of object 1");
}

#[test]
fn a_free_that_does_not_fit_its_allocation() {
    let of = |wrong: Row| refusal_of_rows([create(1), alloc(1, 1, "four"), wrong]);
    let was = |field, freed, allocated| {
        format!("row 3: object 1 is freed with {field} {freed}, but was allocated with {allocated} in row 2")
    };
    assert_eq!(of(free(1, 0, "four")), was("cgroup", "0", "1"));
    assert_eq!(of(free(1, 1, "eight")), was("cache", "eight", "four"));
    assert_eq!(of(Row { size: 999, ..free(1, 1, "four") }), was("size", "999", "1000"));
    assert_eq!(of(Row { accounted: false, ..free(1, 1, "four") }), was("accounted", "false", "true"));
    let large = |op, alloc_size| Row { op, alloc_size, size: 9000, cache: "kmalloc-large", ..alloc(1, 0, "four") };
    assert_eq!(
        refusal_of_rows([large(ALLOC, 16384), large(FREE, 12288)]),
        "row 2: object 1 is freed with alloc_size 12288, but was allocated with 16384 in row 1"
    );
}

#[test]
fn a_group_that_is_used_before_it_exists() {
    assert_eq!(refusal_of_rows([alloc(1, 1, "four")]), "row 1: cgroup 1 is used before it exists");
    assert_eq!(refusal_of_rows([remove(1)]), "row 1: cgroup 1 is used before it exists");
    assert_eq!(refusal_of_rows([alloc(1, -1, "four")]), "row 1: cgroup 4294967295 is used before it exists");
}

#[test]
fn a_group_that_is_used_after_its_removal() {
    let rows = [create(1), remove(1), alloc(1, 1, "four")];
    assert_eq!(refusal_of_rows(rows), "row 3: cgroup 1 is used after it was removed");
    assert_eq!(refusal_of_rows([create(1), remove(1), remove(1)]), "row 3: cgroup 1 is used after it was removed");
}

#[test]
fn groups_out_of_order() {
    assert_eq!(refusal_of_rows([create(2)]), "row 1: creation of cgroup 2, but 1 is next");
    assert_eq!(refusal_of_rows([create(1), create(1)]), "row 2: creation of cgroup 1, but 2 is next");
    assert_eq!(refusal_of_rows([create(0)]), "row 1: creation of cgroup 0, but 1 is next");
    assert_eq!(refusal_of_rows([remove(0)]), "row 1: the root cgroup cannot be removed");
}

#[test]
fn a_size_of_0() {
    assert_eq!(refusal_of_rows([Row { size: 0, ..alloc(1, 0, "four") }]), "row 1: size is 0");
    let percpu = Row { op: PERCPU_ALLOC, size: 0, cache: "percpu", ..alloc(1, 0, "four") };
    assert_eq!(refusal_of_rows([percpu]), "row 1: size is 0");
}

#[test]
fn a_slot_smaller_than_its_object() {
    let row = Row { size: 1025, ..alloc(1, 0, "four") };
    assert_eq!(refusal_of_rows([row]), "row 1: slot of 1024 bytes for an object of 1025");
}

#[test]
fn objects_out_of_order() {
    assert_eq!(refusal_of_rows([alloc(2, 0, "four")]), "row 1: allocation of object 2, but 1 is next");
    assert_eq!(refusal_of_rows([alloc(0, 0, "four")]), "row 1: allocation of object 0, but 1 is next");
    let rows = [alloc(1, 0, "four"), alloc(1, 0, "four")];
    assert_eq!(refusal_of_rows(rows), "row 2: allocation of object 1, but 2 is next");
    assert_eq!(refusal_of_rows([Row { obj: 7, ..create(1) }]), "row 1: object 7 on a row about a group");
}

#[test]
fn an_absurd_cpu() {
    assert_eq!(refusal_of_rows([Row { cpu: 8192, ..alloc(1, 0, "four") }]), "row 1: cpu 8192 is out of range");
}

#[test]
fn values_that_their_type_cannot_hold() {
    let rows = [alloc(1, 0, "four"), Row { cpu: 65536, ..alloc(2, 0, "four") }];
    assert_eq!(refusal_of_rows(rows), "row 2: column cpu has 65536, which is no u16");
    assert_eq!(refusal_of_rows([Row { op: 257, ..alloc(1, 0, "four") }]), "row 1: column op has 257, which is no u8");
    assert_eq!(refusal_of_rows([Row { op: -1, ..alloc(1, 0, "four") }]), "row 1: column op has -1, which is no u8");
}

#[test]
fn time_that_goes_back() {
    let rows = [Row { ts_ns: 5000, ..create(1) }, Row { ts_ns: 4999, ..create(2) }];
    assert_eq!(refusal_of_rows(rows), "row 2: time goes back from 5000 to 4999 ns");
}

#[test]
fn an_unknown_op() {
    assert_eq!(refusal_of_rows([create(1), Row { op: 7, ..alloc(1, 0, "four") }]), "row 2: unknown op 7");
}

#[test]
fn an_op_with_a_cache_that_it_cannot_have() {
    assert_eq!(refusal_of_rows([Row { cache: "-", ..alloc(1, 0, "four") }]), "row 1: op 0 with cache -");
    assert_eq!(refusal_of_rows([Row { cache: "four", ..create(1) }]), "row 1: op 3 with cache four");
    assert_eq!(refusal_of_rows([Row { op: PERCPU_ALLOC, ..alloc(1, 0, "four") }]), "row 1: op 5 with cache four");
}
