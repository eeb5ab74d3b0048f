//! The test suite of the `bytes` crate, served by objcg inside a group: all of its tests pass, and at the exit of each
//! test program exactly nothing is charged to the group.
//!
//! `bytes` is a dev-dependency, so its package, tests included, is at hand. It is copied below the target folder, with
//! `support/inside.rs` appended to each test program, and tested there. Left out: two programs that bring a global
//! allocator of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CRATE: &str = "bytes";
const OWN_ALLOCATOR: [&str; 2] = ["test_bytes_odd_alloc.rs", "test_bytes_vec_alloc.rs"];

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("cargo runs");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{text}");
    output
}

/// Where cargo keeps the package, and its edition.
fn package() -> (PathBuf, String) {
    let own_manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let metadata =
        succeed(cargo().args(["metadata", "--offline", "--format-version=1", "--manifest-path", own_manifest]));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let package = packages.iter().find(|package| package["name"] == CRATE).expect("a dev-dependency");
    let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
    let edition = package["edition"].as_str().expect("an edition").to_owned();
    (manifest.parent().expect("a folder").to_owned(), edition)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the target folder is writable");
    for entry in fs::read_dir(from).expect("the package is readable") {
        let entry = entry.expect("the package is readable");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            let content = fs::read(entry.path()).expect("the package is readable");
            fs::write(target, content).expect("the target folder is writable");
        }
    }
}

/// The copied package with objcg in all its test programs.
fn prepare() -> PathBuf {
    let (source, edition) = package();
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("third-party").join(CRATE);
    if copy.exists() {
        fs::remove_dir_all(&copy).expect("an earlier copy can be removed");
    }
    copy_folder(&source.join("src"), &copy.join("src"));
    copy_folder(&source.join("tests"), &copy.join("tests"));
    let own = env!("CARGO_MANIFEST_DIR");
    let manifest = format!(
        "[package]\nname = \"{CRATE}\"\nversion = \"0.0.0\"\nedition = \"{edition}\"\n\
         [features]\ndefault = [\"std\"]\nstd = []\n\
         [dev-dependencies]\nobjcg = {{ path = \"{own}\" }}\nlibc = {{ version = \"0.2\", default-features = false }}\n\
         [workspace]\n"
    );
    fs::write(copy.join("Cargo.toml"), manifest).expect("the target folder is writable");
    fs::copy(Path::new(own).join("../../Cargo.lock"), copy.join("Cargo.lock")).expect("the lock file is there");
    for name in OWN_ALLOCATOR {
        fs::remove_file(copy.join("tests").join(name)).expect("the program is there");
    }
    let injected = format!("\n#[path = \"{own}/tests/support/inside.rs\"]\nmod inside;\n");
    for entry in fs::read_dir(copy.join("tests")).expect("the copy is readable") {
        let path = entry.expect("the copy is readable").path();
        let content = fs::read_to_string(&path).expect("Rust is text");
        fs::write(&path, content + &injected).expect("the target folder is writable");
    }
    copy
}

#[test]
fn i1_the_suite_of_bytes_ends_at_exactly_zero() {
    let copy = prepare();
    let output = succeed(
        cargo()
            .args(["test", "--offline", "--tests", "--manifest-path"])
            .arg(copy.join("Cargo.toml"))
            .env("CARGO_TARGET_DIR", copy.join("target"))
            .env("RUST_BACKTRACE", "0")
            .env_remove("RUSTFLAGS"),
    );
    let stdout = String::from_utf8_lossy(&output.stdout);
    let nr_passed: u32 = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse::<u32>().ok())
        .sum();
    let nr_clean = stdout.lines().filter(|line| line.starts_with("peak ") && line.ends_with(" usage 0")).count();
    assert!(nr_passed > 200, "{nr_passed} tests\n{stdout}");
    assert!(nr_clean >= 5, "{nr_clean} programs with tests\n{stdout}");
}
