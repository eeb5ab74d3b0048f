//! The process that is watched: built, started, listened to, and ended if it says nothing for too long.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::protocol::{Line, Order};
use crate::workers::{self, first_lines};

/// A line comes each second: after this without one, threads wait for each other for ever.
const PATIENCE: Duration = Duration::from_secs(90);

/// Builds the program, or finds that it is built.
pub(crate) fn build() -> Result<PathBuf> {
    workers::build_package("objcg-soak", "objcg-soak")
}

/// Runs the program to its end and hands on each line of it.
///
/// # Errors
/// It found something wrong, died, said nothing for too long, or said what nobody knows.
pub(crate) fn run(binary: &Path, order: &Order, heard: impl FnMut(Line)) -> Result<()> {
    let mut child = Command::new(binary)
        .args(order.encode())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| binary.display().to_string())?;
    let stderr = child.stderr.take().context("stderr is piped")?;
    let complaints = thread::spawn(move || {
        let mut bytes = Vec::new();
        // What can be read of it is better than nothing.
        let _ = BufReader::new(stderr).read_to_end(&mut bytes);
        first_lines(&bytes)
    });
    let outcome = listen(&mut child, heard);
    if outcome.is_err() {
        // It may be gone already.
        let _ = child.kill();
    }
    let status = child.wait().context("the process cannot be waited for")?;
    let complaints = complaints.join().unwrap_or_default();
    judge(outcome, status, &complaints)
}

fn listen(child: &mut Child, mut heard: impl FnMut(Line)) -> Result<()> {
    let stdout = child.stdout.take().context("stdout is piped")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => heard(Line::decode(&line).map_err(anyhow::Error::msg)?),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => bail!("no sign of life for {} s: it hangs", PATIENCE.as_secs()),
        }
    }
}

fn judge(outcome: Result<()>, status: ExitStatus, complaints: &str) -> Result<()> {
    if outcome.is_ok() && !status.success() {
        bail!("{}", if complaints.is_empty() { format!("it ended with {status}") } else { complaints.to_owned() });
    }
    outcome
}
