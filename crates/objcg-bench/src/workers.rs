//! Workers: built when they are needed, one for each allocator.
//!
//! The worker's crate is a workspace of its own beside this one, and each allocator has a target folder of its own, so that
//! building one does not undo another.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::protocol::{AT_TURN, Answer, Job};
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

    /// Starts a process, which waits for its first turn.
    pub(crate) fn start(&self, job: &Job) -> Result<Process> {
        let mut child = Command::new(&self.binary)
            .args(job.encode())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| self.binary.display().to_string())?;
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut process = Process { child, stdout, said: String::new() };
        process.listen()?;
        Ok(process)
    }
}

/// A process that measures, a turn at a time.
pub(crate) struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// What it said of its answer.
    said: String,
}

impl Process {
    /// Lets it go on until it is at its next turn; the answer if there is none.
    pub(crate) fn take_turn(&mut self) -> Result<Option<Answer>> {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        // One that died cannot be told; how it died is found when there is nothing to hear of it.
        let _ = stdin.write_all(b"\n");
        if self.listen()? {
            return Ok(None);
        }
        let mut stderr = Vec::new();
        self.child.stderr.take().expect("it is piped").read_to_end(&mut stderr)?;
        let status = self.child.wait()?;
        if !status.success() {
            let reason = first_lines(&stderr);
            let separator = if reason.is_empty() { "" } else { ": " };
            bail!("{status}{separator}{reason}");
        }
        Answer::decode(&self.said).map(Some).map_err(anyhow::Error::msg)
    }

    /// Listens until it is at a turn; false if it says no more.
    fn listen(&mut self) -> Result<bool> {
        loop {
            let start = self.said.len();
            if self.stdout.read_line(&mut self.said)? == 0 {
                return Ok(false);
            }
            if &self.said[start..] == AT_TURN {
                self.said.truncate(start);
                return Ok(true);
            }
        }
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
