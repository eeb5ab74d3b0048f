//! Extents in a file: functions, inline modules, and what is built for tests or models only.

use std::ops::{Range, RangeInclusive};

use proc_macro2::Span;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{AttrStyle, Attribute, Meta, Token};

/// A function with a body, from its signature on.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) nr_lines: usize,
}

/// `mod name { … }`.
pub(crate) struct InlineModule {
    pub(crate) name: String,
    pub(crate) expects_unsafe: bool,
    bytes: Range<usize>,
}

#[derive(Default)]
pub(crate) struct Shape {
    pub(crate) functions: Vec<Function>,
    pub(crate) tests: Vec<Range<usize>>,
    pub(crate) test_lines: Vec<RangeInclusive<usize>>,
    pub(crate) models: Vec<Range<usize>>,
    pub(crate) expects_unsafe: bool,
    pub(crate) denies_unsafe: bool,
    modules: Vec<InlineModule>,
}

impl Shape {
    pub(crate) fn of(tree: &syn::File) -> Shape {
        let mut shape = Shape {
            expects_unsafe: expects_unsafe(&tree.attrs),
            denies_unsafe: tree.attrs.iter().any(|attr| names_unsafe_code(attr, &["deny", "forbid"])),
            ..Shape::default()
        };
        shape.visit_file(tree);
        shape
    }

    /// The inline modules around a byte, outermost first.
    pub(crate) fn modules_around(&self, at: usize) -> impl Iterator<Item = &InlineModule> {
        self.modules.iter().filter(move |module| module.bytes.contains(&at))
    }

    fn note_cfg(&mut self, attrs: &[Attribute], span: Span) {
        if attrs.iter().any(|attr| attr.path().is_ident("test") || requires(attr, "test")) {
            self.tests.push(span.byte_range());
            self.test_lines.push(span.start().line..=span.end().line);
        }
        if attrs.iter().any(|attr| requires(attr, "loom")) {
            self.models.push(span.byte_range());
        }
    }

    fn note_function(&mut self, sig: &syn::Signature, body: &syn::Block) {
        let line = sig.span().start().line;
        let nr_lines = body.span().end().line - line + 1;
        self.functions.push(Function { name: sig.ident.to_string(), line, nr_lines });
    }
}

/// Visitors that note what an item's attributes say of it.
macro_rules! note_cfg_of {
    ($($visit:ident $node:ident)*) => {$(
        fn $visit(&mut self, node: &'ast syn::$node) {
            self.note_cfg(&node.attrs, node.span());
            visit::$visit(self, node);
        }
    )*};
}

impl<'ast> Visit<'ast> for Shape {
    note_cfg_of! {
        visit_item_const ItemConst
        visit_item_enum ItemEnum
        visit_item_extern_crate ItemExternCrate
        visit_item_foreign_mod ItemForeignMod
        visit_item_impl ItemImpl
        visit_item_macro ItemMacro
        visit_item_static ItemStatic
        visit_item_struct ItemStruct
        visit_item_trait ItemTrait
        visit_item_type ItemType
        visit_item_union ItemUnion
        visit_item_use ItemUse
        visit_impl_item_const ImplItemConst
        visit_field Field
        visit_variant Variant
        visit_arm Arm
        visit_local Local
        visit_stmt_macro StmtMacro
        visit_expr_block ExprBlock
        visit_expr_call ExprCall
        visit_expr_method_call ExprMethodCall
    }

    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        self.note_cfg(&node.attrs, node.span());
        if node.content.is_some() {
            let (name, bytes) = (node.ident.to_string(), node.span().byte_range());
            self.modules.push(InlineModule { name, expects_unsafe: expects_unsafe(&node.attrs), bytes });
        }
        visit::visit_item_mod(self, node);
    }

    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.note_cfg(&node.attrs, node.span());
        self.note_function(&node.sig, &node.block);
        visit::visit_item_fn(self, node);
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.note_cfg(&node.attrs, node.span());
        self.note_function(&node.sig, &node.block);
        visit::visit_impl_item_fn(self, node);
    }

    fn visit_trait_item_fn(&mut self, node: &'ast syn::TraitItemFn) {
        self.note_cfg(&node.attrs, node.span());
        if let Some(body) = &node.default {
            self.note_function(&node.sig, body);
        }
        visit::visit_trait_item_fn(self, node);
    }
}

fn expects_unsafe(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| {
        let reason = |arg: &Meta| arg.path().is_ident("reason");
        names_unsafe_code(attr, &["expect"]) && arguments(attr).iter().any(reason)
    })
}

/// Whether this is an inner attribute with one of these names and `unsafe_code` among its arguments.
fn names_unsafe_code(attr: &Attribute, names: &[&str]) -> bool {
    matches!(attr.style, AttrStyle::Inner(_))
        && names.iter().any(|name| attr.path().is_ident(name))
        && arguments(attr).iter().any(|arg| arg.path().is_ident("unsafe_code"))
}

/// Whether this is a `cfg` that holds only if `word` is set.
fn requires(attr: &Attribute, word: &str) -> bool {
    attr.path().is_ident("cfg") && arguments(attr).iter().any(|predicate| implies(predicate, word))
}

fn implies(predicate: &Meta, word: &str) -> bool {
    match predicate {
        Meta::Path(path) => path.is_ident(word),
        Meta::List(list) => {
            let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).unwrap_or_default();
            let mut parts = parts.iter();
            match list.path.get_ident().map(ToString::to_string).as_deref() {
                Some("all") => parts.any(|part| implies(part, word)),
                Some("any") => parts.len() > 0 && parts.all(|part| implies(part, word)),
                _ => false,
            }
        }
        _ => false,
    }
}

fn arguments(attr: &Attribute) -> Punctuated<Meta, Token![,]> {
    attr.parse_args_with(Punctuated::parse_terminated).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Shape, implies};

    #[test]
    fn a_cfg_implies_a_word_only_if_it_cannot_hold_without() {
        let holds = |text: &str| implies(&syn::parse_str(text).unwrap(), "test");
        assert!(holds("test"));
        assert!(holds("all(test, not(loom))"));
        assert!(holds("any(all(test, loom), test)"));
        assert!(!holds("not(test)"));
        assert!(!holds("any(test, loom)"));
        assert!(!holds("feature = \"test\""));
    }

    #[test]
    fn functions_count_from_the_signature() {
        let shape = Shape::of(&syn::parse_str("/// Doc.\n#[inline]\nfn f(\n    a: u8,\n) {\n    g(a);\n}\n").unwrap());
        let found = shape.functions.iter().map(|f| (f.name.as_str(), f.line, f.nr_lines)).collect::<Vec<_>>();
        assert_eq!(found, [("f", 3, 5)]);
    }
}
