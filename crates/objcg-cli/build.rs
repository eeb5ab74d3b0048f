//! Builds the library that `objcg run` preloads, so that the command carries it: a cargo of its own, in a folder of its own, always
//! optimised.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates that the library is made of.
const CRATES: [&str; 5] = ["objcg-preload", "objcg-malloc", "objcg-report", "objcg-core", "objcg-rseq"];

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn main() {
    let crates = Path::new(&variable("CARGO_MANIFEST_DIR")).join("..");
    let target = variable("TARGET");
    let folder = PathBuf::from(variable("OUT_DIR")).join("preload");
    let mut cargo = Command::new(variable("CARGO"));
    cargo.args(["build", "--release", "--package", "objcg-preload", "--target", &target, "--manifest-path"]);
    cargo.arg(crates.join("../Cargo.toml")).arg("--target-dir").arg(&folder);
    // What the outer build was told is about other code: flags for tests, a checker in the compiler's place.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_PROFILE_RELEASE_STRIP", "symbols").env("CARGO_PROFILE_RELEASE_DEBUG", "none");
    let status = cargo.status().unwrap_or_else(|error| panic!("cargo does not start: {error}"));
    assert!(status.success(), "the library does not build: {status}");

    let library = folder.join(&target).join("release/libobjcg_preload.so");
    println!("cargo::rustc-env=OBJCG_PRELOAD={}", library.display());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", crates.join("../Cargo.lock").display());
    println!("cargo::rerun-if-changed={}", crates.join("../Cargo.toml").display());
    for name in CRATES {
        println!("cargo::rerun-if-changed={}", crates.join(name).join("src").display());
        println!("cargo::rerun-if-changed={}", crates.join(name).join("Cargo.toml").display());
    }
}
