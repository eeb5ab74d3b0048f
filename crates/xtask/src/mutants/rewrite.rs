//! All mutants of a file at once: each change stands behind a test of the number of the mutant that is active.
//!
//! | what | becomes |
//! |---|---|
//! | a binary operator | another of its kind |
//! | a condition that is no operator | its opposite |
//! | a call that is a statement | nothing |
//! | a function's body, by its type | nothing, false, true, 0, 1, `None` |
//!
//! Constants, `const` functions, tests and what models alone compile are left as they are.

use anyhow::Result;
use proc_macro2::{LineColumn, Span};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// One change of one place.
#[derive(Debug)]
pub(super) struct Mutant {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) function: String,
    pub(super) change: String,
}

/// The text with all its mutants, which are numbered from `first` on.
pub(super) fn rewrite(text: &str, first: usize) -> Result<(String, Vec<Mutant>)> {
    let file = syn::parse_file(text)?;
    let starts = line_starts(text);
    let mut places = Places { text, starts, first, function: String::new(), mutants: Vec::new(), edits: Vec::new() };
    places.visit_file(&file);
    let Places { mut edits, mutants, .. } = places;
    // At one place, what opens later is inside of what opened before.
    edits.sort_by_key(|edit| edit.at);
    let mut rewritten = String::new();
    let mut done = 0;
    for edit in edits {
        rewritten += &text[done..edit.at];
        rewritten += &edit.insert;
        done = edit.at + edit.nr_removed;
    }
    rewritten += &text[done..];
    Ok((rewritten, mutants))
}

struct Edit {
    at: usize,
    nr_removed: usize,
    insert: String,
}

struct Places<'a> {
    text: &'a str,
    starts: Vec<usize>,
    first: usize,
    function: String,
    mutants: Vec<Mutant>,
    edits: Vec<Edit>,
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

impl Places<'_> {
    fn offset(&self, at: LineColumn) -> usize {
        let line = self.starts[at.line - 1];
        let columns = self.text[line..].char_indices().nth(at.column);
        columns.map_or(self.text.len(), |(bytes, _)| line + bytes)
    }

    fn range(&self, span: Span) -> (usize, usize) {
        (self.offset(span.start()), self.offset(span.end()))
    }

    fn add(&mut self, span: Span, change: String) -> usize {
        let LineColumn { line, column } = span.start();
        self.mutants.push(Mutant { line, column: column + 1, function: self.function.clone(), change });
        self.first + self.mutants.len() - 1
    }

    fn insert(&mut self, at: usize, text: String) {
        self.edits.push(Edit { at, nr_removed: 0, insert: text });
    }

    fn function(&mut self, sig: &syn::Signature, attrs: &[syn::Attribute], block: &syn::Block) {
        if sig.constness.is_some() || is_left_out(attrs) {
            return;
        }
        let outer = std::mem::replace(&mut self.function, sig.ident.to_string());
        let at = self.offset(block.span().start()) + 1;
        for value in values(&sig.output) {
            let number = self.add(sig.ident.span(), format!("returns {value} at once"));
            self.insert(at, format!(" if crate::mutant::is({number}) {{ return {value}; }}"));
        }
        visit::visit_block(self, block);
        self.function = outer;
    }

    /// Has a condition be its opposite, where no operator says more.
    fn negate(&mut self, condition: &syn::Expr) {
        if matches!(condition, syn::Expr::Binary(_)) || has_let(condition) {
            return;
        }
        let number = self.add(condition.span(), "the opposite of the condition".to_owned());
        let (start, end) = self.range(condition.span());
        self.insert(start, format!("(crate::mutant::is({number}) != ("));
        self.insert(end, "))".to_owned());
    }
}

