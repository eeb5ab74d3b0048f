//! Files that are written whole or not at all, and a stdout that may go away.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use tempfile::NamedTempFile;

/// Where a file is to be written at the end.
pub(crate) struct Destination<'a> {
    path: &'a Path,
}

impl<'a> Destination<'a> {
    /// Tries that `path` can be written, so that a bad one fails before the work. Leaves nothing.
    pub(crate) fn check(path: &'a Path) -> Result<Destination<'a>> {
        let destination = Destination { path };
        if path.is_dir() {
            anyhow::bail!("{}: is a directory", path.display());
        }
        if !destination.is_special() {
            drop(destination.temporary()?);
        }
        Ok(destination)
    }

    /// Whether `other` is the file that would be replaced.
    pub(crate) fn replaces(&self, other: &Path) -> bool {
        !self.is_special() && resolve(self.path) == resolve(other)
    }

    /// The path as it was given.
    pub(crate) fn path(&self) -> &Path {
        self.path
    }

    /// Writes the whole content, by a temporary file beside the path that then takes its place.
    pub(crate) fn write(&self, content: &[u8]) -> Result<()> {
        if self.is_special() {
            return fs::write(self.path, content).with_context(|| self.refusal());
        }
        let mut file = self.temporary()?;
        file.write_all(content).with_context(|| self.refusal())?;
        file.persist(self.target()).with_context(|| self.refusal())?;
        Ok(())
    }

    fn temporary(&self) -> Result<NamedTempFile> {
        let target = self.target();
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::metadata(directory).with_context(|| self.refusal())?;
        tempfile::Builder::new()
            .prefix(".objcg-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory)
            // The error itself names the temporary file, which nobody asked for.
            .map_err(|error| anyhow!("{}: {}", self.refusal(), error.kind()))
    }

    /// The file itself where the path is a link to it.
    fn target(&self) -> PathBuf {
        self.path.canonicalize().unwrap_or_else(|_| self.path.to_owned())
    }

    /// Devices and pipes are written to, not replaced.
    fn is_special(&self) -> bool {
        fs::metadata(self.path).is_ok_and(|metadata| !metadata.is_file())
    }

    fn refusal(&self) -> String {
        format!("{}: cannot be written", self.path.display())
    }
}

/// The path without links and dots, also of a file that is yet to be made.
fn resolve(path: &Path) -> PathBuf {
    let of_parent = || {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(parent.canonicalize().ok()?.join(path.file_name()?))
    };
    path.canonicalize().ok().or_else(of_parent).unwrap_or_else(|| path.to_owned())
}

/// Prints `text` to stdout. A reader that has gone away, as in `objcg | head`, is no failure.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("stdout"),
    }
}

/// Prints `text` to stderr, if somebody hears it.
pub(crate) fn print_error(text: &str) {
    // Not eprint!: it panics when stderr has gone away.
    let _unheard = io::stderr().write_all(text.as_bytes());
}
