//! A Rust file, parsed once for all rules.
//!
//! Two views of one parse: the syntax tree gives extents ([`Shape`]: functions, inline modules, what is built for tests
//! or models only), the flat tokens give words and paths, also inside macro bodies, which the tree does not open.
//! Comments are what lies between the tokens, and the doc comments.

mod paths;
mod shape;
mod tokens;

use std::ops::Range;

use proc_macro2::TokenStream;

use super::{Finding, Text};

pub(crate) use paths::PathUse;
pub(crate) use shape::Function;
use shape::Shape;
pub(crate) use tokens::{Comment, Token};

/// A Rust file, parsed.
pub(crate) struct Source<'a> {
    pub(crate) path: &'a str,
    pub(crate) text: &'a str,
    pub(crate) tokens: Vec<Token>,
    pub(crate) comments: Vec<Comment>,
    pub(crate) paths: Vec<PathUse>,
    shape: Shape,
}

impl<'a> Source<'a> {
    /// Parses a file, or says where that fails.
    pub(crate) fn parse(file: &'a Text) -> Result<Source<'a>, Finding> {
        let fail =
            |line, error: &dyn std::fmt::Display| Finding::new(&file.path, line, format!("does not parse: {error}"));
        let stream = file.text.parse::<TokenStream>().map_err(|error| fail(error.span().start().line, &error))?;
        let tree = syn::parse2::<syn::File>(stream.clone()).map_err(|error| fail(error.span().start().line, &error))?;
        let (tokens, comments) = tokens::flatten(stream, &file.text);
        let paths = paths::find(&tokens);
        Ok(Source { path: &file.path, text: &file.text, tokens, comments, paths, shape: Shape::of(&tree) })
    }

    pub(crate) fn finding(&self, line: usize, reason: impl Into<String>) -> Finding {
        Finding::new(self.path, line, reason)
    }

    /// The crate's folder under `crates/`.
    pub(crate) fn crate_name(&self) -> &'a str {
        self.path.strip_prefix("crates/").and_then(|path| path.split('/').next()).unwrap_or_default()
    }

    /// The modules that lead to this file from the crate's root; `None` outside `src`.
    pub(crate) fn module(&self) -> Option<Vec<&'a str>> {
        let (_, inside) = self.path.split_once("/src/")?;
        let mut modules = inside.strip_suffix(".rs")?.split('/').collect::<Vec<_>>();
        if matches!(modules.last(), Some(&("lib" | "main"))) {
            modules.pop();
        }
        Some(modules)
    }

    /// The modules around a byte of this file, from the crate's root.
    pub(crate) fn module_at(&self, at: usize) -> Vec<String> {
        let mut modules = self.module().unwrap_or_default().into_iter().map(str::to_owned).collect::<Vec<_>>();
        modules.extend(self.shape.modules_around(at).map(|module| module.name.clone()));
        modules
    }

    /// Whether all of the file is a test or a model: it is in `tests`, `benches` or `examples`, or named so.
    pub(crate) fn is_test_file(&self) -> bool {
        let folders = ["tests", "benches", "examples", "models"];
        self.path.split('/').any(|part| folders.contains(&part.strip_suffix(".rs").unwrap_or(part)))
    }

    /// Whether a byte is in code that is built for tests only.
    pub(crate) fn is_test(&self, at: usize) -> bool {
        self.is_test_file() || contains(&self.shape.tests, at)
    }

    /// Whether a byte is in code that is built for tests or for loom's models only.
    pub(crate) fn is_test_or_model(&self, at: usize) -> bool {
        self.is_test(at) || contains(&self.shape.models, at)
    }

    /// The lines of what is built for tests only; ranges may nest.
    pub(crate) fn is_test_line(&self, line: usize) -> bool {
        self.shape.test_lines.iter().any(|lines| lines.contains(&line))
    }

    pub(crate) fn functions(&self) -> &[Function] {
        &self.shape.functions
    }

    /// Whether the module of a byte of this file, or an inline module around it, opens with `expect(unsafe_code)`.
    pub(crate) fn expects_unsafe(&self, at: usize) -> bool {
        self.shape.expects_unsafe || self.shape.modules_around(at).any(|module| module.expects_unsafe)
    }

    /// Whether the file opens with `deny(unsafe_code)` or `forbid(unsafe_code)`.
    pub(crate) fn denies_unsafe(&self) -> bool {
        self.shape.denies_unsafe
    }
}

fn contains(ranges: &[Range<usize>], at: usize) -> bool {
    ranges.iter().any(|range| range.contains(&at))
}
