//! `cargo xtask tidy`: the house style as a check.
//!
//! A rule is a function of one file, [`Text`] or [`Source`] (a Rust file, parsed), that gives its findings; a few rules
//! look at the whole tree. Nothing stops at the first finding. What a rule lets pass is said in the
//! rule.

mod code;
mod layers;
mod manifest;
mod markdown;
mod names;
mod source;
mod text;
mod unsafe_code;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use source::Source;

/// Rules on every text file.
const TEXT_RULES: &[fn(&Text) -> Vec<Finding>] = &[
    text::whitespace,
    text::workplace_paths,
    text::unfinished_words,
    markdown::architecture_length,
    names::file_names,
    names::module_docs,
    manifest::crate_name,
    manifest::crate_order,
    manifest::workspace_fields,
];

/// Rules on every Rust file.
const SOURCE_RULES: &[fn(&Source) -> Vec<Finding>] = &[
    layers::layer_order,
    layers::target_cfg,
    layers::sync_door,
    layers::no_std,
    code::file_length,
    code::function_length,
    code::globs,
    code::unfinished_macros,
    code::unfinished_comments,
    code::ignored_tests,
    code::singled_out_tests,
    code::sleeping_tests,
    code::saturating_sub,
    code::seq_cst,
    unsafe_code::crate_denies,
    unsafe_code::module_expects,
];

type TreeRule = fn(&[Text]) -> Vec<Finding>;

/// Rules on all files together.
const TREE_RULES: &[TreeRule] = &[markdown::links, layers::layers_exist, manifest::licence];

/// A file of the repository: its path from the root, with `/`, and what is in it.
pub(crate) struct Text {
    pub(crate) path: String,
    /// Empty for a file that is not text.
    pub(crate) text: String,
}

/// A place in a file, and what is wrong there.
pub(crate) struct Finding {
    path: String,
    line: usize,
    reason: String,
}

impl Finding {
    fn new(path: &str, line: usize, reason: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, reason: reason.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.reason)
    }
}

/// Checks every file under `root` and prints what it finds.
pub(crate) fn run(root: &Path) -> Result<()> {
    let files = read_tree(root)?;
    let mut findings = check(&files);
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => println!("tidy: {} files, nothing found", files.len()),
        nr_findings => bail!("tidy: {nr_findings} findings in {} files", files.len()),
    }
    Ok(())
}

/// Prints the layers of objcg-core, lowest first, and what each file uses.
pub(crate) fn print_layers(root: &Path) -> Result<()> {
    let files = read_tree(root)?;
    let sources = files.iter().filter_map(|file| Source::parse(file).ok()).collect::<Vec<_>>();
    print!("{}", layers::describe(&sources));
    Ok(())
}

fn check(files: &[Text]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        findings.extend(TEXT_RULES.iter().flat_map(|rule| rule(file)));
        if !file.path.ends_with(".rs") {
            continue;
        }
        match Source::parse(file) {
            Ok(source) => findings.extend(SOURCE_RULES.iter().flat_map(|rule| rule(&source))),
            Err(finding) => findings.push(finding),
        }
    }
    findings.extend(TREE_RULES.iter().flat_map(|rule| rule(files)));
    findings
}

/// Reads all files under `root` but what is built and what git keeps.
fn read_tree(root: &Path) -> Result<Vec<Text>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let name = entry.file_name();
            let kind = entry.file_type()?;
            if kind.is_dir() && name != ".git" && name != "target" {
                folders.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
                let path = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
                files.push(Text { path, text: String::from_utf8(bytes).unwrap_or_default() });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::{Finding, Source, Text, check};

    /// The lines in which a rule on text finds something.
    pub(crate) fn text_lines(rule: fn(&Text) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        lines(&rule(&Text { path: path.to_owned(), text: text.to_owned() }))
    }

    /// The lines in which a rule on Rust finds something.
    pub(crate) fn source_lines(rule: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        let file = Text { path: path.to_owned(), text: text.to_owned() };
        match Source::parse(&file) {
            Ok(source) => lines(&rule(&source)),
            Err(finding) => panic!("{finding}"),
        }
    }

    /// The lines in which a rule on the tree finds something.
    pub(crate) fn tree_lines(rule: super::TreeRule, files: &[(&str, &str)]) -> Vec<usize> {
        let file = |&(path, text): &(&str, &str)| Text { path: path.to_owned(), text: text.to_owned() };
        lines(&rule(&files.iter().map(file).collect::<Vec<_>>()))
    }

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_file_that_does_not_parse_is_a_finding_with_its_line() {
        let file = Text { path: "crates/a/src/x.rs".to_owned(), text: "//! X.\nfn x( {}\n".to_owned() };
        let found = check(&[file]).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(found.iter().any(|line| line.starts_with("crates/a/src/x.rs:2: does not parse")), "{found:?}");
    }

    #[test]
    fn findings_read_file_line_reason() {
        assert_eq!(Finding::new("a.md", 7, "a tab").to_string(), "a.md:7: a tab");
    }
}
