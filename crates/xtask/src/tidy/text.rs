//! Rules on the lines of every text file.

use super::{Finding, Text};

const UNFINISHED_WORDS: &[&str] = &["TODO", "FIXME", "XXX"];

/// Files whose lines are nobody's handwriting.
const DATA: &[&str] = &[".lock", ".svg", ".json", ".csv"];

/// Files with comments after `#`.
const HASH_COMMENTS: &[&str] = &[".toml", ".sh", ".ci/run", ".yml"];

/// Lines end at their last word with a bare line feed, and are indented with spaces.
pub(super) fn whitespace(file: &Text) -> Vec<Finding> {
    each_line(file, |line| {
        let reason = if line.ends_with('\r') {
            "a carriage return"
        } else if line.contains('\t') {
            "a tab"
        } else if line.ends_with(char::is_whitespace) {
            "whitespace at the end of the line"
        } else {
            return None;
        };
        Some(reason.to_owned())
    })
}

/// No path that exists only where the file was written.
pub(super) fn workplace_paths(file: &Text) -> Vec<Finding> {
    // In two parts, so that this file passes the rule.
    let root = concat!("/wo", "rk/");
    let names_path = |line: &str| {
        line.match_indices(root).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + root.len()..].chars().next();
            !before.is_some_and(is_path_character) && after.is_some_and(is_path_character)
        })
    };
    let lines = file.text.lines().zip(1..).filter(|(line, _)| names_path(line));
    lines.map(|(_, number)| Finding::new(&file.path, number, format!("an absolute path under {root}"))).collect()
}

/// No comment that marks work as unfinished, in files with `#` comments; Rust has its own rule.
pub(super) fn unfinished_words(file: &Text) -> Vec<Finding> {
    if !HASH_COMMENTS.iter().any(|ending| file.path.ends_with(ending)) {
        return Vec::new();
    }
    each_line(file, |line| {
        let word = unfinished_word(line.split_once('#')?.1)?;
        Some(format!("{word} in a comment: do it, or file an issue"))
    })
}

/// The first word of a comment that marks work as unfinished.
pub(super) fn unfinished_word(comment: &str) -> Option<&'static str> {
    let mut words = comment.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.find_map(|word| UNFINISHED_WORDS.iter().find(|unfinished| **unfinished == word)).copied()
}

fn each_line(file: &Text, rule: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    if DATA.iter().any(|ending| file.path.ends_with(ending)) {
        return Vec::new();
    }
    let lines = file.text.split('\n').zip(1..);
    lines.filter_map(|(line, number)| Some(Finding::new(&file.path, number, rule(line)?))).collect()
}

fn is_path_character(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

#[cfg(test)]
mod tests {
    use super::super::tests::text_lines;
    use super::{unfinished_words, whitespace, workplace_paths};

    #[test]
    fn whitespace_is_found_where_it_does_not_show() {
        assert_eq!(text_lines(whitespace, "a.rs", "fine\nend \n\ttab\ncarriage\r\n"), [2, 3, 4]);
        assert!(text_lines(whitespace, "a.md", "    indented\n\nfine\n").is_empty());
        assert!(text_lines(whitespace, "a.svg", "\ttab\n").is_empty());
    }

    #[test]
    fn paths_of_the_workplace_are_found() {
        let root = concat!("/wo", "rk");
        assert_eq!(text_lines(workplace_paths, "a.svg", &format!("x\n`{root}/main`\n")), [2]);
        assert!(text_lines(workplace_paths, "a.md", &format!("home{root}/main, {root}/ and {root}\n")).is_empty());
    }

    #[test]
    fn words_for_unfinished_work_are_found_in_hash_comments() {
        assert_eq!(text_lines(unfinished_words, "a/Cargo.toml", "x = 1\n# FIXME: x\n"), [2]);
        assert!(text_lines(unfinished_words, "a/Cargo.toml", "TODO = 1\n# TODOs\n").is_empty());
        assert!(text_lines(unfinished_words, "a.md", "# TODO\n").is_empty());
    }
}
