//! Where unsafe code may stand: in modules that say so, and why, where they open.
//!
//! The compiler's lint alone lets a parent module speak for its children, and an attribute on an item for a file that
//! opens as if it were safe; a reader should know from the head of each file.

use super::Finding;
use super::source::{Source, Token};

/// A crate's root denies unsafe code.
pub(super) fn crate_denies(source: &Source) -> Vec<Finding> {
    let is_root = source.path.ends_with("/src/lib.rs") || source.path.ends_with("/src/main.rs");
    if !is_root || source.denies_unsafe() {
        return Vec::new();
    }
    vec![source.finding(1, "the crate does not open with `#![deny(unsafe_code)]` or `forbid`")]
}

/// Unsafe code stands in modules that open with `#![expect(unsafe_code, reason = "…")]`.
pub(super) fn module_expects(source: &Source) -> Vec<Finding> {
    if source.module().is_none() {
        return Vec::new();
    }
    let tokens = source.tokens.iter().enumerate();
    let unsafes = tokens.filter(|&(idx, token)| {
        token.text == "unsafe" && !is_pointer_type(&source.tokens[idx + 1..]) && !source.is_test(token.at)
    });
    let unexpected = unsafes.filter(|(_, token)| !source.expects_unsafe(token.at));
    let reason = "`unsafe` in a module that does not open with `#![expect(unsafe_code, reason = …)]`";
    unexpected.map(|(_, token)| source.finding(token.line, reason)).collect()
}

/// Whether what follows `unsafe` makes it the type of a pointer to a function: `unsafe extern "C" fn(u8)`.
fn is_pointer_type(rest: &[Token]) -> bool {
    let mut rest = rest.iter().skip_while(|token| token.text == "extern" || token.text.starts_with('"'));
    rest.next().is_some_and(|token| token.text == "fn") && rest.next().is_some_and(|token| token.text == "(")
}

#[cfg(test)]
mod tests {
    use super::super::tests::source_lines;
    use super::{crate_denies, module_expects};

    const FILE: &str = "crates/objcg/src/x.rs";

    #[test]
    fn the_root_of_a_crate_denies() {
        assert_eq!(source_lines(crate_denies, "crates/a/src/lib.rs", "//! A.\nmod b;\n"), [1]);
        assert!(source_lines(crate_denies, "crates/a/src/lib.rs", "#![deny(unsafe_code)]\n").is_empty());
        assert!(source_lines(crate_denies, "crates/a/src/main.rs", "#![forbid(unsafe_code)]\n").is_empty());
        assert!(source_lines(crate_denies, FILE, "mod b;\n").is_empty());
    }

    #[test]
    fn blocks_impls_functions_and_attributes_need_a_module_that_expects() {
        let text = "fn f() { unsafe { g() } }\nunsafe impl S for T {}\npub unsafe fn h() {}\n\
                    #[unsafe(no_mangle)]\nunsafe extern \"C\" fn i() {}\n";
        assert_eq!(source_lines(module_expects, FILE, text), [1, 2, 3, 4, 5]);
        let expected = format!("#![expect(unsafe_code, reason = \"r\")]\n{text}");
        assert!(source_lines(module_expects, FILE, &expected).is_empty());
    }

    #[test]
    fn an_inline_module_speaks_for_itself_only() {
        let text = "mod a {\n    #![expect(unsafe_code, reason = \"r\")]\n    mod b { unsafe fn f() {} }\n}\n\
                    mod c { unsafe fn f() {} }\n";
        assert_eq!(source_lines(module_expects, FILE, text), [5]);
    }

    #[test]
    fn an_attribute_on_an_item_or_without_a_reason_is_not_enough() {
        assert_eq!(
            source_lines(module_expects, FILE, "#[expect(unsafe_code, reason = \"r\")]\nunsafe fn f() {}\n"),
            [2]
        );
        assert_eq!(source_lines(module_expects, FILE, "#![expect(unsafe_code)]\nunsafe fn f() {}\n"), [2]);
        assert_eq!(source_lines(module_expects, FILE, "#![allow(unsafe_code)]\nunsafe fn f() {}\n"), [2]);
    }

    #[test]
    fn tests_and_pointer_types_pass() {
        let text = "type A = unsafe fn(u8);\ntype B = unsafe extern \"C\" fn();\n#[test]\nfn t() { unsafe { g() } }\n";
        assert!(source_lines(module_expects, FILE, text).is_empty());
        assert!(source_lines(module_expects, "crates/objcg/tests/x.rs", "unsafe fn f() {}\n").is_empty());
    }
}
