//! `objcg run`: a program that knows nothing of us, in a group.
//!
//! The command carries the library (`build.rs`), puts it into a folder of this run's, has the loader preload it, and tells it by a
//! variable what is wanted. The library leaves a report for each process in that folder (`objcg_report`). The program's signals,
//! streams and exit status are its own.

mod program;
mod report;
mod signals;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, bail};
use objcg_report::{GroupBy, Order, Report, VARIABLE};
use tempfile::TempDir;

use crate::args::RunArgs;
use crate::output::{self, Destination};
use program::Program;
use report::Outcome;

/// The library, as `build.rs` has made it.
const LIBRARY: &[u8] = include_bytes!(env!("OBJCG_PRELOAD"));
/// Its name, by which it finds itself among preloaded libraries.
const LIBRARY_NAME: &str = "libobjcg_preload.so";
/// Of a report on standard output.
const STDOUT: &str = "-";

/// Where the report goes.
enum Place<'a> {
    Stderr,
    Stdout,
    File(Destination<'a>),
}

/// Runs the program to its end; then the status is the program's.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    let place = match args.stat.as_deref() {
        None => Place::Stderr,
        Some(path) if path == Path::new(STDOUT) => Place::Stdout,
        Some(path) => Place::File(Destination::check(path)?),
    };
    let (name, arguments) = args.command.split_first().context("no program")?;
    let program = match Program::find(name) {
        Ok(program) => program,
        Err(refusal) => return refusal.report(),
    };
    let folder = Folder::new()?;
    let order = Order {
        max: args.max,
        high: args.high,
        group_by: if args.group_by.is_some() { GroupBy::Thread } else { GroupBy::Process },
        with_children: args.children,
        folder: folder.text()?,
    };
    let mut command = Command::new(program.path());
    command.args(arguments).env("LD_PRELOAD", folder.preloaded()).env(VARIABLE, order.to_string());
    std::os::unix::process::CommandExt::arg0(&mut command, name);
    let watch = signals::Watch::start()?;
    let mut child = command.spawn().with_context(|| format!("{}: does not start", program.path().display()))?;
    let forwarder = watch.forward_to(&child)?;
    let status = child.wait().context("the program is lost")?;
    drop(forwarder);

    let outcome = Outcome::of(name, status, child.id(), &order, folder.reports()?);
    let text = if args.json { outcome.json()? } else { outcome.text() };
    match place {
        Place::Stderr => output::print_error(&text),
        Place::Stdout => output::print(&text)?,
        Place::File(file) => file.write(text.as_bytes())?,
    }
    drop(folder);
    end_like(status)
}

/// The program's exit status, or its death.
fn end_like(status: ExitStatus) -> Result<ExitCode> {
    if let Some(signal) = status.signal() {
        signals::die_of(signal)?;
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// A folder for one run: the library, and what it leaves.
struct Folder(TempDir);

impl Folder {
    fn new() -> Result<Folder> {
        let folder =
            tempfile::Builder::new().prefix("objcg-run-").tempdir().context("no room for a temporary folder")?;
        fs::write(folder.path().join(LIBRARY_NAME), LIBRARY).context("no room for the library")?;
        let folder = Folder(folder);
        let text = folder.text()?;
        if text.contains([':', ' ']) {
            bail!("{text}: the loader takes no path with a colon or a space; set TMPDIR to another folder");
        }
        Ok(folder)
    }

    fn text(&self) -> Result<&str> {
        self.0.path().to_str().context("the temporary folder's name is not UTF-8; set TMPDIR to another")
    }

    /// The list of libraries to preload: this one before what the user has.
    fn preloaded(&self) -> OsString {
        let mut list = OsString::from(self.0.path().join(LIBRARY_NAME));
        if let Some(others) = env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
            list.push(":");
            list.push(others);
        }
        list
    }

    /// What processes have left, in the order of their numbers.
    fn reports(&self) -> Result<Vec<Report>> {
        let mut reports = Vec::new();
        for entry in fs::read_dir(self.0.path()).context("the temporary folder is gone")? {
            let path: PathBuf = entry.context("the temporary folder is gone")?.path();
            if path.extension().is_some_and(|extension| extension == "report")
                && let Ok(bytes) = fs::read(&path)
            {
                reports.extend(Report::of_bytes(&bytes));
            }
        }
        reports.sort_by_key(|report| report.pid);
        Ok(reports)
    }
}
