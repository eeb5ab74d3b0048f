//! Workers: built when they are needed, one for each allocator.
//!
//! The worker's crate is a workspace of its own beside this one, and each allocator has a target folder of its own, so that
//! building one does not undo another.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::protocol::{Answer, Job};
use crate::rivals::Rival;

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../objcg-bench-worker/Cargo.toml");
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const BINARY: &str = "release/objcg-bench-worker";
/// Lines of a failed build that are shown.
const MAX_LINES: usize = 12;

/// The program that measures one allocator.
pub(crate) struct Worker {
    binary: PathBuf,
}

impl Worker {
    /// Builds the worker, or finds that it is built.
    pub(crate) fn build(rival: &Rival) -> Result<Worker> {
        if !Path::new(MANIFEST).exists() {
            bail!("workers are built from the sources, which are not at {MANIFEST} any more");
        }
        let target = target_folder()?.join("bench").join(rival.name);
        let output = cargo()
            .args(["build", "--quiet", "--release", "--no-default-features", "--features", rival.name])
            .args(["--manifest-path", MANIFEST])
            .arg("--target-dir")
            .arg(&target)
            // With debug info snmalloc's crate builds a library for debugging, and by cc it leaves the assertions in.
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .env("CXXFLAGS", format!("{} -DNDEBUG", env::var("CXXFLAGS").unwrap_or_default()))
            .output()
            .context("cargo does not start")?;
        if !output.status.success() {
            bail!("cargo build: {}\n{}", output.status, first_lines(&output.stderr));
        }
        Ok(Worker { binary: target.join(BINARY) })
    }

    /// Runs one process to its end.
    pub(crate) fn run(&self, job: &Job) -> Result<Answer> {
        let output = Command::new(&self.binary)
            .args(job.encode())
            .stdin(Stdio::null())
            .output()
            .with_context(|| self.binary.display().to_string())?;
        if !output.status.success() {
            let reason = first_lines(&output.stderr);
            let separator = if reason.is_empty() { "" } else { ": " };
            bail!("{}{separator}{reason}", output.status);
        }
        Answer::decode(&String::from_utf8_lossy(&output.stdout)).map_err(anyhow::Error::msg)
    }
}

/// Builds a package of this workspace, or finds that it is built; returns its file below the target folder's `release`.
pub(crate) fn build_package(package: &str, file: &str) -> Result<PathBuf> {
    let manifest = Path::new(WORKSPACE).join("crates").join(package).join("Cargo.toml");
    ensure!(manifest.exists(), "{package} is built from its sources, which are not there");
    let target = target_folder()?;
    let mut cargo = cargo();
    cargo.args(["build", "--quiet", "--release", "--package", package, "--target-dir"]).arg(&target);
    let output = cargo.current_dir(WORKSPACE).output().context("cargo does not start")?;
    if !output.status.success() {
        bail!("{package} does not build: {}\n{}", output.status, first_lines(&output.stderr));
    }
    Ok(target.join("release").join(file))
}

/// The cargo that runs this program, or that of the user.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.stdin(Stdio::null());
    command
}

/// Where things are built.
fn target_folder() -> Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(WORKSPACE).join("target"), PathBuf::from);
    Ok(std::path::absolute(target)?)
}

/// The first lines that say something.
pub(crate) fn first_lines(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.take(MAX_LINES).collect::<Vec<_>>().join("\n")
}
