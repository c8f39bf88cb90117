//! Fourth stage: writes the two types that call a block's methods, one call per task or into an actor.

use super::ast::{Access, Block, Method};
use super::docs;
use crate::expand::impl_attributes;
use crate::names::{self, Runtime, blame};
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Attribute, Ident, Type};

/// Everything that `#[remote]` adds to the block.
pub(crate) fn calls(block: &Block, methods: &[Method], runtime: &Runtime) -> TokenStream {
    let Block { ty, ident, .. } = block;
    let tasks = format_ident!("{ident}Tasks");
    let actors = format_ident!("{ident}Actors");
    let writer = Writer { block, runtime, actors: &actors };

    let name = names::plain(ident);
    let tasks_type = writer.caller_type(&tasks, &format!(" Calls `{name}`'s methods, each call as one task."));
    let actors_type =
        writer.caller_type(&actors, &format!(" Calls `{name}`'s methods in an actor, which keeps its state."));

    let shared = methods.iter().filter(|method| method.access == Access::Shared);
    let task_methods = shared.map(|method| writer.method(method));
    let actor_methods = methods.iter().map(|method| writer.method(method));
    let hidden = methods.iter().map(|method| writer.hidden(method));
    // A clause of a method's own may not hold here, where the type is any.
    let listed = methods.iter().filter(|method| method.where_clause.is_none()).map(|method| writer.listed(method));

    let (impl_generics, ty_generics, where_clause) = block.generics.split_for_impl();
    let cfgs = cfgs(&block.item.attrs);
    let attributes = impl_attributes();
    let lints = lints();
    quote_spanned! {block.span()=>
        #tasks_type

        #actors_type

        #(#cfgs)*
        #attributes
        impl #impl_generics #runtime::Remote for #ty #where_clause {
            type Tasks = #tasks #ty_generics;
            type Actors = #actors #ty_generics;

            fn methods() -> ::std::vec::Vec<#runtime::MethodInfo<Self>> {
                #[allow(unused_mut, reason = "a block may have no methods")]
                let mut __methods = ::std::vec::Vec::new();
                #(#listed)*
                __methods
            }
        }

        #(#cfgs)*
        #lints
        impl #impl_generics #tasks #ty_generics #where_clause {
            #(#task_methods)*
        }

        #(#cfgs)*
        #lints
        impl #impl_generics #actors #ty_generics #where_clause {
            #(#actor_methods)*
            #(#hidden)*
        }
    }
}

struct Writer<'a> {
    block: &'a Block<'a>,
    runtime: &'a Runtime,
    actors: &'a Ident,
}

