//! The documentation of a caller's method: the first paragraph of the original's, and a reference
//! to the original.
//!
//! It is not copied as a whole, since each example in it would be compiled and run again for every
//! caller.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Expr, ExprLit, Lit, Meta};

/// The doc attributes of a caller's method, made from those among `attributes`. `original` is the
/// name of the method that is called.
pub(crate) fn summary(attributes: &[Attribute], original: &str) -> TokenStream {
    let docs = attributes.iter().filter(|attribute| attribute.path().is_ident("doc"));
    // `#[doc(hidden)]` and the like hold for the caller too.
    let options = docs.clone().filter(|attribute| matches!(attribute.meta, Meta::List(_)));
    let text: Vec<String> = docs.filter_map(text).collect();
    let mut paragraph: Vec<&str> = text
        .iter()
        .flat_map(|text| text.split('\n'))
        .skip_while(|line| line.trim().is_empty())
        .take_while(|line| !line.trim().is_empty())
        .collect();
    if !paragraph.is_empty() {
        paragraph.push("");
    }
    let calls = format!(" Calls `{original}` in a worker.");
    quote!(#(#options)* #(#[doc = #paragraph])* #[doc = #calls])
}

/// All of a method's documentation, as text.
pub(crate) fn whole(attributes: &[Attribute]) -> String {
    let docs = attributes.iter().filter(|attribute| attribute.path().is_ident("doc"));
    let text: Vec<String> = docs.filter_map(text).collect();
    let lines =
        text.iter().flat_map(|text| text.split('\n')).map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    lines.collect::<Vec<_>>().join("\n").trim_matches('\n').to_owned()
}

/// The text of `#[doc = "..."]`, which is what a doc comment is. `include_str!` is not expanded yet
/// and has none.
fn text(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attribute.meta else { return None };
    match &pair.value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}
