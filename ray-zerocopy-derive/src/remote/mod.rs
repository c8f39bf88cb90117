//! `#[remote]`: the methods of an inherent impl block, callable remotely. The stages are those of
//! the derive.
//!
//! Does not depend on engines and processes: what it writes describes each method to the runtime,
//! which calls it.

mod ast;
mod attr;
mod docs;
mod expand;
mod items;
mod reserved;
mod rows;
mod valid;

use crate::errors::Errors;
use crate::names::Runtime;
use ast::Block;
use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
#[cfg(test)]
pub(crate) use reserved::RESERVED;
use syn::Item;

/// The expansion of `#[remote]`: the block as it was written, the types that call it, and the
/// errors.
///
/// Only invalid methods are left out, so that they cause no further errors where other methods are
/// used.
pub(crate) fn remote(options: TokenStream, item: TokenStream) -> TokenStream {
    let (expansion, errors) = parts(options, item);
    let errors = errors.err().map(|error| error.to_compile_error());
    quote!(#expansion #errors)
}

/// [`remote`], with the errors as a value.
pub(crate) fn parts(options: TokenStream, item: TokenStream) -> (TokenStream, syn::Result<()>) {
    let mut errors = Errors::new();
    let krate = attr::block(options, &mut errors);
    let runtime = Runtime::new(krate.as_ref());
    let expansion = match syn::parse2(item.clone()) {
        Ok(Item::Impl(mut item)) => {
            let options = attr::take_options(&mut item, &mut errors);
            let calls = Block::new(&item, &mut errors).map(|block| {
                let methods = valid::methods(&block, &options, &mut errors);
                let on_swap = valid::on_swap(&block, &options, &mut errors);
                expand::calls(&block, &methods, on_swap, &runtime)
            });
            quote!(#item #calls)
        }
        Ok(other) => {
            errors.push(syn::Error::new(
                proc_macro2::Span::call_site(),
                "`#[remote]` goes on an inherent impl block, `impl Search { ... }`, whose pub methods become callable \
                 remotely",
            ));
            other.into_token_stream()
        }
        Err(error) => {
            errors.push(error);
            item
        }
    };
    (expansion, errors.check())
}
