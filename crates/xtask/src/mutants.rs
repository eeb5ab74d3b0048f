//! Mutants of the accounting, all of them in one build: which of them do the tests not see?
//!
//! What `cargo mutants` does with a build for each mutant (`.cargo/mutants.toml`) is done here with one build for all: the
//! number of the active one comes by the environment. A mutant is caught if a test program fails, crashes, or does not end.

mod rewrite;

use std::fmt;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rewrite::{Mutant, rewrite};

use crate::tree_copy::TreeCopy;

const CRATES: &[&str] = &["objcg-core", "objcg-rseq", "objcg"];
const SOURCES: &str = "crates/objcg-core/src";
/// The accounting modules.
const FILES: &[&str] = &[
    "hooks.rs",
    "memcg/page_counter.rs",
    "memcg/pin.rs",
    "memcg/stock.rs",
    "memcg/stocks.rs",
    "memcg/charge.rs",
    "memcg/objcg.rs",
    "memcg/tree.rs",
    "percpu.rs",
    "percpu/counter.rs",
    "percpu/words.rs",
    "percpu/slots.rs",
    "percpu/state.rs",
    "percpu/bits.rs",
    "percpu/region.rs",
    "percpu/chunk.rs",
];
/// As the step `portable` of CI has it.
const PORTABLE: &str = "--cfg objcg_rseq_absent";
const NR_WORKERS: usize = 2;
/// A program hangs that takes so many times as long as without a mutant, and so long besides.
const TIMES_AS_LONG: u32 = 8;
const BESIDES: Duration = Duration::from_secs(5);
/// No program takes so long without a mutant.
const MAX_WITHOUT: Duration = Duration::from_secs(600);
/// Bytes of the file by which a program says what it reaches.
const MAX_MUTANTS: usize = 1 << 16;
/// KiB of memory that a mutant may take.
const MAX_KIB: u64 = 3 << 20;
/// Operations of the reference model: a mutant that it sees at all it mostly sees early.
const MODEL_OPERATIONS: &str = "40000";
/// Test programs of which two at a time would break each other: one folder, in which they build.
const ALONE: &[&str] = &["third_party"];
/// Tests that need more.
const LEFT_OUT: &[&str] = &["where_stacks_are_huge"];

/// What every file of the rewritten engine refers to.
const SUPPORT: &str = r#"
macro_rules! mutated {
    ($number:expr, $left:expr, [$($op:tt)+], [$($other:tt)+], $right:expr) => {
        if crate::mutant::is($number) { $left $($other)+ $right } else { $left $($op)+ $right }
    };
}

#[allow(unsafe_code)]
pub(crate) mod mutant {
    use core::ptr::{self, NonNull};
    use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering};
    static ACTIVE: AtomicUsize = AtomicUsize::new(usize::MAX);
    /// A byte for each mutant, in a file that outlives the process: 1 if its place was reached.
    static REACHED: AtomicPtr<AtomicU8> = AtomicPtr::new(ptr::null_mut());
    #[inline(always)]
    pub(crate) fn is(number: usize) -> bool {
        let active = ACTIVE.load(Ordering::Relaxed);
        let active = if active == usize::MAX { find() } else { active };
        if let Some(reached) = NonNull::new(REACHED.load(Ordering::Relaxed)) {
            unsafe { reached.add(number).as_ref() }.store(1, Ordering::Relaxed);
        }
        active == number
    }
    #[cold]
    fn find() -> usize {
        let text = unsafe { libc::getenv(c"OBJCG_MUTANT".as_ptr()) };
        let active = if text.is_null() { 0 } else { unsafe { libc::atoi(text) as usize } };
        let path = unsafe { libc::getenv(c"OBJCG_MUTANTS_REACHED".as_ptr()) };
        if !path.is_null() {
            let file = unsafe { libc::open(path, libc::O_RDWR | libc::O_CLOEXEC) };
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let bytes = unsafe { libc::mmap(ptr::null_mut(), NR_BYTES, protection, libc::MAP_SHARED, file, 0) };
            if bytes == libc::MAP_FAILED { unsafe { libc::abort() } }
            REACHED.store(bytes.cast(), Ordering::Relaxed);
            unsafe { libc::close(file) };
        }
        ACTIVE.store(active, Ordering::Relaxed);
        active
    }
    const NR_BYTES: usize = 1 << 16;
}
"#;

struct Numbered {
    file: &'static str,
    mutant: Mutant,
}

/// A test program, and what it does without a mutant.
struct Program {
    name: String,
    path: PathBuf,
    takes: Duration,
    reaches: Vec<u8>,
}

