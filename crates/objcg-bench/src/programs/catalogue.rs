//! The programs: what each needs, and what a run of it does.
//!
//! What they work on is in `programs/` beside the sources, or made here; it is the same in every run.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::executables::{self, Executable};
use super::session::{Served, Session};
use super::{cpython, redis};
use crate::workers;

#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// What it runs, first what the figures are of.
    pub(crate) needs: &'static [&'static Executable],
    pub(crate) run: fn(&mut Session<'_>) -> Result<()>,
}

pub(crate) static PROGRAMS: [Program; 9] = [
    Program {
        name: "cpython-tests",
        about: "CPython's own tests of lists, dictionaries, JSON, threads, GC, subprocesses and ctypes",
        needs: &[&executables::PYTHON_WITH_TESTS],
        run: cpython::run_tests,
    },
    Program {
        name: "python",
        about: "a script with JSON, dictionaries and sorting, every object from malloc",
        needs: &[&executables::PYTHON],
        run: python,
    },
    Program {
        name: "redis",
        about: "a server under redis-benchmark",
        needs: &[&executables::REDIS_SERVER, &executables::REDIS_BENCHMARK, &executables::REDIS_CLI],
        run: redis::run,
    },
    Program {
        name: "sqlite",
        about: "200,000 rows inserted, indexed, selected, changed, deleted, vacuumed",
        needs: &[&executables::SQLITE],
        run: sqlite,
    },
    Program {
        name: "git",
        about: "3,000 files added, committed, changed, packed, checked",
        needs: &[&executables::GIT],
        run: git,
    },
    Program { name: "gcc", about: "parts of zstd compiled with -O2", needs: &[&executables::GCC], run: gcc },
    Program {
        name: "perl",
        about: "a script with hashes, sorting and regular expressions",
        needs: &[&executables::PERL],
        run: perl,
    },
    Program {
        name: "node",
        about: "a script with JSON, maps, buffers and worker threads",
        needs: &[&executables::NODE],
        run: node,
    },
    Program {
        name: "fork-storm",
        about: "threads allocate while 300 children are forked, which allocate, free and start threads",
        needs: &[&executables::GCC],
        run: fork_storm,
    },
];

/// Files that git gets, and folders they are in.
const NR_FILES: u32 = 3_000;
const NR_FOLDERS: u32 = 60;
/// Every so many files are changed for the second commit.
const CHANGED: usize = 5;

/// The sources that are compiled, of the crate `zstd-sys`: large ones that take some seconds.
const SOURCES: [&str; 3] = ["compress/zstd_opt", "compress/zstd_compress", "decompress/zstd_decompress_block"];

fn python(session: &mut Session<'_>) -> Result<()> {
    session.write("work.py", include_str!("../../programs/work.py"))?;
    let mut command = session.command(&executables::PYTHON);
    // Otherwise Python serves small objects by itself.
    command.env("PYTHONMALLOC", "malloc").args(["-I", "work.py"]);
    session.measure(command)
}

fn sqlite(session: &mut Session<'_>) -> Result<()> {
    session.write("work.sql", include_str!("../../programs/work.sql"))?;
    let mut command = session.command(&executables::SQLITE);
    command.args(["-batch", "-bail", "work.db", ".read work.sql"]);
    session.measure(command)?;
    ensure!(session.output().ends_with("\nok\n"), "the integrity check: {}", last_line(session.output()));
    Ok(())
}