impl<'ast> Visit<'ast> for Places<'_> {
    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        if !is_left_out(&node.attrs) {
            visit::visit_item_mod(self, node);
        }
    }

    fn visit_item_impl(&mut self, node: &'ast syn::ItemImpl) {
        let is_debug = node
            .trait_
            .as_ref()
            .is_some_and(|(path, _)| path.segments.last().is_some_and(|last| last.ident == "Debug"));
        if !is_left_out(&node.attrs) && !is_debug {
            visit::visit_item_impl(self, node);
        }
    }

    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.function(&node.sig, &node.attrs, &node.block);
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.function(&node.sig, &node.attrs, &node.block);
    }

    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_pat(&mut self, node: &'ast syn::Pat) {
        // A match's guard is the only part of a pattern that runs.
        if let syn::Pat::Guard(pattern) = node {
            self.negate(&pattern.guard);
            self.visit_expr(&pattern.guard);
        }
    }
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_expr_repeat(&mut self, _: &'ast syn::ExprRepeat) {}

    fn visit_expr_binary(&mut self, node: &'ast syn::ExprBinary) {
        let (start, end) = self.range(node.span());
        let (op_start, op_end) = self.range(node.op.span());
        let op = self.text[op_start..op_end].to_owned();
        let other = other_operator(&op).filter(|_| !has_let(&node.left) && !has_let(&node.right));
        if let Some(other) = other {
            let number = self.add(node.op.span(), format!("{op} becomes {other}"));
            self.insert(start, format!("mutated!({number}, "));
            self.edits.push(Edit { at: op_start, nr_removed: op.len(), insert: format!(", [{op}], [{other}], ") });
        }
        visit::visit_expr_binary(self, node);
        if other.is_some() {
            self.insert(end, ")".to_owned());
        }
    }

    fn visit_expr_if(&mut self, node: &'ast syn::ExprIf) {
        self.negate(&node.cond);
        visit::visit_expr_if(self, node);
    }

    fn visit_stmt(&mut self, node: &'ast syn::Stmt) {
        if let syn::Stmt::Expr(
            call @ (syn::Expr::MethodCall(syn::ExprMethodCall { attrs, .. })
            | syn::Expr::Call(syn::ExprCall { attrs, .. })),
            Some(_),
        ) = node
        {
            if is_left_out(attrs) {
                return;
            }
            let number = self.add(call.span(), "the statement is left out".to_owned());
            let (start, end) = self.range(node.span());
            self.insert(start, format!("if !crate::mutant::is({number}) {{ "));
            visit::visit_stmt(self, node);
            self.insert(end, " }".to_owned());
            return;
        }
        visit::visit_stmt(self, node);
    }
}

/// What a function's type allows it to return at once.
fn values(output: &syn::ReturnType) -> &'static [&'static str] {
    let syn::ReturnType::Type(_, of) = output else { return &["()"] };
    let syn::Type::Path(of) = &**of else { return &[] };
    match of.path.segments.last().map(|last| last.ident.to_string()).as_deref() {
        Some("bool") => &["false", "true"],
        Some("u8" | "u16" | "u32" | "u64" | "usize" | "i64") => &["0", "1"],
        Some("Option") => &["None"],
        _ => &[],
    }
}

fn other_operator(op: &str) -> Option<&'static str> {
    const OTHERS: &[(&str, &str)] = &[
        ("<", "<="),
        ("<=", "<"),
        (">", ">="),
        (">=", ">"),
        ("==", "!="),
        ("!=", "=="),
        ("+", "-"),
        ("-", "+"),
        ("*", "/"),
        ("/", "*"),
        ("%", "/"),
        ("&&", "||"),
        ("||", "&&"),
        ("&", "|"),
        ("|", "&"),
        ("^", "|"),
        ("<<", ">>"),
        (">>", "<<"),
        ("+=", "-="),
        ("-=", "+="),
        ("|=", "&="),
        ("&=", "|="),
    ];
    OTHERS.iter().find(|(from, _)| *from == op).map(|(_, to)| *to)
}

fn has_let(condition: &syn::Expr) -> bool {
    match condition {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

/// Under `cfg(test)` or `cfg(loom)`: `cfg(not(loom))` is not.
fn is_left_out(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().filter(|attr| attr.path().is_ident("cfg")).any(|attr| {
        let syn::Meta::List(list) = &attr.meta else { return false };
        let condition = list.tokens.to_string();
        !condition.starts_with("not") && (condition.contains("test") || condition.contains("loom"))
    })
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    fn changes(text: &str) -> Vec<String> {
        rewrite(text, 1).unwrap().1.into_iter().map(|mutant| mutant.change).collect()
    }

    #[test]
    fn an_operator_stands_behind_its_number() {
        let (text, mutants) = rewrite("fn f(a: S) -> S { a + b * c }", 7).unwrap();
        assert_eq!(mutants.len(), 2);
        assert_eq!(text, "fn f(a: S) -> S { mutated!(7, a , [+], [-],  mutated!(8, b , [*], [/],  c)) }");
    }

    #[test]
    fn calls_conditions_and_bodies_are_mutated() {
        let all = changes("fn f() { if g() { h(); } }");
        assert_eq!(all, ["returns () at once", "the opposite of the condition", "the statement is left out"]);
        assert_eq!(changes("fn f() -> bool { x }"), ["returns false at once", "returns true at once"]);
    }

    #[test]
    fn constants_tests_and_let_chains_stay() {
        assert!(changes("const A: u64 = 1 << 3; const fn f() -> u64 { 1 + 1 }").is_empty());
        assert!(changes("#[cfg(test)] mod tests { fn f() -> bool { true } }").is_empty());
        assert_eq!(changes("fn f() -> S { #[cfg(loom)] g(1 + 1); h(); s }"), ["the statement is left out"]);
        assert!(changes("fn f() -> S { if let A = b && c { d } else { e } }").is_empty());
    }
}
