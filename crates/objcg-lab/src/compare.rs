//! Runs the controllers over a trace, one after another, and reports what each cost.

use serde::Serialize;

use crate::controller::{CacheLevel, CachePlan, CacheShape, ObjectLevel, PageLevel};
use crate::geometry::SlabShape;
use crate::plan::{ChargedPeak, NotReplayed, Plan};
use crate::replay::{Replay, ReplayError, Sample, replay, share};
use crate::settings::{ControllerKind, Geometry, Scope, Settings, SheafMode};
use crate::trace::{CacheKind, Trace};

/// Points of a time series, besides the peak.
const NR_SAMPLES: u64 = 1000;

/// What was measured on several traces: the JSON of `objcg compare`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// One a trace.
    pub traces: Vec<TraceReport>,
}

/// What was measured on one trace. Figures are of the moment of the peak of live charged bytes.
#[derive(Clone, Debug, Serialize)]
pub struct TraceReport {
    /// The trace's name.
    pub trace: String,
    /// The file.
    pub file: String,
    /// Rows of all kinds.
    pub events: u64,
    /// Cgroups created.
    pub groups: u64,
    /// Cgroups removed.
    pub deleted: u64,
    /// Which objects were replayed.
    pub scope: Scope,
    /// On whose slabs.
    pub geometry: Geometry,
    /// With per-CPU sheaves or first fit.
    pub sheaves: SheafMode,
    /// The moment.
    pub peak: ChargedPeak,
    /// Rows that were left out.
    pub not_replayed: NotReplayed,
    /// One a controller.
    pub controllers: Vec<ControllerReport>,
    /// 1 − object-level held / cache-level held; `null` unless both ran.
    pub saving_vs_cache_level: Option<f64>,
}

/// What one controller cost.
#[derive(Clone, Debug, Serialize)]
pub struct ControllerReport {
    /// Which.
    pub controller: ControllerKind,
    /// Bytes of live objects (slots).
    pub live_bytes: u64,
    /// Bytes of slab pages held.
    pub slab_bytes: u64,
    /// Bytes of owner vectors held.
    pub owner_bytes: u64,
    /// live / (slab + owner).
    pub utilization: Option<f64>,
    /// live / slab.
    pub slab_utilization: Option<f64>,
    /// Bytes of live per-CPU memory, on all CPUs of this machine.
    pub percpu_bytes: u64,
    /// Bytes that groups are charged for it, an owner an allocation among them.
    pub percpu_charged_bytes: u64,
    /// Bytes of it that nobody is charged for.
    pub percpu_uncharged_bytes: u64,
    /// Slabs held.
    pub slabs: u64,
    /// Slab caches in use.
    pub caches: u64,
    /// Groups that are removed and not gone after the last row.
    pub groups_pinned: u64,
    /// Growth of the resident set since before the controller started.
    pub rss_bytes: i64,
    /// Mean time of an allocation or free.
    pub ns_per_op: Option<f64>,
    /// Mean time of creating a group.
    pub create_ns: Option<f64>,
    /// Mean time of removing a group.
    pub delete_ns: Option<f64>,
}

/// One controller's time series.
#[derive(Clone, Debug)]
pub struct Series {
    /// Which.
    pub controller: ControllerKind,
    /// In time order.
    pub samples: Vec<Sample>,
}

/// One trace under several controllers.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The figures.
    pub report: TraceReport,
    /// The time series, in the order of the report's controllers.
    pub series: Vec<Series>,
}

/// How far a comparison is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The controller at work.
    pub controller: ControllerKind,
    /// Rows done, of all controllers.
    pub done: u64,
    /// Rows to do, of all controllers.
    pub total: u64,
}