/// Which mutants are run, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Choice {
    /// Runs every so many mutants only
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    stride: usize,
    /// Leaves out those of which the output of an earlier run says what became of them
    #[arg(long, value_name = "OUTPUT")]
    after: Option<PathBuf>,
    /// Prints the mutants in their order, and runs none
    #[arg(long)]
    list: bool,
    /// Leaves out test programs that take longer without a mutant
    #[arg(long, value_name = "SECONDS", default_value_t = MAX_WITHOUT.as_secs())]
    longest: u64,
    /// Builds the engine without restartable sequences: the portable arm serves alone
    #[arg(long)]
    portable: bool,
    /// Files under crates/objcg-core/src, with a line if wanted (percpu.rs:55), or the beginnings of their names; all accounting
    /// modules if none is named
    #[arg(value_name = "FILE")]
    files: Vec<String>,
}

/// Runs the mutants, and prints which of them no test program sees.
pub(crate) fn run(root: &Path, choice: &Choice) -> Result<()> {
    let name = match (choice.list, choice.portable) {
        // A run may be under way in the others.
        (true, _) => "mutants-list",
        (_, true) => "mutants-portable",
        _ => "mutants",
    };
    let copy = TreeCopy::make(root, name, CRATES)?;
    let mutants = write_all(&copy)?;
    let chosen = choose(choice, &mutants)?;
    if choice.list {
        chosen.iter().for_each(|number| println!("{}", mutants[number - 1]));
        return Ok(());
    }
    let folder = copy.tree.join("crates/objcg");
    let mut programs = build(&copy, if choice.portable { PORTABLE } else { "" })?;
    for program in &mut programs {
        program.measure(&folder, &copy.target.join("reached"))?;
    }
    programs.retain(|program| program.takes.as_secs() <= choice.longest);
    programs.sort_by_key(|program| program.takes);
    for Program { name, takes, reaches, .. } in &programs {
        println!(
            "{name}: {:.1} s, reaches {} mutants",
            takes.as_secs_f32(),
            reaches.iter().filter(|&&is| is != 0).count()
        );
    }
    println!("{} mutants, {} of them to run", mutants.len(), chosen.len());
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let work = || -> Result<()> {
            while let Some(number) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                let start = Instant::now();
                let what = &mutants[number - 1];
                let caught_by = first_to_fail(&programs, &folder, *number)?;
                let took = start.elapsed().as_secs_f32();
                match caught_by {
                    Some(name) => println!("caught   {what} ({name}, {took:.1} s)"),
                    None => {
                        let is_reached = programs.iter().any(|program| program.reaches[*number] != 0);
                        println!("SURVIVES {what} ({took:.1} s){}", if is_reached { "" } else { ", not reached" });
                        survivors.lock().unwrap_or_else(PoisonError::into_inner).push(*number);
                    }
                }
            }
            Ok(())
        };
        let workers = (0..NR_WORKERS).map(|_| scope.spawn(work)).collect::<Vec<_>>();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker has panicked")))
    })?;
    let mut survivors = survivors.into_inner().unwrap_or_else(PoisonError::into_inner);
    survivors.sort_unstable();
    for file in FILES {
        let count = |numbers: &[usize]| numbers.iter().filter(|&&number| mutants[number - 1].file == *file).count();
        let (nr_run, nr_survivors) = (count(&chosen), count(&survivors));
        println!("| `{file}` | {nr_run} | {} | {nr_survivors} |", nr_run - nr_survivors);
    }
    println!("{} caught, {} survive", chosen.len() - survivors.len(), survivors.len());
    survivors.iter().for_each(|number| println!("{}", mutants[number - 1]));
    Ok(())
}

/// The numbers of the mutants that are to run, in the order in which they are.
fn choose(choice: &Choice, mutants: &[Numbered]) -> Result<Vec<usize>> {
    let done = choice.after.as_ref().map_or(Ok(String::new()), fs::read_to_string)?;
    let is_done = |number: &usize| done.contains(&format!(" {} (", mutants[number - 1]));
    let is_wanted = |number: &usize| {
        let Numbered { file, mutant } = &mutants[number - 1];
        let place = format!("{file}:{}", mutant.line);
        let is_named =
            |name: &String| if name.contains(':') { place == *name } else { file.starts_with(name.as_str()) };
        choice.files.is_empty() || choice.files.iter().any(is_named)
    };
    let chosen = (1..=mutants.len()).filter(is_wanted).step_by(choice.stride.max(1)).filter(|number| !is_done(number));
    let mut chosen = chosen.collect::<Vec<_>>();
    // A run that is broken off has been a sample of all.
    chosen.sort_by_key(|number| number.reverse_bits());
    Ok(chosen)
}

