//! What needs the nightly toolchain: fuzz targets and sanitizers. Neither needs the standard library's sources.
//!
//! Nightly that is missing is an error, so that nothing passes that did not run; `OBJCG_CI_WITHOUT_NIGHTLY=1` makes it a skip
//! that says so.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Lets a machine without nightly pass.
const WITHOUT: &str = "OBJCG_CI_WITHOUT_NIGHTLY";
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Seconds that each target runs.
const FUZZ_SECONDS: u32 = 60;
/// Resident MiB at which a target is a finding.
const MAX_RESIDENT_MIB: u32 = 2048;

/// Coverage as libFuzzer wants it, as `cargo fuzz` sets it.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";
/// The precompiled standard library is not instrumented; the flag says that this is known.
const ADDRESS: &str = "-Zsanitizer=address -Cunsafe-allow-abi-mismatch=sanitizer";
/// ThreadSanitizer does not see restartable sequences: the arm without them.
const THREAD: &str = "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer --cfg objcg_rseq_absent";

/// Targets under AddressSanitizer.
const TARGETS: [&str; 5] = ["operations", "groups", "trace", "options", "settings"];
/// The target that defines `malloc`, which AddressSanitizer calls before it has started.
const PLAIN_TARGET: &str = "handles";

pub(crate) const FUZZ: &str = "each target of fuzz/ for 60 s, two at a time (nightly)";
pub(crate) const SANITIZERS: &str = "crates/objcg/tests/races.rs under ThreadSanitizer and AddressSanitizer (nightly)";

/// Whether there is a nightly; an error if there is none and nobody said that this is all right.
fn has_nightly() -> Result<bool> {
    let found =
        Command::new("cargo").args(["+nightly", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Ok(true);
    }
    ensure!(
        env::var_os(WITHOUT).is_some_and(|value| value == "1"),
        "no nightly toolchain: `rustup toolchain install nightly`, or {WITHOUT}=1 to do without"
    );
    println!("!!! SKIPPED: there is no nightly toolchain, and {WITHOUT}=1");
    Ok(false)
}

fn cargo(folder: &Path, target_folder: &Path, flags: &str, args: &[&str]) -> Result<()> {
    let status = Command::new("cargo")
        .arg("+nightly")
        .args(args)
        .args(["--target", TARGET])
        .current_dir(folder)
        .env("RUSTFLAGS", flags)
        .env("CARGO_TARGET_DIR", target_folder)
        // Set by the cargo that runs this: they name the stable toolchain.
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .env_remove("RUSTDOC")
        .env_remove("RUSTUP_TOOLCHAIN")
        .status()
        .context("cargo does not start")?;
    ensure!(status.success(), "cargo +nightly {}: {status}", args.join(" "));
    Ok(())
}

fn target_folder(root: &Path, name: &str) -> PathBuf {
    let base = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    root.join(base).join(name)
}

/// Builds the targets and runs each from its corpus.
pub(crate) fn fuzz(root: &Path) -> Result<()> {
    if !has_nightly()? {
        return Ok(());
    }
    let folder = root.join("fuzz");
    let (checked, plain) = (target_folder(root, "fuzz"), target_folder(root, "fuzz-plain"));
    let flags = format!("{COVERAGE} {ADDRESS}");
    let mut args = vec!["build", "--release", "--features", "trace,options"];
    args.extend(TARGETS.iter().flat_map(|target| ["--bin", target]));
    cargo(&folder, &checked, &flags, &args)?;
    cargo(&folder, &plain, COVERAGE, &["build", "--release", "--features", "handles", "--bin", PLAIN_TARGET])?;
    let built = TARGETS.iter().map(|target| (*target, &checked)).chain([(PLAIN_TARGET, &plain)]);
    let built: Vec<_> =
        built.map(|(target, built)| (target, built.join(TARGET).join("release").join(target))).collect();
    for pair in built.chunks(2) {
        let running = pair
            .iter()
            .map(|(target, binary)| Ok((*target, start(&folder, &checked, target, binary)?)))
            .collect::<Result<Vec<_>>>()?;
        for (target, mut child) in running {
            let status = child.wait().context("a target cannot be waited for")?;
            ensure!(status.success(), "fuzz target {target}: {status}; see {}", log(&checked, target).display());
            println!("fuzz target {target}: nothing found");
        }
    }
    Ok(())
}

fn log(target_folder: &Path, target: &str) -> PathBuf {
    target_folder.join(format!("{target}.log"))
}

fn start(folder: &Path, target_folder: &Path, target: &str, binary: &Path) -> Result<Child> {
    let corpus = folder.join("corpus").join(target);
    ensure!(corpus.is_dir(), "{}: no corpus", corpus.display());
    // What is found goes here, and the committed corpus stays as it is.
    let found = target_folder.join("corpus").join(target);
    fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
    let log = log(target_folder, target);
    let output = fs::File::create(&log).with_context(|| log.display().to_string())?;
    Command::new(binary)
        .arg(found)
        .arg(corpus)
        .arg(format!("-max_total_time={FUZZ_SECONDS}"))
        // The same inputs for the same tree: a step of CI is no lottery. Long runs have other seeds.
        .arg("-seed=1")
        .arg(format!("-rss_limit_mb={MAX_RESIDENT_MIB}"))
        // Room that is asked for and not touched is no finding: 1 TiB. With 0 it would be as much as may be resident.
        .arg("-malloc_limit_mb=1048576")
        .arg(format!("-artifact_prefix={}/{target}-", target_folder.display()))
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| binary.display().to_string())
}

/// Runs the storm of `races.rs` under both sanitizers.
pub(crate) fn sanitizers(root: &Path) -> Result<()> {
    if !has_nightly()? {
        return Ok(());
    }
    for (name, flags) in [("tsan", THREAD), ("asan", ADDRESS)] {
        println!("--- {name}: {flags}");
        let args = ["test", "-p", "objcg", "--test", "races"];
        if let Err(error) = cargo(root, &target_folder(root, name), flags, &args) {
            bail!("{name}: {error:#}");
        }
    }
    Ok(())
}
