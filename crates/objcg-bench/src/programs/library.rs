//! Libraries whose allocator serves a program by `LD_PRELOAD`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::args::LibraryArg;
use crate::workers::{self, first_lines};

const PACKAGE: &str = "objcg-malloc";
const FILE: &str = "libobjcg_malloc.so";

/// What objcg's own library is called in tables.
pub(crate) const OBJCG: &str = "objcg";
/// What everything is held against.
pub(crate) const GLIBC: &str = "glibc";
/// A program may bring an allocator, as Debian's Redis does; before all that it brings, glibc's serves.
const GLIBC_FILE: &str = "libc.so.6";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Library {
    pub(crate) name: String,
    path: PathBuf,
}

impl Library {
    pub(crate) fn glibc() -> Library {
        Library { name: GLIBC.to_owned(), path: PathBuf::from(GLIBC_FILE) }
    }

    /// The libraries that were asked for: files that are there, each with a name of its own.
    pub(crate) fn asked(asked: &[LibraryArg]) -> Result<Vec<Library>> {
        let mut libraries: Vec<Library> = Vec::new();
        for arg in asked {
            let library = Library::of(arg)?;
            let is_new = library.name != GLIBC && libraries.iter().all(|known| known.name != library.name);
            ensure!(is_new, "two libraries are called {}: give them names, --library NAME=PATH", library.name);
            libraries.push(library);
        }
        Ok(libraries)
    }

    fn of(arg: &LibraryArg) -> Result<Library> {
        let path = arg.path.canonicalize().with_context(|| arg.path.display().to_string())?;
        ensure!(path.is_file(), "{}: is no library", arg.path.display());
        // The loader takes both for the end of a path.
        ensure!(!path.to_string_lossy().contains([' ', ':']), "{}: LD_PRELOAD takes no such path", path.display());
        let name = arg.name.clone().unwrap_or_else(|| name_of(&arg.path));
        Ok(Library { name, path })
    }

    /// objcg's own.
    pub(crate) fn build() -> Result<Library> {
        let path = workers::build_package(PACKAGE, FILE)
            .context("there is no library of objcg's own: give one by --library")?;
        Library::of(&LibraryArg { name: Some(OBJCG.to_owned()), path })
    }

    /// The value of `LD_PRELOAD`.
    pub(crate) fn preload(&self) -> &OsStr {
        self.path.as_os_str()
    }

    /// Asks the loader whether it puts the library into `program`, which it does not with one that is static.
    pub(crate) fn serves(&self, program: &Path) -> Result<()> {
        let mut command = Command::new(program);
        command.env("LD_TRACE_LOADED_OBJECTS", "1").env("LD_PRELOAD", self.preload()).stdin(Stdio::null());
        let output = command.output().with_context(|| program.display().to_string())?;
        let loaded = String::from_utf8_lossy(&output.stdout);
        let path = self.path.to_string_lossy();
        if !loaded.contains(&*path) {
            bail!("{}: the loader does not put {path} into it: {}", program.display(), first_lines(&output.stderr));
        }
        Ok(())
    }
}

/// `objcg_malloc` of `…/libobjcg_malloc.so.1`, and objcg for that one.
fn name_of(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = file.split(".so").next().unwrap_or_default();
    let name = stem.strip_prefix("lib").unwrap_or(stem);
    if name == "objcg_malloc" { OBJCG.to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::name_of;

    #[test]
    fn a_library_is_called_after_its_file() {
        assert_eq!(name_of(Path::new("/usr/lib/libjemalloc.so.2")), "jemalloc");
        assert_eq!(name_of(Path::new("target/release/libobjcg_malloc.so")), "objcg");
        assert_eq!(name_of(Path::new("other.so")), "other");
    }
}
