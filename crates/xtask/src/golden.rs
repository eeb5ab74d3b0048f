//! The straight paths of the entry points, instruction by instruction: how long they are, and what may not be on them.
//!
//! A path is what the compiler laid out from the entry to the first return, by `objdump` of the release build of
//! `crates/objcg/examples/entry_points.rs`: what runs when a sheaf serves. The lengths that were reached are golden: a longer
//! path fails, a shorter one asks for the table here to be lowered.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Entry points, and the instructions of their paths on x86-64.
const GOLDEN: &[(&str, usize)] = &[("objcg_entry_alloc", 30), ("objcg_entry_free", 37)];

/// What no path has: calls, saved registers, atomic read-modify-writes, look-ups of thread-local storage.
const FORBIDDEN: &[&str] = &["call", "push", "lock", "xchg", "__tls_get_addr"];

pub(crate) fn run(root: &Path) -> Result<()> {
    if env::consts::ARCH != "x86_64" {
        println!("golden: no table for {}", env::consts::ARCH);
        return Ok(());
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut build = Command::new(cargo);
    build.current_dir(root).args(["build", "--release", "-p", "objcg", "--example", "entry_points"]);
    let status = build.status().context("cargo does not start")?;
    ensure!(status.success(), "the example does not build: {status}");
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| OsString::from("target"));
    let binary = root.join(target).join("release/examples/entry_points");
    for (name, golden) in GOLDEN {
        let path = straight_path(&disassemble(&binary, name)?)?;
        if let Some(bad) = path.iter().find(|line| FORBIDDEN.iter().any(|word| line.contains(word))) {
            bail!("{name}: `{bad}` on the straight path");
        }
        println!("{name}: {} instructions", path.len());
        ensure!(path.len() <= *golden, "{name} has grown: {} instructions, {golden} before", path.len());
        ensure!(path.len() == *golden, "{name} has shrunk to {}: lower the table in golden.rs", path.len());
    }
    Ok(())
}

fn disassemble(binary: &Path, function: &str) -> Result<String> {
    let mut objdump = Command::new("objdump");
    objdump.args(["--no-show-raw-insn", "-M", "intel"]).arg(format!("--disassemble={function}")).arg(binary);
    let output = objdump.output().context("objdump does not start; it comes with binutils")?;
    ensure!(output.status.success(), "objdump: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The instructions of the one function in a listing, up to and with its first return.
fn straight_path(listing: &str) -> Result<Vec<String>> {
    let mut path = Vec::new();
    for line in listing.lines() {
        // "  33ee0:\tmov    rcx,rsi"
        let Some((address, instruction)) = line.split_once(":\t") else { continue };
        if !address.trim_start().bytes().all(|byte| byte.is_ascii_hexdigit()) {
            continue;
        }
        path.push(instruction.trim().to_owned());
        if instruction.starts_with("ret") {
            return Ok(path);
        }
    }
    bail!("no return in the disassembly: is the function there?")
}

#[cfg(test)]
mod tests {
    use super::straight_path;

    #[test]
    fn a_path_ends_at_the_first_return() {
        let listing = "f:     file format elf64-x86-64\n\n0000000000001000 <f>:\n    1000:\tmov    rax,rdi\n    \
                       1003:\tret\n    1004:\tjmp    1000 <f>\n";
        assert_eq!(straight_path(listing).unwrap(), ["mov    rax,rdi", "ret"]);
    }

    #[test]
    fn a_listing_without_the_function_is_an_error() {
        assert!(straight_path("f:     file format elf64-x86-64\n").is_err());
    }
}
