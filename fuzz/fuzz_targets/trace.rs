//! Any bytes as a trace: they are refused with one line, or read, looked through and replayed. The limit of resident memory
//! that the fuzzer runs under makes a file that takes too much of it a finding.

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

fuzz_target!(|bytes: &[u8]| {
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
});
