//! `cargo xtask install`: the library for C, its header and its pkg-config file, below a prefix.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

/// The version that programs are linked against: it changes when they have to be linked anew.
const SONAME: &str = "libobjcg_malloc.so.0";
const SHARED: &str = "libobjcg_malloc.so";
const STATIC: &str = "libobjcg_malloc.a";
const HEADER: &str = "objcg.h";
const TEMPLATE: &str = "objcg.pc.in";

/// Where to.
#[derive(Args)]
pub(crate) struct Destination {
    /// Below which `lib`, `include` and `lib/pkgconfig` are
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    prefix: PathBuf,
    /// Folder for the libraries, below the prefix
    #[arg(long, value_name = "DIR", default_value = "lib")]
    libdir: PathBuf,
    /// What stands before the prefix while files are copied: for packages
    #[arg(long, value_name = "DIR")]
    destdir: Option<PathBuf>,
}

pub(crate) fn run(root: &Path, destination: &Destination) -> Result<()> {
    let built = build(root)?;
    let source = root.join("crates/objcg-malloc");
    let prefix = std::path::absolute(&destination.prefix)?;
    let libdir = prefix.join(&destination.libdir);
    let staged = |path: &Path| match &destination.destdir {
        // The prefix is absolute: joined as it is it would replace what stands before it.
        Some(before) => before.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    };

    let version = version(root)?;
    let shared = format!("{SHARED}.{version}");
    let libraries = staged(&libdir);
    put(&built.join(SHARED), &libraries.join(&shared), 0o755)?;
    put(&built.join(STATIC), &libraries.join(STATIC), 0o644)?;
    link(&shared, &libraries.join(SONAME))?;
    link(SONAME, &libraries.join(SHARED))?;
    put(&source.join("include").join(HEADER), &staged(&prefix.join("include")).join(HEADER), 0o644)?;

    let template = fs::read_to_string(source.join(TEMPLATE)).context(TEMPLATE)?;
    let text = fill(&template, &prefix, &libdir, &version);
    let config = libraries.join("pkgconfig/objcg.pc");
    make_folder_of(&config)?;
    fs::write(&config, text).with_context(|| config.display().to_string())?;
    println!("{}", config.display());
    Ok(())
}

/// Builds both libraries; returns the folder that has them.
fn build(root: &Path) -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut build = Command::new(cargo);
    build.current_dir(root).args(["build", "--release", "-p", "objcg-malloc"]);
    let status = build.status().context("cargo does not start")?;
    ensure!(status.success(), "the library does not build: {status}");
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| OsString::from("target"));
    Ok(root.join(target).join("release"))
}

/// The workspace's version.
fn version(root: &Path) -> Result<String> {
    let manifest: toml::Table = fs::read_to_string(root.join("Cargo.toml"))?.parse()?;
    let version = manifest["workspace"]["package"]["version"].as_str().context("the workspace has no version")?;
    Ok(version.to_owned())
}

fn fill(template: &str, prefix: &Path, libdir: &Path, version: &str) -> String {
    let fields = [
        ("@prefix@", prefix.display().to_string()),
        ("@libdir@", libdir.display().to_string()),
        ("@version@", version.to_owned()),
    ];
    fields.iter().fold(template.to_owned(), |text, (field, value)| text.replace(field, value))
}

fn make_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// Puts a copy in place of what is there: programs that run have the old file mapped.
fn put(from: &Path, to: &Path, mode: u32) -> Result<()> {
    make_folder_of(to)?;
    let fresh = to.with_added_extension("new");
    fs::copy(from, &fresh).with_context(|| format!("{} to {}", from.display(), fresh.display()))?;
    fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    fs::rename(&fresh, to).with_context(|| to.display().to_string())?;
    println!("{}", to.display());
    Ok(())
}

fn link(to: &str, at: &Path) -> Result<()> {
    if at.symlink_metadata().is_ok() {
        fs::remove_file(at).with_context(|| at.display().to_string())?;
    }
    symlink(to, at).with_context(|| at.display().to_string())?;
    println!("{}", at.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::fill;

    #[test]
    fn a_template_is_filled_wherever_a_field_stands() {
        let text =
            fill("prefix=@prefix@\nlibdir=@libdir@\nVersion: @version@\n", Path::new("/a"), Path::new("/a/l"), "1.2");
        assert_eq!(text, "prefix=/a\nlibdir=/a/l\nVersion: 1.2\n");
    }
}
