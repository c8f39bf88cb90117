//! Names: the runtime's path in generated code, and Rust names in paths such as
//! `heads["fr"].2.weight`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Ident, Path, Type};

/// Prints the path of the runtime's private module, `::ray_zerocopy::__private` unless the user
/// renamed the crate.
pub(crate) struct Runtime(Option<Path>);

impl Runtime {
    pub(crate) fn new(krate: Option<&Path>) -> Self {
        Runtime(krate.cloned())
    }

    /// The path as if it stood at `span`, so that an error in what it is part of is reported there.
    pub(crate) fn at(&self, span: Span) -> TokenStream {
        let tokens = self.to_token_stream().into_iter().map(|mut token| {
            token.set_span(span.resolved_at(token.span()));
            token
        });
        tokens.collect()
    }
}

impl Runtime {
    /// The first statement of a function whose code names the runtime `__rzc` and calls `pick`.
    pub(crate) fn scope(&self) -> TokenStream {
        quote!(use #self::{self as __rzc, pick::*};)
    }
}

impl ToTokens for Runtime {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.extend(match &self.0 {
            Some(path) => quote!(#path::__private),
            None => quote!(::ray_zerocopy::__private),
        });
    }
}

/// The name as users read it: `r#type` is `type`.
pub(crate) fn plain(ident: &Ident) -> String {
    ident.unraw().to_string()
}

/// The identifier as if the macro had written it where the user did: lints hold for users' code
/// only.
pub(crate) fn generated(ident: &Ident) -> Ident {
    let mut ident = ident.clone();
    ident.set_span(ident.span().resolved_at(Span::call_site()));
    ident
}

/// The span at which the compiler reports that it cannot handle a type: see [`blame_path`].
pub(crate) fn blame(ty: &Type) -> Span {
    match ty {
        Type::Path(path) => blame_path(&path.path),
        Type::Group(group) => blame(&group.elem),
        Type::Paren(paren) => blame(&paren.elem),
        _ => ty.span().resolved_at(Span::call_site()),
    }
}

/// The span at which the compiler reports an error in a path: its last name, since the first token
/// of `burn::nn::Linear` says little.
///
/// Names are still resolved at the call site. Otherwise the hygiene of a type that a user's
/// `macro_rules!` wrote would hide the generated locals.
pub(crate) fn blame_path(path: &Path) -> Span {
    let span = path.segments.last().map_or_else(|| path.span(), |last| last.ident.span());
    span.resolved_at(Span::call_site())
}
