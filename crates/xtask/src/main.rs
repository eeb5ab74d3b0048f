//! The project's own tasks: `cargo xtask tidy`, `cargo xtask layers`, `cargo xtask golden`, `cargo xtask teeth`,
//! `cargo xtask mutants`, `cargo xtask install`, `cargo xtask ci`.

#![forbid(unsafe_code)]

mod ci;
mod golden;
mod install;
mod mutants;
mod nightly;
mod teeth;
mod tidy;
mod tree_copy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The tasks of this repository")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Checks the house style: layers, sizes, unsafe code, words, text, links
    Tidy,
    /// Prints the layers of objcg-core, lowest first, and what each file uses
    Layers,
    /// Counts the instructions of the entry points and compares them with the golden numbers
    Golden,
    /// Breaks the protocols of the engine one by one and demands that their loom models fail
    Teeth,
    /// Changes the accounting in one place after the other, and says which changes no test sees
    Mutants(mutants::Choice),
    /// Builds the library for C and installs it, with its header and its pkg-config file
    Install(install::Destination),
    /// Runs the steps of continuous integration in order, up to the first that fails
    Ci {
        /// Prints the steps and what they run
        #[arg(long)]
        list: bool,
        /// Runs the tests a second time, built for release
        #[arg(long)]
        release: bool,
        /// Steps to run; all if none is named, but for test-release
        #[arg(value_name = "STEP", conflicts_with = "list")]
        steps: Vec<String>,
    },
}

fn main() -> ExitCode {
    let root = repository_root();
    let result = match Args::parse().task {
        Task::Tidy => tidy::run(&root),
        Task::Layers => tidy::print_layers(&root),
        Task::Golden => golden::run(&root),
        Task::Mutants(choice) => mutants::run(&root, &choice),
        Task::Teeth => teeth::run(&root),
        Task::Install(destination) => install::run(&root, &destination),
        Task::Ci { list: true, .. } => {
            ci::print_steps();
            Ok(())
        }
        Task::Ci { list: false, release, steps } => ci::run(&root, &steps, release),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace's `Cargo.toml`, two above this crate's.
fn repository_root() -> PathBuf {
    let mut root = Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf();
    root.pop();
    root.pop();
    root
}
