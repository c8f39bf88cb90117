//! First stage: reads `#[remote(...)]` on the block and on its methods.

use crate::attr::{duplicate, krate, unknown};
use crate::errors::Errors;
use proc_macro2::TokenStream;
use std::collections::HashSet;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Attribute, ImplItem, ItemImpl, Meta, Path, Token};

/// The methods that `#[remote(skip)]` leaves out, by their place in the block.
pub(crate) type Skipped = HashSet<usize>;

/// `#[remote(crate = "path")]` above the block.
pub(crate) fn block(options: TokenStream, errors: &mut Errors) -> Option<Path> {
    let options = errors.ok(Punctuated::<Meta, Token![,]>::parse_terminated.parse2(options))?;
    let mut found = None;
    for option in options {
        if !option.path().is_ident("crate") {
            unknown(&option, "the block takes `crate = \"path\"`, a method `skip`", errors);
        } else if found.is_some() {
            duplicate(&option, errors);
        } else {
            found = krate(&option, errors);
        }
    }
    found
}

/// Removes `#[remote(skip)]` from the methods, since the compiler does not know it.
pub(crate) fn take_skips(item: &mut ItemImpl, errors: &mut Errors) -> Skipped {
    let mut skipped = Skipped::new();
    for (position, item) in item.items.iter_mut().enumerate() {
        let ImplItem::Fn(method) = item else { continue };
        for attribute in method.attrs.extract_if(.., |attribute| is_ours(attribute)) {
            // An invalid option is an error. It also leaves the method out, which is most likely
            // what is meant.
            skipped.insert(position);
            let option = attribute.parse_args::<Meta>();
            if !option.is_ok_and(|option| matches!(option, Meta::Path(path) if path.is_ident("skip"))) {
                errors.at(attribute, "expected `#[remote(skip)]`, which leaves the method out");
            }
        }
    }
    skipped
}

fn is_ours(attribute: &Attribute) -> bool {
    attribute.path().segments.last().is_some_and(|last| last.ident == "remote")
}
