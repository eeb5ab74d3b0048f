//! CPython's own tests.
//!
//! Some fail on some machines, whoever allocates: as root, say, or with modules loaded at start. So the result that must be
//! the same is which tests fail and how many ran.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::executables;
use super::session::{Served, Session};
use crate::workers::first_lines;

const TESTS: [&str; 7] =
    ["test_list", "test_dict", "test_json", "test_threading", "test_gc", "test_subprocess", "test_ctypes"];

/// What a run of tests says at its end if it came to its end.
const END: &str = "Total duration: ";

pub(crate) fn run_tests(session: &mut Session<'_>) -> Result<()> {
    let mut command = session.command(&executables::PYTHON_WITH_TESTS);
    // Two at a time: much of it sleeps.
    command.args(["-m", "test", "-v", "-j2"]).args(TESTS);
    let finished = session.run(command, Served::Measured)?;
    let results = Results::of(&finished.stdout);
    let said = || first_lines([finished.stderr.as_bytes(), finished.stdout.as_bytes()].concat().as_slice());
    ensure!(finished.stdout.contains(END), "the tests do not come to an end: {}: {}", finished.status, said());
    let are_failures_named = finished.status.success() == results.failed.is_empty();
    ensure!(are_failures_named, "the tests end with {}, but {}", finished.status, results.describe());
    session.count(finished.usage);
    session.expect_same(&results.describe());
    if !results.failed.is_empty() {
        session.note(results.describe());
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Results {
    nr_ran: u32,
    failed: BTreeSet<String>,
}

impl Results {
    /// Reads what `-m test -v` prints: the counts of unittest, and the heads of what it says of failures.
    fn of(stdout: &str) -> Results {
        let count = |line: &str| line.strip_prefix("Ran ")?.split(' ').next()?.parse::<u32>().ok();
        let failure = |line: &str| {
            let test = line.strip_prefix("FAIL: ").or_else(|| line.strip_prefix("ERROR: "))?;
            Some(test.split(' ').next()?.to_owned())
        };
        // A file that crashes has no such head.
        let file = |line: &str| Some(line.strip_prefix("test ")?.split_once(" crashed")?.0.to_owned());
        Results {
            nr_ran: stdout.lines().filter_map(count).sum(),
            failed: stdout.lines().filter_map(|line| failure(line).or_else(|| file(line))).collect(),
        }
    }

    fn describe(&self) -> String {
        let failed = match self.failed.len() {
            0 => "none fails".to_owned(),
            1 => format!("one fails: {}", self.failed.first().expect("one")),
            nr_failed => {
                let names = self.failed.iter().map(String::as_str).collect::<Vec<_>>();
                format!("{nr_failed} fail: {}", names.join(", "))
            }
        };
        format!("of {} tests {failed}", self.nr_ran)
    }
}

#[cfg(test)]
mod tests {
    use super::Results;

    #[test]
    fn counts_and_failures_are_read_from_the_output() {
        let output = "test_a (x.X.test_a) ... ok\n\
                      FAIL: test_b (test.test_list.ListTest.test_b)\n----\nERROR: test_c (y.Y.test_c) (a=1)\n\
                      Ran 58 tests in 0.211s\n\nFAILED (failures=1, errors=1)\n\
                      Ran 2 tests in 1.0s\nOK\n== Tests result: FAILURE ==\nTotal duration: 2.1 sec\n";
        let results = Results::of(output);
        assert_eq!((results.nr_ran, results.failed.len()), (60, 2));
        assert_eq!(results.describe(), "of 60 tests 2 fail: test_b, test_c");
    }

    #[test]
    fn results_without_failures() {
        assert_eq!(Results::of("Ran 3 tests in 0.1s\nOK\n").describe(), "of 3 tests none fails");
        assert_eq!(Results::of("Ran 3 tests in 0.1s\nFAIL: t (X)\n").describe(), "of 3 tests one fails: t");
    }
}
