//! Rules on what stands in Rust code: sizes, words, macros.

use super::Finding;
use super::source::{Source, Token};

/// Lines of a file without its tests, comments and all.
const MAX_FILE_LINES: usize = 600;
/// Lines of a function: a screen.
const MAX_FUNCTION_LINES: usize = 70;
/// How far above its use the reason for an ordering may stand.
const MAX_REASON_DISTANCE: usize = 3;

/// What stands in a comment before the reason to saturate.
const SATURATING_SUB_ALLOWED: &str = "tidy: allow(saturating_sub):";

const UNFINISHED_MACROS: &[&str] = &["todo", "unimplemented", "dbg"];

/// A file that is no test is short.
pub(super) fn file_length(source: &Source) -> Vec<Finding> {
    let nr_lines = (1..=source.text.lines().count()).filter(|&line| !source.is_test_line(line)).count();
    if source.is_test_file() || nr_lines <= MAX_FILE_LINES {
        return Vec::new();
    }
    vec![source.finding(1, format!("{nr_lines} lines without tests, at most {MAX_FILE_LINES}: split it"))]
}

/// A function fits a screen.
pub(super) fn function_length(source: &Source) -> Vec<Finding> {
    let long = source.functions().iter().filter(|function| function.nr_lines > MAX_FUNCTION_LINES);
    let reason = |name: &str, nr_lines| format!("`{name}` has {nr_lines} lines, at most {MAX_FUNCTION_LINES}");
    long.map(|function| source.finding(function.line, reason(&function.name, function.nr_lines))).collect()
}

/// Names are imported one by one.
pub(super) fn globs(source: &Source) -> Vec<Finding> {
    let globs = source.paths.iter().filter(|path| path.ends_with(&["*"]));
    globs.map(|path| source.finding(path.line, format!("glob import {}", path.segments.join("::")))).collect()
}

/// No macro that marks code as unfinished.
pub(super) fn unfinished_macros(source: &Source) -> Vec<Finding> {
    let calls = source
        .tokens
        .windows(2)
        .filter(|pair| UNFINISHED_MACROS.contains(&pair[0].text.as_str()) && pair[1].text == "!");
    calls.map(|pair| source.finding(pair[0].line, format!("`{}!`", pair[0].text))).collect()
}

/// No comment that marks code as unfinished.
pub(super) fn unfinished_comments(source: &Source) -> Vec<Finding> {
    let comments = source.comments.iter();
    let found = comments.filter_map(|comment| Some((comment.line, super::text::unfinished_word(&comment.text)?)));
    found.map(|(line, word)| source.finding(line, format!("{word} in a comment: do it, or file an issue"))).collect()
}

/// Every test runs.
pub(super) fn ignored_tests(source: &Source) -> Vec<Finding> {
    let attributes = source.tokens.windows(3).filter(|tokens| {
        tokens[0].text == "#" && tokens[1].text == "[" && matches!(tokens[2].text.as_str(), "ignore" | "cfg_attr")
    });
    let ignoring = attributes.filter(|tokens| attribute_at(source, tokens[2].at).any(|token| token.text == "ignore"));
    ignoring.map(|tokens| source.finding(tokens[0].line, "an ignored test is no test")).collect()
}

/// The tokens of the attribute whose name is at this byte.
fn attribute_at<'a>(source: &'a Source, at: usize) -> impl Iterator<Item = &'a Token> {
    source.tokens.iter().skip_while(move |token| token.at < at).take_while(|token| token.text != "]")
}

/// No call leaves the other tests out.
pub(super) fn singled_out_tests(source: &Source) -> Vec<Finding> {
    let is_call = |tokens: &[Token]| tokens[0].text == "." && tokens[1].text == "only" && tokens[2].text == "(";
    let calls = source.tokens.windows(3).filter(|tokens| is_call(tokens) && source.is_test(tokens[0].at));
    calls.map(|tokens| source.finding(tokens[1].line, "`.only` leaves the other tests out")).collect()
}

/// Tests order threads by what the threads do, never by time.
pub(super) fn sleeping_tests(source: &Source) -> Vec<Finding> {
    let sleeps = source.paths.iter().filter(|path| source.is_test(path.at) && path.ends_with(&["thread", "sleep"]));
    sleeps.map(|path| source.finding(path.line, "a test that sleeps to order threads")).collect()
}

/// The strongest ordering comes with its reason.
pub(super) fn seq_cst(source: &Source) -> Vec<Finding> {
    let uses = source.tokens.iter().filter(|token| token.text == "SeqCst");
    let bare = uses.filter(|token| {
        let near = token.line.saturating_sub(MAX_REASON_DISTANCE)..=token.line;
        !source.comments.iter().any(|comment| near.contains(&comment.line))
    });
    bare.map(|token| source.finding(token.line, "`SeqCst` without a comment that says why")).collect()
}