impl Writer<'_> {
    /// A type that is a caller with the pipeline's type.
    fn caller_type(&self, name: &Ident, doc: &str) -> TokenStream {
        let runtime = self.runtime;
        let ty = self.block.ty;
        let (impl_generics, ty_generics, where_clause) = self.block.generics.split_for_impl();
        let cfgs = cfgs(&self.block.item.attrs);
        let attributes = impl_attributes();
        let lints = lints();
        quote_spanned! {self.block.span()=>
            #(#cfgs)*
            #[doc = #doc]
            #lints
            pub struct #name #impl_generics (#runtime::Caller, ::core::marker::PhantomData<fn() -> #ty>) #where_clause;

            #(#cfgs)*
            #attributes
            impl #impl_generics ::core::convert::From<#runtime::Caller> for #name #ty_generics #where_clause {
                fn from(__caller: #runtime::Caller) -> Self {
                    Self(__caller, ::core::marker::PhantomData)
                }
            }
        }
    }

    /// The method as its caller sees it.
    fn method(&self, method: &Method) -> TokenStream {
        let runtime = self.runtime;
        let Method { ident, output, where_clause, .. } = method;
        let docs = docs::summary(method.attrs, &format!("{}::{}", names::plain(self.block.ident), names::plain(ident)));
        let attrs = method
            .attrs
            .iter()
            .filter(|attribute| ["cfg", "deprecated"].iter().any(|copied| attribute.path().is_ident(copied)));
        let names: Vec<_> = method.arguments.iter().map(|argument| argument.ident).collect();
        let types = method.arguments.iter().map(|argument| &argument.ty);
        let actors = self.actors_path();
        let call = call_name(ident);
        quote! {
            #docs
            #(#attrs)*
            pub fn #ident(&self, #(#names: #types),*) -> #runtime::Pending<#output> #where_clause {
                #actors::#call(&self.0, #(#names),*)
            }
        }
    }

    /// What both of a method's callers share, and the handler that runs in the worker.
    fn hidden(&self, method: &Method) -> TokenStream {
        let call = self.call(method);
        let handler = self.handler(method);
        quote!(#call #handler)
    }

    fn call(&self, method: &Method) -> TokenStream {
        let runtime = self.runtime;
        let ty = self.block.ty;
        let Method { ident, output, where_clause, .. } = method;
        let cfgs = cfgs(method.attrs);
        let name = names::plain(ident);
        let locals = locals(method);
        let types: Vec<_> = method.arguments.iter().map(|argument| &argument.ty).collect();
        let wires = types.iter().map(|ty| self.wire(ty));
        let result = self.wire(output);
        let actors = self.actors_path();
        let call = call_name(ident);
        let handler = handler_name(ident);
        quote! {
            #(#cfgs)*
            #[doc(hidden)]
            fn #call(__caller: &#runtime::Caller, #(#locals: #types),*) -> #runtime::Pending<#output> #where_clause {
                let __method = #runtime::Method::new::<#ty>(#name, #actors::#handler);
                let __put = move |__writer: &mut #runtime::Writer| -> ::core::result::Result<(), #runtime::WireError> {
                    #(
                        let __ops = #wires;
                        (__ops.put)(&#locals, __writer)?;
                    )*
                    ::core::result::Result::Ok(())
                };
                let __ops = #result;
                __caller.call(__method, __put, __ops.take)
            }
        }
    }

    fn handler(&self, method: &Method) -> TokenStream {
        let runtime = self.runtime;
        let ty = self.block.ty;
        let Method { ident, output, where_clause, .. } = method;
        let cfgs = cfgs(method.attrs);
        let locals = locals(method);
        let types: Vec<_> = method.arguments.iter().map(|argument| &argument.ty).collect();
        let wires = types.iter().map(|ty| self.wire(ty));
        let result = self.wire(output);
        let target = match method.access {
            Access::Shared => quote!(&*__target),
            Access::Exclusive => quote!(__target),
        };
        let handler = handler_name(ident);
        quote! {
            #(#cfgs)*
            #[doc(hidden)]
            fn #handler(
                __target: &mut #ty,
                __reader: &mut #runtime::Reader,
                __writer: &mut #runtime::Writer,
            ) -> ::core::result::Result<(), #runtime::WireError>
            #where_clause
            {
                #(
                    let __ops = #wires;
                    let #locals: #types = (__ops.take)(__reader)?;
                )*
                let __result: #output = <#ty>::#ident(#target, #(#locals),*);
                let __ops = #result;
                (__ops.put)(&__result, __writer)
            }
        }
    }

    /// The method's entry in the table.
    fn listed(&self, method: &Method) -> TokenStream {
        let runtime = self.runtime;
        let Method { ident, output, .. } = method;
        let cfgs = cfgs(method.attrs);
        let name = names::plain(ident);
        let doc = docs::whole(method.attrs);
        let exclusive = method.access == Access::Exclusive;
        let names = method.arguments.iter().map(|argument| names::plain(argument.ident));
        let wires = method.arguments.iter().map(|argument| self.wire(&argument.ty));
        let result = self.wire(output);
        let actors = self.actors_path();
        let handler = handler_name(ident);
        quote! {
            #(#cfgs)*
            __methods.push(#runtime::MethodInfo {
                name: #name,
                doc: #doc,
                exclusive: #exclusive,
                parameters: ::std::vec![#(#runtime::Parameter { name: #names, schema: #wires.schema }),*],
                result: #result.schema,
                handler: #actors::#handler,
            });
        }
    }

    /// How a type crosses to another process.
    fn wire(&self, ty: &Type) -> TokenStream {
        let runtime = self.runtime;
        // The type is named outside the scope of the import, as with the derive's leaves.
        quote_spanned! {blame(ty)=> {
            let __wire = #runtime::wire::Wire::<#ty>::NEW;
            {
                use #runtime::wire::*;
                (&&&&__wire).ops()
            }
        }}
    }

    fn actors_path(&self) -> TokenStream {
        let actors = self.actors;
        let (_, ty_generics, _) = self.block.generics.split_for_impl();
        let turbofish = ty_generics.as_turbofish();
        quote!(#actors #turbofish)
    }
}

/// A caller's methods mention what the block mentions, however private, and nobody has to call them all.
fn lints() -> TokenStream {
    quote! {
        #[allow(
            dead_code,
            deprecated,
            missing_docs,
            missing_debug_implementations,
            private_bounds,
            private_interfaces,
            unreachable_pub,
            unused_qualifications,
            rustdoc::broken_intra_doc_links,
            clippy::pedantic,
            clippy::nursery,
            clippy::absolute_paths,
            clippy::too_many_arguments
        )]
    }
}

/// Names of ours for the arguments, which the user may have called anything.
fn locals(method: &Method) -> Vec<Ident> {
    (0..method.arguments.len()).map(|position| format_ident!("__argument{position}")).collect()
}

fn call_name(method: &Ident) -> Ident {
    Ident::new(&format!("__rzc_call_{}", names::plain(method)), Span::call_site())
}

fn handler_name(method: &Ident) -> Ident {
    Ident::new(&format!("__rzc_handle_{}", names::plain(method)), Span::call_site())
}

fn cfgs(attributes: &[Attribute]) -> Vec<&Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).collect()
}
