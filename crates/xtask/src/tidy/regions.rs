//! Which lines are compiled for tests or for loom's models only: worked out from `#[cfg(…)]` and `#[test]` on the tokens, so
//! that it holds for items, fields, arms and statements alike.

use std::ops::RangeInclusive;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::{Attribute, Meta, Token};

/// What a `cfg` must have to hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// `test`.
    Test,
    /// `test` or `loom`.
    TestOrLoom,
}

/// Lines under one `cfg`.
pub(super) struct Region {
    lines: RangeInclusive<usize>,
    needs: Needs,
}

impl Region {
    pub(super) fn is(&self, needs: Needs, line: usize) -> bool {
        self.needs == needs && self.lines.contains(&line)
    }
}

/// Whether one of these attributes leaves an item out of all but test builds.
pub(super) fn needs_test(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| attribute_needs(&attr.meta, Needs::Test))
}

/// All regions of a file.
pub(super) fn find(tokens: &TokenStream) -> Vec<Region> {
    let mut regions = Vec::new();
    find_in(tokens.clone(), &mut regions);
    regions
}

fn find_in(stream: TokenStream, regions: &mut Vec<Region>) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            find_in(group.stream(), regions);
        }
        let Some((attribute, after, is_inner)) = attribute(&tokens, at) else { continue };
        let Ok(meta) = syn::parse2::<Meta>(attribute.stream()) else { continue };
        let end = if is_inner { tokens.last() } else { item_end(&tokens, after) };
        let lines = first_line(token)..=end.map_or(first_line(token), last_line);
        for needs in [Needs::Test, Needs::TestOrLoom] {
            if attribute_needs(&meta, needs) {
                regions.push(Region { lines: lines.clone(), needs });
            }
        }
    }
}

/// The attribute that starts at `at`, the index after it, and whether it is an inner one.
fn attribute(tokens: &[TokenTree], at: usize) -> Option<(&Group, usize, bool)> {
    if !is_punct(tokens.get(at)?, '#') {
        return None;
    }
    let is_inner = is_punct(tokens.get(at + 1)?, '!');
    let at = at + 1 + usize::from(is_inner);
    match tokens.get(at)? {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => Some((group, at + 1, is_inner)),
        _ => None,
    }
}

/// The last token of the item, field, arm or statement that starts at `at`, which may be another attribute.
fn item_end(tokens: &[TokenTree], mut at: usize) -> Option<&TokenTree> {
    while let Some((_, after, _)) = attribute(tokens, at) {
        at = after;
    }
    let is_item = starts_item(tokens.get(at..)?);
    let ends = |token: &&TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';' || (punct.as_char() == ',' && !is_item),
        _ => false,
    };
    let rest = tokens.get(at..)?;
    rest.iter().find(ends).or(rest.last())
}

/// Whether a keyword of an item leads, so that a comma (of its generics) does not end it.
fn starts_item(tokens: &[TokenTree]) -> bool {
    const KEYWORDS: &[&str] = &[
        "fn", "mod", "use", "impl", "struct", "enum", "union", "trait", "const", "static", "type", "unsafe", "extern", "async",
        "let", "macro_rules",
    ];
    let leading = tokens.iter().find(|token| match token {
        TokenTree::Ident(ident) => ident != "pub",
        TokenTree::Group(group) => group.delimiter() != Delimiter::Parenthesis,
        _ => true,
    });
    matches!(leading, Some(TokenTree::Ident(ident)) if KEYWORDS.iter().any(|keyword| ident == keyword))
}

fn attribute_needs(meta: &Meta, needs: Needs) -> bool {
    match meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => {
            list.parse_args::<Meta>().is_ok_and(|predicate| predicate_needs(&predicate, needs))
        }
        _ => false,
    }
}

fn predicate_needs(predicate: &Meta, needs: Needs) -> bool {
    match predicate {
        Meta::Path(path) => path.is_ident("test") || (needs == Needs::TestOrLoom && path.is_ident("loom")),
        Meta::List(list) => {
            let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).unwrap_or_default();
            let mut parts = parts.iter().map(|part| predicate_needs(part, needs));
            match list.path.get_ident().map(ToString::to_string).as_deref() {
                Some("all") => parts.any(|part| part),
                Some("any") => parts.len() > 0 && parts.all(|part| part),
                _ => false,
            }
        }
        Meta::NameValue(_) => false,
    }
}

fn is_punct(token: &TokenTree, char: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == char)
}

fn first_line(token: &TokenTree) -> usize {
    token.span().start().line
}

fn last_line(token: &TokenTree) -> usize {
    token.span().end().line
}
