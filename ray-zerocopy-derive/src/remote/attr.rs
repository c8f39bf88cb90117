//! First stage: reads `#[remote(...)]` on the block and on its methods.

use crate::attr::{duplicate, krate, unknown};
use crate::errors::Errors;
use proc_macro2::{Span, TokenStream};
use std::collections::HashMap;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Expr, ExprPath, ImplItem, ItemImpl, Meta, MetaNameValue, Path, Token};

/// The options of methods, by their place in the block.
pub(crate) type Options = HashMap<usize, MethodOption>;

/// `#[remote(...)]` on a method.
pub(crate) enum MethodOption {
    /// `skip`, or an invalid option: the method is left out.
    Skip,
    /// `batch`, `batch, cost = path`: its calls can be put together.
    Batch(BatchOption),
    /// `stream`: it returns an iterator, whose items are sent while it runs. With the place where that
    /// is written.
    Stream(Span),
    /// `on_swap`: it moves the state of an actor to the next weights. With the place where that is written.
    OnSwap(Span),
}

/// `batch` on a method.
#[derive(Clone)]
pub(crate) struct BatchOption {
    /// Where it is written.
    pub span: Span,
    /// The function that computes the cost of a row.
    pub cost: Option<ExprPath>,
}

/// `#[remote(crate = "path")]` above the block.
pub(crate) fn block(options: TokenStream, errors: &mut Errors) -> Option<Path> {
    let options = errors.ok(Punctuated::<Meta, Token![,]>::parse_terminated.parse2(options))?;
    let mut found = None;
    for option in options {
        if !option.path().is_ident("crate") {
            unknown(
                &option,
                "the block takes `crate = \"path\"`, a method `skip`, `batch`, `stream` or `on_swap`",
                errors,
            );
        } else if found.is_some() {
            duplicate(&option, errors);
        } else {
            found = krate(&option, errors);
        }
    }
    found
}

/// Removes `#[remote(...)]` from the methods, since the compiler does not know it.
pub(crate) fn take_options(item: &mut ItemImpl, errors: &mut Errors) -> Options {
    let mut options = Options::new();
    for (position, item) in item.items.iter_mut().enumerate() {
        let ImplItem::Fn(method) = item else { continue };
        for attribute in method.attrs.extract_if(.., |attribute| is_ours(attribute)) {
            let option = method_option(&attribute).unwrap_or_else(|error| {
                errors.push(error);
                // An invalid option leaves the method out, so that it causes no further errors.
                MethodOption::Skip
            });
            if options.insert(position, option).is_some() {
                errors.at(&attribute, "a method takes one `#[remote(...)]`");
            }
        }
    }
    options
}

fn method_option(attribute: &Attribute) -> syn::Result<MethodOption> {
    let wrong = || {
        let message = "expected `#[remote(skip)]`, which leaves the method out, `#[remote(batch)]` or `#[remote(batch, cost \
                       = function)]`, which let its calls be put together, `#[remote(stream)]`, which sends the \
                       items of an iterator while it runs, or `#[remote(on_swap)]`, which moves the state of an \
                       actor to the next weights";
        syn::Error::new_spanned(attribute, message)
    };
    let options = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).map_err(|_| wrong())?;
    let mut options = options.into_iter();
    match options.next() {
        Some(Meta::Path(path)) if path.is_ident("skip") && options.len() == 0 => Ok(MethodOption::Skip),
        Some(Meta::Path(path)) if path.is_ident("stream") && options.len() == 0 => {
            Ok(MethodOption::Stream(path.span()))
        }
        Some(Meta::Path(path)) if path.is_ident("on_swap") && options.len() == 0 => {
            Ok(MethodOption::OnSwap(path.span()))
        }
        Some(Meta::Path(path)) if path.is_ident("batch") => {
            let cost = options.next().map(|option| cost(&option).ok_or_else(wrong)).transpose()?;
            if options.len() > 0 {
                return Err(wrong());
            }
            Ok(MethodOption::Batch(BatchOption { span: path.span(), cost }))
        }
        _ => Err(wrong()),
    }
}

/// The function of `cost = path::to::function`.
fn cost(option: &Meta) -> Option<ExprPath> {
    match option {
        Meta::NameValue(MetaNameValue { path, value: Expr::Path(function), .. }) if path.is_ident("cost") => {
            Some(function.clone())
        }
        _ => None,
    }
}

fn is_ours(attribute: &Attribute) -> bool {
    attribute.path().segments.last().is_some_and(|last| last.ident == "remote")
}
