//! The pre-scan of a replay: which rows it takes, and the moment at which it is judged.
//!
//! That moment is the peak of live charged bytes. It is a property of the trace alone, so every controller and both
//! scopes are judged at the same row.

use serde::Serialize;

use crate::replay::ReplayError;
use crate::settings::Scope;
use crate::trace::{CacheKind, Op, Trace};

/// The first moment at which the most charged bytes were live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChargedPeak {
    /// The row, from 1.
    pub row: u64,
    /// Nanoseconds since the recording began.
    pub ts_ns: u64,
    /// Charged bytes.
    pub charged_bytes: u64,
    /// Charged objects.
    pub charged_objects: u64,
}

impl ChargedPeak {
    /// Scans `trace`. `None` if nothing in it is charged.
    #[must_use]
    pub fn of(trace: &Trace) -> Option<ChargedPeak> {
        let mut peak = ChargedPeak::default();
        let (mut bytes, mut objects) = (0, 0);
        for (row, event) in trace.events().enumerate() {
            if !trace.is_charged(&event) {
                continue;
            }
            if event.op == Op::Alloc {
                bytes += u64::from(event.alloc_size);
                objects += 1;
                if bytes > peak.charged_bytes {
                    let row = row as u64 + 1;
                    peak = ChargedPeak { row, ts_ns: event.ts_ns, charged_bytes: bytes, charged_objects: objects };
                }
            } else {
                bytes -= u64::from(event.alloc_size);
                objects -= 1;
            }
        }
        (peak.row > 0).then_some(peak)
    }
}

/// Rows that a replay leaves out, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NotReplayed {
    /// Allocations and frees of `kmalloc-large`: pages, no slab.
    pub large_events: u64,
    /// Allocations and frees out of scope.
    pub uncharged_events: u64,
}

/// The rows that are replayed, in order, and where to stop and look.
pub(crate) struct Plan {
    /// Rows of the trace, from 0: alloc, free, group create, group remove.
    pub(crate) rows: Vec<u32>,
    /// Before these positions in `rows` a sample is taken; ascending, the last is `rows.len()`.
    pub(crate) stops: Vec<usize>,
    /// Which of `stops` is right after the peak's row.
    pub(crate) peak_stop: usize,
    pub(crate) peak: ChargedPeak,
    pub(crate) not_replayed: NotReplayed,
    /// Allocations of per-CPU memory among the rows.
    pub(crate) nr_percpu: usize,
}

impl Plan {
    /// Plans a replay with `nr_samples` looks at even times, and one right after the peak.
    pub(crate) fn new(trace: &Trace, scope: Scope, nr_samples: u64) -> Result<Plan, ReplayError> {
        let peak = ChargedPeak::of(trace).ok_or(ReplayError::NothingCharged)?;
        let (rows, not_replayed) = select(trace, scope);
        let is_percpu = |row: &&u32| trace.event(**row as usize).op == Op::PercpuAlloc;
        let nr_percpu = rows.iter().filter(is_percpu).count();
        let after_peak = rows.partition_point(|&row| u64::from(row) < peak.row);
        let first_ns = trace.event(0).ts_ns;
        let mut stops: Vec<usize> = (1..nr_samples)
            .map(|nth| {
                let until = first_ns
                    + u64::try_from(u128::from(trace.span_ns()) * u128::from(nth) / u128::from(nr_samples))
                        .expect("within the span");
                rows.partition_point(|&row| trace.event(row as usize).ts_ns <= until)
            })
            .chain([after_peak, rows.len()])
            .collect();
        stops.sort_unstable();
        stops.dedup();
        let peak_stop = stops.binary_search(&after_peak).expect("it was just added");
        Ok(Plan { rows, stops, peak_stop, peak, not_replayed, nr_percpu })
    }
}

fn select(trace: &Trace, scope: Scope) -> (Vec<u32>, NotReplayed) {
    let mut rows = Vec::with_capacity(trace.nr_rows());
    let mut not_replayed = NotReplayed::default();
    for (row, event) in trace.events().enumerate() {
        let left_out = match (event.op, trace.caches()[event.cache.index()].kind) {
            (Op::GroupCreate | Op::GroupRemove, _) => None,
            (_, CacheKind::Large) => Some(&mut not_replayed.large_events),
            _ if scope == Scope::Charged && !trace.asks_for_charge(&event) => Some(&mut not_replayed.uncharged_events),
            _ => None,
        };
        match left_out {
            Some(count) => *count += 1,
            None => rows.push(u32::try_from(row).expect("a trace has fewer than 2^31 rows")),
        }
    }
    (rows, not_replayed)
}
