//! Drives one controller through a trace.
//!
//! The rows run in segments between the plan's stops. Only segments are timed; at a stop the controller is looked at.
//! Creating and removing groups, and per-CPU memory, is timed by itself and taken out of its segment. Tables of the replay are made and
//! touched before the resident set is first read, so that growth is the controller's alone.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use objcg_core::cpu::CpuId;
use objcg_core::kmalloc;
use objcg_core::kmem_cache::CreateCacheError;
use objcg_core::memcg::{CreateError, DeleteError};
use objcg_core::percpu::{self, AllocError};
use thiserror::Error;

use crate::controller::{Controller, Held, Object, PercpuObject};
use crate::plan::Plan;
use crate::rss;
use crate::trace::{Event, GroupId, Op, Trace};

/// Why a replay could not be done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The trace has no charged object, so there is no peak to judge at.
    #[error("the trace has no charged object")]
    NothingCharged,
    /// The engine had no memory.
    #[error("out of memory")]
    OutOfMemory,
    /// The engine refused a slab cache.
    #[error("slab cache refused: {0}")]
    CreateCache(CreateCacheError),
    /// The engine refused a group.
    #[error("group refused: {0}")]
    CreateGroup(CreateError),
    /// The engine refused to delete a group.
    #[error("group not deleted: {0}")]
    DeleteGroup(DeleteError),
    /// The engine refused per-CPU memory.
    #[error("per-CPU memory refused: {0}")]
    Percpu(AllocError),
    /// The resident set cannot be read.
    #[error("resident set: {0}")]
    Resident(io::Error),
}

/// What was held at a moment of the replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Nanoseconds since the recording began, of the last row replayed.
    pub ts_ns: u64,
    /// Bytes of live objects (slots) in scope.
    pub live_bytes: u64,
    /// What the controller held for them.
    pub held: Held,
    /// Bytes of live per-CPU memory in scope, on all CPUs.
    pub percpu_bytes: u64,
    /// Bytes that groups are charged for it, an owner an allocation among them.
    pub percpu_charged_bytes: u64,
    /// Bytes of it that nobody is charged for.
    pub percpu_uncharged_bytes: u64,
    /// Groups that exist.
    pub groups_alive: u32,
    /// Groups that are removed and not gone.
    pub groups_pinned: u32,
}

impl Sample {
    /// Live bytes as a share of slab pages and owner vectors; `None` while nothing is held.
    #[must_use]
    pub fn utilization(&self) -> Option<f64> {
        share(self.live_bytes, self.held.bytes())
    }
}

/// `part / whole`, unless there is no whole.
#[expect(clippy::cast_precision_loss, reason = "bytes of a replay are far below 2^53")]
pub(crate) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// One controller's run over one trace.
pub(crate) struct Replay {
    pub(crate) samples: Vec<Sample>,
    pub(crate) peak: Sample,
    /// Growth of the resident set from before the controller to the peak.
    pub(crate) rss_bytes: i64,
    pub(crate) ops: Tally,
    pub(crate) creates: Tally,
    pub(crate) deletes: Tally,
}

/// A number of calls and the time that they took.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    calls: u64,
    time: Duration,
}

impl Tally {
    /// The mean in nanoseconds; `None` without calls.
    #[expect(clippy::cast_precision_loss, reason = "rows are below 2^31")]
    pub(crate) fn mean_ns(self) -> Option<f64> {
        (self.calls > 0).then(|| self.time.as_secs_f64() * 1e9 / self.calls as f64)
    }
}

/// Replays the planned rows on the controller that `make` makes. `progress` hears how many of them are done since it
/// was last called.
pub(crate) fn replay<C: Controller>(
    trace: &Trace,
    plan: &Plan,
    make: impl FnOnce() -> Result<C, ReplayError>,
    progress: &mut dyn FnMut(u64),
) -> Result<Replay, ReplayError> {
    let mut objects: Vec<Option<Object>> = Vec::new();
    // Written one by one: zeroed pages would only become resident in the middle of the replay.
    objects.resize_with(trace.nr_objects() + 1, || None);
    let mut samples = vec![Sample { ts_ns: u64::MAX, ..Sample::default() }; plan.stops.len()];
    // What the controller before left free in the engine would otherwise serve this one without growth.
    kmalloc::trim();
    percpu::trim();
    let before = rss::resident_bytes().map_err(ReplayError::Resident)?;

    let mut run = Run {
        trace,
        plan,
        controller: make()?,
        objects,
        percpu: HashMap::with_capacity(plan.nr_percpu),
        now: Sample::default(),
        tallies: Tallies::default(),
    };
    let outcome = run.drive(&mut samples, before, progress);
    // On failure too: a cache outlives its objects.
    run.free_survivors();
    let rss_bytes = outcome?;
    let Tallies { ops, creates, deletes, .. } = run.tallies;
    Ok(Replay { peak: samples[plan.peak_stop], samples, rss_bytes, ops, creates, deletes })
}

