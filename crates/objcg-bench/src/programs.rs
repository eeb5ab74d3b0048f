//! `objcg-bench programs`: programs as they are, with the allocator put into them by `LD_PRELOAD`.
//!
//! `catalogue` has the programs, `library` the libraries; a `session` is one run, its processes are `process`'s. Each round
//! runs a program under glibc and under every library, one after the other, each round beginning with another; a run must
//! succeed and find what the run under glibc finds. `figures` makes ratios within rounds, `show` prints them.

pub(crate) mod catalogue;
mod cpython;
mod executables;
mod figures;
mod library;
mod process;
mod redis;
mod session;
mod show;

use std::fmt::Write;

use anyhow::{Result, bail, ensure};
use indicatif::ProgressBar;

use self::catalogue::{PROGRAMS, Program};
use self::executables::{Executable, Found, describe};
use self::figures::{Figures, Measurement};
use self::library::Library;
use self::session::{Answer, Session};
use crate::args::{Missing, ProgramsArgs};
use crate::machine::Machine;
use crate::report::Failure;
use crate::run::{Outcome, style};

/// All that a run found.
struct Findings {
    machine: Machine,
    /// Peak memory of a program that needs none, the largest that was found: less than it no program can be said to need.
    floor_bytes: Option<u64>,
    nr_rounds: u32,
    figures: Figures,
    failures: Vec<Failure>,
}

pub(crate) fn run(args: &ProgramsArgs) -> Result<Outcome> {
    if args.list {
        return list().map(|()| Outcome::Complete);
    }
    // What needs no time first, so that a wrong argument fails at once.
    let asked = Library::asked(&args.libraries)?;
    let (found, programs) = look_for(args.programs(), args.missing)?;
    let mut libraries = vec![Library::glibc()];
    if asked.is_empty() {
        libraries.push(Library::build()?)
    } else {
        libraries.extend(asked)
    }
    for (library, program) in libraries[1..].iter().flat_map(|library| programs.iter().map(move |it| (library, it))) {
        library.serves(found.path(program.needs[0]))?;
    }

    let mut findings = Findings {
        machine: Machine::here(),
        floor_bytes: process::floor(),
        nr_rounds: args.rounds(),
        figures: Figures::of(programs, libraries),
        failures: Vec::new(),
    };
    measure(&found, args, &mut findings);
    if !args.check {
        crate::print(&show::render(&findings, args)?)?;
    }
    Ok(if findings.failures.is_empty() { Outcome::Complete } else { Outcome::Incomplete })
}

/// The executables of those programs that can run; whether others may be left out is in `missing`.
fn look_for(programs: Vec<&'static Program>, missing: Missing) -> Result<(Found, Vec<&'static Program>)> {
    let mut needed: Vec<&'static Executable> = Vec::new();
    for executable in programs.iter().flat_map(|program| program.needs) {
        if !needed.contains(executable) {
            needed.push(executable);
        }
    }
    let (found, absent) = Found::among(&needed);
    if absent.is_empty() {
        return Ok((found, programs));
    }
    if missing == Missing::Fail {
        bail!("not installed: {}; --missing skip leaves out what needs them", describe(&absent));
    }
    let (left_out, programs): (Vec<_>, Vec<_>) =
        programs.into_iter().partition(|program| program.needs.iter().any(|executable| absent.contains(executable)));
    let names = left_out.iter().map(|program| program.name).collect::<Vec<_>>().join(", ");
    ensure!(!programs.is_empty(), "nothing is left to run; not installed: {}", describe(&absent));
    eprintln!("objcg-bench: left out: {names}; not installed: {}", describe(&absent));
    Ok((found, programs))
}

/// Runs every program, in rounds under each library.
fn measure(found: &Found, args: &ProgramsArgs, findings: &mut Findings) {
    let (programs, libraries) = (findings.figures.programs.clone(), findings.figures.libraries.clone());
    let nr_runs = programs.len() * libraries.len() * findings.nr_rounds as usize;
    let bar = ProgressBar::new(nr_runs as u64).with_prefix("measuring");
    bar.set_style(style());
    for program in programs {
        let nr_failures = findings.failures.len();
        for round in 0..findings.nr_rounds {
            let mut answers = Vec::new();
            for idx in (0..libraries.len()).map(|idx| (idx + round as usize) % libraries.len()) {
                bar.set_message(format!("{} {}", program.name, libraries[idx].name));
                answers.push((idx, run_once(program, found, &libraries[idx])));
                bar.inc(1);
            }
            // The order of the libraries: glibc is the first.
            answers.sort_by_key(|(idx, _)| *idx);
            judge(program, round, answers, findings);
        }
        findings.floor_bytes = findings.floor_bytes.max(process::floor());
        let failures = &findings.failures[nr_failures..];
        bar.suspend(|| {
            for failure in failures {
                eprintln!("objcg-bench: {}", failure.line());
            }
            if args.check {
                let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
                // A reader that has gone away is noticed by the last of them.
                let _unheard = crate::print(&format!("{verdict:<7} {}\n", program.name));
            }
        });
    }
    bar.finish_and_clear();
}

