//! The layers of objcg-core: their order, who uses whom, and what only some of them may touch.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::source::{Source, Token};
use super::{Finding, Text};

/// The layered crate.
pub(super) const CRATE: &str = "objcg-core";

/// Its top-level modules, lowest first; those of one group may use each other.
const LAYERS: &[&[&str]] = &[
    &["sync", "os", "report", "faults"],
    &["options"],
    &["hardening"],
    &["cpu"],
    &["size_class"],
    &["page_alloc"],
    &["table"],
    &["memcg"],
    &["hooks"],
    &["slab"],
    &["kmem_cache"],
    &["kmalloc"],
    &["percpu"],
    &["stat"],
    &["fork"],
];

/// The modules of the layered crate that may ask for the platform.
const PLATFORM_LAYERS: &[&str] = &["os", "cpu"];
/// The crate all of which may.
const PLATFORM_CRATE: &str = "objcg-rseq";

/// What comes from `crate::sync` only.
const SYNC_PATHS: &[&[&str]] =
    &[&["core", "sync", "atomic"], &["std", "sync"], &["core", "cell"], &["std", "cell"], &["loom"]];

/// The attributes, without blanks, of which a `no_std` crate has one; loom's models run with `std`.
const NO_STD: &[&str] = &["#![no_std]", "#![cfg_attr(not(loom),no_std)]"];
/// The attribute that makes `std` optional.
const STD_FEATURE: &str = "#[cfg(feature=\"std\")]";

/// A module names only its own layer and lower ones.
pub(super) fn layer_order(source: &Source) -> Vec<Finding> {
    let Some(own) = layer_of_file(source) else { return Vec::new() };
    let Some(own_height) = height(own) else {
        return vec![source.finding(1, format!("`{own}` is in no layer; the list is in xtask's `tidy/layers.rs`"))];
    };
    let mut findings = Vec::new();
    for (line, used) in used_modules(source) {
        match height(&used) {
            Some(height) if height <= own_height => {}
            Some(_) => findings.push(source.finding(line, format!("`{own}` may not use `{used}`, a higher layer"))),
            None => findings.push(source.finding(line, format!("`crate::{used}` is in no layer; name its module"))),
        }
    }
    findings
}

/// Every layer of the list has its file.
pub(super) fn layers_exist(files: &[Text]) -> Vec<Finding> {
    let missing = |layer: &&str| {
        let path = format!("crates/{CRATE}/src/{layer}.rs");
        !files.iter().any(|file| file.path == path)
    };
    let root = format!("crates/{CRATE}/src/lib.rs");
    let layers = LAYERS.iter().copied().flatten().copied().filter(missing);
    layers.map(|layer| Finding::new(&root, 1, format!("layer `{layer}` has no file"))).collect()
}