struct Run<'a, C> {
    trace: &'a Trace,
    plan: &'a Plan,
    controller: C,
    /// By object number.
    objects: Vec<Option<Object>>,
    /// Those of per-CPU memory, by object number.
    percpu: HashMap<u32, PercpuObject>,
    now: Sample,
    tallies: Tallies,
}

#[derive(Default)]
struct Tallies {
    ops: Tally,
    creates: Tally,
    deletes: Tally,
    percpu: Tally,
}

impl Tallies {
    /// Time that is no allocation's or free's of a slab.
    fn aside(&self) -> Duration {
        self.creates.time + self.deletes.time + self.percpu.time
    }
}

impl<C: Controller> Run<'_, C> {
    /// Returns the growth of the resident set at the peak.
    fn drive(
        &mut self,
        samples: &mut [Sample],
        resident_before: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<i64, ReplayError> {
        let mut start = 0;
        let mut growth = 0;
        for (nth, &stop) in self.plan.stops.iter().enumerate() {
            self.run_segment(&self.plan.rows[start..stop])?;
            if nth == self.plan.peak_stop {
                let resident = rss::resident_bytes().map_err(ReplayError::Resident)?;
                growth = resident.cast_signed() - resident_before.cast_signed();
            }
            self.look();
            samples[nth] = self.now;
            progress((stop - start) as u64);
            start = stop;
        }
        Ok(growth)
    }

    fn run_segment(&mut self, rows: &[u32]) -> Result<(), ReplayError> {
        let Some(&last) = rows.last() else { return Ok(()) };
        let aside_before = self.tallies.aside();
        let start = Instant::now();
        for &row in rows {
            self.step(row as usize)?;
        }
        self.tallies.ops.time += start.elapsed() - (self.tallies.aside() - aside_before);
        self.now.ts_ns = self.trace.event(last as usize).ts_ns;
        Ok(())
    }

    #[inline]
    fn step(&mut self, row: usize) -> Result<(), ReplayError> {
        let event = self.trace.event(row);
        match event.op {
            Op::Alloc => {
                let owner = if event.accounted { event.group } else { GroupId::ROOT };
                let object = self.controller.alloc(CpuId::fold(event.cpu.into()), event.cache, owner)?;
                self.objects[event.obj as usize] = Some(object);
                self.now.live_bytes += u64::from(event.alloc_size);
                self.tallies.ops.calls += 1;
            }
            Op::Free | Op::FreeInferred => {
                let object = self.objects[event.obj as usize].take().expect("a trace frees only what is live");
                self.controller.free(CpuId::fold(event.cpu.into()), object);
                self.now.live_bytes -= u64::from(event.alloc_size);
                self.tallies.ops.calls += 1;
            }
            Op::GroupCreate => {
                let start = Instant::now();
                self.controller.create_group(event.group)?;
                self.tallies.creates.add(start.elapsed());
                self.now.groups_alive += 1;
            }
            Op::GroupRemove => {
                let start = Instant::now();
                self.controller.delete_group(event.group)?;
                self.tallies.deletes.add(start.elapsed());
                self.now.groups_alive -= 1;
            }
            Op::PercpuAlloc | Op::PercpuFree => {
                let start = Instant::now();
                self.step_percpu(&event)?;
                self.tallies.percpu.add(start.elapsed());
            }
        }
        Ok(())
    }

    #[cold]
    fn step_percpu(&mut self, event: &Event) -> Result<(), ReplayError> {
        let uncharged = |object: &PercpuObject| if object.charged_bytes() == 0 { object.nr_bytes() } else { 0 };
        if event.op == Op::PercpuAlloc {
            let owner = if event.accounted { event.group } else { GroupId::ROOT };
            let object = self.controller.alloc_percpu(event.size, owner)?;
            self.now.percpu_bytes += object.nr_bytes();
            self.now.percpu_charged_bytes += object.charged_bytes();
            self.now.percpu_uncharged_bytes += uncharged(&object);
            self.percpu.insert(event.obj, object);
        } else {
            let object = self.percpu.remove(&event.obj).expect("a trace frees only what is live");
            self.now.percpu_bytes -= object.nr_bytes();
            self.now.percpu_charged_bytes -= object.charged_bytes();
            self.now.percpu_uncharged_bytes -= uncharged(&object);
        }
        Ok(())
    }

    fn look(&mut self) {
        self.now.held = self.controller.held();
        self.now.groups_pinned = u32::try_from(self.controller.nr_pinned()).expect("fewer groups than rows");
    }

    fn free_survivors(&mut self) {
        self.percpu.clear();
        for object in self.objects.iter_mut().filter_map(Option::take) {
            self.controller.free(CpuId::current(), object);
        }
    }
}

impl Tally {
    fn add(&mut self, time: Duration) {
        self.calls += 1;
        self.time += time;
    }
}