/// Replays `trace` under each of `controllers`, in that order. `progress` is called about a thousand times a controller.
///
/// # Errors
///
/// See [`ReplayError`].
///
/// # Examples
///
/// ```no_run
/// use objcg_lab::{ControllerKind, Settings, Trace, compare};
///
/// let trace = Trace::open("traces/mixed.parquet")?;
/// let comparison = compare(&trace, &ControllerKind::ALL, Settings::default(), &mut |_| {})?;
/// println!("saving {:?}", comparison.report.saving_vs_cache_level);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn compare(
    trace: &Trace,
    controllers: &[ControllerKind],
    settings: Settings,
    progress: &mut dyn FnMut(Progress),
) -> Result<Comparison, ReplayError> {
    let plan = Plan::new(trace, settings.scope, NR_SAMPLES)?;
    let total = plan.rows.len() as u64 * controllers.len() as u64;
    let mut reports = Vec::new();
    let mut series = Vec::new();
    let mut done = 0;
    for &controller in controllers {
        let outcome = run(trace, &plan, controller, settings, &mut |rows| {
            done += rows;
            progress(Progress { controller, done, total });
        })?;
        reports.push(ControllerReport::new(controller, &outcome));
        series.push(Series { controller, samples: outcome.samples });
    }
    let report = TraceReport {
        trace: trace.name(),
        file: trace.path().display().to_string(),
        events: trace.nr_rows() as u64,
        groups: trace.nr_groups() as u64,
        deleted: trace.nr_removed() as u64,
        scope: settings.scope,
        geometry: settings.geometry,
        sheaves: settings.sheaves,
        peak: plan.peak,
        not_replayed: plan.not_replayed,
        saving_vs_cache_level: saving(&reports),
        controllers: reports,
    };
    Ok(Comparison { report, series })
}

fn run(
    trace: &Trace,
    plan: &Plan,
    controller: ControllerKind,
    settings: Settings,
    progress: &mut dyn FnMut(u64),
) -> Result<Replay, ReplayError> {
    let caches = plan_caches(trace, settings);
    match controller {
        ControllerKind::PageLevel => replay(trace, plan, || PageLevel::new(caches), progress),
        ControllerKind::CacheLevel => replay(trace, plan, || CacheLevel::new(caches), progress),
        ControllerKind::ObjectLevel => replay(trace, plan, || ObjectLevel::new(caches), progress),
    }
}

/// The trace's caches, as the controllers are to make them. Those that are no slab keep their number and are not used.
fn plan_caches(trace: &Trace, settings: Settings) -> CachePlan {
    let shape =
        |slab: SlabShape| CacheShape { slot: slab.slot, slab: (settings.geometry == Geometry::Kernel).then_some(slab) };
    let caches = trace
        .caches()
        .iter()
        .map(|cache| match cache.kind {
            CacheKind::Slab(slab) => shape(slab),
            CacheKind::Large | CacheKind::Percpu | CacheKind::None => CacheShape { slot: 0, slab: None },
        })
        .collect();
    CachePlan { caches, sheaves: settings.sheaves }
}

impl ControllerReport {
    fn new(controller: ControllerKind, replay: &Replay) -> ControllerReport {
        let Sample { live_bytes, held, percpu_bytes, percpu_charged_bytes, percpu_uncharged_bytes, .. } = replay.peak;
        ControllerReport {
            controller,
            live_bytes,
            slab_bytes: held.slab_bytes,
            owner_bytes: held.owner_bytes,
            utilization: replay.peak.utilization(),
            slab_utilization: share(live_bytes, held.slab_bytes),
            percpu_bytes,
            percpu_charged_bytes,
            percpu_uncharged_bytes,
            slabs: held.nr_slabs,
            caches: held.nr_caches,
            groups_pinned: replay.samples.last().map_or(0, |sample| sample.groups_pinned.into()),
            rss_bytes: replay.rss_bytes,
            ns_per_op: replay.ops.mean_ns(),
            create_ns: replay.creates.mean_ns(),
            delete_ns: replay.deletes.mean_ns(),
        }
    }
}

fn saving(reports: &[ControllerReport]) -> Option<f64> {
    let held = |wanted| {
        let report = reports.iter().find(|report| report.controller == wanted)?;
        Some(report.slab_bytes + report.owner_bytes)
    };
    Some(1.0 - share(held(ControllerKind::ObjectLevel)?, held(ControllerKind::CacheLevel)?)?)
}
