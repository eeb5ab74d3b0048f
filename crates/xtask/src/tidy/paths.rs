//! Every path that a file names, in code, imports, attributes and the arguments of macros, with the modules it is in.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::UseTree;
use syn::visit::{self, Visit};

use super::source::line;

/// A path as written.
#[derive(Clone)]
pub(super) struct NamedPath {
    pub(super) segments: Vec<String>,
    /// What an import calls it, if not by its last segment.
    pub(super) rename: Option<String>,
    /// Ends in `*`.
    pub(super) is_glob: bool,
    /// The inline modules of the file that it stands in.
    pub(super) module: Vec<String>,
    pub(super) line: usize,
}

impl NamedPath {
    /// The path from the crate's root, if it is written relative to a module of the crate; `file_module` is the file's own.
    pub(super) fn from_root(&self, file_module: &[String]) -> Option<Vec<String>> {
        let mut base: Vec<String> = file_module.iter().chain(&self.module).cloned().collect();
        let mut rest = self.segments.as_slice();
        match rest.first()?.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                let nr_up = rest.iter().take_while(|segment| *segment == "super").count();
                base.truncate(base.len().checked_sub(nr_up)?);
                rest = &rest[nr_up - 1..];
            }
            _ => return None,
        }
        base.extend(rest[1..].iter().cloned());
        Some(base)
    }

    /// Whether it begins with these segments.
    pub(super) fn starts_with(&self, segments: &[&str]) -> bool {
        self.segments.len() >= segments.len() && self.segments.iter().zip(segments).all(|(own, other)| own == other)
    }

    /// Whether it ends with these segments.
    pub(super) fn ends_with(&self, segments: &[&str]) -> bool {
        self.segments.len() >= segments.len()
            && self.segments.iter().rev().zip(segments.iter().rev()).all(|(own, other)| own == other)
    }
}

/// All paths of a file.
pub(super) fn find(ast: &syn::File) -> Vec<NamedPath> {
    let mut finder = Finder { module: Vec::new(), paths: Vec::new() };
    finder.visit_file(ast);
    finder.paths
}

struct Finder {
    module: Vec<String>,
    paths: Vec<NamedPath>,
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_use(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(first) = path.segments.first() {
            self.add(segments, line(first.ident.span()));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        self.add_tokens(&mac.tokens, &[]);
        visit::visit_macro(self, mac);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.add_tokens(&list.tokens, &[]);
        visit::visit_meta_list(self, list);
    }
}

impl Finder {
    fn add(&mut self, segments: Vec<String>, line: usize) {
        self.paths.push(NamedPath { segments, rename: None, is_glob: false, module: self.module.clone(), line });
    }

    fn add_use(&mut self, tree: &UseTree, prefix: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_use(&path.tree, prefix);
                prefix.pop();
            }
            UseTree::Name(name) => self.add_import(prefix, &name.ident, None),
            UseTree::Rename(rename) => self.add_import(prefix, &rename.ident, Some(rename.rename.to_string())),
            UseTree::Glob(glob) => {
                let line = line(glob.star_token.spans[0]);
                self.paths.push(NamedPath {
                    segments: prefix.clone(),
                    rename: None,
                    is_glob: true,
                    module: self.module.clone(),
                    line,
                });
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(tree, prefix)),
            _ => {}
        }
    }

    fn add_import(&mut self, prefix: &[String], ident: &syn::Ident, rename: Option<String>) {
        let mut segments = prefix.to_vec();
        // `a::{self}` imports `a`.
        if prefix.is_empty() || ident != "self" {
            segments.push(ident.to_string());
        }
        self.paths.push(NamedPath { segments, rename, is_glob: false, module: self.module.clone(), line: line(ident.span()) });
    }

    /// The paths among the tokens of a macro or attribute. `prefix` is what stands before the braces of an import.
    fn add_tokens(&mut self, stream: &TokenStream, prefix: &[String]) {
        let tokens: Vec<TokenTree> = stream.clone().into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Ident(ident) => {
                    let (segments, after) = path_at(&tokens, at);
                    let whole: Vec<String> = prefix.iter().cloned().chain(segments.iter().cloned()).collect();
                    match (tokens.get(after), after > at + 2 * segments.len() - 2 + 1) {
                        (Some(TokenTree::Group(group)), true) if group.delimiter() == Delimiter::Brace => {
                            self.add_tokens(&group.stream(), &whole);
                            at = after + 1;
                            continue;
                        }
                        _ => self.add(whole, line(ident.span())),
                    }
                    at = after;
                }
                TokenTree::Group(group) => {
                    self.add_tokens(&group.stream(), &[]);
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }
}
