//! Rules on the names and heads of files.

use super::{Finding, Text};

/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "manager"];

/// A module is `foo.rs`, and a name says what is inside.
pub(super) fn file_names(file: &Text) -> Vec<Finding> {
    if !file.path.ends_with(".rs") {
        return Vec::new();
    }
    let reason = |part: &str| match part.strip_suffix(".rs").unwrap_or(part) {
        "mod" => Some("`mod.rs`: name the file after its module".to_owned()),
        name if EMPTY_NAMES.contains(&name) => Some(format!("the name `{name}` says nothing of what is inside")),
        _ => None,
    };
    file.path.split('/').filter_map(reason).map(|reason| Finding::new(&file.path, 1, reason)).collect()
}

/// A Rust file opens with what it is.
pub(super) fn module_docs(file: &Text) -> Vec<Finding> {
    if !file.path.ends_with(".rs") || file.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![Finding::new(&file.path, 1, "does not open with `//!`")]
}

#[cfg(test)]
mod tests {
    use super::super::tests::text_lines;
    use super::{file_names, module_docs};

    #[test]
    fn names_that_say_nothing_are_found() {
        assert_eq!(text_lines(file_names, "crates/a/src/b/mod.rs", ""), [1]);
        assert_eq!(text_lines(file_names, "crates/a/src/utils.rs", ""), [1]);
        assert_eq!(text_lines(file_names, "crates/a/tests/common/limits.rs", ""), [1]);
        assert!(text_lines(file_names, "crates/a/src/page_manager.rs", "").is_empty());
    }

    #[test]
    fn a_file_opens_with_its_docs() {
        assert_eq!(text_lines(module_docs, "crates/a/src/b.rs", "use c::d;\n//! B.\n"), [1]);
        assert!(text_lines(module_docs, "crates/a/src/b.rs", "//! B.\n").is_empty());
        assert!(text_lines(module_docs, "README.md", "A\n").is_empty());
    }
}
