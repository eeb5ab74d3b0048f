//! A copy of some crates as a workspace of their own, under the target folder, for tasks that change the source.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(crate) struct TreeCopy {
    pub(crate) tree: PathBuf,
    /// The target folder of its builds: it stays, so that only what was changed is built again.
    pub(crate) target: PathBuf,
}

impl TreeCopy {
    /// Copies `crates` to `target/NAME-tree`, in place of the last copy.
    pub(crate) fn make(root: &Path, name: &str, crates: &[&str]) -> Result<TreeCopy> {
        let base = root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| OsString::from("target")));
        let tree = base.join(format!("{name}-tree"));
        if tree.exists() {
            fs::remove_dir_all(&tree).context("the last copy cannot be removed")?;
        }
        for name in crates {
            copy_folder(&root.join("crates").join(name), &tree.join("crates").join(name))?;
        }
        fs::copy(root.join("Cargo.lock"), tree.join("Cargo.lock"))?;
        let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
        fs::write(tree.join("Cargo.toml"), reduced_manifest(&manifest, crates)?)?;
        Ok(TreeCopy { tree, target: base.join(name) })
    }
}

/// The workspace's manifest with the copied crates only.
fn reduced_manifest(manifest: &str, crates: &[&str]) -> Result<String> {
    let mut manifest: toml::Table = manifest.parse()?;
    let workspace = manifest.get_mut("workspace").and_then(toml::Value::as_table_mut).context("no workspace")?;
    workspace.remove("default-members");
    workspace.remove("exclude");
    let members = crates.iter().map(|name| toml::Value::from(format!("crates/{name}"))).collect::<Vec<_>>();
    workspace.insert("members".to_owned(), toml::Value::from(members));
    Ok(manifest.to_string())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("{}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("{}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::reduced_manifest;

    #[test]
    fn a_reduced_manifest_has_the_copied_crates_only() {
        let manifest = "[workspace]\nmembers = [\"crates/*\"]\ndefault-members = [\"crates/objcg-cli\"]\n";
        let reduced = reduced_manifest(manifest, &["objcg-core"]).unwrap();
        assert!(reduced.contains("crates/objcg-core") && !reduced.contains("objcg-cli"), "{reduced}");
    }
}
