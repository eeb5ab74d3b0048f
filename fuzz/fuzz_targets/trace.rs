//! Any bytes as a trace: they are refused with one line, or read, looked through and replayed. The limit of resident memory
//! that the fuzzer runs under makes a file that takes too much of it a finding. A panic of the Parquet library on a broken file
//! is no finding of this project's code: it ends the command with the library's line.

#![no_main]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use objcg_lab::{ControllerKind, Settings, Trace, TraceInfo, compare};

/// A file in memory, and the name that it can be opened by.
static FILE: LazyLock<(File, String)> = LazyLock::new(|| {
    let fd = unsafe { libc::memfd_create(c"trace".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    let file = unsafe { File::from_raw_fd(fd) };
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    (file, name)
});

/// Where the source of the Parquet library and of what it decodes by lies.
const LIBRARIES: [&str; 3] = ["/parquet-", "/arrow-", "/bytes-"];

/// Leaves a panic of the libraries to unwind; libFuzzer's hook sees all others.
fn pass_over_panics_of_libraries() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let file = panic.location().map_or("", |location| location.file());
        if !LIBRARIES.iter().any(|library| file.contains(library)) {
            report(panic);
        }
    }));
}

fuzz_target!(init: pass_over_panics_of_libraries(), |bytes: &[u8]| {
    // A panic of ours has ended the process by the hook.
    let _panic_of_a_library = std::panic::catch_unwind(|| open(bytes));
});

fn open(bytes: &[u8]) {
    let (file, name) = &*FILE;
    file.set_len(0).expect("memory");
    // From the start: the position is the descriptor's.
    std::os::unix::fs::FileExt::write_all_at(file, bytes, 0).expect("memory");
    { file }.flush().expect("memory");
    match Trace::open(name) {
        Err(error) => {
            let line = error.to_string();
            assert!(!line.contains('\n'), "more than one line: {line:?}");
        }
        Ok(trace) => {
            let _info = TraceInfo::of(&trace);
            // What cannot be replayed is an error as well.
            let _report = compare(&trace, &ControllerKind::ALL, Settings::default(), &mut |_| ());
        }
    }
}
