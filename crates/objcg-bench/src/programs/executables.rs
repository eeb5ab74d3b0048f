//! What is run: executables of this system, and the Debian packages they come in.
//!
//! Scripts that stand in for an executable, such as pyenv's, are passed over: what is timed is the program.

use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An executable, and the package of Debian that has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Executable {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
}

pub(crate) const GCC: Executable = Executable { name: "gcc", package: "gcc" };
pub(crate) const GIT: Executable = Executable { name: "git", package: "git" };
pub(crate) const NODE: Executable = Executable { name: "node", package: "nodejs" };
pub(crate) const PERL: Executable = Executable { name: "perl", package: "perl" };
pub(crate) const PYTHON: Executable = Executable { name: "python3", package: "python3" };
/// An interpreter whose library has its tests.
pub(crate) const PYTHON_WITH_TESTS: Executable =
    Executable { name: "python3 with the package test", package: "libpython3.N-testsuite of its version" };
pub(crate) const REDIS_BENCHMARK: Executable = Executable { name: "redis-benchmark", package: "redis-tools" };
pub(crate) const REDIS_CLI: Executable = Executable { name: "redis-cli", package: "redis-tools" };
pub(crate) const REDIS_SERVER: Executable = Executable { name: "redis-server", package: "redis-server" };
pub(crate) const SQLITE: Executable = Executable { name: "sqlite3", package: "sqlite3" };

const ELF: [u8; 4] = *b"\x7fELF";
/// Where Debian's interpreter is, whatever `PATH` puts before it.
const SYSTEM_PYTHON: &str = "/usr/bin/python3";
/// What shows that an interpreter's tests are there.
const IMPORT_TESTS: &str = "import test.support, test.test_list, test.test_ctypes";

/// Executables that were found.
pub(crate) struct Found {
    paths: Vec<(&'static Executable, PathBuf)>,
}

impl Found {
    /// Looks for all of `wanted`; gives back those that are missing as well.
    pub(crate) fn among(wanted: &[&'static Executable]) -> (Found, Vec<&'static Executable>) {
        let (mut paths, mut missing) = (Vec::new(), Vec::new());
        for executable in wanted {
            match find(executable) {
                Some(path) => paths.push((*executable, path)),
                None => missing.push(*executable),
            }
        }
        (Found { paths }, missing)
    }

    /// Where `executable` is.
    ///
    /// # Panics
    ///
    /// If it is not among those that were found: a program lists what it uses.
    pub(crate) fn path(&self, executable: &Executable) -> &Path {
        let found = self.paths.iter().find(|(found, _)| *found == executable);
        found.map(|(_, path)| path.as_path()).expect("a program lists the executables it uses")
    }
}

/// What is missing and how to get it, for one line.
pub(crate) fn describe(missing: &[&Executable]) -> String {
    let line = |executable: &&Executable| format!("{} (Debian package {})", executable.name, executable.package);
    missing.iter().map(line).collect::<Vec<_>>().join(", ")
}

fn find(executable: &Executable) -> Option<PathBuf> {
    if *executable == PYTHON {
        pythons().next()
    } else if *executable == PYTHON_WITH_TESTS {
        pythons().find(|python| answer(python, IMPORT_TESTS).is_some())
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).map(|folder| folder.join(executable.name)).find(|path| is_program(path))
    }
}

/// The interpreters that may serve, best first.
fn pythons() -> impl Iterator<Item = PathBuf> {
    // A script in `PATH` may choose among several.
    [Path::new(PYTHON.name), Path::new(SYSTEM_PYTHON)].into_iter().filter_map(|python| {
        let path = PathBuf::from(answer(python, "import sys; print(sys.executable)")?.trim());
        is_program(&path).then_some(path)
    })
}

/// What an interpreter prints.
fn answer(python: &Path, code: &str) -> Option<String> {
    let output = Command::new(python).args(["-c", code]).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_program(path: &Path) -> bool {
    let mut head = [0; ELF.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == ELF
}

#[cfg(test)]
mod tests {
    use super::{Executable, Found, REDIS_CLI, SQLITE, describe};

    #[test]
    fn missing_executables_are_named_with_their_packages() {
        static NOWHERE: Executable = Executable { name: "no such program", package: "nothing" };
        let (_, missing) = Found::among(&[&NOWHERE]);
        assert_eq!(describe(&missing), "no such program (Debian package nothing)");
        let both = describe(&[&SQLITE, &REDIS_CLI]);
        assert_eq!(both, "sqlite3 (Debian package sqlite3), redis-cli (Debian package redis-tools)");
    }
}
