//! Tests in a process of their own: this binary again, with the test's name in the environment.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

/// Names the test, in the process that is the test's own.
pub(crate) const WORLD: &str = "OBJCG_TEST_WORLD";

/// Runs `test` again as a child, unless this is the child, where it is true; `prepare` changes the child before it starts.
pub(crate) fn in_own_process(test: &str, prepare: impl FnOnce(&mut Command)) -> bool {
    if std::env::var_os(WORLD).is_some() {
        return true;
    }
    let mut child = Command::new(std::env::current_exe().expect("the test's own path"));
    child.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(WORLD, test);
    // A backtrace takes memory, which there may be none of: std waits for its own lock for ever then.
    child.env("RUST_BACKTRACE", "0");
    prepare(&mut child);
    let output = child.output().expect("the test can run itself");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test}, signal {:?}: {text}", output.status.signal());
    assert!(text.contains("1 passed"), "{test} ran nothing: {text}");
    false
}
