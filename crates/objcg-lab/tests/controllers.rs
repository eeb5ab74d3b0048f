//! What each controller holds and pins on traces small enough to count by hand: slabs of four objects of 1 KiB.

#[path = "support/trace_file.rs"]
mod trace_file;

use std::sync::{Mutex, PoisonError};

use objcg_lab::{Comparison, ControllerKind, ReplayError, Sample, Scope, Settings, SheafMode, Trace, compare};
use tempfile::TempDir;
use trace_file::{Row, TraceFile, alloc, create, free, percpu_alloc, percpu_free, remove};

const FIRST_FIT: Settings =
    Settings { scope: Scope::Charged, geometry: objcg_lab::Geometry::Kernel, sheaves: SheafMode::Off };
const SLAB: u64 = 4096;

/// One replay at a time: object-level asks the engine for dying groups, and the engine counts the whole process's.
static ALONE: Mutex<()> = Mutex::new(());

fn replay(rows: impl IntoIterator<Item = Row>, settings: Settings) -> Result<Comparison, ReplayError> {
    let directory = TempDir::new().unwrap();
    let trace = Trace::open(TraceFile::of(rows).write(directory.path(), "tiny.parquet")).unwrap();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    compare(&trace, &ControllerKind::ALL, settings, &mut |_| {})
}

/// One controller's state right after each row. Rows are a microsecond apart, and a thousand samples miss none.
fn after_each_row(rows: &[Row], controller: ControllerKind, settings: Settings) -> Vec<Sample> {
    let comparison = replay(rows.to_vec(), settings).unwrap();
    let series = comparison.series.into_iter().find(|series| series.controller == controller).unwrap();
    let moment = |row: usize| series.samples.iter().rev().find(|sample| sample.ts_ns == row as u64 * 1000);
    (0..rows.len()).map(|row| *moment(row).unwrap_or_else(|| panic!("no sample after row {}", row + 1))).collect()
}

fn slabs(samples: &[Sample]) -> Vec<u64> {
    samples.iter().map(|sample| sample.held.nr_slabs).collect()
}

fn pinned(samples: &[Sample]) -> Vec<u32> {
    samples.iter().map(|sample| sample.groups_pinned).collect()
}

/// Group 1 dies with two objects left; then those go.
fn life_and_death() -> Vec<Row> {
    vec![
        create(1),
        create(2),
        alloc(1, 1, "four"),
        alloc(2, 1, "four"),
        alloc(3, 2, "four"),
        remove(1),
        free(1, 1, "four"),
        free(2, 1, "four"),
    ]
}

#[test]
fn page_level_pins_a_group_until_its_last_page_goes() {
    let samples = after_each_row(&life_and_death(), ControllerKind::PageLevel, FIRST_FIT);
    assert_eq!(slabs(&samples), [0, 0, 1, 1, 2, 2, 2, 1]);
    assert_eq!(pinned(&samples), [0, 0, 0, 0, 0, 1, 1, 0]);
    assert_eq!(samples.iter().map(|sample| sample.groups_alive).collect::<Vec<_>>(), [1, 2, 2, 2, 2, 1, 1, 1]);
}

#[test]
fn page_level_does_not_pin_a_group_without_pages() {
    let rows = [create(1), alloc(1, 1, "four"), free(1, 1, "four"), remove(1), create(2), remove(2)];
    for sheaves in SheafMode::ALL {
        // A free object in a sheaf holds a page, but no deleted group: its caches are emptied.
        let samples = after_each_row(&rows, ControllerKind::PageLevel, Settings { sheaves, ..FIRST_FIT });
        assert_eq!(pinned(&samples), [0; 6]);
        assert_eq!(slabs(&samples)[3..], [0; 3]);
    }
}

#[test]
fn page_level_pins_by_any_cache_of_the_group() {
    let rows = [
        create(1),
        alloc(1, 1, "four"),
        alloc(2, 1, "eight"),
        remove(1),
        free(1, 1, "four"),
        create(2),
        free(2, 1, "eight"),
    ];
    let samples = after_each_row(&rows, ControllerKind::PageLevel, FIRST_FIT);
    assert_eq!(pinned(&samples), [0, 0, 0, 1, 1, 1, 0]);
    assert_eq!(slabs(&samples), [0, 1, 2, 2, 1, 1, 0]);
}