impl fmt::Display for Numbered {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Numbered { file, mutant } = self;
        let Mutant { line, column, function, change } = mutant;
        write!(to, "{file}:{line}:{column} {function}: {change}")
    }
}

fn write_all(copy: &TreeCopy) -> Result<Vec<Numbered>> {
    let mut mutants = Vec::new();
    for file in FILES {
        let path = copy.tree.join(SOURCES).join(file);
        let text = fs::read_to_string(&path).context(*file)?;
        let (text, more) = rewrite(&text, mutants.len() + 1).context(*file)?;
        mutants.extend(more.into_iter().map(|mutant| Numbered { file, mutant }));
        fs::write(path, text)?;
    }
    ensure!(mutants.len() < MAX_MUTANTS, "{} mutants are too many", mutants.len());
    let lib = copy.tree.join(SOURCES).join("lib.rs");
    let text = fs::read_to_string(&lib)?;
    let at = text.find("#[cfg(test)]\nextern crate std;").context("lib.rs has changed its shape")?;
    fs::write(lib, format!("{}{SUPPORT}{}", &text[..at], &text[at..]))?;
    Ok(mutants)
}

/// Builds the tests.
fn build(copy: &TreeCopy, flags: &str) -> Result<Vec<Program>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(&copy.tree)
        .args(["test", "--no-run", "--package", "objcg-core", "--package", "objcg", "--lib", "--tests"])
        .args(["--config", "profile.dev.debug=false", "--config", "profile.dev.opt-level=1"])
        .env("CARGO_TARGET_DIR", &copy.target)
        .env("RUSTFLAGS", format!("--cap-lints allow {flags}"));
    let output = command.output().context("cargo does not start")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the mutants do not build:\n{text}");
    let program_of = |line: &str| {
        let path = line.trim_start().strip_prefix("Executable")?.split_once('(')?.1.strip_suffix(')')?;
        let (name, _) = Path::new(path).file_name()?.to_str()?.rsplit_once('-')?;
        let path = copy.tree.join(path);
        (!ALONE.contains(&name)).then(|| Program {
            name: name.to_owned(),
            path,
            takes: Duration::ZERO,
            reaches: Vec::new(),
        })
    };
    let programs = text.lines().filter_map(program_of).collect::<Vec<_>>();
    ensure!(!programs.is_empty(), "cargo names no test program:\n{text}");
    Ok(programs)
}

/// Runs the programs that reach the mutant, the fastest first; returns the name of the one that sees it.
fn first_to_fail<'a>(programs: &'a [Program], folder: &Path, number: usize) -> Result<Option<&'a str>> {
    for program in programs.iter().filter(|program| program.reaches[number] != 0) {
        let mut child = program.command(folder).env("OBJCG_MUTANT", number.to_string()).spawn()?;
        if !ends_well(&mut child, program.takes * TIMES_AS_LONG + BESIDES)? {
            return Ok(Some(&program.name));
        }
    }
    Ok(None)
}

impl Program {
    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -d {MAX_KIB}; exec \"$0\" -q \"$@\"")])
            .arg(&self.path)
            .args(LEFT_OUT.iter().flat_map(|test| ["--skip", test]))
            // So that those that it starts end with it.
            .process_group(0)
            .current_dir(folder)
            .env("CARGO_MANIFEST_DIR", folder)
            .env("OBJCG_MODEL_OPERATIONS", MODEL_OPERATIONS)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Runs it without a mutant; what it reaches comes by the file `reached`.
    fn measure(&mut self, folder: &Path, reached: &Path) -> Result<()> {
        fs::write(reached, vec![0; MAX_MUTANTS])?;
        let start = Instant::now();
        let mut child = self.command(folder).env("OBJCG_MUTANTS_REACHED", reached).spawn()?;
        ensure!(ends_well(&mut child, MAX_WITHOUT)?, "{} fails without a mutant", self.name);
        self.takes = start.elapsed();
        self.reaches = fs::read(reached)?;
        Ok(())
    }
}

/// Whether a program ends well within `timeout`, which does not run while it is stopped, or this process.
fn ends_well(child: &mut Child, timeout: Duration) -> Result<bool> {
    const INTERVAL: Duration = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if waited > timeout {
            let group = format!("-{}", child.id());
            ensure!(Command::new("kill").args(["-9", "--", &group]).status()?.success(), "{group} cannot be killed");
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(INTERVAL);
        if !is_stopped(child.id()) {
            waited += INTERVAL;
        }
    }
}

fn is_stopped(pid: u32) -> bool {
    // "PID (name) STATE …"
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}
