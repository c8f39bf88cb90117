//! Fourth stage: writes the impls of a valid input.

use crate::ast::{Body, Field, Input, Variant};
use crate::attr::Role;
use crate::errors::Errors;
use crate::fallback;
use crate::names::{self, Runtime, blame, blame_path};
use crate::walk::{Direction, Leaves, Walk};
use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{DeriveInput, Generics, Ident, parse_quote};

/// All of `#[derive(Pipeline)]`: the impls, or the errors and impls that stand in.
pub(crate) fn derive(node: &DeriveInput) -> TokenStream {
    try_derive(node).unwrap_or_else(|error| fallback::derive(node, &error))
}

/// As [`derive()`], with the errors for themselves.
pub(crate) fn try_derive(node: &DeriveInput) -> syn::Result<TokenStream> {
    let mut errors = Errors::new();
    let input = Input::from_syn(node, &mut errors);
    input.validate(&mut errors);
    errors.check()?;

    let runtime = Runtime::new(input.attrs.krate.as_ref());
    let generics = static_parameters(input.generics);
    let pipeline = pipeline(&input, &generics, &runtime);
    let root = root(&input, &generics, &runtime);
    Ok(quote!(#pipeline #root))
}

/// The generics, with every type parameter `'static`: the traits of the runtime ask it of the whole type, which is no
/// more than that, and no user should have to write it.
pub(crate) fn static_parameters(generics: &Generics) -> Generics {
    let mut generics = generics.clone();
    let parameters: Vec<Ident> = generics.type_params().map(|parameter| parameter.ident.clone()).collect();
    if !parameters.is_empty() {
        let bounds = &mut generics.make_where_clause().predicates;
        bounds.extend(parameters.iter().map(|parameter| -> syn::WherePredicate { parse_quote!(#parameter: 'static) }));
    }
    generics
}

/// What surrounds each generated impl: it is nobody's business how readable the code in it is.
pub(crate) fn impl_attributes() -> TokenStream {
    quote! {
        #[automatically_derived]
        #[allow(
            deprecated,
            elided_lifetimes_in_paths,
            unused_qualifications,
            clippy::pedantic,
            clippy::nursery,
            clippy::absolute_paths
        )]
    }
}

fn pipeline(input: &Input, generics: &Generics, runtime: &Runtime) -> TokenStream {
    let ident = input.ident;
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let attributes = impl_attributes();
    let collect = body(&input.data, runtime, Direction::Collect);
    let attach = body(&input.data, runtime, Direction::Attach);
    quote! {
        #attributes
        impl #impl_generics #runtime::Pipeline for #ident #ty_generics #where_clause {
            fn collect(
                &self,
                __collector: &mut #runtime::Collector,
            ) -> ::core::result::Result<(), #runtime::ShareError> {
                #collect
            }

            fn attach(
                &mut self,
                __attacher: &mut #runtime::Attacher,
            ) -> ::core::result::Result<(), #runtime::LoadError> {
                #attach
            }
        }
    }
}

fn root(input: &Input, generics: &Generics, runtime: &Runtime) -> Option<TokenStream> {
    let rebuild = match (input.config(), &input.attrs.init) {
        (Some(field), _) => {
            let ty = field.ty;
            let name = field.name();
            // What is wrong with this expression, such as no `init` in sight, is wrong with the config's type.
            let span = blame(ty);
            let config = quote_spanned!(span=> __source.config(#name)?);
            let rebuilt = rebuilt(runtime, span, &quote_spanned!(span=> __config.init(__device)));
            quote! {
                let __config: #ty = #config;
                #rebuilt
            }
        }
        (None, Some(path)) => {
            let span = blame_path(&path.path);
            let rebuilt = rebuilt(runtime, span, &quote_spanned!(span=> __init(__device)));
            quote! {
                let __init: fn(&#runtime::Device) -> _ = #path;
                #rebuilt
            }
        }
        (None, None) => return None,
    };
    let ident = input.ident;
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let attributes = impl_attributes();
    Some(quote! {
        #attributes
        impl #impl_generics #runtime::Root for #ident #ty_generics #where_clause {
            fn rebuild(
                __source: &#runtime::Source,
                __device: &#runtime::Device,
            ) -> ::core::result::Result<Self, #runtime::LoadError> {
                #rebuild
            }
        }
    })
}

/// Takes what a constructor gives, the pipeline or a `Result` of it.
fn rebuilt(runtime: &Runtime, span: Span, constructed: &TokenStream) -> TokenStream {
    let runtime = runtime.at(span);
    quote_spanned!(span=> #runtime::rebuilt::<Self>(#constructed))
}

/// The body of `collect` or `attach`.
fn body(data: &Body, runtime: &Runtime, direction: Direction) -> TokenStream {
    match data {
        Body::Struct(fields) => {
            let pattern = pattern(fields);
            let walks = walks(fields, runtime, direction);
            quote! {
                let Self #pattern = self;
                #(#walks)*
                ::core::result::Result::Ok(())
            }
        }
        Body::Enum(variants) if variants.is_empty() => quote!(match *self {}),
        Body::Enum(variants) => {
            let arms = variants.iter().map(|variant| arm(variant, runtime, direction));
            let check = (direction == Direction::Attach).then(|| attach_variant(variants));
            quote! {
                #check
                match self {
                    #(#arms)*
                }
                ::core::result::Result::Ok(())
            }
        }
        // Does not pass validation.
        Body::Union => TokenStream::new(),
    }
}

/// Which variant the pipeline was when it was shared must be the one that was rebuilt.
fn attach_variant(variants: &[Variant]) -> TokenStream {
    let idents = variants.iter().map(|variant| variant.ident);
    let names = variants.iter().map(|variant| names::plain(variant.ident));
    quote! {
        __attacher.variant(match self {
            #(Self::#idents { .. } => #names,)*
        })?;
    }
}

fn arm(variant: &Variant, runtime: &Runtime, direction: Direction) -> TokenStream {
    let ident = variant.ident;
    let pattern = pattern(&variant.fields);
    let walks = walks(&variant.fields, runtime, direction);
    let name = names::plain(ident);
    let note = (direction == Direction::Collect).then(|| quote!(__collector.variant(#name);));
    quote! {
        Self::#ident #pattern => {
            #note
            #(#walks)*
        }
    }
}

/// Binds each field that is visited to a name of ours, so that no name of the user's comes near the generated code.
fn pattern(fields: &[Field]) -> TokenStream {
    let bindings = visited(fields).map(|(position, field)| {
        let member = &field.member;
        let binding = binding(position);
        quote!(#member: #binding)
    });
    quote!({ #(#bindings,)* .. })
}

fn walks(fields: &[Field], runtime: &Runtime, direction: Direction) -> Vec<TokenStream> {
    let walk = |(position, field): (usize, &Field)| {
        let leaves = match field.attrs.role() {
            Some(Role::Config | Role::Copy) => Leaves::CopiedTensor,
            Some(Role::Module) => Leaves::Modules,
            Some(Role::Skip) | None => Leaves::Found,
        };
        let walk = Walk { runtime, direction, leaves };
        let inside = walk.field(field.ty, &binding(position).into_token_stream());
        let cursor = walk.cursor();
        let name = field.name();
        quote! {
            #cursor.enter_field(#name);
            #inside
            #cursor.exit();
        }
    };
    visited(fields).map(walk).collect()
}

/// The fields that leave a trace in the arena, with their positions.
fn visited<'f, 'a>(fields: &'f [Field<'a>]) -> impl Iterator<Item = (usize, &'f Field<'a>)> {
    fields.iter().enumerate().filter(|(_, field)| field.is_visited())
}

fn binding(position: usize) -> Ident {
    format_ident!("__field{position}")
}
