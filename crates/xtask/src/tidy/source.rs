//! One Rust file, parsed: its syntax tree, and what the tree does not keep (comments) or does not make easy (paths inside of
//! macros, words, test regions).

use std::collections::BTreeMap;
use std::ops::Range;

use proc_macro2::{Span, TokenStream, TokenTree};

use super::paths::{self, NamedPath};
use super::regions::{self, Region};
use super::tree::{File, Tree};
use super::Hit;

/// A parsed file. Lines count from 1.
pub(super) struct Source {
    pub(super) ast: syn::File,
    pub(super) tokens: TokenStream,
    pub(super) comments: BTreeMap<usize, Comment>,
    pub(super) words: Vec<Word>,
    pub(super) paths: Vec<NamedPath>,
    pub(super) regions: Vec<Region>,
}

/// What a line has in comments.
pub(super) struct Comment {
    pub(super) text: String,
    pub(super) is_doc: bool,
    /// Nothing else is on the line.
    pub(super) is_alone: bool,
}

/// An identifier or keyword, wherever it is, macros included.
pub(super) struct Word {
    pub(super) text: String,
    pub(super) line: usize,
}

impl Source {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let tokens: TokenStream = text.parse().map_err(|error| format!("{error}"))?;
        let ast: syn::File = syn::parse2(tokens.clone()).map_err(|error| format!("{error}"))?;
        let mut leaves = Leaves::default();
        leaves.collect(&tokens);
        Ok(Self {
            comments: comments(text, &leaves.spans),
            words: leaves.words,
            paths: paths::find(&ast),
            regions: regions::find(&tokens),
            ast,
            tokens,
        })
    }

    /// The comments of `line`, and those that stand alone on the lines right above it.
    pub(super) fn comments_at(&self, line: usize) -> impl Iterator<Item = &Comment> {
        let above = (1..line).rev().map_while(|line| self.comments.get(&line).filter(|comment| comment.is_alone));
        self.comments.get(&line).into_iter().chain(above)
    }
}

/// The rule for files that the other rules cannot look into.
pub(super) fn parses(file: &File, _tree: &Tree) -> Vec<Hit> {
    match &file.rust {
        Some(Err(error)) => vec![Hit::new(1, format!("does not parse: {error}"))],
        _ => Vec::new(),
    }
}

#[derive(Default)]
struct Leaves {
    spans: Vec<Range<usize>>,
    words: Vec<Word>,
}

impl Leaves {
    fn collect(&mut self, tokens: &TokenStream) {
        for token in tokens.clone() {
            match token {
                TokenTree::Group(group) => {
                    self.spans.push(group.span_open().byte_range());
                    self.collect(&group.stream());
                    self.spans.push(group.span_close().byte_range());
                }
                TokenTree::Ident(ident) => {
                    self.words.push(Word { text: ident.to_string(), line: line(ident.span()) });
                    self.spans.push(ident.span().byte_range());
                }
                other => self.spans.push(other.span().byte_range()),
            }
        }
    }
}

pub(super) fn line(span: Span) -> usize {
    span.start().line
}

/// Comments are what lies between tokens and is not blank; doc comments are tokens whose text is a comment.
fn comments(text: &str, spans: &[Range<usize>]) -> BTreeMap<usize, Comment> {
    let mut pieces = Vec::new();
    let mut spans = spans.to_vec();
    spans.sort_by_key(|span| span.start);
    let mut end = 0;
    for span in spans {
        if span.start > end {
            pieces.push((end..span.start, false));
        }
        let token = &text[span.clone()];
        if token.starts_with("//") || token.starts_with("/*") {
            pieces.push((span.clone(), true));
        }
        end = end.max(span.end);
    }
    pieces.push((end..text.len(), false));

    let mut comments = BTreeMap::new();
    let line_starts: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    for (range, is_doc) in pieces {
        let mut at = range.start;
        for part in text[range].split_inclusive('\n') {
            if !part.trim().is_empty() {
                let line = line_starts.partition_point(|start| *start <= at);
                let whole = text[line_starts[line - 1]..].lines().next().unwrap_or_default();
                let is_alone = whole.trim() == part.trim();
                comments.insert(line, Comment { text: part.trim().to_owned(), is_doc, is_alone });
            }
            at += part.len();
        }
    }
    comments
}
