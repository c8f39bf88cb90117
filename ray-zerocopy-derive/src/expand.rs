//! Fourth stage: writes the impls of a valid input.

use crate::ast::{Body, Field, Input, Variant};
use crate::attr::Role;
use crate::carried;
use crate::errors::Errors;
use crate::fallback;
use crate::names::{self, Runtime, blame, blame_path, generated};
use crate::walk::{self, Leaves};
use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{DeriveInput, Generics, Ident, Member, parse_quote};

/// The expansion of `#[derive(Pipeline)]`: the impls, or the errors and impls in their place.
pub(crate) fn derive(node: &DeriveInput) -> TokenStream {
    try_derive(node).unwrap_or_else(|error| fallback::derive(node, &error))
}

/// [`derive()`], with the errors as a value.
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

/// The generics, with every type parameter `'static`. The traits of the runtime require it of the
/// whole type, which is the same, so users need not write it.
pub(crate) fn static_parameters(generics: &Generics) -> Generics {
    let mut generics = generics.clone();
    let parameters: Vec<Ident> = generics.type_params().map(|parameter| parameter.ident.clone()).collect();
    if !parameters.is_empty() {
        let bounds = &mut generics.make_where_clause().predicates;
        bounds.extend(parameters.iter().map(|parameter| -> syn::WherePredicate { parse_quote!(#parameter: 'static) }));
    }
    generics
}

/// The direction of the walk: from the pipeline into the arena, over `&self`, or from the arena
/// into the skeleton, over `&mut self`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Collect,
    Attach,
}

fn pipeline(input: &Input, generics: &Generics, runtime: &Runtime) -> TokenStream {
    let ident = generated(input.ident);
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let lints = carried::lints(input.original);
    let collect = body(&input.data, runtime, Direction::Collect);
    let attach = body(&input.data, runtime, Direction::Attach);
    quote! {
        #[automatically_derived]
        #(#lints)*
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
            let lints = carried::lints(&field.original.attrs);
            // Errors in this code, such as a missing `init`, are reported at the config's type.
            let span = blame(ty);
            let runtime = runtime.at(span);
            quote_spanned! {span=>
                #(#lints)*
                let __config = <#ty as #runtime::CopyField>::config(__source, #name)?;
                #runtime::Rebuilt::<Self>::rebuilt(__config.init(__device))
            }
        }
        (None, Some(path)) => {
            let span = blame_path(&path.path);
            let rebuilt = runtime.at(span);
            let rebuilt = quote_spanned!(span=> #rebuilt::Rebuilt::<Self>::rebuilt(__init(__device)));
            quote! {
                let __init: fn(&#runtime::Device) -> _ = #path;
                #rebuilt
            }
        }
        (None, None) => return None,
    };
    let ident = generated(input.ident);
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let lints = carried::lints(input.original);
    Some(quote! {
        #[automatically_derived]
        #(#lints)*
        impl #impl_generics #runtime::Root for #ident #ty_generics #where_clause {
            fn rebuild(
                __source: &#runtime::Source<'_>,
                __device: &#runtime::Device,
            ) -> ::core::result::Result<Self, #runtime::LoadError> {
                #rebuild
            }
        }
    })
}

/// The body of `collect` or `attach`.
fn body(data: &Body, runtime: &Runtime, direction: Direction) -> TokenStream {
    let scope = runtime.scope();
    match data {
        Body::Struct(fields) if visited(fields).next().is_none() => quote!(::core::result::Result::Ok(())),
        Body::Struct(fields) => {
            let walks = walks(fields, direction, |_, field| {
                let member = member(field);
                match direction {
                    Direction::Collect => quote!(&self.#member),
                    Direction::Attach => quote!(&mut self.#member),
                }
            });
            quote! {
                #scope
                #(#walks)*
                ::core::result::Result::Ok(())
            }
        }
        Body::Enum(variants) if variants.is_empty() => quote!(match *self {}),
        Body::Enum(variants) => {
            let arms = variants.iter().map(|variant| arm(variant, direction));
            let check = (direction == Direction::Attach).then(|| attach_variant(variants));
            quote! {
                #scope
                #check
                match self {
                    #(#arms)*
                }
                ::core::result::Result::Ok(())
            }
        }
        // A union does not pass validation.
        Body::Union => TokenStream::new(),
    }
}

/// Checks that the rebuilt pipeline has the variant that was shared.
fn attach_variant(variants: &[Variant]) -> TokenStream {
    let idents = variants.iter().map(|variant| generated(variant.ident));
    let names = variants.iter().map(|variant| names::plain(variant.ident));
    quote! {
        __attacher.variant(match self {
            #(Self::#idents { .. } => #names,)*
        })?;
    }
}

fn arm(variant: &Variant, direction: Direction) -> TokenStream {
    let ident = generated(variant.ident);
    let lints = carried::lints(variant.attrs);
    let pattern = pattern(&variant.fields);
    let walks = walks(&variant.fields, direction, |position, _| binding(position).into_token_stream());
    let name = names::plain(variant.ident);
    let note = (direction == Direction::Collect).then(|| quote!(__collector.variant(#name);));
    quote! {
        #(#lints)*
        Self::#ident #pattern => {
            #note
            #(#walks)*
        }
    }
}

/// Binds each field that is visited to a name of the macro's, so that no name of the user's can
/// clash with the generated code.
fn pattern(fields: &[Field]) -> TokenStream {
    let bindings = visited(fields).map(|(position, field)| {
        let member = member(field);
        let binding = binding(position);
        quote!(#member: #binding)
    });
    quote!({ #(#bindings,)* .. })
}

fn member(field: &Field) -> Member {
    match &field.member {
        Member::Named(ident) => Member::Named(generated(ident)),
        Member::Unnamed(index) => Member::Unnamed(index.clone()),
    }
}

/// The walk over each field that is visited; `value` gives a reference to it.
fn walks(fields: &[Field], direction: Direction, value: impl Fn(usize, &Field) -> TokenStream) -> Vec<TokenStream> {
    let walk = |(position, field): (usize, &Field)| {
        let leaves = match field.attrs.role() {
            Some(Role::Config | Role::Copy) => Leaves::Copied,
            Some(Role::Module) => Leaves::Modules,
            Some(Role::Skip) | None => Leaves::Found,
        };
        let lints = carried::lints(&field.original.attrs);
        let walk = walk::field(field.ty, leaves);
        let value = value(position, field);
        let name = field.name();
        let span = blame(field.ty);
        let visit = match direction {
            Direction::Collect => quote_spanned! {span=>
                __rzc::Walk::collect_field(&__walk, #name, #value, __collector)?;
            },
            Direction::Attach => quote_spanned! {span=>
                __rzc::Walk::attach_field(&__walk, #name, #value, __attacher)?;
            },
        };
        quote! {
            #(#lints)*
            let __walk = #walk;
            #visit
        }
    };
    visited(fields).map(walk).collect()
}

/// The fields that are in the arena, with their positions.
fn visited<'f, 'a>(fields: &'f [Field<'a>]) -> impl Iterator<Item = (usize, &'f Field<'a>)> {
    fields.iter().enumerate().filter(|(_, field)| field.is_visited())
}

fn binding(position: usize) -> Ident {
    format_ident!("__field{position}")
}
