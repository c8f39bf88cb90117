//! One test per error of `#[remote]`.

use crate::remote::parts;
use proc_macro2::TokenStream;
use quote::quote;

fn errors(options: TokenStream, item: TokenStream) -> Vec<String> {
    match parts(options, item).1 {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_iter().map(|error| error.to_string()).collect(),
    }
}

/// The block has one error, which contains `expected`.
#[track_caller]
fn refuses(item: TokenStream, expected: &str) {
    let errors = errors(TokenStream::new(), item);
    assert!(errors.len() == 1 && errors[0].contains(expected), "expected one error with {expected:?}, got {errors:#?}");
}

#[track_caller]
fn refuses_method(method: TokenStream, expected: &str) {
    refuses(quote! { impl S { #method } }, expected);
}

#[test]
fn items_that_are_no_inherent_impl() {
    refuses(quote! { struct S; }, "goes on an inherent impl block");
    refuses(quote! { impl Trait for S { fn f(&self) {} } }, "goes on an inherent impl block");
    refuses(quote! { impl<'a> S<'a> { pub fn f(&self) {} } }, "remove the lifetime");
    refuses(quote! { impl [S] { pub fn f(&self) {} } }, "a type that has a name");
}

#[test]
fn options() {
    let block = quote! { impl S { pub fn f(&self) {} } };
    for (options, expected) in [
        (quote! { skip }, "unknown option `skip`: the block takes"),
        (quote! { crate = "a", crate = "b" }, "`crate` is given twice"),
        (quote! { crate = 1 }, "expected the path under which ray-zerocopy is found"),
    ] {
        let errors = errors(options, block.clone());
        assert!(errors.len() == 1 && errors[0].contains(expected), "expected {expected:?}, got {errors:#?}");
    }
    refuses(quote! { impl S { #[remote(batch)] pub fn f(&self) -> Vec<u8> {} } }, "needs an argument with rows");
    refuses(quote! { impl S { #[remote(batch)] pub fn f(&self, x: String) -> Vec<u8> {} } }, "has a row for each call");
    let whole = quote! { impl S { #[remote(batch)] pub fn f(&self, x: Vec<u8>) -> Result<(Vec<u8>, u8), String> {} } };
    refuses(whole, "returns one row for each row");
    refuses(quote! { impl S { pub fn f(&self) {} #[remote(hide)] pub fn g(&self) {} } }, "expected `#[remote(skip)]`");
    refuses(quote! { impl S { pub fn f(&self) {} #[remote] pub fn g(&self) {} } }, "expected `#[remote(skip)]`");
}

#[test]
fn blocks_without_a_method_to_call() {
    refuses(quote! { impl S {} }, "no method to call remotely");
    refuses(quote! { impl S { pub fn new() -> Self { S } fn f(&self) {} } }, "no method to call remotely");
    refuses(quote! { impl S { pub(crate) fn f(&self) {} } }, "no method to call remotely");
    refuses(quote! { impl S { #[remote(skip)] pub fn f(&self) {} } }, "no method to call remotely");
}

#[test]
fn receivers() {
    refuses_method(quote! { pub fn f(self) {} }, "a worker keeps its pipeline");
    refuses_method(quote! { pub fn f(mut self) {} }, "a worker keeps its pipeline");
    refuses_method(quote! { pub fn f(self: Arc<Self>) {} }, "expected `&self` or `&mut self`");
    refuses_method(quote! { pub fn f(self: &Self) {} }, "expected `&self` or `&mut self`");
    refuses_method(quote! { pub fn f(&'static self) {} }, "expected `&self` or `&mut self`");
}

#[test]
fn qualifiers() {
    refuses_method(quote! { pub async fn f(&self) {} }, "runs in a worker that has no executor");
    refuses_method(quote! { pub unsafe fn f(&self) {} }, "`f` is unsafe");
    refuses_method(quote! { pub extern "C" fn f(&self) {} }, "calling convention");
}

#[test]
fn reserved_names() {
    for name in crate::remote::RESERVED {
        let name = quote::format_ident!("{name}");
        refuses_method(quote! { pub fn #name(&self) {} }, "of their own, which would be called instead");
    }
    refuses_method(quote! { pub fn r#load(&self) {} }, "have a method `load` of their own");
}

#[test]
fn generics() {
    refuses_method(quote! { pub fn f<T>(&self, x: T) {} }, "which of its instances");
    refuses_method(quote! { pub fn f<const N: usize>(&self) {} }, "which of its instances");
    refuses_method(quote! { pub fn f<'a>(&self) {} }, "a remote call cannot borrow");
}

#[test]
fn arguments() {
    refuses_method(
        quote! { pub fn f(&self, x: &str) {} },
        "an argument of a remote method crosses to another process: take `String`",
    );
    refuses_method(quote! { pub fn f(&self, x: &[f32]) {} }, "take `Vec<T>` instead of `&[T]`");
    refuses_method(quote! { pub fn f(&self, x: Option<&X>) {} }, "take `T` instead of `&T`");
    refuses_method(quote! { pub fn f(&self, x: impl Into<String>) {} }, "needs a concrete type");
    refuses_method(quote! { pub fn f(&self, (a, b): (X, Y)) {} }, "needs a name");
    refuses_method(quote! { pub fn f(&self, _: X) {} }, "needs a name");
    refuses_method(quote! { pub fn f(&self, #[cfg(x)] a: X) {} }, "takes no attributes");
}

#[test]
fn results() {
    refuses_method(
        quote! { pub fn f(&self) -> &str {} },
        "a result of a remote method crosses to another process: return `String`",
    );
    refuses_method(quote! { pub fn f(&self) -> impl Iterator<Item = X> {} }, "needs a concrete type");
    refuses_method(quote! { pub fn f(&self) -> ! {} }, "never returns");
}

#[test]
fn all_errors_are_reported_together() {
    let found = errors(
        quote! { crates = "x" },
        quote! {
            impl S {
                pub async fn f(self, x: &str, (a, b): (X, &Y)) -> impl Sized {}
                pub fn g<T>(&self, x: Vec<&T>) {}
            }
        },
    );
    assert_eq!(found.len(), 9, "{found:#?}");
}
