//! The attributes of a user's item that also hold for the code that is generated from it.
//!
//! Generated code has no `#[allow]` of the macros' own: under a `#![forbid]` of the same lint it
//! would be an error. Its tokens come from a macro, for which the compiler reports few lints. The
//! others concern what the user wrote, and the user decides about them. The exception is a call of
//! a deprecated method.

use proc_macro2::TokenStream;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Attribute, Meta, MetaList, Path, Token, parse_quote};

/// The `#[allow]`s among `attributes`. An `#[expect]` is an `#[allow]` here, since the generated
/// code need not have what is expected.
pub(crate) fn lints(attributes: &[Attribute]) -> Vec<Attribute> {
    select(attributes, |name| name == "allow")
}

/// The `#[cfg]`s among `attributes`.
pub(crate) fn cfgs(attributes: &[Attribute]) -> Vec<Attribute> {
    select(attributes, |name| name == "cfg")
}

/// The `#[deprecated]` among `attributes`, if there is one.
pub(crate) fn deprecated(attributes: &[Attribute]) -> Vec<Attribute> {
    select(attributes, |name| name == "deprecated")
}

fn select(attributes: &[Attribute], is_wanted: fn(&str) -> bool) -> Vec<Attribute> {
    let metas = attributes.iter().filter_map(|attribute| selected(&attribute.meta, is_wanted));
    metas.map(|meta| parse_quote!(#[#meta])).collect()
}

/// The attribute, if it is wanted. Of a `cfg_attr`, what is wanted of its content.
fn selected(meta: &Meta, is_wanted: fn(&str) -> bool) -> Option<Meta> {
    let name = meta.path().get_ident()?.to_string();
    match (name.as_str(), meta) {
        ("cfg_attr", Meta::List(list)) => {
            let parts = Punctuated::<Meta, Token![,]>::parse_terminated.parse2(list.tokens.clone()).ok()?;
            let mut parts = parts.into_iter();
            let condition = parts.next()?;
            let wanted: Vec<Meta> = parts.filter_map(|part| selected(&part, is_wanted)).collect();
            (!wanted.is_empty()).then(|| parse_quote!(cfg_attr(#condition, #(#wanted),*)))
        }
        ("expect", Meta::List(list)) if is_wanted("allow") => Some(allow(list.tokens.clone())),
        (name, meta) => is_wanted(name).then(|| meta.clone()),
    }
}

fn allow(lints: TokenStream) -> Meta {
    let path: Path = parse_quote!(allow);
    Meta::List(MetaList { path, delimiter: syn::MacroDelimiter::Paren(Default::default()), tokens: lints })
}
