//! The expansion of an invalid input: its errors, and impls that let the rest of the program
//! compile. So a user reads what is wrong with the pipeline, and not that the type does not
//! implement `Pipeline`.

use crate::ast::Input;
use crate::carried;
use crate::errors::Errors;
use crate::expand::static_parameters;
use crate::names::{Runtime, generated};
use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Lifetime, parse_quote};

pub(crate) fn derive(node: &DeriveInput, error: &syn::Error) -> TokenStream {
    let runtime = runtime(node);
    let ident = generated(&node.ident);
    let mut generics = static_parameters(&node.generics);
    let lifetimes: Vec<Lifetime> = node.generics.lifetimes().map(|lifetime| lifetime.lifetime.clone()).collect();
    for lifetime in lifetimes {
        generics.make_where_clause().predicates.push(parse_quote!(#lifetime: 'static));
    }
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let lints = carried::lints(&node.attrs);
    let error = error.to_compile_error();
    quote! {
        #error

        #[automatically_derived]
        #(#lints)*
        impl #impl_generics #runtime::Pipeline for #ident #ty_generics #where_clause {
            fn collect(&self, _: &mut #runtime::Collector) -> ::core::result::Result<(), #runtime::ShareError> {
                ::core::unreachable!()
            }

            fn attach(&mut self, _: &mut #runtime::Attacher) -> ::core::result::Result<(), #runtime::LoadError> {
                ::core::unreachable!()
            }
        }

        #[automatically_derived]
        #(#lints)*
        impl #impl_generics #runtime::Root for #ident #ty_generics #where_clause {
            fn rebuild(_: &#runtime::Source<'_>, _: &#runtime::Device) -> ::core::result::Result<Self, #runtime::LoadError> {
                ::core::unreachable!()
            }
        }
    }
}

/// The runtime's path as far as it can be read; the error itself has been reported.
fn runtime(node: &DeriveInput) -> Runtime {
    let mut reported = Errors::new();
    let krate = Input::from_syn(node, &mut reported).attrs.krate;
    let _ = reported.check();
    Runtime::new(krate.as_ref())
}
