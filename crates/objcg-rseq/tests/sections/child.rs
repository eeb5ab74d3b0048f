//! Tests in a process of their own: this binary again, with the test's name in the environment.

use std::env;
use std::process::Command;

const NAME: &str = "OBJCG_RSEQ_CHILD";
/// Has glibc register nobody.
pub(crate) const NO_LIBC_RSEQ: (&str, &str) = ("GLIBC_TUNABLES", "glibc.pthread.rseq=0");

/// Runs `work` in a child that runs only the test `name`, which must end well; there, this call does not return before.
pub(crate) fn in_child(name: &str, environment: &[(&str, &str)], work: impl FnOnce()) {
    if env::var_os(NAME).is_some() {
        return work();
    }
    let this = env::current_exe().expect("the test's own path");
    let mut child = Command::new(this);
    child.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(NAME, name).envs(environment.iter().copied());
    let output = child.output().expect("the test can run itself");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}\n{complained}", output.status);
    assert!(said.contains("1 passed"), "it ran no test: {said}");
}
