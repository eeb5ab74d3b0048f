//! The steps of continuous integration: one list, run in order.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::tidy;

struct Step {
    name: &'static str,
    work: Work,
}

enum Work {
    /// The style check, in this process.
    Tidy,
    Cargo {
        args: &'static [&'static str],
        env: &'static [(&'static str, &'static str)],
        /// A folder of its own under the target folder, for flags that would rebuild everything twice.
        target: Option<&'static str>,
    },
}

const STEPS: &[Step] = &[
    cargo("fmt", &["fmt", "--all", "--", "--check"], &[]),
    cargo("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[]),
    cargo("doc", &["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")]),
    Step { name: "tidy", work: Work::Tidy },
    cargo("no-std", &["build", "-p", "objcg-core", "--no-default-features"], &[]),
    cargo("test", &["test", "--workspace"], &[]),
    Step {
        name: "loom",
        work: Work::Cargo {
            args: &["test", "-p", "objcg-core", "--release", "--lib", "loom"],
            env: &[("RUSTFLAGS", "--cfg loom"), ("LOOM_MAX_PREEMPTIONS", "3")],
            target: Some("loom"),
        },
    },
    cargo("compare", &["run", "--release"], &[]),
];

const fn cargo(
    name: &'static str,
    args: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
) -> Step {
    Step { name, work: Work::Cargo { args, env, target: None } }
}

/// Runs the named steps, in the list's order, or all; stops at the first that fails.
pub(crate) fn run(root: &Path, names: &[String]) -> Result<()> {
    let mut times = Vec::new();
    for step in select(names)? {
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
        println!("{:8} {}", step.name, step.work.describe());
    }
}

fn select(names: &[String]) -> Result<Vec<&'static Step>> {
    let known = STEPS.iter().map(|step| step.name).collect::<Vec<_>>();
    for name in names {
        if !known.contains(&name.as_str()) {
            bail!("no step {name:?}; the steps are {}", known.join(", "));
        }
    }
    Ok(STEPS.iter().filter(|step| names.is_empty() || names.iter().any(|name| name == step.name)).collect())
}

fn print_times(times: &[(&str, Duration)]) {
    println!();
    for (name, time) in times {
        println!("{name:8} {:8.1} s", time.as_secs_f64());
    }
    let total = times.iter().map(|(_, time)| *time).sum::<Duration>();
    println!("{:8} {:8.1} s", "all", total.as_secs_f64());
}

impl Work {
    fn describe(&self) -> String {
        match self {
            Work::Tidy => "cargo xtask tidy".to_owned(),
            Work::Cargo { args, env, target } => {
                let env = env.iter().map(|(key, value)| format!("{key}={value:?} "));
                let target = target.iter().map(|folder| format!("CARGO_TARGET_DIR=target/{folder} "));
                format!("{}cargo {}", env.chain(target).collect::<String>(), args.join(" "))
            }
        }
    }

    fn run(&self, root: &Path) -> Result<()> {
        match self {
            Work::Tidy => tidy::run(root),
            Work::Cargo { args, env, target } => {
                let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
                command.current_dir(root).args(*args).envs(env.iter().copied());
                if let Some(folder) = target {
                    let base = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| OsString::from("target"));
                    command.env("CARGO_TARGET_DIR", root.join(base).join(folder));
                }
                let status = command.status().context("cargo does not start")?;
                ensure!(status.success(), "cargo {}: {status}", args.join(" "));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{STEPS, select};

    #[test]
    fn no_names_select_every_step() {
        assert_eq!(select(&[]).unwrap().len(), STEPS.len());
    }

    #[test]
    fn names_select_in_the_order_of_the_list() {
        let steps = select(&["test".to_owned(), "fmt".to_owned()]).unwrap();
        assert_eq!(steps.iter().map(|step| step.name).collect::<Vec<_>>(), ["fmt", "test"]);
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let error = select(&["bench".to_owned()]).err().unwrap();
        assert!(error.to_string().starts_with("no step \"bench\"; the steps are fmt, clippy"));
    }
}