fn run_once(program: &Program, found: &Found, library: &Library) -> Result<Answer> {
    let mut session = Session::new(found, library)?;
    (program.run)(&mut session)?;
    Ok(session.into_answer())
}

/// Keeps the answers of one round that are good: of runs that succeeded, and found what the run under glibc found.
fn judge(program: &'static Program, round: u32, answers: Vec<(usize, Result<Answer>)>, findings: &mut Findings) {
    let mut expected = None;
    for (idx, answer) in answers {
        let name = &findings.figures.libraries[idx].name;
        let what = format!("{} under {name}, round {round}", program.name);
        let judged = answer.and_then(|answer| {
            let expected = expected.get_or_insert_with(|| answer.output.clone());
            ensure!(answer.output == *expected, "{}", first_difference(expected, &answer.output));
            Ok(answer)
        });
        match judged {
            Ok(answer) => findings.figures.add(Measurement { program, library_idx: idx, round, answer }),
            Err(error) if idx == 0 => {
                let reason = format!("{error:#}; so it is this machine's fault, not an allocator's");
                findings.failures.push(Failure { what, reason });
                // Nothing to compare with.
                return;
            }
            Err(error) => findings.failures.push(Failure { what, reason: format!("{error:#}") }),
        }
    }
}

/// The first line in which outputs differ.
fn first_difference(expected: &str, found: &str) -> String {
    let (mut expected, mut found) = (expected.lines(), found.lines());
    for number in 1.. {
        let (of_glibc, of_library) = (expected.next(), found.next());
        if of_glibc != of_library || of_glibc.is_none() {
            let text = |line: Option<&str>| line.map_or_else(|| "nothing".to_owned(), |line| format!("{line:?}"));
            return format!("line {number} is {}, under glibc {}", text(of_library), text(of_glibc));
        }
    }
    unreachable!("lines end")
}

fn list() -> Result<()> {
    let mut text = String::new();
    for program in &PROGRAMS {
        writeln!(text, "{:<15} {}", program.name, program.about)?;
        writeln!(text, "{:<15} {}", "", describe(program.needs))?;
    }
    crate::print(&text)
}

#[cfg(test)]
mod tests {
    use super::{Answer, Figures, Findings, Library, Machine, PROGRAMS, first_difference, judge};

    fn findings() -> Findings {
        let mut other = Library::glibc();
        other.name = "other".to_owned();
        Findings {
            machine: Machine::here(),
            floor_bytes: None,
            nr_rounds: 1,
            figures: Figures::of(PROGRAMS.iter().collect(), vec![Library::glibc(), other]),
            failures: Vec::new(),
        }
    }

    fn answer(output: &str) -> anyhow::Result<Answer> {
        Ok(Answer { output: output.to_owned(), ..Answer::default() })
    }

    #[test]
    fn the_first_different_line_is_told() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), "line 2 is \"c\", under glibc \"b\"");
        assert_eq!(first_difference("a\n", "a\nb\n"), "line 2 is \"b\", under glibc nothing");
    }

    #[test]
    fn a_run_with_other_output_than_under_glibc_fails() {
        let mut findings = findings();
        judge(&PROGRAMS[0], 0, vec![(0, answer("a")), (1, answer("a"))], &mut findings);
        assert!(findings.failures.is_empty());
        judge(&PROGRAMS[0], 1, vec![(0, answer("a")), (1, answer("b"))], &mut findings);
        assert_eq!(findings.failures.len(), 1);
        assert_eq!(findings.failures[0].what, format!("{} under other, round 1", PROGRAMS[0].name));
    }

    #[test]
    fn a_failure_under_glibc_is_the_machines() {
        let mut findings = findings();
        judge(&PROGRAMS[0], 0, vec![(0, Err(anyhow::anyhow!("no room"))), (1, answer("b"))], &mut findings);
        assert_eq!(findings.failures.len(), 1);
        assert_eq!(findings.failures[0].reason, "no room; so it is this machine's fault, not an allocator's");
    }
}
