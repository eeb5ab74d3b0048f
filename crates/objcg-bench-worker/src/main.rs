//! One process of a measurement: the allocator it was built with, and the workload it is asked for.
//!
//! `objcg-bench` builds and runs it; `protocol` is what they say to each other. `rival` has the allocators, `workload` the
//! workloads, which are the same source for all. `object` is how memory is asked for; what the worker needs for itself it
//! takes from `pages`.
#![deny(unsafe_code)]

mod affinity;
mod clock;
mod object;
mod pages;
mod protocol;
mod random;
mod resident;
mod rival;
mod turns;
mod workload;

use std::process::ExitCode;

use clock::Effort;
use protocol::{Answer, Job};

/// Moments of memory of any workload.
const MAX_POINTS: usize = 16;

fn main() -> ExitCode {
    clock::give_up_after(clock::TOO_LONG);
    match answer() {
        Ok(answer) => {
            print!("{}", answer.encode());
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn answer() -> Result<Answer, String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let job = Job::decode(&words)?;
    let mut answer = Answer { points: Vec::with_capacity(MAX_POINTS), ..Answer::default() };
    turns::wait();
    workload::run(&job, Effort::of(job.scale), &mut answer)?;
    answer.peak_bytes = resident::peak_bytes();
    // Last: a proof needs memory.
    answer.proof = rival::prove()?;
    Ok(answer)
}
