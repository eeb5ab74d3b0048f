//! Workers: built when they are needed, one for each allocator.
//!
//! The worker's crate is a workspace of its own beside this one, and each allocator has a target folder of its own, so that
//! building one does not undo another.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail, ensure};

use crate::protocol::{AT_REST, AT_TURN, Answer, Job};
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

    /// Starts a process, which does nothing before it is told to go on.
    pub(crate) fn start(&self, job: &Job) -> Result<Process> {
        let mut child = Command::new(&self.binary)
            .args(job.encode())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| self.binary.display().to_string())?;
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut stderr = child.stderr.take().expect("it is piped");
        let complaints = thread::spawn(move || {
            let mut complaints = Vec::new();
            // What cannot be read is not shown.
            let _ = stderr.read_to_end(&mut complaints);
            complaints
        });
        let mut process = Process { child, stdout, complaints: Some(complaints), said: Vec::new(), waits: None };
        process.listen()?;
        Ok(process)
    }
}

/// A process that measures, a turn at a time.
pub(crate) struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    complaints: Option<JoinHandle<Vec<u8>>>,
    /// What it said of its answer.
    said: Vec<u8>,
    /// `None` if it will say no more.
    waits: Option<Waits>,
}

/// What a process waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    Turn,
    Rest,
}

impl Process {
    /// Whether it waits for a rest.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.waits == Some(Waits::Rest)
    }

    /// Has it go on with what it waits for.
    pub(crate) fn go_on(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        // One that died cannot be told; how it died is found when there is nothing to hear of it.
        let _ = stdin.write_all(b"\n");
    }

    /// Listens until it waits again; the answer if it says no more.
    pub(crate) fn hear(&mut self) -> Result<Option<Answer>> {
        self.listen()?;
        if self.waits.is_some() {
            return Ok(None);
        }
        let status = self.child.wait()?;
        if !status.success() {
            let complaints = self.complaints.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
            let reason = first_lines(&complaints);
            let separator = if reason.is_empty() { "" } else { ": " };
            bail!("{status}{separator}{reason}");
        }
        Answer::decode(&String::from_utf8_lossy(&self.said)).map(Some).map_err(anyhow::Error::msg)
    }

    fn listen(&mut self) -> Result<()> {
        loop {
            let start = self.said.len();
            let is_end = self.stdout.read_until(b'\n', &mut self.said)? == 0;
            let waits = match &self.said[start..] {
                line if line == AT_TURN.as_bytes() => Some(Waits::Turn),
                line if line == AT_REST.as_bytes() => Some(Waits::Rest),
                _ => None,
            };
            if waits.is_some() {
                self.said.truncate(start);
            }
            if is_end || waits.is_some() {
                self.waits = waits;
                return Ok(());
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::sync::Mutex;

    use super::{Process, Worker};
    use crate::protocol::{Job, Mode, Scale};

    /// A file that is open for writing in a process that another test is about to start cannot be run.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    /// A worker that is a shell script, with a name for its file.
    fn script(name: &str, text: &str) -> (Worker, PathBuf) {
        let binary = std::env::temp_dir().join(format!("objcg-bench-test-{}-{name}", std::process::id()));
        fs::write(&binary, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o700)).unwrap();
        (Worker { binary: binary.clone() }, binary)
    }

    fn start(name: &str, text: &str) -> anyhow::Result<Process> {
        let _alone = ONE_AT_A_TIME.lock().unwrap();
        let (worker, binary) = script(name, text);
        let job = Job {
            workload: "lifo".to_owned(),
            variant: "-".to_owned(),
            mode: Mode::Off,
            scale: Scale::Tiny,
            rests: true,
            seed: 1,
        };
        let process = worker.start(&job);
        fs::remove_file(binary).unwrap();
        process
    }

    fn error(process: &mut Process) -> String {
        process.go_on();
        format!("{:#}", process.hear().unwrap_err())
    }

    const ANSWER: &str = "printf 'proof p\\npeak 1\\ncase 16 2.5\\nend\\n'";

    #[test]
    fn a_worker_runs_from_turn_to_turn_and_answers() {
        let text = format!("echo turn; read _; echo turn; read _; echo rest; read _; {ANSWER}");
        let mut process = start("turns", &text).unwrap();
        for is_at_rest in [false, true] {
            process.go_on();
            assert!(process.hear().unwrap().is_none());
            assert_eq!(process.is_at_rest(), is_at_rest);
        }
        process.go_on();
        let answer = process.hear().unwrap().unwrap();
        assert_eq!((answer.peak_bytes, answer.cases[0].ns[0]), (1, 2.5));
    }

    #[test]
    fn a_worker_does_nothing_before_its_turn() {
        let file = std::env::temp_dir().join(format!("objcg-bench-test-{}-did", std::process::id()));
        let mut process =
            start("waits", &format!("echo turn; read _; touch {}; echo turn; read _", file.display())).unwrap();
        assert!(!file.exists());
        process.go_on();
        assert!(process.hear().unwrap().is_none());
        assert!(file.exists());
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn how_a_worker_died_is_told() {
        // Before its first turn, in one, and after more complaints than a pipe takes.
        let mut at_start = start("start", "echo no group >&2; exit 3").unwrap();
        assert!(error(&mut at_start).contains("exit status: 3: no group"));
        let mut in_turn = start("turn", "echo turn; read _; kill -9 $$").unwrap();
        assert!(error(&mut in_turn).contains("signal: 9"));
        let mut loud =
            start("loud", "echo turn; read _; echo first >&2; head -c 200000 /dev/zero >&2; exit 1").unwrap();
        assert!(error(&mut loud).contains("exit status: 1: first"));
        let mut half = start("half", "echo turn; read _; echo peak 1").unwrap();
        assert_eq!(error(&mut half), "the answer has no end");
        let mut garbage = start("garbage", "echo turn; read _; printf '\\377\\n'; exit 2").unwrap();
        assert!(error(&mut garbage).contains("exit status: 2"));
    }

    #[test]
    fn a_worker_that_is_given_up_ends() {
        let process = start("ends", "echo turn; read _; exec sleep 1000").unwrap();
        let pid = process.child.id();
        drop(process);
        assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
    }
}
