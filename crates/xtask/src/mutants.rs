//! Mutants of the accounting, all of them in one build: which of them do the tests not see?
//!
//! What `cargo mutants` does with a build for each mutant (`.cargo/mutants.toml`) is done here with one build for all: the
//! number of the active one comes by the environment. A mutant is caught if a test program fails, crashes, or does not end.

mod rewrite;

use std::fs;
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
/// Test programs in the order in which they are run: those first that catch most in the shortest time.
const PROGRAMS: &[&str] = &[
    "accounting",
    "lifetime",
    "limits",
    "edges",
    "names",
    "percpu",
    "conservation",
    "kmem_cache",
    "objcg_core",
    "percpu_width",
    "corruption",
];
const NR_WORKERS: usize = 2;
/// A program that takes so long hangs.
const TIMEOUT: Duration = Duration::from_secs(60);
/// KiB of memory that a mutant may take.
const MAX_KIB: u64 = 3 << 20;

/// What every file of the rewritten engine refers to.
const SUPPORT: &str = r#"
macro_rules! mutated {
    ($number:expr, $left:expr, [$($op:tt)+], [$($other:tt)+], $right:expr) => {
        if crate::mutant::is($number) { $left $($other)+ $right } else { $left $($op)+ $right }
    };
}

#[allow(unsafe_code)]
pub(crate) mod mutant {
    use core::sync::atomic::{AtomicUsize, Ordering};
    static ACTIVE: AtomicUsize = AtomicUsize::new(usize::MAX);
    #[inline(always)]
    pub(crate) fn is(number: usize) -> bool {
        let active = ACTIVE.load(Ordering::Relaxed);
        (if active == usize::MAX { find() } else { active }) == number
    }
    #[cold]
    fn find() -> usize {
        let text = unsafe { libc::getenv(c"OBJCG_MUTANT".as_ptr()) };
        let active = if text.is_null() { 0 } else { unsafe { libc::atoi(text) as usize } };
        ACTIVE.store(active, Ordering::Relaxed);
        active
    }
}
"#;

struct Numbered {
    file: &'static str,
    mutant: Mutant,
}

/// Runs the mutants of the files whose names start with one of `wanted`, or of all; of every `stride` one.
pub(crate) fn run(root: &Path, wanted: &[String], stride: usize) -> Result<()> {
    let copy = TreeCopy::make(root, "mutants", CRATES)?;
    let mutants = write_all(&copy)?;
    let programs = build(&copy)?;
    let folder = copy.tree.join("crates/objcg");
    if let Some(name) = first_to_fail(&programs, &folder, 0)? {
        bail!("{name} fails without a mutant");
    }
    let is_wanted = |file: &str| wanted.is_empty() || wanted.iter().any(|name| file.starts_with(name.as_str()));
    let chosen = (1..=mutants.len()).filter(|number| is_wanted(mutants[number - 1].file)).step_by(stride.max(1));
    let chosen = chosen.collect::<Vec<_>>();
    println!("{} mutants, {} of them to run", mutants.len(), chosen.len());
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let work = || -> Result<()> {
            while let Some(number) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                let Numbered { file, mutant } = &mutants[number - 1];
                let what = format!("{file}:{} {}: {}", mutant.line, mutant.function, mutant.change);
                match first_to_fail(&programs, &folder, *number)? {
                    Some(name) => println!("caught   {what} ({name})"),
                    None => {
                        println!("SURVIVES {what}");
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
    println!("{} caught, {} survive", chosen.len() - survivors.len(), survivors.len());
    for number in survivors {
        let Numbered { file, mutant } = &mutants[number - 1];
        println!("{file}:{} {}: {}", mutant.line, mutant.function, mutant.change);
    }
    Ok(())
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
    let lib = copy.tree.join(SOURCES).join("lib.rs");
    let text = fs::read_to_string(&lib)?;
    let at = text.find("#[cfg(test)]\nextern crate std;").context("lib.rs has changed its shape")?;
    fs::write(lib, format!("{}{SUPPORT}{}", &text[..at], &text[at..]))?;
    Ok(mutants)
}

/// Builds the tests; returns the programs in the order of [`PROGRAMS`].
fn build(copy: &TreeCopy) -> Result<Vec<(&'static str, PathBuf)>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(&copy.tree)
        .args(["test", "--no-run", "--package", "objcg-core", "--package", "objcg", "--lib", "--tests"])
        .args(["--config", "profile.dev.debug=false", "--config", "profile.dev.opt-level=1"])
        .env("CARGO_TARGET_DIR", &copy.target)
        .env("RUSTFLAGS", "--cap-lints allow");
    let output = command.output().context("cargo does not start")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the mutants do not build:\n{text}");
    let path_of = |name: &&'static str| {
        let of_this = text.lines().filter(|line| line.trim_start().starts_with("Executable")).find_map(|line| {
            let path = line.split_once('(')?.1.strip_suffix(')')?;
            let file = Path::new(path).file_name()?.to_str()?;
            (file.rsplit_once('-')?.0 == *name).then(|| copy.tree.join(path))
        });
        of_this.map(|path| (*name, path))
    };
    let programs = PROGRAMS.iter().filter_map(path_of).collect::<Vec<_>>();
    ensure!(!programs.is_empty(), "cargo names no test program:\n{text}");
    Ok(programs)
}

fn first_to_fail(programs: &[(&'static str, PathBuf)], folder: &Path, number: usize) -> Result<Option<&'static str>> {
    for (name, path) in programs {
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit -d {MAX_KIB}; exec \"$0\" -q")])
            .arg(path)
            .current_dir(folder)
            .env("OBJCG_MUTANT", number.to_string())
            .env("CARGO_MANIFEST_DIR", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{}", path.display()))?;
        if !ends_well(&mut child)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn ends_well(child: &mut Child) -> Result<bool> {
    const INTERVAL: Duration = Duration::from_millis(20);
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if start.elapsed() > TIMEOUT {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(INTERVAL);
    }
}
