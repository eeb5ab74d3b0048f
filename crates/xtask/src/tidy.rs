//! `cargo xtask tidy`: the part of the house style that a program can check.
//!
//! [`RULES`] is the one list. A rule is a function of a [`File`] and the [`Tree`] that it is in, so that tests feed it small
//! sources from memory; rules that look at code work on the parsed file ([`Source`]), not on its text. A line is exempt
//! from a rule by a comment on it or right above it, `tidy: allow(rule) reason`; one that exempts nothing is a finding too.

mod allow;
mod docs;
mod layers;
mod manifests;
mod paths;
mod regions;
mod source;
mod style;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod unsafe_rules;

use std::path::Path;

use source::Source;
use tree::{File, Tree};

/// One check: what it is called in findings and exemptions, what it demands, and how it finds offenders.
struct Rule {
    name: &'static str,
    demands: &'static str,
    check: fn(&File, &Tree) -> Vec<Hit>,
}

/// An offending line, counted from 1, and why it offends.
#[derive(Debug)]
struct Hit {
    line: usize,
    reason: String,
}

impl Hit {
    fn new(line: usize, reason: impl Into<String>) -> Self {
        Self { line, reason: reason.into() }
    }
}

/// A hit with its file and its rule.
#[derive(Debug)]
struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    reason: String,
}

const fn rule(name: &'static str, demands: &'static str, check: fn(&File, &Tree) -> Vec<Hit>) -> Rule {
    Rule { name, demands, check }
}

#[rustfmt::skip]
const RULES: &[Rule] = &[
    rule("parses", "every Rust file parses", source::parses),
    rule("layer-order", "a file of objcg-core names its own layer or lower ones only", layers::layer_order),
    rule("layer-docs", "objcg-core's crate docs give the layers in the order that is checked", layers::layer_docs),
    rule("crate-order", "a crate depends on lower crates only, tests aside", manifests::crate_order),
    rule("target-cfg", "platform cfgs stand in `os`, `cpu` and objcg-rseq only", layers::target_cfg),
    rule("sync-door", "objcg-core takes atomics, cells and locks from `crate::sync` only, tests aside", layers::sync_door),
    rule("no-std", "objcg-core's root is `no_std`, and `std` comes in by a cfg only", layers::no_std),
    rule("mod-rs", "`foo.rs` + `foo/`, never `mod.rs`", style::mod_rs),
    rule("file-name", "no util, common, helpers, misc or manager", style::file_name),
    rule("file-length", "at most 600 lines a Rust file, tests aside", style::file_length),
    rule("function-length", "at most 70 lines a function", style::function_length),
    rule("glob-import", "imports name what they import", style::glob_import),
    rule("unfinished", "no unfinished or debugging code, no reminders in comments", style::unfinished),
    rule("ignored-test", "no test is ignored or singled out", style::ignored_test),
    rule("sleep-in-test", "no test sleeps", style::sleep_in_test),
    rule("seqcst-reason", "a comment that names `SeqCst` stands at or right above each use of it", style::seqcst_reason),
    rule("saturating-sub", "objcg-core hides no underflow, tests aside", style::saturating_sub),
    rule("unsafe-denied", "every crate root denies or forbids `unsafe_code`", unsafe_rules::denied),
    rule("unsafe-file", "`unsafe` only where the file or module opens with `#![expect(unsafe_code, reason = …)]`", unsafe_rules::expected),
    rule("module-docs", "every Rust file opens with `//!`", docs::module_docs),
    rule("markdown-link", "relative links lead to a file or heading of this repository", docs::markdown_link),
    rule("architecture-length", "ARCHITECTURE.md stays under 200 lines", docs::architecture_length),
    rule("whitespace", "no tabs, carriage returns or trailing blanks; one newline at the end", text::whitespace),
    rule("absolute-path", "nothing points into the directory of a working session", text::absolute_path),
    rule("package-name", "a crate's folder has the package's name", manifests::package_name),
    rule("workspace-fields", "version, edition, licence, … and lints are the workspace's", manifests::workspace_fields),
    rule("licence", "MIT OR Apache-2.0, and the text of both at the root", manifests::licence),
];

/// Checks the tree at `root` and prints what it finds; whether that is nothing.
pub(crate) fn run(root: &Path) -> anyhow::Result<bool> {
    let tree = Tree::read(root)?;
    let findings = check(&tree);
    for finding in &findings {
        println!("{}:{}: {}: {}", finding.path, finding.line, finding.rule, finding.reason);
    }
    println!("tidy: {} findings in {} files, {} rules", findings.len(), tree.files().len(), RULES.len());
    Ok(findings.is_empty())
}

/// Prints each rule with what it demands.
pub(crate) fn print_rules() {
    for rule in RULES {
        println!("{:<20} {}", rule.name, rule.demands);
    }
}

/// Prints the layer order of objcg-core and, for each file, which layers it uses.
pub(crate) fn print_layers(root: &Path) -> anyhow::Result<()> {
    print!("{}", layers::describe(&Tree::read(root)?));
    Ok(())
}

fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files() {
        let mut exemptions = allow::exemptions(file);
        for rule in RULES {
            let hits = (rule.check)(file, tree).into_iter().filter(|hit| !allow::exempts(&mut exemptions, rule.name, hit.line));
            findings.extend(hits.map(|hit| finding(file, rule.name, hit)));
        }
        findings.extend(allow::unfounded(&exemptions).into_iter().map(|hit| finding(file, allow::RULE, hit)));
    }
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    findings
}

fn finding(file: &File, rule: &'static str, hit: Hit) -> Finding {
    Finding { path: file.path.clone(), line: hit.line, rule, reason: hit.reason }
}