#[test]
fn cache_level_keeps_the_slab_and_not_the_group() {
    let samples = after_each_row(&life_and_death(), ControllerKind::CacheLevel, FIRST_FIT);
    assert_eq!(slabs(&samples), [0, 0, 1, 1, 2, 2, 2, 1]);
    assert_eq!(pinned(&samples), [0; 8]);
    // The cache is inherited by the parent and goes with its last object.
    assert_eq!(samples.iter().map(|sample| sample.held.nr_caches).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2, 2, 1]);
}

#[test]
fn cache_level_destroys_an_empty_cache_with_its_group() {
    let rows = [create(1), alloc(1, 1, "four"), free(1, 1, "four"), remove(1)];
    let samples = after_each_row(&rows, ControllerKind::CacheLevel, FIRST_FIT);
    assert_eq!(samples.iter().map(|sample| sample.held.nr_caches).collect::<Vec<_>>(), [0, 1, 1, 0]);
    assert_eq!(slabs(&samples), [0, 1, 0, 0]);
}

#[test]
fn object_level_shares_a_slab_between_groups() {
    let samples = after_each_row(&life_and_death(), ControllerKind::ObjectLevel, FIRST_FIT);
    assert_eq!(slabs(&samples), [0, 0, 1, 1, 1, 1, 1, 1]);
    assert_eq!(pinned(&samples), [0; 8]);
    assert_eq!(samples[7].held.nr_caches, 1);
}

#[test]
fn four_groups_take_four_slabs_or_one() {
    let rows: Vec<Row> = (1..=4).map(create).chain((1..=4).map(|nth| alloc(nth.into(), nth, "four"))).collect();
    let slab_bytes = |controller| after_each_row(&rows, controller, FIRST_FIT)[7].held.slab_bytes;
    assert_eq!(slab_bytes(ControllerKind::PageLevel), 4 * SLAB);
    assert_eq!(slab_bytes(ControllerKind::CacheLevel), 4 * SLAB);
    assert_eq!(slab_bytes(ControllerKind::ObjectLevel), SLAB);
}

#[test]
fn owners_are_held_by_object_level_alone() {
    let comparison = replay(life_and_death(), FIRST_FIT).unwrap();
    // Four owners of 4 bytes.
    let owner_bytes: Vec<u64> = comparison.report.controllers.iter().map(|report| report.owner_bytes).collect();
    assert_eq!(owner_bytes, [0, 0, 16]);
    let held = SLAB + 16;
    let saving = comparison.report.saving_vs_cache_level.expect("both ran");
    assert!((saving - (1.0 - held as f64 / (2 * SLAB) as f64)).abs() < 1e-12, "{saving}");
    let utilization = comparison.report.controllers[2].utilization.expect("something is held");
    assert!((utilization - 3072.0 / held as f64).abs() < 1e-12, "{utilization}");
}

#[test]
fn an_empty_slab_goes_back_at_once() {
    let rows: Vec<Row> = std::iter::once(create(1))
        .chain((1..=5).map(|obj| alloc(obj, 1, "four")))
        .chain((1..=5).map(|obj| free(obj, 1, "four")))
        .collect();
    for controller in ControllerKind::ALL {
        let samples = after_each_row(&rows, controller, FIRST_FIT);
        assert_eq!(slabs(&samples), [0, 1, 1, 1, 1, 2, 2, 2, 2, 1, 0], "{}", controller.name());
    }
}

#[test]
fn what_is_not_charged_sits_in_root_caches() {
    let uncharged = |obj, cgroup| Row { accounted: false, ..alloc(obj, cgroup, "four") };
    let rows = [create(1), uncharged(1, 1), alloc(2, 0, "four"), alloc(3, 1, "four"), uncharged(4, 1)];
    let all = Settings { scope: Scope::All, ..FIRST_FIT };
    for controller in [ControllerKind::PageLevel, ControllerKind::CacheLevel] {
        assert_eq!(slabs(&after_each_row(&rows, controller, all)), [0, 1, 1, 2, 2], "{}", controller.name());
    }
    assert_eq!(slabs(&after_each_row(&rows, ControllerKind::ObjectLevel, all)), [0, 1, 1, 1, 1]);

    let charged = replay(rows.to_vec(), FIRST_FIT).unwrap().report;
    assert_eq!(charged.not_replayed.uncharged_events, 3);
    assert!(charged.controllers.iter().all(|report| report.live_bytes == 1024 && report.slabs == 1));
}

/// Bytes of per-CPU memory after each row: all, charged, not charged.
fn percpu(samples: &[Sample]) -> Vec<[u64; 3]> {
    let figures = |sample: &Sample| [sample.percpu_bytes, sample.percpu_charged_bytes, sample.percpu_uncharged_bytes];
    samples.iter().map(figures).collect()
}