/// `cfg(target_…)` stands only in the layers that know the platform.
pub(super) fn target_cfg(source: &Source) -> Vec<Finding> {
    let module = source.module().unwrap_or_default();
    let is_platform_layer = source.crate_name() == CRATE && module.first().is_some_and(|m| PLATFORM_LAYERS.contains(m));
    if is_platform_layer || source.crate_name() == PLATFORM_CRATE {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (idx, token) in source.tokens.iter().enumerate() {
        if matches!(token.text.as_str(), "cfg" | "cfg_attr") {
            let predicate = in_brackets(&source.tokens[idx + 1..]);
            if let Some(word) = predicate.iter().find(|token| token.text.starts_with("target_")) {
                let reason = format!("cfg({}) outside {}", word.text, PLATFORM_LAYERS.join(", "));
                findings.push(source.finding(word.line, reason));
            }
        }
    }
    findings
}

/// Atomics, cells and locks come through `crate::sync`, so that loom can take their place.
pub(super) fn sync_door(source: &Source) -> Vec<Finding> {
    let module = source.module().unwrap_or_default();
    if source.crate_name() != CRATE || module.first() == Some(&"sync") {
        return Vec::new();
    }
    let paths = source.paths.iter().filter(|path| !source.is_test_or_model(path.at));
    let banned = paths.filter(|path| SYNC_PATHS.iter().any(|banned| path.starts_with(banned)));
    banned.map(|path| source.finding(path.line, format!("{} past `crate::sync`", path.segments.join("::")))).collect()
}

/// The layered crate is `no_std`: its root says so, and `std` comes in for tests, models or the feature only.
pub(super) fn no_std(source: &Source) -> Vec<Finding> {
    if source.crate_name() != CRATE || !source.path.ends_with("/src/lib.rs") {
        return Vec::new();
    }
    let joined = |tokens: &[Token]| tokens.iter().map(|token| token.text.as_str()).collect::<String>();
    let mut findings = Vec::new();
    let text = joined(&source.tokens);
    if !NO_STD.iter().any(|attribute| text.contains(attribute)) {
        findings.push(source.finding(1, format!("no `{}`", NO_STD.join("` or `"))));
    }
    for (idx, words) in source.tokens.windows(3).enumerate() {
        let is_std = words[0].text == "extern" && words[1].text == "crate" && words[2].text == "std";
        let is_optional = source.is_test_or_model(words[0].at) || joined(&source.tokens[..idx]).ends_with(STD_FEATURE);
        if is_std && !is_optional {
            findings.push(source.finding(words[0].line, format!("`std` without `{STD_FEATURE}` or `#[cfg(test)]`")));
        }
    }
    findings
}

/// The layers, lowest first, with what their files use of the others; those of one line of the list may use each other.
pub(super) fn describe(sources: &[Source]) -> String {
    let mut text = String::new();
    for (group, nr_group) in LAYERS.iter().zip(1..) {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{nr_group:>2}  {}", group.join(", "));
        for source in sources {
            let Some(own) = layer_of_file(source).filter(|own| group.contains(own)) else { continue };
            let used = used_modules(source).into_iter().map(|(_, used)| used).filter(|used| used != own);
            let mut used = used.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
            used.sort_by_key(|used| height(used));
            let used = if used.is_empty() { "-".to_owned() } else { used.join(", ") };
            let _ =
                writeln!(text, "      {:<28}  {used}", source.path.rsplit_once("/src/").map_or("", |(_, file)| file));
        }
    }
    text
}

/// The top-level module of a file of the layered crate; the crate's root and tests have none.
fn layer_of_file<'a>(source: &Source<'a>) -> Option<&'a str> {
    let is_layered = source.crate_name() == CRATE && !source.is_test_file();
    source.module().filter(|_| is_layered)?.first().copied()
}

/// The top-level modules that a file names, each with its line, outside tests and models.
fn used_modules(source: &Source) -> Vec<(usize, String)> {
    let paths = source.paths.iter().filter(|path| !source.is_test_or_model(path.at));
    let absolute = paths.filter_map(|path| Some((path.line, path.absolute(source)?.into_iter().next()?)));
    absolute.filter(|(_, module)| module != "*").collect()
}

fn height(module: &str) -> Option<usize> {
    LAYERS.iter().position(|group| group.contains(&module))
}

