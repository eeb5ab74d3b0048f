//! The program: where it is, and whether the loader will preload a library into it.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

use super::LIBRARY;

/// What `env` and shells give back.
const NOT_FOUND: u8 = 127;
const CANNOT_RUN: u8 = 126;

const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const EXECUTABLE: u32 = 0o111;
/// Scripts of scripts, as the kernel allows them.
const MAX_DEPTH: usize = 5;

/// A program that can be run with a library preloaded.
pub(super) struct Program(PathBuf);

/// Why not.
pub(super) struct Refusal {
    code: u8,
    reason: String,
}

impl Refusal {
    fn cannot_run(path: &Path, reason: impl AsRef<str>) -> Refusal {
        Refusal { code: CANNOT_RUN, reason: format!("{}: {}", path.display(), reason.as_ref()) }
    }

    /// Says it, and gives the exit code.
    pub(super) fn report(self) -> Result<ExitCode> {
        crate::say(&self.reason);
        Ok(ExitCode::from(self.code))
    }
}

impl Program {
    /// Finds a program as a shell does.
    pub(super) fn find(name: &OsStr) -> std::result::Result<Program, Refusal> {
        let not_found = |reason: &str| Refusal { code: NOT_FOUND, reason: format!("{}: {reason}", name.display()) };
        if name.is_empty() {
            return Err(not_found("the program's name is empty"));
        }
        let path = if name.as_bytes().contains(&b'/') {
            PathBuf::from(name)
        } else {
            search(name).ok_or_else(|| not_found("no such program in PATH"))?
        };
        if !path.exists() {
            return Err(not_found("no such program"));
        }
        check(&path, 0)?;
        Ok(Program(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

fn search(name: &OsStr) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder }.join(name))
        .find(|path| fs::metadata(path).is_ok_and(|metadata| is_executable(&metadata)))
}

fn is_executable(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.mode() & EXECUTABLE != 0
}

/// Whether the loader will preload into it; for a script, into its interpreter.
fn check(path: &Path, depth: usize) -> std::result::Result<(), Refusal> {
    let refuse = |reason: &str| Err(Refusal::cannot_run(path, reason));
    let unreadable = |error: io::Error| Refusal::cannot_run(path, error.to_string());
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !is_executable(&metadata) {
        return refuse(if metadata.is_dir() { "is a directory" } else { "is not executable" });
    }
    if changes_user(path, &metadata) {
        return refuse(
            "takes another user's rights (setuid, setgid or capabilities): the loader preloads nothing into it",
        );
    }
    // A program that may be run but not read is run as it is.
    let Ok(file) = File::open(path) else { return Ok(()) };
    let mut head = Vec::new();
    file.take(64 << 10).read_to_end(&mut head).map_err(unreadable)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        return match interpreter(line) {
            Some(interpreter) if depth < MAX_DEPTH => check(&interpreter, depth + 1),
            _ => refuse("is a script without an interpreter"),
        };
    }
    match check_elf(&head) {
        Ok(()) => Ok(()),
        Err(reason) => refuse(reason),
    }
}

fn changes_user(path: &Path, metadata: &Metadata) -> bool {
    let mode = metadata.mode();
    let sets_user = mode & SET_USER_ID != 0 && metadata.uid() != rustix::process::geteuid().as_raw();
    let sets_group = mode & SET_GROUP_ID != 0 && metadata.gid() != rustix::process::getegid().as_raw();
    let mut capabilities = [0u8; 64];
    let has_capabilities = !rustix::process::geteuid().is_root()
        && rustix::fs::getxattr(path, "security.capability", &mut capabilities).is_ok();
    sets_user || sets_group || has_capabilities
}

/// The interpreter that a script's first line names.
fn interpreter(line: &[u8]) -> Option<PathBuf> {
    let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let name = line.split(u8::is_ascii_whitespace).next().filter(|name| !name.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(name)))
}

/// This machine's number in programs: that of the library.
fn machine() -> elf::Machine {
    FileHeader64::<Endianness>::parse(LIBRARY).map_or(elf::EM_NONE, |header| header.e_machine(Endianness::default()))
}

fn check_elf(head: &[u8]) -> std::result::Result<(), &'static str> {
    const OTHER: &str = "is no program of this machine";
    if !head.starts_with(&elf::ELFMAG) {
        // A shell would take it for a script; the kernel does not.
        return Err("is neither a program nor a script with an interpreter");
    }
    let header = FileHeader64::<Endianness>::parse(head).map_err(|_| "is not a 64-bit program")?;
    let endian = header.endian().map_err(|_| OTHER)?;
    if header.e_machine(endian) != machine() {
        return Err(OTHER);
    }
    let segments = header.program_headers(endian, head).map_err(|_| OTHER)?;
    let Some(segment) = segments.iter().find(|segment| segment.p_type(endian) == PT_INTERP) else {
        return Err("is linked statically: nothing can be preloaded into it; link libobjcg_malloc.a instead");
    };
    let loader = segment.data(endian, head).map_err(|()| OTHER)?;
    if loader.windows(7).any(|window| window == b"ld-musl") {
        return Err("is linked with musl: the library needs glibc");
    }
    Ok(())
}