fn git(session: &mut Session<'_>) -> Result<()> {
    // None is kept: what this process has at a fork counts as the program's.
    for (name, text) in (0..NR_FILES).map(file) {
        session.write(&name, &text)?;
    }
    let git = |session: &mut Session<'_>, arguments: &[&str]| {
        let mut command = session.command(&executables::GIT);
        // No settings but these, and the same commits whenever.
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_AUTHOR_NAME", "A").env("GIT_AUTHOR_EMAIL", "a@example.org");
        command.env("GIT_COMMITTER_NAME", "C").env("GIT_COMMITTER_EMAIL", "c@example.org");
        command.env("GIT_AUTHOR_DATE", "1700000000 +0000").env("GIT_COMMITTER_DATE", "1700000000 +0000");
        command.args(["-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "init.defaultBranch=main"]);
        command.args(arguments);
        session.measure(command)
    };
    git(session, &["init", "--quiet", "."])?;
    git(session, &["add", "."])?;
    git(session, &["commit", "--quiet", "--message", "All"])?;
    for (name, text) in (0..NR_FILES).step_by(CHANGED).map(file) {
        session.write(&name, &text.replace('7', "seven"))?;
    }
    git(session, &["commit", "--quiet", "--all", "--message", "Some"])?;
    git(session, &["gc", "--quiet", "--aggressive"])?;
    git(session, &["fsck", "--full", "--strict", "--no-progress"])?;
    git(session, &["log", "--stat=100", "-1"])?;
    git(session, &["rev-parse", "HEAD", "HEAD~1"])
}

/// The name and the text of a file for git.
fn file(number: u32) -> (String, String) {
    let mut state = number + 1;
    let mut next = |limit: u32| {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        (state >> 8) % limit
    };
    let mut text = String::new();
    for line in 0..20 + next(150) {
        let (a, b, c) = (next(40), next(1_000), next(100_000));
        writeln!(text, "    let value_{a} = compute(line_{line}, &table[{b}], {c});").expect("a String takes all");
    }
    (format!("part{}/file{number}.rs", number % NR_FOLDERS), text)
}

fn gcc(session: &mut Session<'_>) -> Result<()> {
    let sources = zstd_sources()?;
    for source in SOURCES {
        let object = source.replace('/', "-") + ".o";
        let mut command = session.command(&executables::GCC);
        command.args(["-O2", "-frandom-seed=1", "-c", "-o", &object]).arg(sources.join(source).with_extension("c"));
        session.measure(command)?;
        session.expect_same_file(&object)?;
    }
    Ok(())
}

/// Where cargo keeps zstd's sources, which the trace reader is built with.
fn zstd_sources() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut cargo = workers::cargo();
    cargo.args(["metadata", "--format-version", "1", "--locked", "--manifest-path"]).arg(manifest);
    let output = cargo.output().context("cargo does not start")?;
    ensure!(output.status.success(), "cargo metadata: {}", workers::first_lines(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata: no packages")?;
    let zstd = packages.iter().find(|package| package["name"] == "zstd-sys").context("no sources of zstd")?;
    let manifest = Path::new(zstd["manifest_path"].as_str().context("cargo metadata: no path")?);
    Ok(manifest.with_file_name("zstd").join("lib"))
}

fn perl(session: &mut Session<'_>) -> Result<()> {
    session.write("work.pl", include_str!("../../programs/work.pl"))?;
    let mut command = session.command(&executables::PERL);
    command.arg("work.pl");
    session.measure(command)
}

fn node(session: &mut Session<'_>) -> Result<()> {
    session.write("work.js", include_str!("../../programs/work.js"))?;
    let mut command = session.command(&executables::NODE);
    command.arg("work.js");
    session.measure(command)
}

fn fork_storm(session: &mut Session<'_>) -> Result<()> {
    session.write("fork_storm.c", include_str!("../../programs/fork_storm.c"))?;
    let mut compiler = session.command(&executables::GCC);
    compiler.args(["-O2", "-pthread", "-o", "fork_storm", "fork_storm.c"]);
    session.succeed(compiler, Served::Plain)?;
    let command: Command = session.command_at(&session.path("fork_storm"));
    session.measure(command)
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{PROGRAMS, file, zstd_sources};

    #[test]
    fn every_program_has_a_name_of_its_own_and_an_executable() {
        for (idx, program) in PROGRAMS.iter().enumerate() {
            assert!(PROGRAMS[..idx].iter().all(|other| other.name != program.name), "{}", program.name);
            assert!(!program.needs.is_empty(), "{}", program.name);
        }
    }

    #[test]
    fn files_for_git_are_the_same_each_time_and_differ() {
        assert_eq!(file(7), file(7));
        assert_ne!(file(7).1, file(8).1);
        assert!(file(7).0.starts_with("part7/"));
    }

    #[test]
    fn the_sources_for_the_compiler_are_there() {
        let folder = zstd_sources().unwrap();
        for source in super::SOURCES {
            assert!(folder.join(source).with_extension("c").is_file(), "{source}");
        }
    }
}
