//! One run of one program: a folder of its own, an environment of its own, and what was found.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;
use std::{env, mem};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::executables::{Executable, Found};
use super::library::Library;
use super::process::{Ended, Process, Usage};
use crate::workers::first_lines;

/// Longer than any process takes that is not stuck, on a machine with other work too.
pub(crate) const TOO_LONG: Duration = Duration::from_secs(240);
/// What the loader says of a library that it does not load; the program runs without it then.
const NOT_PRELOADED: &str = "cannot be preloaded";
/// Variables that a run inherits: what finds executables and libraries.
const INHERITED: &[&str] = &["PATH", "LD_LIBRARY_PATH"];

/// Whose allocator serves a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// The one that is measured.
    Measured,
    /// The system's: the process only helps.
    Plain,
}

/// What a run found.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// What must be the same whichever allocator serves.
    pub(crate) output: String,
    /// What is told beside the figures.
    pub(crate) notes: Vec<String>,
    pub(crate) usage: Usage,
}

/// A process at its end, and what it printed.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) usage: Usage,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A process that was started and goes on.
pub(crate) struct Running {
    process: Process,
    name: String,
    number: u32,
}

pub(crate) struct Session<'a> {
    folder: TempDir,
    found: &'a Found,
    library: &'a Library,
    nr_processes: u32,
    answer: Answer,
}

impl<'a> Session<'a> {
    pub(crate) fn new(found: &'a Found, library: &'a Library) -> Result<Session<'a>> {
        let folder = TempDir::with_prefix("objcg-programs-").context("no folder for temporary files")?;
        for name in ["home", "logs", "here"] {
            fs::create_dir(folder.path().join(name)).context("no folder for temporary files")?;
        }
        Ok(Session { folder, found, library, nr_processes: 0, answer: Answer::default() })
    }

    pub(crate) fn into_answer(mut self) -> Answer {
        mem::take(&mut self.answer)
    }

    /// A path in the folder in which all commands run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("here").join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("in the folder"))?;
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    pub(crate) fn command(&self, executable: &Executable) -> Command {
        self.command_at(self.found.path(executable))
    }

    /// A command in an environment that has nothing of the user's but where things are.
    pub(crate) fn command_at(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(INHERITED.iter().filter_map(|name| Some((name, env::var_os(name)?))));
        // Options of the library that is measured.
        command.envs(env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OBJCG_")));
        command.env("HOME", self.folder.path().join("home")).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.current_dir(self.folder.path().join("here"));
        command
    }

    /// Runs a command that must succeed; its time and memory count, and what it prints must always be the same.
    pub(crate) fn measure(&mut self, command: Command) -> Result<()> {
        let finished = self.succeed(command, Served::Measured)?;
        self.answer.output.push_str(&finished.stdout);
        self.count(finished.usage);
        Ok(())
    }

    /// Runs a command that must succeed.
    pub(crate) fn succeed(&mut self, command: Command, served: Served) -> Result<Finished> {
        let name = name_of(&command);
        let finished = self.run(command, served)?;
        if !finished.status.success() {
            let said = [finished.stderr.as_bytes(), finished.stdout.as_bytes()].concat();
            bail!("{name}: {}: {}", finished.status, first_lines(&said));
        }
        Ok(finished)
    }

    /// Runs a command to its end, whatever that is.
    pub(crate) fn run(&mut self, command: Command, served: Served) -> Result<Finished> {
        let running = self.start(command, served)?;
        self.finish(running)
    }

    pub(crate) fn start(&mut self, mut command: Command, served: Served) -> Result<Running> {
        if served == Served::Measured {
            command.env("LD_PRELOAD", self.library.preload());
        }
        let name = name_of(&command);
        let number = self.nr_processes;
        self.nr_processes += 1;
        command.stdout(File::create(self.log(number, "stdout"))?).stderr(File::create(self.log(number, "stderr"))?);
        let process = Process::start(&mut command).with_context(|| format!("{name} does not start"))?;
        Ok(Running { process, name, number })
    }

    /// Waits for the end of a process.
    pub(crate) fn finish(&self, running: Running) -> Result<Finished> {
        let Running { process, name, number } = running;
        let Ended { status, is_late, usage } = process.wait(TOO_LONG).with_context(|| name.clone())?;
        let read = |log: &str| {
            let bytes = fs::read(self.log(number, log)).with_context(|| format!("{name}: {log}"))?;
            anyhow::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let (stdout, stderr) = (read("stdout")?, read("stderr")?);
        ensure!(!is_late, "{name}: has not ended after {} s", TOO_LONG.as_secs());
        ensure!(!stderr.contains(NOT_PRELOADED), "{name}: {}", first_lines(stderr.as_bytes()));
        Ok(Finished { status, usage, stdout, stderr })
    }

    /// What a process that goes on has printed.
    pub(crate) fn said(&self, running: &Running) -> String {
        let read = |log: &str| fs::read(self.log(running.number, log)).unwrap_or_default();
        first_lines(&[read("stderr"), read("stdout")].concat())
    }

    /// Adds the time, and the memory if it is the most so far.
    pub(crate) fn count(&mut self, usage: Usage) {
        let sum = &mut self.answer.usage;
        sum.elapsed += usage.elapsed;
        sum.cpu += usage.cpu;
        sum.peak_bytes = sum.peak_bytes.max(usage.peak_bytes);
    }

    /// Adds to what must be the same whichever allocator serves.
    pub(crate) fn expect_same(&mut self, line: &str) {
        self.answer.output.push_str(line);
        self.answer.output.push('\n');
    }

    /// Adds a file to what must be the same whichever allocator serves.
    pub(crate) fn expect_same_file(&mut self, name: &str) -> Result<()> {
        let path = self.path(name);
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        // Always the same keys, so that hashes of different runs compare.
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        self.expect_same(&format!("{name}: {} B, {:016x}", bytes.len(), hasher.finish()));
        Ok(())
    }

    /// What was found so far that must be the same whichever allocator serves.
    pub(crate) fn output(&self) -> &str {
        &self.answer.output
    }

    pub(crate) fn note(&mut self, note: String) {
        self.answer.notes.push(note);
    }

    fn log(&self, number: u32, name: &str) -> PathBuf {
        self.folder.path().join("logs").join(format!("{number}.{name}"))
    }
}

impl Running {
    /// Whether it ends in the time given from now on.
    pub(crate) fn ends_within(&self, time: Duration) -> Result<bool> {
        Ok(self.process.ends_within(time)?)
    }
}

/// The command's name and first argument, for messages.
fn name_of(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = [program].into_iter().chain(command.get_args().take(1));
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
