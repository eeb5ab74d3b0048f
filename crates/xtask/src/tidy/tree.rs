//! The files of the repository, read once: what the rules look at.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context;

use super::Source;
use super::regions::{self, Needs};

/// One text file. Paths are relative to the root of the repository, with `/`.
pub(super) struct File {
    pub(super) path: String,
    pub(super) text: String,
    /// The parsed file, or why it does not parse; `None` for what is not Rust.
    pub(super) rust: Option<Result<Source, String>>,
    /// The whole file is test code: in a `tests/` folder, or a module that is declared under `#[cfg(test)]`.
    pub(super) is_test: bool,
}

impl File {
    /// The parsed file, if this is Rust.
    pub(super) fn source(&self) -> Option<&Source> {
        self.rust.as_ref()?.as_ref().ok()
    }

    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The folder under `crates/` that the file is in, and its path there.
    pub(super) fn in_crate(&self) -> Option<(&str, &str)> {
        self.path.strip_prefix("crates/")?.split_once('/')
    }

    /// The file's path under `crates/objcg-core/src/`.
    pub(super) fn in_core(&self) -> Option<&str> {
        self.path.strip_prefix("crates/objcg-core/src/")
    }

    /// Whether this line is test code.
    pub(super) fn is_test_line(&self, line: usize) -> bool {
        self.is_test || self.source().is_some_and(|source| source.regions.iter().any(|region| region.is(Needs::Test, line)))
    }

    /// Whether this line is only compiled for tests or for loom's models.
    pub(super) fn is_test_or_model_line(&self, line: usize) -> bool {
        self.is_test_line(line)
            || self.source().is_some_and(|source| source.regions.iter().any(|region| region.is(Needs::TestOrLoom, line)))
    }
}

/// All files: the text ones parsed, of the others only the path.
pub(super) struct Tree {
    files: Vec<File>,
    paths: BTreeSet<String>,
}

impl Tree {
    /// Reads all that is under `root`, build output and the version control's own files aside.
    pub(super) fn read(root: &Path) -> anyhow::Result<Self> {
        let mut paths = BTreeSet::new();
        walk(root, "", &mut paths)?;
        let mut texts = Vec::new();
        for path in paths.iter().filter(|path| is_text(path)) {
            texts.push((path.clone(), fs::read_to_string(root.join(path)).with_context(|| path.clone())?));
        }
        Ok(Self::new(paths, texts))
    }

    pub(super) fn new(paths: BTreeSet<String>, texts: Vec<(String, String)>) -> Self {
        let mut files: Vec<File> = texts.into_iter().map(|(path, text)| file(path, text)).collect();
        let test_modules: Vec<String> = files.iter().flat_map(test_modules).collect();
        for file in &mut files {
            let module = file.path.trim_end_matches(".rs");
            file.is_test |= test_modules.iter().any(|test| module.strip_prefix(test.as_str()).is_some_and(is_at_or_below));
        }
        Self { files, paths }
    }

    pub(super) fn files(&self) -> &[File] {
        &self.files
    }

    pub(super) fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether there is such a file or folder.
    pub(super) fn exists(&self, path: &str) -> bool {
        path.is_empty() || self.paths.contains(path) || self.paths.iter().any(|file| file.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    }
}

fn walk(root: &Path, folder: &str, paths: &mut BTreeSet<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(root.join(folder)).with_context(|| folder.to_owned())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if !entry.file_type()?.is_dir() {
            paths.insert(path);
        } else if name != ".git" && path != "target" {
            walk(root, &path, paths)?;
        }
    }
    Ok(())
}

fn is_text(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.rsplit_once('.') {
        Some((_, extension)) => matches!(extension, "rs" | "md" | "toml" | "sh" | "yml" | "yaml" | "txt" | "gitignore"),
        None => name.starts_with("LICENSE") || path.starts_with(".ci/"),
    }
}

fn file(path: String, text: String) -> File {
    let rust = path.ends_with(".rs").then(|| Source::parse(&text));
    let is_test = path.contains("/tests/") && path.split('/').nth(2) == Some("tests");
    File { path, text, rust, is_test }
}

/// The modules, as paths without `.rs`, that this file declares for tests only.
fn test_modules(file: &File) -> Vec<String> {
    let folder = match file.path.rsplit_once('/') {
        Some((folder, "lib.rs" | "main.rs")) => folder,
        _ => file.path.trim_end_matches(".rs"),
    };
    let modules = file.source().into_iter().flat_map(|source| &source.ast.items).filter_map(|item| match item {
        syn::Item::Mod(module) if module.content.is_none() && regions::needs_test(&module.attrs) => Some(&module.ident),
        _ => None,
    });
    modules.map(|module| format!("{folder}/{module}")).collect()
}

fn is_at_or_below(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}
