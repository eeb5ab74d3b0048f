//! The steps of continuous integration: one list, run in order.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{golden, nightly, teeth, tidy};

struct Step {
    name: &'static str,
    work: Work,
}

enum Work {
    /// The style check, in this process.
    Tidy,
    /// The count of instructions, in this process.
    Golden,
    /// Fuzz targets, by nightly.
    Fuzz,
    /// Tests under sanitizers, by nightly.
    Sanitizers,
    /// The models against broken protocols, in this process.
    Teeth,
    Cargo {
        args: &'static [&'static str],
        env: &'static [(&'static str, &'static str)],
        /// A folder of its own under the target folder, for flags that would rebuild everything twice.
        target: Option<&'static str>,
        /// Runs the tests of a filter only, which passes when it matches none: see first that it matches some.
        is_filtered: bool,
    },
}

/// The step that runs only when it is asked for.
const RELEASE: &str = "test-release";

/// Those that count no bytes: with options an object takes more.
const HARDENED_TESTS: &[&str] = &[
    "test",
    "-p",
    "objcg",
    "--test",
    "allocator",
    "--test",
    "edges",
    "--test",
    "lifetime",
    "--test",
    "names",
    "--test",
    "percpu",
    "--test",
    "races",
    "--test",
    "storm",
];

const STEPS: &[Step] = &[
    cargo("fmt", &["fmt", "--all", "--", "--check"], &[]),
    cargo("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[]),
    cargo("doc", &["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")]),
    Step { name: "tidy", work: Work::Tidy },
    cargo("test", &["test", "--workspace"], &[]),
    Step {
        // The same programs with every option that checks them.
        name: "hardened",
        work: Work::Cargo {
            args: HARDENED_TESTS,
            env: &[("OBJCG_OPTIONS", "poison:redzone:stack:random:guard_pages:quarantine=256k")],
            target: None,
            is_filtered: false,
        },
    },
    cargo("rseq-delay", &["test", "-p", "objcg-rseq", "--features", "delay"], &[]),
    Step {
        // The engine without restartable sequences: the portable arm serves alone.
        name: "portable",
        work: Work::Cargo {
            args: &["test", "-p", "objcg", "-p", "objcg-core", "--lib", "--tests"],
            env: &[("RUSTFLAGS", "--cfg objcg_rseq_absent")],
            target: Some("portable"),
            is_filtered: false,
        },
    },
    Step { name: "golden", work: Work::Golden },
    Step { name: "sanitizers", work: Work::Sanitizers },
    Step { name: "fuzz", work: Work::Fuzz },
    cargo(RELEASE, &["test", "--workspace", "--release"], &[]),
    Step {
        name: "loom",
        work: Work::Cargo {
            args: &["test", "-p", "objcg-core", "--release", "--lib", "loom"],
            env: &[("RUSTFLAGS", "--cfg loom"), ("LOOM_MAX_PREEMPTIONS", "3")],
            target: Some("loom"),
            is_filtered: true,
        },
    },
    Step { name: "teeth", work: Work::Teeth },
    cargo("compare", &["run", "--release"], &[]),
    // Programs of the system on objcg: each succeeds, and prints what it prints under glibc.
    cargo("programs", &["run", "--release", "-p", "objcg-bench", "--", "programs", "--check"], &[]),
    cargo("soak", &["run", "--release", "-p", "objcg-bench", "--", "soak", "--minutes", "2"], &[]),
];

const fn cargo(
    name: &'static str,
    args: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
) -> Step {
    Step { name, work: Work::Cargo { args, env, target: None, is_filtered: false } }
}

/// Runs the named steps, in the list's order, or all; stops at the first that fails.
pub(crate) fn run(root: &Path, names: &[String], release: bool) -> Result<()> {
    let mut times = Vec::new();
    for step in select(names, release)? {
        println!("\n=== {}: {}", step.name, step.work.describe());
        let start = Instant::now();
        let result = step.work.run(root);
        let time = start.elapsed();
        times.push((step.name, time));
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("=== {}: {verdict}, {:.1} s", step.name, time.as_secs_f64());
        result.with_context(|| format!("step {} failed", step.name))?;
    }
    print_times(&times);
    Ok(())
}

/// Prints each step and what it runs.
pub(crate) fn print_steps() {
    for step in STEPS {
        println!("{:12} {}", step.name, step.work.describe());
    }
}