/// What is in the round brackets that `tokens` starts with, after the `!` of a macro if there is one.
fn in_brackets(tokens: &[Token]) -> &[Token] {
    let tokens = if tokens.first().is_some_and(|token| token.text == "!") { &tokens[1..] } else { tokens };
    if tokens.first().is_none_or(|token| token.text != "(") {
        return &[];
    }
    let mut depth = 0;
    for (idx, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "(" => depth += 1,
            ")" if depth == 1 => return &tokens[1..idx],
            ")" => depth -= 1,
            _ => {}
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::super::Text;
    use super::super::tests::{source_lines, tree_lines};
    use super::{LAYERS, Source, describe, layer_order, layers_exist, no_std, sync_door, target_cfg};

    const SLAB: &str = "crates/objcg-core/src/slab.rs";
    const MEMCG: &str = "crates/objcg-core/src/memcg/tree.rs";
    const SYNC: &str = "crates/objcg-core/src/sync/lock.rs";

    #[test]
    fn lower_layers_and_the_own_group_pass() {
        let text = "use crate::memcg::x;\nuse crate::{cpu::CpuId, page_alloc};\nuse crate::slab::y;\nuse self::z::A;\n";
        assert!(source_lines(layer_order, SLAB, text).is_empty());
        assert!(source_lines(layer_order, SYNC, "fn f() { crate::os::futex_wait(); }\n").is_empty());
        assert!(source_lines(layer_order, MEMCG, "use super::node::N;\nuse super::super::table::T;\n").is_empty());
    }

    #[test]
    fn higher_layers_are_found_however_they_are_named() {
        let text = "use crate::cpu;\nuse crate::{os, hooks::x};\nfn f() { assert!(crate::kmalloc::g()); }\n\
                    use super::super::slab::Cache;\nmod m {\n    use super::super::super::stat::S;\n}\n";
        assert_eq!(source_lines(layer_order, MEMCG, text), [2, 3, 4, 6]);
    }

    #[test]
    fn unknown_modules_are_found() {
        assert_eq!(source_lines(layer_order, "crates/objcg-core/src/extra.rs", "//! E.\n"), [1]);
        assert_eq!(source_lines(layer_order, SLAB, "\nuse crate::SlabGeometry;\n"), [2]);
    }

    #[test]
    fn tests_models_and_other_crates_have_no_layers() {
        let text = "#[cfg(test)]\nmod t { use crate::fork::x; }\n#[cfg(all(loom, test))]\nuse crate::fork::y;\n";
        assert!(source_lines(layer_order, SLAB, text).is_empty());
        assert!(source_lines(layer_order, "crates/objcg-core/src/slab/tests.rs", "use crate::fork::x;\n").is_empty());
        assert!(source_lines(layer_order, "crates/objcg/src/memcg.rs", "use crate::global::x;\n").is_empty());
    }

    #[test]
    fn a_layer_without_a_file_is_found() {
        let paths = LAYERS.concat().into_iter().map(|layer| format!("crates/objcg-core/src/{layer}.rs"));
        let paths = paths.collect::<Vec<_>>();
        let mut files = paths.iter().map(|path| (path.as_str(), "")).collect::<Vec<_>>();
        assert!(tree_lines(layers_exist, &files).is_empty());
        files.pop();
        assert_eq!(tree_lines(layers_exist, &files), [1]);
    }

    #[test]
    fn target_cfg_passes_in_os_and_cpu_only() {
        let text =
            "#[cfg(target_os = \"linux\")]\nfn f() {}\nfn g() -> bool { cfg!(all(unix, target_arch = \"x\")) }\n";
        assert_eq!(source_lines(target_cfg, SLAB, text), [1, 3]);
        assert_eq!(source_lines(target_cfg, "crates/objcg-lab/src/os.rs", text), [1, 3]);
        assert!(source_lines(target_cfg, "crates/objcg-core/src/os.rs", text).is_empty());
        assert!(source_lines(target_cfg, "crates/objcg-core/src/cpu/rseq.rs", text).is_empty());
        assert!(source_lines(target_cfg, "crates/objcg-rseq/src/lib.rs", text).is_empty());
        assert!(source_lines(target_cfg, SLAB, "#[cfg(unix)]\nfn f(target_os: u8) {}\n").is_empty());
    }

    #[test]
    fn atomics_and_cells_pass_in_sync_tests_and_other_crates_only() {
        let text = "use core::{cell::Cell, ptr};\nfn f() { core::sync::atomic::fence(x); }\nuse std::sync::Arc;\n";
        assert_eq!(source_lines(sync_door, SLAB, text), [1, 2, 3]);
        assert!(source_lines(sync_door, SYNC, text).is_empty());
        assert!(source_lines(sync_door, "crates/objcg-core/tests/x.rs", text).is_empty());
        assert!(source_lines(sync_door, "crates/objcg/src/lib.rs", text).is_empty());
        assert!(
            source_lines(sync_door, SLAB, "use crate::sync::Lock;\n#[cfg(loom)]\nuse std::sync::Arc;\n").is_empty()
        );
    }

    #[test]
    fn loom_is_named_by_models_only() {
        assert_eq!(source_lines(sync_door, SLAB, "use loom::sync::Arc;\n"), [1]);
        assert!(source_lines(sync_door, SLAB, "#[cfg(loom)]\nuse loom::sync::Arc;\n").is_empty());
    }

    #[test]
    fn the_engine_links_std_by_choice_only() {
        let root = "crates/objcg-core/src/lib.rs";
        let head = "#![cfg_attr(not(loom), no_std)]\n";
        assert_eq!(source_lines(no_std, root, "mod a;\n"), [1]);
        assert_eq!(source_lines(no_std, root, &format!("{head}extern crate std;\n")), [2]);
        for cfg in ["#[cfg(test)]", "#[cfg(feature = \"std\")]"] {
            assert!(source_lines(no_std, root, &format!("{head}{cfg}\nextern crate std;\n")).is_empty());
        }
        assert!(source_lines(no_std, "crates/objcg/src/lib.rs", "mod a;\n").is_empty());
    }

    #[test]
    fn the_description_lists_what_each_file_uses_lowest_first() {
        let text = "use crate::{page_alloc, cpu};\nuse crate::sync::X;\n";
        let file = Text { path: SLAB.to_owned(), text: text.to_owned() };
        let Ok(source) = Source::parse(&file) else { panic!("does not parse") };
        let text = describe(&[source]);
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
        assert_eq!(lines[0], "1 sync, os, report, faults");
        let slab = lines.iter().position(|line| line.ends_with(" slab")).unwrap();
        assert_eq!(lines[slab + 1], "slab.rs sync, cpu, page_alloc");
    }
}
