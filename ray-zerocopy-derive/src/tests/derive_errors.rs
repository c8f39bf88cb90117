//! One test per error of `#[derive(Pipeline)]`.

use crate::expand::try_derive;
use proc_macro2::TokenStream;
use quote::quote;

fn errors(input: TokenStream) -> Vec<String> {
    match try_derive(&syn::parse2(input).unwrap()) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.into_iter().map(|error| error.to_string()).collect(),
    }
}

/// The input has one error, which contains `expected`.
#[track_caller]
fn refuses(input: TokenStream, expected: &str) {
    let errors = errors(input);
    assert!(errors.len() == 1 && errors[0].contains(expected), "expected one error with {expected:?}, got {errors:#?}");
}

#[track_caller]
fn accepts(input: TokenStream) {
    assert_eq!(errors(input), Vec::<String>::new());
}

#[test]
fn unknown_options() {
    refuses(quote! { struct S { #[pipeline(shared)] x: X } }, "unknown option `shared`: a field takes `config`");
    refuses(quote! { struct S { #[pipeline(a::b)] x: X } }, "unknown option `a::b`");
    refuses(
        quote! { #[pipeline(name = "x")] struct S; },
        "unknown option `name`: the whole pipeline takes `init = path`",
    );
}

#[test]
fn options_in_the_wrong_place() {
    refuses(quote! { #[pipeline(config)] struct S; }, "`config` is an option of a field");
    refuses(quote! { struct S { #[pipeline(init = S::new)] x: X } }, "`init` is an option of the whole pipeline");
    refuses(quote! { struct S { #[pipeline(crate = "x")] x: X } }, "`crate` is an option of the whole pipeline");
    refuses(quote! { enum E { #[pipeline(skip)] A(X) } }, "a variant takes no options");
}

#[test]
fn malformed_options() {
    refuses(quote! { struct S { #[pipeline] x: X } }, "expected options in parentheses");
    refuses(quote! { struct S { #[pipeline = "skip"] x: X } }, "expected options in parentheses");
    refuses(quote! { struct S { #[pipeline(skip copy)] x: X } }, "expected `,`");
    refuses(quote! { struct S { #[pipeline(skip = true)] x: X } }, "`skip` takes no value");
    refuses(quote! { struct S { #[pipeline(rename)] x: X } }, "expected a name, as in `rename = \"encoder\"`");
    refuses(quote! { struct S { #[pipeline(rename = y)] x: X } }, "expected a name, as in `rename = \"encoder\"`");
    refuses(quote! { #[pipeline(init)] struct S; }, "expected the path of a function");
    refuses(quote! { #[pipeline(init = |d| S)] struct S; }, "expected the path of a function");
    refuses(quote! { #[pipeline(init = "S::new")] struct S; }, "write it without quotes");
    refuses(quote! { #[pipeline(crate = ray)] struct S; }, "expected the path under which ray-zerocopy is found");
    refuses(quote! { #[pipeline(crate = "a b")] struct S; }, "expected the path under which ray-zerocopy is found");
}

#[test]
fn duplicate_options() {
    refuses(quote! { struct S { #[pipeline(skip, skip)] x: X } }, "`skip` is given twice");
    refuses(
        quote! { struct S { #[pipeline(rename = "a")] #[pipeline(rename = "b")] x: X } },
        "`rename` is given twice",
    );
    refuses(quote! { #[pipeline(init = a, init = b)] struct S; }, "`init` is given twice");
    refuses(quote! { #[pipeline(crate = "a", crate = "b")] struct S; }, "`crate` is given twice");
}

#[test]
fn options_that_exclude_each_other() {
    refuses(quote! { struct S { #[pipeline(copy, module)] x: X } }, "`copy` and `module` exclude each other");
    refuses(quote! { struct S { #[pipeline(skip, rename = "y")] x: X } }, "remove `rename` or `skip`");
    refuses(
        quote! { #[pipeline(init = S::new)] struct S { #[pipeline(config)] c: C } },
        "`init` and the config field `c` both say how to rebuild",
    );
    refuses(
        quote! { struct S { #[pipeline(config)] a: A, #[pipeline(config)] b: B } },
        "a pipeline has one config: copy `b`",
    );
    refuses(quote! { enum E { A { #[pipeline(config)] c: C } } }, "only a struct has a config");
}

#[test]
fn names() {
    refuses(quote! { struct S { #[pipeline(rename = "")] x: X } }, "a name that is not empty");
    for name in ["a.b", "a[0]", "a\"", "a\nb"] {
        refuses(quote! { struct S { #[pipeline(rename = #name)] x: X } }, "a name takes no `.`");
    }
    refuses(quote! { struct S { #[pipeline(rename = "y")] x: X, y: Y } }, "two fields are called `y`");
    refuses(quote! { struct S { y: Y, #[pipeline(rename = "y")] x: X } }, "two fields are called `y`");
    refuses(quote! { enum E { A(#[pipeline(rename = "1")] X, Y) } }, "two fields are called `1`");
    accepts(quote! { struct S { #[pipeline(rename = "y")] x: X, #[pipeline(skip)] y: Y } });
    accepts(quote! { enum E { A { #[pipeline(rename = "y")] x: X }, B { y: Y } } });
}

#[test]
fn types_that_cannot_travel() {
    refuses(quote! { struct S { x: &'static str } }, "field `x` holds a reference");
    refuses(quote! { struct S(Vec<Option<&'static str>>); }, "field `0` holds a reference");
    refuses(quote! { struct S { x: *const u8 } }, "field `x` holds a raw pointer");
    refuses(quote! { struct S { x: fn(f32) -> f32 } }, "field `x` holds a function pointer");
    refuses(quote! { struct S { x: HashMap<String, Box<dyn Layer>> } }, "field `x` holds a trait object");
    refuses(quote! { struct S { #[pipeline(copy)] x: &'static str } }, "`#[pipeline(skip)]`");
    accepts(quote! { struct S { #[pipeline(skip)] x: Box<dyn Layer>, y: PhantomData<&'static str> } });
    accepts(quote! { struct S { x: HashMap<&'static str, Linear> } });
}

#[test]
fn unusable_inputs() {
    refuses(quote! { union U { x: X } }, "cannot be a pipeline: use an enum");
    refuses(quote! { struct S<'a> { x: X<'a> } }, "own the data instead of `'a`");
}

#[test]
fn all_errors_are_reported_together() {
    let found = errors(quote! {
        #[pipeline(inti = S::new)]
        struct S<'a> {
            #[pipeline(shared)]
            a: A,
            b: &'a str,
            #[pipeline(rename = "")]
            c: C,
        }
    });
    assert_eq!(found.len(), 5, "{found:#?}");
}