fn select(names: &[String], release: bool) -> Result<Vec<&'static Step>> {
    let known = STEPS.iter().map(|step| step.name).collect::<Vec<_>>();
    for name in names {
        if !known.contains(&name.as_str()) {
            bail!("no step {name:?}; the steps are {}", known.join(", "));
        }
    }
    let is_selected = |step: &&Step| {
        let is_named = names.iter().any(|name| name == step.name);
        is_named || if step.name == RELEASE { release } else { names.is_empty() }
    };
    Ok(STEPS.iter().filter(is_selected).collect())
}

fn print_times(times: &[(&str, Duration)]) {
    println!();
    for (name, time) in times {
        println!("{name:12} {:8.1} s", time.as_secs_f64());
    }
    let total = times.iter().map(|(_, time)| *time).sum::<Duration>();
    println!("{:12} {:8.1} s", "all", total.as_secs_f64());
}

impl Work {
    fn describe(&self) -> String {
        match self {
            Work::Tidy => "cargo xtask tidy".to_owned(),
            Work::Golden => "cargo xtask golden".to_owned(),
            Work::Fuzz => nightly::FUZZ.to_owned(),
            Work::Sanitizers => nightly::SANITIZERS.to_owned(),
            Work::Teeth => "cargo xtask teeth".to_owned(),
            Work::Cargo { args, env, target, .. } => {
                let env = env.iter().map(|(key, value)| format!("{key}={value:?} "));
                let target = target.iter().map(|folder| format!("CARGO_TARGET_DIR=target/{folder} "));
                format!("{}cargo {}", env.chain(target).collect::<String>(), args.join(" "))
            }
        }
    }

    fn run(&self, root: &Path) -> Result<()> {
        match self {
            Work::Tidy => tidy::run(root),
            Work::Golden => golden::run(root),
            Work::Fuzz => nightly::fuzz(root),
            Work::Sanitizers => nightly::sanitizers(root),
            Work::Teeth => teeth::run(root),
            Work::Cargo { args, env, target, is_filtered } => {
                let command = || {
                    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
                    command.current_dir(root).args(*args).envs(env.iter().copied());
                    if let Some(folder) = target {
                        let base = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| OsString::from("target"));
                        command.env("CARGO_TARGET_DIR", root.join(base).join(folder));
                    }
                    command
                };
                if *is_filtered {
                    ensure_some_test(command())?;
                }
                let status = command().status().context("cargo does not start")?;
                ensure!(status.success(), "cargo {}: {status}", args.join(" "));
                Ok(())
            }
        }
    }
}

/// Asks a test command for the names of its tests, and refuses none.
fn ensure_some_test(mut command: Command) -> Result<()> {
    let output = command.args(["--", "--list"]).stderr(Stdio::inherit()).output().context("cargo does not start")?;
    ensure!(output.status.success(), "the tests do not build: {}", output.status);
    let nr_tests = count_tests(&String::from_utf8_lossy(&output.stdout));
    println!("{nr_tests} tests match");
    ensure!(nr_tests > 0, "no test matches");
    Ok(())
}

fn count_tests(list: &str) -> usize {
    list.lines().filter(|line| line.ends_with(": test")).count()
}

#[cfg(test)]
mod tests {
    use super::{RELEASE, STEPS, count_tests, select};

    fn names(steps: &[&str], release: bool) -> Vec<&'static str> {
        let steps = steps.iter().map(ToString::to_string).collect::<Vec<_>>();
        select(&steps, release).unwrap().iter().map(|step| step.name).collect()
    }

    #[test]
    fn no_names_select_every_step_but_the_release_tests() {
        assert_eq!(names(&[], false).len(), STEPS.len() - 1);
        assert!(!names(&[], false).contains(&RELEASE));
        assert_eq!(names(&[], true).len(), STEPS.len());
    }

    #[test]
    fn names_select_in_the_order_of_the_list() {
        assert_eq!(names(&["test", "fmt"], false), ["fmt", "test"]);
        assert_eq!(names(&["test", "fmt"], true), ["fmt", "test", RELEASE]);
        assert_eq!(names(&[RELEASE], false), [RELEASE]);
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let error = select(&["bench".to_owned()], false).err().unwrap();
        assert!(error.to_string().starts_with("no step \"bench\"; the steps are fmt, clippy"));
    }

    #[test]
    fn tests_are_counted_in_the_list_of_the_harness() {
        assert_eq!(count_tests("memcg::pin::tests::loom_a: test\nb: benchmark\n\n1 test, 1 benchmark\n"), 1);
        assert_eq!(count_tests("0 tests, 0 benchmarks\n"), 0);
    }
}
