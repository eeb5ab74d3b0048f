//! The paths that a file names, `use` trees spread out.

use super::{Source, Token};

/// A path of two segments or more, as written; a glob ends with the segment `*`.
pub(crate) struct PathUse {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    /// The first byte of the last segment.
    pub(crate) at: usize,
}

impl PathUse {
    /// Whether the path starts with these segments.
    pub(crate) fn starts_with(&self, segments: &[&str]) -> bool {
        self.segments.len() >= segments.len() && self.segments.iter().zip(segments).all(|(a, b)| a == b)
    }

    /// Whether the path ends with these segments.
    pub(crate) fn ends_with(&self, segments: &[&str]) -> bool {
        self.segments.len() >= segments.len()
            && self.segments.iter().rev().zip(segments.iter().rev()).all(|(a, b)| a == b)
    }

    /// The path from the crate's root, for one that starts with `crate`, `self` or `super`.
    pub(crate) fn absolute(&self, source: &Source) -> Option<Vec<String>> {
        let mut modules = match self.segments[0].as_str() {
            "crate" => Vec::new(),
            "self" | "super" => source.module_at(self.at),
            _ => return None,
        };
        for segment in &self.segments {
            match segment.as_str() {
                "crate" | "self" => {}
                "super" => {
                    modules.pop();
                }
                name => modules.push(name.to_owned()),
            }
        }
        Some(modules)
    }
}

/// All paths in `tokens`, in order.
pub(crate) fn find(tokens: &[Token]) -> Vec<PathUse> {
    let mut finder = Finder { tokens, found: Vec::new() };
    let mut idx = 0;
    while idx < tokens.len() {
        let starts = tokens[idx].is_word() && tokens[idx].text != "use" && finder.text(idx + 1) == "::";
        let prefix = &mut Vec::new();
        idx = if starts { finder.tree(prefix, idx) } else { idx + 1 };
    }
    finder.found
}

struct Finder<'a> {
    tokens: &'a [Token],
    found: Vec<PathUse>,
}

impl Finder<'_> {
    fn text(&self, idx: usize) -> &str {
        self.tokens.get(idx).map_or("", |token| token.text.as_str())
    }

    /// Follows the path or `use` tree that continues `prefix` at `idx`; gives the index after it.
    fn tree(&mut self, prefix: &mut Vec<String>, mut idx: usize) -> usize {
        loop {
            match self.text(idx) {
                "{" => return self.branches(prefix, idx + 1),
                "*" => {
                    prefix.push("*".to_owned());
                    self.note(prefix, idx);
                    return idx + 1;
                }
                _ if self.tokens.get(idx).is_some_and(Token::is_word) => {
                    prefix.push(self.text(idx).to_owned());
                    if self.text(idx + 1) != "::" {
                        self.note(prefix, idx);
                        return idx + 1;
                    }
                    idx += 2;
                }
                // Generic arguments, or the end of a macro's input.
                _ => {
                    self.note(prefix, idx - 1);
                    return idx;
                }
            }
        }
    }

    /// Follows the branches of a `use` tree up to its closing brace.
    fn branches(&mut self, prefix: &mut Vec<String>, mut idx: usize) -> usize {
        let nr_segments = prefix.len();
        while idx < self.tokens.len() && self.text(idx) != "}" {
            let is_branch = matches!(self.text(idx - 1), "{" | ",");
            idx = if is_branch { self.tree(prefix, idx) } else { idx + 1 };
            prefix.truncate(nr_segments);
        }
        idx + 1
    }

    fn note(&mut self, segments: &[String], idx: usize) {
        let token = &self.tokens[idx.min(self.tokens.len() - 1)];
        self.found.push(PathUse { segments: segments.to_vec(), line: token.line, at: token.at });
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Source, Text};

    fn paths(text: &str) -> Vec<String> {
        let file = Text { path: "crates/a/src/x/y.rs".to_owned(), text: text.to_owned() };
        let Ok(source) = Source::parse(&file) else { panic!("does not parse") };
        source.paths.iter().map(|path| path.segments.join("::")).collect()
    }

    fn roots(text: &str) -> Vec<String> {
        let file = Text { path: "crates/a/src/x/y.rs".to_owned(), text: text.to_owned() };
        let Ok(source) = Source::parse(&file) else { panic!("does not parse") };
        source.paths.iter().filter_map(|path| path.absolute(&source)).map(|path| path.join("::")).collect()
    }

    #[test]
    fn use_trees_are_spread_out() {
        let text = "use a::{self, b::{C as D, e::*}, F};\nuse ::g::h;\n";
        assert_eq!(paths(text), ["a::self", "a::b::C", "a::b::e::*", "a::F", "g::h"]);
    }

    #[test]
    fn paths_are_found_in_expressions_types_and_macros() {
        let text = "fn f(x: a::B<c::D>) { e::f::<g::H>(1); assert!(x == i::J); }\n";
        assert_eq!(paths(text), ["a::B", "c::D", "e::f", "g::H", "i::J"]);
    }

    #[test]
    fn super_counts_from_the_inline_module() {
        let text = "use super::Z;\nmod n { use super::super::W; use self::V; use crate::u::U; }\n";
        assert_eq!(roots(text), ["x::Z", "x::W", "x::y::n::V", "u::U"]);
    }
}
