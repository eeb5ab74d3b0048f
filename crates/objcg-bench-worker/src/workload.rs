//! The workloads. Each adds its times, and its moments of memory, to the answer.

mod batch;
mod burst;
mod cross;
mod depth;
mod interleave;
mod larson;
mod lifo;
mod mstress;
mod percpu;
mod realloc;
mod residue;
mod ring;
mod tenants;
mod threads;

use crate::clock::Effort;
use crate::protocol::{Answer, Case, Job, Name};

/// Threads of the workloads that have several.
const NR_THREADS: usize = 2;

/// Runs the workload that the job names.
pub(crate) fn run(job: &Job, effort: Effort, answer: &mut Answer) -> Result<(), String> {
    match job.workload.as_str() {
        "lifo" => lifo::run(job, effort, &[16, 64, 256, 1024], answer),
        "large" => lifo::run(job, effort, &[4096, 32768], answer),
        "batch" => batch::run(job, effort, answer),
        "cross" => cross::run(job, effort, answer),
        "larson" => larson::run(job, effort, answer),
        "mstress" => mstress::run(job, effort, answer),
        "threads" => threads::run(job, effort, answer),
        "realloc" => realloc::run(job, effort, answer),
        "burst" => burst::run(job, effort, answer),
        "tenants" => tenants::run(job, effort, answer),
        "depth" => depth::run(job, effort, answer),
        "interleave" => interleave::run(job, effort, answer),
        "percpu" => percpu::run(job, effort, answer),
        "residue" => residue::run(job, effort, answer),
        unknown => Err(format!("no workload {unknown}")),
    }
}

impl Answer {
    fn add_case(&mut self, name: impl Into<Name>, ns: Vec<f64>) {
        self.cases.push(Case { name: name.into(), ns });
    }

    /// Notes what is resident or live, without an allocation: it would stay behind objects that are to be freed.
    fn add_point(&mut self, name: &'static str, bytes: u64) {
        assert!(self.points.len() < self.points.capacity(), "room for every moment");
        self.points.push((name.into(), bytes));
    }
}
