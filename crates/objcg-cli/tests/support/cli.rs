//! Runs the command and looks at how it ends.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::trace_file::{TraceFile, alloc, create, free, remove};

pub(crate) const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A directory for one test, with a small sound trace in it.
pub(crate) struct Scene {
    directory: TempDir,
}

impl Scene {
    /// Two groups, three objects; group 1 is removed while an object of it lives.
    pub(crate) fn new() -> Scene {
        let scene = Scene { directory: TempDir::new().unwrap() };
        let rows = [
            create(1),
            create(2),
            alloc(1, 1, "four"),
            alloc(2, 2, "four"),
            alloc(3, 2, "eight"),
            remove(1),
            free(3, 2, "eight"),
        ];
        TraceFile::of(rows).write(scene.directory.path(), "tiny.parquet");
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs `objcg` in the scene's directory.
    pub(crate) fn objcg(&self, arguments: &[&str]) -> Output {
        objcg_in(self.directory(), arguments)
    }

    /// Runs it, asserts that it succeeds in silence, and gives back what it printed.
    pub(crate) fn printed(&self, arguments: &[&str]) -> String {
        printed(&self.objcg(arguments))
    }

    /// Runs it, asserts exit code 2, nothing printed and nothing written, and gives back the one line of stderr.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let before = self.files();
        let output = self.objcg(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
        assert_eq!(self.files(), before, "{arguments:?} left something");
        let text = String::from_utf8(output.stderr).unwrap();
        let line = text.strip_suffix('\n').expect("a whole line");
        assert!(!line.contains('\n'), "more than one line: {text}");
        line.strip_prefix("objcg: ").expect("who says it").to_owned()
    }

    /// Names and contents of all files.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = fs::read_dir(self.directory()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.map(|path| (path.clone(), fs::read(path).unwrap_or_default())).collect();
        files.sort();
        files
    }
}

pub(crate) fn objcg_in(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_objcg")).args(arguments).current_dir(directory).output().unwrap()
}

pub(crate) fn printed(output: &Output) -> String {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}