/// The engine hides no underflow, but where a comment on the line or the one before says why there is none to hide.
pub(super) fn saturating_sub(source: &Source) -> Vec<Finding> {
    if source.crate_name() != super::layers::CRATE {
        return Vec::new();
    }
    let is_allowed = |line: usize| {
        let near = source.comments.iter().filter(|comment| comment.line == line || comment.line + 1 == line);
        let mut reasons = near.filter_map(|comment| comment.text.split_once(SATURATING_SUB_ALLOWED));
        reasons.any(|(_, reason)| !reason.trim().is_empty())
    };
    let uses = source.tokens.iter().filter(|token| token.text == "saturating_sub" && !source.is_test(token.at));
    let bare = uses.filter(|token| !is_allowed(token.line));
    let reason = format!("an underflow is a bug; if not here, say why after `{SATURATING_SUB_ALLOWED}`");
    bare.map(|token| source.finding(token.line, reason.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::source_lines;
    use super::{MAX_FILE_LINES, MAX_FUNCTION_LINES, saturating_sub, unfinished_comments, unfinished_macros};
    use super::{file_length, function_length, globs, ignored_tests, seq_cst, singled_out_tests, sleeping_tests};

    const FILE: &str = "crates/objcg/src/x.rs";
    const TEST: &str = "crates/objcg/tests/x.rs";

    #[test]
    fn a_file_is_measured_without_its_tests() {
        let full = "struct S;\n".repeat(MAX_FILE_LINES);
        let tests = "#[cfg(test)]\nmod tests {\n    fn f() {}\n}\n";
        assert!(source_lines(file_length, FILE, &format!("{full}{tests}")).is_empty());
        assert_eq!(source_lines(file_length, FILE, &format!("{full}\n{tests}")), [1]);
        assert!(source_lines(file_length, TEST, &format!("{full}\n{tests}")).is_empty());
    }

    #[test]
    fn a_function_fits_a_screen() {
        let function =
            |nr_inside| format!("struct S;\nimpl S {{\n    fn f() {{\n{}    }}\n}}\n", "x();\n".repeat(nr_inside));
        assert!(source_lines(function_length, FILE, &function(MAX_FUNCTION_LINES - 2)).is_empty());
        assert_eq!(source_lines(function_length, FILE, &function(MAX_FUNCTION_LINES - 1)), [3]);
    }

    #[test]
    fn globs_are_found_in_use_trees() {
        assert_eq!(source_lines(globs, FILE, "use a::b;\nuse a::{b, c::*};\nmod t { use super::*; }\n"), [2, 3]);
        assert!(source_lines(globs, FILE, "use a::b;\nconst C: u8 = a::B * 2;\n").is_empty());
    }

    #[test]
    fn macros_for_unfinished_code_are_found() {
        assert_eq!(source_lines(unfinished_macros, FILE, "fn f() {\n    todo!();\n    g(dbg!(1));\n}\n"), [2, 3]);
        assert!(source_lines(unfinished_macros, FILE, "fn todo() { let dbg = \"todo!()\"; }\n").is_empty());
    }

    #[test]
    fn words_for_unfinished_code_are_found_in_comments_only() {
        assert_eq!(
            source_lines(unfinished_comments, FILE, "// TODO: x\nfn f() {} // (FIXME)\n/// XXX\nmod m {}\n"),
            [1, 2, 3]
        );
        assert!(source_lines(unfinished_comments, FILE, "// TODOs, XXXL\nconst C: &str = \"TODO\";\n").is_empty());
    }

    #[test]
    fn ignored_tests_are_found() {
        let text = "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n#[cfg_attr(miri, ignore)]\n#[test]\nfn g() {}\n";
        assert_eq!(source_lines(ignored_tests, FILE, text), [2, 4]);
        assert!(source_lines(ignored_tests, FILE, "#[test]\nfn ignore() { ignore(); }\n").is_empty());
    }

    #[test]
    fn singled_out_tests_are_found() {
        assert_eq!(source_lines(singled_out_tests, TEST, "fn f() {\n    suite().only(1);\n}\n"), [2]);
        assert!(source_lines(singled_out_tests, TEST, "fn only() { only(); x.only; }\n").is_empty());
        assert!(source_lines(singled_out_tests, FILE, "fn f() { x.only(1); }\n").is_empty());
    }

    #[test]
    fn saturating_sub_in_the_engine_needs_a_reason() {
        let file = "crates/objcg-core/src/x.rs";
        let text = "fn f() {\n    a.saturating_sub(b);\n}\n";
        assert_eq!(source_lines(saturating_sub, file, text), [2]);
        let allowed = text.replace(";", "; // tidy: allow(saturating_sub): b is a hint");
        assert!(source_lines(saturating_sub, file, &allowed).is_empty());
        let above = text.replace("    a", "    // tidy: allow(saturating_sub): b is a hint\n    a");
        assert!(source_lines(saturating_sub, file, &above).is_empty());
        assert_eq!(source_lines(saturating_sub, file, &allowed.replace(" b is a hint", "")), [2]);
        assert!(source_lines(saturating_sub, FILE, text).is_empty());
        assert!(source_lines(saturating_sub, file, &format!("#[cfg(test)]\nmod tests {{\n{text}}}\n")).is_empty());
    }

    #[test]
    fn sleep_is_found_in_tests_only() {
        let text = "use std::thread;\nfn f() { thread::sleep(x); }\n";
        let inside = format!("{text}#[cfg(test)]\nmod tests {{\n    use std::thread::sleep;\n}}\n");
        assert!(source_lines(sleeping_tests, FILE, text).is_empty());
        assert_eq!(source_lines(sleeping_tests, FILE, &inside), [5]);
        assert_eq!(source_lines(sleeping_tests, TEST, text), [2]);
    }

    #[test]
    fn seq_cst_has_its_reason_near() {
        assert_eq!(source_lines(seq_cst, FILE, "// Far.\n\n\n\nfn f() { x.load(SeqCst); }\n"), [5]);
        assert!(source_lines(seq_cst, FILE, "// Why.\n\n\nfn f() { x.load(SeqCst); }\n").is_empty());
        assert!(source_lines(seq_cst, FILE, "fn f() { x.load(SeqCst); } // Why.\n").is_empty());
    }
}
