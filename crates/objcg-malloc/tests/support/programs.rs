//! Builds C programs against the installed library, and runs them: linked, linked statically, or plain with it preloaded.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// How a program comes to this malloc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Linked,
    Static,
    Preloaded,
}

impl Way {
    pub(crate) const ALL: [Way; 3] = [Way::Linked, Way::Static, Way::Preloaded];
}

/// What is wrong with calls on purpose, and what the compiler would leave out, it must let pass.
const FLAGS: [&str; 7] =
    ["-std=gnu11", "-O1", "-fno-builtin", "-Wall", "-Wextra", "-Werror", "-Wno-free-nonheap-object"];

/// The crate's folder.
pub(crate) fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The prefix below which `cargo xtask install` has put the library, once for this process.
pub(crate) fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = scratch("installed");
        let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut install = Command::new(cargo);
        install.args(["run", "--quiet", "--package", "xtask", "--", "install", "--prefix"]).arg(&prefix);
        // The library as it is shipped, whatever this test was built with.
        install.current_dir(crate_folder()).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        succeed(&mut install);
        prefix
    })
}

/// A folder of this test's own, which is there.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the test's own path");
    let test = test.file_stem().expect("a file").to_string_lossy();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{name}"));
    fs::create_dir_all(&folder).expect("a folder for what is built");
    folder
}

pub(crate) fn library() -> PathBuf {
    prefix().join("lib/libobjcg_malloc.so")
}

/// What `pkg-config` says of the library.
pub(crate) fn pkg_config(question: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig")).args(question).arg("objcg");
    let answer = succeed(&mut command);
    answer.split_whitespace().map(str::to_owned).collect()
}

/// Runs a command that must succeed; returns what it prints.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// A program that was built.
pub(crate) struct Program {
    path: PathBuf,
    way: Way,
}

impl Program {
    /// Builds a source of this crate.
    pub(crate) fn build(source: &str, way: Way) -> Program {
        Program::build_with(source, way, "gcc", &FLAGS)
    }

    pub(crate) fn build_with(source: &str, way: Way, compiler: &str, flags: &[&str]) -> Program {
        let source = crate_folder().join(source);
        let name = source.file_stem().expect("a file").to_string_lossy().into_owned();
        let path = scratch("programs").join(format!("{name}-{way:?}"));
        let mut command = Command::new(compiler);
        command.args(flags).arg("-o").arg(&path).arg(&source).arg("-pthread");
        match way {
            Way::Linked => {
                let lib = prefix().join("lib");
                command.args(pkg_config(&["--cflags", "--libs"])).arg(format!("-Wl,-rpath,{}", lib.display()));
            }
            Way::Static => {
                // The linker would take the shared one, which lies beside it.
                command.args(["-static", "-DSTATIC"]).args(pkg_config(&["--cflags", "--libs", "--static"]));
            }
            Way::Preloaded => {
                command.arg("-I").arg(prefix().join("include"));
            }
        }
        succeed(&mut command);
        Program { path, way }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if self.way == Way::Preloaded {
            command.env("LD_PRELOAD", library());
        }
        command
    }

    /// The names of its cases.
    pub(crate) fn cases(&self) -> Vec<String> {
        let list = succeed(self.command().arg("list"));
        let cases: Vec<String> = list.lines().map(str::to_owned).collect();
        assert!(!cases.is_empty(), "{:?} has no cases", self.path);
        cases
    }

    pub(crate) fn run(&self, case: &str) -> Output {
        self.command().arg(case).output().expect("it was built")
    }

    /// Runs every case; all must succeed in silence.
    pub(crate) fn pass(&self, prepare: impl Fn(&mut Command)) {
        for case in self.cases() {
            let mut command = self.command();
            prepare(command.arg(&case));
            let output = command.output().expect("it was built");
            let is_good = output.status.success() && output.stdout.is_empty() && output.stderr.is_empty();
            assert!(is_good, "{case} {:?}: {output:?}", self.way);
        }
    }
}

/// Builds a C source of this crate as a library that programs open.
pub(crate) fn build_plugin(source: &str) -> PathBuf {
    let path = scratch("programs").join("plugin.so");
    let mut command = Command::new("gcc");
    command.args(FLAGS).args(["-shared", "-fPIC", "-o"]).arg(&path).arg(crate_folder().join(source));
    succeed(&mut command);
    path
}
