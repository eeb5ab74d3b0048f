//! `traces/mixed.parquet` under the three controllers comes to what an independent simulation found.

use std::sync::{Mutex, OnceLock, PoisonError};

use objcg_core::cpu::nr_cpus;
use objcg_lab::trace::{Event, Op};
use objcg_lab::{ControllerKind, Scope, Settings, SheafMode, Trace, TraceReport, compare};

/// How far from the reference a share may be.
const TOLERANCE: f64 = 0.015;

fn trace() -> &'static Trace {
    static TRACE: OnceLock<Trace> = OnceLock::new();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../traces/mixed.parquet");
    TRACE.get_or_init(|| Trace::open(path).unwrap())
}

fn report(scope: Scope, sheaves: SheafMode) -> TraceReport {
    // One replay at a time: object-level asks the engine for dying groups, and the engine counts the whole process's.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let settings = Settings { scope, sheaves, ..Settings::default() };
    compare(trace(), &ControllerKind::ALL, settings, &mut |_| {}).unwrap().report
}

/// Bytes of charged per-CPU memory that are live after a row, counted by hand.
fn live_percpu_bytes(row: u64) -> u64 {
    let events = trace().events().take(usize::try_from(row).unwrap()).filter(|event| trace().asks_for_charge(event));
    let nr_bytes = |event: Event| match event.op {
        Op::PercpuAlloc => i64::from(event.size),
        Op::PercpuFree => -i64::from(event.size),
        _ => 0,
    };
    u64::try_from(events.map(nr_bytes).sum::<i64>()).unwrap() * nr_cpus() as u64
}

fn assert_near(found: Option<f64>, reference: f64) {
    let found = found.expect("a figure");
    assert!((found - reference).abs() <= TOLERANCE, "{found:.4} is not within {TOLERANCE} of {reference}");
}

#[test]
fn first_fit_reproduces_the_reference_utilisation_and_pins() {
    let report = report(Scope::Charged, SheafMode::Off);
    let [page, cache, object] = report.controllers.as_slice() else { panic!("three controllers") };
    // The reference leaves owner vectors out of this figure.
    assert_near(page.slab_utilization, 0.497);
    assert_near(cache.slab_utilization, 0.497);
    assert_near(object.slab_utilization, 0.960);
    for controller in [page, cache, object] {
        assert_eq!(controller.live_bytes, 25_711_952, "{}", controller.controller.name());
    }
    assert_eq!([page, cache, object].map(|controller| controller.groups_pinned), [109, 0, 0]);
    assert_eq!(report.deleted, 111);
    // 1,429 allocations of 16 bytes are charged in all; those that live at the moment are.
    let on_all_cpus = object.percpu_bytes;
    assert_eq!(on_all_cpus, live_percpu_bytes(report.peak.row));
    assert!([page, cache].iter().all(|controller| controller.percpu_uncharged_bytes == on_all_cpus));
    assert!([page, cache].iter().all(|controller| controller.percpu_charged_bytes == 0));
    let nr_owners = on_all_cpus / (16 * nr_cpus() as u64);
    assert_eq!((object.percpu_charged_bytes, object.percpu_uncharged_bytes), (on_all_cpus + 4 * nr_owners, 0));
}

#[test]
fn first_fit_reproduces_the_reference_saving_over_all_objects() {
    let report = report(Scope::All, SheafMode::Off);
    assert_near(report.saving_vs_cache_level, 0.392);
    // The moment is that of the charged bytes; 36,041,888 bytes are live then, charged or not.
    assert!(report.controllers.iter().all(|controller| controller.live_bytes == 36_041_888));
}

#[test]
fn sheaves_keep_object_level_above_93_percent() {
    let report = report(Scope::Charged, SheafMode::On);
    let object = &report.controllers[2];
    assert!(object.utilization.expect("something is held") >= 0.93, "{:?}", object.utilization);
    assert_eq!(report.controllers.iter().map(|controller| controller.groups_pinned).collect::<Vec<_>>(), [109, 0, 0]);
}
