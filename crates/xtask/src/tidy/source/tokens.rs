//! The tokens of a file as one flat list, and its comments.

use std::iter;
use std::ops::Range;

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};

/// A word, a literal, a bracket, or a punctuation mark; `::` is one token.
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
    /// The first byte.
    pub(crate) at: usize,
}

impl Token {
    /// Whether this is an identifier or a keyword.
    pub(crate) fn is_word(&self) -> bool {
        self.text.starts_with(|first: char| first.is_alphabetic() || first == '_') && !self.text.contains(['"', '\''])
    }
}

/// A comment or doc comment; one of several lines is one entry a line.
pub(crate) struct Comment {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// The tokens of `stream`, which was parsed from `text`, and the comments between them.
pub(crate) fn flatten(stream: TokenStream, text: &str) -> (Vec<Token>, Vec<Comment>) {
    let mut flat = Flat { text, tokens: Vec::new(), code: Vec::new() };
    flat.stream(stream);
    let comments = comments(text, &flat.code);
    (flat.tokens, comments)
}

struct Flat<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    /// The bytes of each token, ascending.
    code: Vec<Range<usize>>,
}

impl Flat<'_> {
    fn stream(&mut self, stream: TokenStream) {
        let mut trees = stream.into_iter().peekable();
        while let Some(tree) = trees.next() {
            if self.is_doc_comment(&tree) {
                // It arrives as `#[doc = "…"]` or `#![doc = "…"]`, each token with the span of the comment.
                trees.next_if(|next| matches!(next, TokenTree::Punct(mark) if mark.as_char() == '!'));
                trees.next();
                continue;
            }
            match tree {
                TokenTree::Group(group) => {
                    let (open, close) = brackets(group.delimiter());
                    self.push(open, group.span_open());
                    self.stream(group.stream());
                    self.push(close, group.span_close());
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' && self.joins_colon(mark.span()) => {
                    self.code.push(mark.span().byte_range());
                    "::".clone_into(&mut self.tokens.last_mut().expect("joined to a token").text);
                }
                other => self.push(&other.to_string(), other.span()),
            }
        }
    }

    fn is_doc_comment(&self, tree: &TokenTree) -> bool {
        matches!(tree, TokenTree::Punct(mark) if mark.as_char() == '#') && {
            let source = &self.text[tree.span().byte_range()];
            source.starts_with("//") || source.starts_with("/*")
        }
    }

    /// Whether the last token is a single colon that ends where this one starts.
    fn joins_colon(&self, span: Span) -> bool {
        self.tokens.last().is_some_and(|last| last.text == ":" && last.at + 1 == span.byte_range().start)
    }

    fn push(&mut self, text: &str, span: Span) {
        let bytes = span.byte_range();
        self.tokens.push(Token { text: text.to_owned(), line: span.start().line, at: bytes.start });
        self.code.push(bytes);
    }
}

fn brackets(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}

/// What is not a token and not blank is a comment.
fn comments(text: &str, code: &[Range<usize>]) -> Vec<Comment> {
    let mut comments = Vec::new();
    let mut line = 1;
    let mut at = 0;
    let end = text.len()..text.len();
    for token in code.iter().chain(iter::once(&end)) {
        for (offset, part) in text[at..token.start].split('\n').enumerate() {
            if !part.trim().is_empty() {
                comments.push(Comment { line: line + offset, text: part.trim().to_owned() });
            }
        }
        line += text[at..token.end].matches('\n').count();
        at = token.end;
    }
    comments
}

#[cfg(test)]
mod tests {
    use super::{Comment, Token, flatten};

    fn flat(text: &str) -> (Vec<Token>, Vec<Comment>) {
        flatten(text.parse().unwrap(), text)
    }

    #[test]
    fn tokens_keep_their_lines_and_bytes() {
        let (tokens, _) = flat("use a::b;\nlet c: d;\n");
        let flat = tokens.iter().map(|token| (token.text.as_str(), token.line, token.at)).collect::<Vec<_>>();
        let expected = [
            ("use", 1, 0),
            ("a", 1, 4),
            ("::", 1, 5),
            ("b", 1, 7),
            (";", 1, 8),
            ("let", 2, 10),
            ("c", 2, 14),
            (":", 2, 15),
            ("d", 2, 17),
            (";", 2, 18),
        ];
        assert_eq!(flat, expected);
    }

    #[test]
    fn comments_are_found_between_tokens_and_not_in_strings() {
        let (_, comments) = flat("//! Head.\nfn f() { // side\n    \"// text\"; /* a\n b */ }\n/// Doc.\nstruct S;\n");
        let found = comments.iter().map(|comment| (comment.line, comment.text.as_str())).collect::<Vec<_>>();
        assert_eq!(found, [(1, "//! Head."), (2, "// side"), (3, "/* a"), (4, "b */"), (5, "/// Doc.")]);
    }
}
