//! What a trace holds, counted in one pass: the figures of `objcg trace info`.

use std::collections::HashSet;

use serde::Serialize;

use crate::plan::ChargedPeak;
use crate::trace::{CacheKind, GroupId, Op, Trace};

/// Counts, groups, caches, peak and span of a trace. Bytes are slots (`alloc_size`); "charged" is accounted, of a
/// cgroup, and in a slab.
///
/// # Examples
///
/// ```
/// use objcg_lab::{Trace, TraceInfo};
///
/// let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../traces/mixed.parquet");
/// let info = TraceInfo::of(&Trace::open(path)?);
/// assert_eq!(info.charged_allocs, 262_842);
/// assert_eq!(info.peak.map(|peak| peak.charged_bytes), Some(25_711_952));
/// # Ok::<(), objcg_lab::TraceError>(())
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct TraceInfo {
    /// The trace's name.
    pub trace: String,
    /// Rows of all kinds.
    pub events: u64,
    /// From the first row to the last, in nanoseconds.
    pub span_ns: u64,
    /// Different CPUs.
    pub cpus: u32,
    /// Cgroups created.
    pub groups: u32,
    /// Cgroups removed.
    pub deleted: u32,
    /// Allocations, per-CPU ones not counted.
    pub allocs: u64,
    /// Frees that were seen.
    pub frees: u64,
    /// Frees that were inferred when the address was next used.
    pub frees_inferred: u64,
    /// Per-CPU allocations and frees.
    pub percpu_events: u64,
    /// Allocations and frees of `kmalloc-large`, which is no slab.
    pub large_events: u64,
    /// Charged allocations.
    pub charged_allocs: u64,
    /// The moment of most charged bytes; `null` if nothing is charged.
    pub peak: Option<ChargedPeak>,
    /// Charged bytes after the last row.
    pub charged_bytes_at_end: u64,
    /// The most bytes of slab objects, charged or not, at any moment.
    pub peak_bytes_all: u64,
    /// The slab caches, the one with most bytes at the peak first.
    pub caches: Vec<CacheInfo>,
}

/// One slab cache of a trace.
#[derive(Clone, Debug, Serialize)]
pub struct CacheInfo {
    /// The kernel's name.
    pub cache: String,
    /// Bytes of a slot.
    pub slot: u32,
    /// Slots of a slab.
    pub objects_per_slab: u32,
    /// Pages of a slab.
    pub pages_per_slab: u32,
    /// Allocations.
    pub allocs: u64,
    /// Charged allocations.
    pub charged_allocs: u64,
    /// Cgroups that allocated charged objects here.
    pub groups: u32,
    /// Live objects at the peak, charged or not.
    pub objects_at_peak: u64,
    /// Their bytes.
    pub bytes_at_peak: u64,
}

impl TraceInfo {
    /// Counts `trace`. O(rows).
    #[must_use]
    pub fn of(trace: &Trace) -> TraceInfo {
        let mut info = TraceInfo {
            trace: trace.name(),
            events: trace.nr_rows() as u64,
            span_ns: trace.span_ns(),
            cpus: 0,
            groups: 0,
            deleted: 0,
            allocs: 0,
            frees: 0,
            frees_inferred: 0,
            percpu_events: 0,
            large_events: 0,
            charged_allocs: 0,
            peak: ChargedPeak::of(trace),
            charged_bytes_at_end: 0,
            peak_bytes_all: 0,
            caches: Vec::new(),
        };
        info.count_rows(trace);
        info.caches = count_caches(trace, info.peak.map_or(0, |peak| peak.row));
        info
    }

    fn count_rows(&mut self, trace: &Trace) {
        let mut cpus = HashSet::new();
        let mut all_bytes = 0;
        for event in trace.events() {
            cpus.insert(event.cpu);
            let is_alloc = match event.op {
                Op::Alloc => {
                    self.allocs += 1;
                    true
                }
                Op::Free => {
                    self.frees += 1;
                    false
                }
                Op::FreeInferred => {
                    self.frees_inferred += 1;
                    false
                }
                Op::GroupCreate => {
                    self.groups += 1;
                    continue;
                }
                Op::GroupRemove => {
                    self.deleted += 1;
                    continue;
                }
                Op::PercpuAlloc | Op::PercpuFree => {
                    self.percpu_events += 1;
                    continue;
                }
            };
            if !trace.in_slab(&event) {
                self.large_events += 1;
                continue;
            }
            let bytes = u64::from(event.alloc_size);
            let charged = trace.is_charged(&event);
            if !is_alloc {
                all_bytes -= bytes;
                self.charged_bytes_at_end -= if charged { bytes } else { 0 };
                continue;
            }
            all_bytes += bytes;
            self.peak_bytes_all = self.peak_bytes_all.max(all_bytes);
            if charged {
                self.charged_allocs += 1;
                self.charged_bytes_at_end += bytes;
            }
        }
        self.cpus = u32::try_from(cpus.len()).expect("cpu ids are 16 bits");
    }
}

fn count_caches(trace: &Trace, peak_row: u64) -> Vec<CacheInfo> {
    let mut caches: Vec<Option<CacheInfo>> = trace
        .caches()
        .iter()
        .map(|cache| match cache.kind {
            CacheKind::Slab(shape) => Some(CacheInfo {
                cache: cache.name.to_string(),
                slot: shape.slot,
                objects_per_slab: shape.objects,
                pages_per_slab: shape.pages,
                allocs: 0,
                charged_allocs: 0,
                groups: 0,
                objects_at_peak: 0,
                bytes_at_peak: 0,
            }),
            CacheKind::Large | CacheKind::Percpu | CacheKind::None => None,
        })
        .collect();
    let mut users: HashSet<(u16, GroupId)> = HashSet::new();
    for (row, event) in trace.events().enumerate() {
        let Some(cache) = caches[event.cache.index()].as_mut() else {
            continue;
        };
        let before_peak = (row as u64) < peak_row;
        if event.op != Op::Alloc {
            cache.objects_at_peak -= u64::from(before_peak);
            continue;
        }
        cache.allocs += 1;
        cache.objects_at_peak += u64::from(before_peak);
        if trace.is_charged(&event) {
            cache.charged_allocs += 1;
            cache.groups += u32::from(users.insert((event.cache.0, event.group)));
        }
    }
    let mut caches: Vec<CacheInfo> = caches.into_iter().flatten().collect();
    for cache in &mut caches {
        cache.bytes_at_peak = cache.objects_at_peak * u64::from(cache.slot);
    }
    caches.sort_by(|a, b| b.bytes_at_peak.cmp(&a.bytes_at_peak).then_with(|| a.cache.cmp(&b.cache)));
    caches
}
