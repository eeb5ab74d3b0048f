//! The repository's own checks, as `cargo xtask`: what the compiler does not know about the house style, the order of the
//! layers, and all of CI in one command.

#![forbid(unsafe_code)]

mod ci;
mod tidy;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The checks of this repository")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check the house style: one line for each finding, exit 1 if there is any
    Tidy {
        /// Print the rules instead
        #[arg(long)]
        list: bool,
    },
    /// Print the layers of objcg-core, lowest first, and what each file uses
    Layers,
    /// Run the steps of CI in order
    Ci(ci::Args),
}

fn main() -> anyhow::Result<ExitCode> {
    let root = workspace_root();
    match Args::parse().task {
        Task::Tidy { list: true } => tidy::print_rules(),
        Task::Tidy { list: false } => {
            if !tidy::run(&root)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Layers => tidy::print_layers(&root)?,
        Task::Ci(args) => return ci::run(&root, &args),
    }
    Ok(ExitCode::SUCCESS)
}

/// The checkout that `cargo xtask` was called in, which a shared target directory must not confuse with the one that this
/// binary was built in.
fn workspace_root() -> PathBuf {
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest_dir.ancestors().nth(2).unwrap_or(Path::new(".")).to_path_buf()
}