#[test]
fn percpu_memory_is_charged_by_object_level_alone() {
    // The last one is nobody's: out of scope, unless all objects are in it.
    let rows = [
        create(1),
        percpu_alloc(1, 1, 16),
        alloc(2, 1, "four"),
        percpu_alloc(3, 1, 6),
        remove(1),
        percpu_free(1, 1, 16),
        percpu_alloc(4, 0, 100),
    ];
    let nr_cpus = objcg_core::cpu::nr_cpus() as u64;
    let (sixteen, eight, hundred) = (16 * nr_cpus, 8 * nr_cpus, 100 * nr_cpus);
    for controller in [ControllerKind::PageLevel, ControllerKind::CacheLevel] {
        let found = percpu(&after_each_row(&rows[..6], controller, FIRST_FIT));
        let live = [0, sixteen, sixteen, sixteen + eight, sixteen + eight, eight];
        assert_eq!(found, live.map(|nr_bytes| [nr_bytes, 0, nr_bytes]), "{}", controller.name());
    }
    let found = percpu(&after_each_row(&rows[..6], ControllerKind::ObjectLevel, FIRST_FIT));
    let both = [sixteen + eight, sixteen + eight + 8, 0];
    assert_eq!(
        found,
        [[0; 3], [sixteen, sixteen + 4, 0], [sixteen, sixteen + 4, 0], both, both, [eight, eight + 4, 0]]
    );

    let all = Settings { scope: Scope::All, ..FIRST_FIT };
    let found = percpu(&after_each_row(&rows, ControllerKind::ObjectLevel, all));
    assert_eq!(found[6], [eight + hundred, eight + 4, hundred]);
    assert_eq!(replay(rows.to_vec(), FIRST_FIT).unwrap().report.not_replayed.uncharged_events, 1);
}

#[test]
fn percpu_memory_that_the_engine_cannot_give_is_an_error() {
    let refusal = replay([create(1), alloc(1, 1, "four"), percpu_alloc(2, 1, 70_000)], FIRST_FIT).unwrap_err();
    assert_eq!(refusal.to_string(), "per-CPU memory refused: 70000 bytes on each CPU: it must be from 1 to 65536");
}

#[test]
fn figures_are_of_the_peak_and_pins_of_the_end() {
    let report = replay(life_and_death(), FIRST_FIT).unwrap().report;
    assert_eq!((report.peak.row, report.peak.charged_bytes), (5, 3072));
    assert!(report.controllers.iter().all(|report| report.live_bytes == 3072));
    assert_eq!(report.controllers.iter().map(|report| report.slabs).collect::<Vec<_>>(), [2, 2, 1]);

    let mut pinned_to_the_end = life_and_death();
    pinned_to_the_end.pop();
    let report = replay(pinned_to_the_end, FIRST_FIT).unwrap().report;
    assert_eq!(report.controllers.iter().map(|report| report.groups_pinned).collect::<Vec<_>>(), [1, 0, 0]);
}

#[test]
fn the_engines_geometry_replaces_the_kernels() {
    let rows: Vec<Row> = std::iter::once(create(1)).chain((1..=32).map(|obj| alloc(obj, 1, "four"))).collect();
    let engine = Settings { geometry: objcg_lab::Geometry::Engine, ..FIRST_FIT };
    let kernels = replay(rows.clone(), FIRST_FIT).unwrap().report.controllers[2].slabs;
    let engines = replay(rows, engine).unwrap().report.controllers[2].slabs;
    assert_eq!(kernels, 8);
    assert!(engines < kernels, "the engine cuts 1 KiB objects from larger slabs than one page: {engines}");
}

#[test]
fn a_trace_without_a_charge_is_not_judged() {
    let refusal = replay([alloc(1, 0, "four")], FIRST_FIT).unwrap_err();
    assert_eq!(refusal.to_string(), "the trace has no charged object");
}

#[test]
fn a_slab_that_the_engine_cannot_cut_is_an_error() {
    let directory = TempDir::new().unwrap();
    let geometry = "cache,slab_size,objs_per_slab,pages_per_slab\nfour,1024,4,129\n";
    let file = TraceFile::of([create(1), alloc(1, 1, "four")]).geometry(Some(geometry));
    let trace = Trace::open(file.write(directory.path(), "wide.parquet")).unwrap();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let refusal = compare(&trace, &ControllerKind::ALL, FIRST_FIT, &mut |_| {}).unwrap_err();
    assert_eq!(refusal.to_string(), "slab cache refused: the objects do not fit a slab of at most 128 pages");
}
