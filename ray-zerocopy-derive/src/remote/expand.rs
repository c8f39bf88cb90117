//! Fourth stage: writes the two types that call a block's methods, one call per task or into an
//! actor.

use super::ast::{Access, Block, Method};
use super::docs;
use crate::carried;
use crate::names::{self, Runtime, blame, generated};
use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{Attribute, Ident, Type};

/// The items that `#[remote]` adds to the block.
pub(crate) fn calls(block: &Block, methods: &[Method], on_swap: Option<&Ident>, runtime: &Runtime) -> TokenStream {
    let Block { ty, ident, .. } = block;
    let tasks = Ident::new(&format!("{ident}Tasks"), block.span());
    let actors = Ident::new(&format!("{ident}Actors"), block.span());
    let writer = Writer { block, runtime };

    let name = names::plain(ident);
    let tasks_type = writer.caller_type(&tasks, &format!(" Calls `{name}`'s methods, each call as one task."));
    let actors_type =
        writer.caller_type(&actors, &format!(" Calls `{name}`'s methods in an actor, which keeps its state."));

    let of_callers = |index: usize, method: &Method| {
        let taken = methods.iter().any(|other| one(method) == names::plain(other.ident));
        let one = method.batch.as_ref().filter(|_| !taken).map(|_| writer.one_row(index, method));
        let method = writer.method(index, method);
        quote!(#method #one)
    };
    let shared = methods.iter().enumerate().filter(|(_, method)| method.access == Access::Shared);
    let task_methods = shared.map(|(index, method)| of_callers(index, method));
    let actor_methods = methods.iter().enumerate().map(|(index, method)| of_callers(index, method));
    let remote_methods = methods.iter().enumerate().map(|(index, method)| writer.remote_method(index, method));
    // A method's own `where` clause may not hold here, where the type's parameters are generic.
    let listed = methods.iter().enumerate().filter(|(_, method)| method.where_clause.is_none());
    let listed = listed.map(|(index, method)| {
        let cfgs = carried::cfgs(method.attrs);
        let entry = match (&method.batch, method.stream) {
            (_, true) => quote!(of_stream),
            (Some(_), false) => quote!(of_batch),
            (None, false) => quote!(of),
        };
        quote!(#(#cfgs)* #runtime::MethodEntry::#entry::<#index, _, _>())
    });

    let streams = methods.iter().any(|method| method.stream).then(|| {
        quote!(
            const STREAMS: bool = true;
        )
    });

    let stateful = methods.iter().any(|method| method.access == Access::Exclusive).then(|| {
        quote!(
            const STATEFUL: bool = true;
        )
    });

    let on_swap = on_swap.map(|function| {
        quote!(
            fn on_swap() -> ::core::option::Option<fn(&mut Self, &mut Self)> {
                ::core::option::Option::Some(Self::#function)
            }
        )
    });

    let (impl_generics, ty_generics, where_clause) = block.generics.split_for_impl();
    let attributes = writer.attributes();
    quote_spanned! {block.span()=>
        #tasks_type

        #actors_type

        #[automatically_derived]
        #(#attributes)*
        impl #impl_generics #runtime::Remote for #ty #where_clause {
            type Tasks = #tasks #ty_generics;
            type Actors = #actors #ty_generics;
            const METHODS: &'static [#runtime::MethodEntry<Self>] = &[#(#listed),*];
            #streams
            #stateful
            #on_swap
        }

        #(#attributes)*
        impl #impl_generics #tasks #ty_generics #where_clause {
            #(#task_methods)*
        }

        #(#attributes)*
        impl #impl_generics #actors #ty_generics #where_clause {
            #(#actor_methods)*
        }

        #(#remote_methods)*
    }
}

struct Writer<'a> {
    block: &'a Block<'a>,
    runtime: &'a Runtime,
}

impl Writer<'_> {
    /// The attributes of every item that is generated from the block.
    fn attributes(&self) -> Vec<Attribute> {
        let attributes = &self.block.item.attrs;
        [carried::cfgs(attributes), carried::lints(attributes)].concat()
    }

    /// A newtype of `Caller` for the pipeline's type.
    fn caller_type(&self, name: &Ident, doc: &str) -> TokenStream {
        let runtime = self.runtime;
        let ty = self.block.ty;
        let (impl_generics, ty_generics, where_clause) = self.block.generics.split_for_impl();
        let attributes = self.attributes();
        quote_spanned! {self.block.span()=>
            #[doc = #doc]
            #(#attributes)*
            pub struct #name #impl_generics (#runtime::Caller, ::core::marker::PhantomData<fn() -> #ty>) #where_clause;

            #[automatically_derived]
            #(#attributes)*
            impl #impl_generics ::core::convert::From<#runtime::Caller> for #name #ty_generics #where_clause {
                fn from(__caller: #runtime::Caller) -> Self {
                    Self(__caller, ::core::marker::PhantomData)
                }
            }
        }
    }

    /// The method as its caller sees it.
    fn method(&self, index: usize, method: &Method) -> TokenStream {
        let runtime = self.runtime;
        let ty = self.block.ty;
        let Method { output, where_clause, batch, stream, .. } = method;
        let ident = generated(method.ident);
        let (call, handle) = match (batch, stream) {
            (_, true) => (quote!(remote_stream), quote!(Streaming)),
            (Some(_), false) => (quote!(remote_batch), quote!(Pending)),
            (None, false) => (quote!(remote), quote!(Pending)),
        };
        let original = format!("{}::{}", names::plain(self.block.ident), names::plain(&ident));
        let docs = docs::summary(method.attrs, &original);
        let attrs = &method.attrs;
        let attrs = [carried::cfgs(attrs), carried::deprecated(attrs), carried::lints(attrs)].concat();
        let names: Vec<_> = method.arguments.iter().map(|argument| generated(argument.ident)).collect();
        let types = method.arguments.iter().map(|argument| &argument.ty);
        let arguments = pairs(names.iter());
        quote! {
            #docs
            #(#attrs)*
            pub fn #ident(&self, #(#names: #types),*) -> #runtime::#handle<#output> #where_clause {
                self.0.#call::<#ty, #index, _, _>(#arguments)
            }
        }
    }

    /// The method as its caller sees it, for a single row.
    fn one_row(&self, index: usize, method: &Method) -> TokenStream {
        let runtime = self.runtime;
        let ty = self.block.ty;
        let Method { output, where_clause, .. } = method;
        let ident = one(method);
        let original = names::plain(method.ident);
        let docs = format!(" [`{original}`](Self::{original}) with a single row, and its result.");
        let attrs = &method.attrs;
        let attrs = [carried::cfgs(attrs), carried::deprecated(attrs), carried::lints(attrs)].concat();
        let names: Vec<_> = method.arguments.iter().map(|argument| generated(argument.ident)).collect();
        let (Some(first), Some(first_name)) = (method.arguments.first(), names.first()) else { return quote!() };
        let (first, rest_names) = (&first.ty, &names[1..]);
        let rest_types = method.arguments.iter().skip(1).map(|argument| &argument.ty);
        let rest = pairs(rest_names.iter());
        quote! {
            #[doc = #docs]
            #(#attrs)*
            pub fn #ident(
                &self,
                #first_name: <#first as #runtime::Rows>::Row,
                #(#rest_names: #rest_types),*
            ) -> #runtime::Pending<<#output as #runtime::RowsResult>::Row> #where_clause {
                self.0.remote_row::<#ty, #index, _, _>((<#first as #runtime::Rows>::one(#first_name), #rest))
            }
        }
    }

    /// The impl for a method whose calls can be put together.
    fn batch_method(
        &self,
        index: usize,
        method: &Method,
        generics: &syn::Generics,
        types: &TokenStream,
    ) -> TokenStream {
        let (Some(batch), Some(first)) = (&method.batch, method.arguments.first()) else { return quote!() };
        let runtime = self.runtime;
        let ty = self.block.ty;
        let (output, first) = (&method.output, &first.ty);
        let (impl_generics, _, where_clause) = generics.split_for_impl();
        let attributes = [self.attributes(), carried::lints(method.attrs)].concat();
        let cfgs = carried::cfgs(method.attrs);
        let (row, cost) = match &batch.cost {
            Some(cost) => (quote!(__row), quote!(#cost(__row))),
            None => (quote!(_), quote!(1)),
        };
        quote_spanned! {blame(first)=>
            #(#cfgs)*
            #[automatically_derived]
            #(#attributes)*
            impl #impl_generics #runtime::BatchMethod<#index, #types, #output> for #ty #where_clause {
                fn cost(#row: &<#first as #runtime::Rows>::Row) -> usize {
                    #cost
                }
            }
        }
    }

    /// The impl that describes the method to the runtime.
    fn remote_method(&self, index: usize, method: &Method) -> TokenStream {
        let runtime = self.runtime;
        let ty = self.block.ty;
        let Method { output, .. } = method;
        let ident = generated(method.ident);
        let mut generics = self.block.generics.clone();
        if let Some(clause) = &method.where_clause {
            generics.make_where_clause().predicates.extend(clause.predicates.clone());
        }
        let (impl_generics, _, where_clause) = generics.split_for_impl();
        let name = names::plain(&ident);
        let doc = docs::whole(method.attrs);
        let exclusive = method.access == Access::Exclusive;
        let parameters = method.arguments.iter().map(|argument| names::plain(argument.ident));
        let locals: Vec<Ident> =
            (0..method.arguments.len()).map(|position| format_ident!("__argument{position}")).collect();
        let local_pairs = pairs(locals.iter());
        let types = pairs(method.arguments.iter().map(|argument| &argument.ty));
        let wires = pairs(method.arguments.iter().map(|argument| wire(&argument.ty)));
        let result = wire(output);
        let scope = runtime.scope();
        let attributes = [self.attributes(), carried::lints(method.attrs)].concat();
        let cfgs = carried::cfgs(method.attrs);
        // The compiler reports each call of a deprecated method, also in generated code. So a
        // method under `forbid(deprecated)` cannot be both deprecated and remote.
        let deprecated = (!carried::deprecated(method.attrs).is_empty()).then(|| quote!(#[allow(deprecated)]));
        let batch = self.batch_method(index, method, &generics, &types);
        let (remote, run) = if method.stream {
            // Where the compiler reports that the type is not an iterator.
            let run = quote_spanned! {blame(output)=>
                fn run(&mut self, #local_pairs: #types, __each: &mut dyn ::core::ops::FnMut(#output) -> bool) {
                    for __item in <#ty>::#ident(self, #(#locals),*) {
                        if !__each(__item) {
                            break;
                        }
                    }
                }
            };
            (quote!(RemoteStream), run)
        } else {
            let run = quote! {
                fn run(&mut self, #local_pairs: #types) -> #output {
                    <#ty>::#ident(self, #(#locals),*)
                }
            };
            (quote!(RemoteMethod), run)
        };
        quote! {
            #batch

            #(#cfgs)*
            #deprecated
            #[automatically_derived]
            #(#attributes)*
            impl #impl_generics #runtime::#remote<#index, #types, #output> for #ty #where_clause {
                const SOURCE: #runtime::MethodSource = #runtime::MethodSource {
                    name: #name,
                    doc: #doc,
                    exclusive: #exclusive,
                    parameters: &[#(#parameters),*],
                };

                fn wire() -> #runtime::MethodWire<#types, #output> {
                    #scope
                    (#wires, #result)
                }

                #run
            }
        }
    }
}

/// The name of a method that takes a single row.
fn one(method: &Method) -> Ident {
    format_ident!("{}_one", names::plain(method.ident), span = method.ident.span())
}

/// The expression for how a type is sent to another process. Needs [`Runtime::scope`] around it.
fn wire(ty: &Type) -> TokenStream {
    quote_spanned!(blame(ty)=> __rzc::Remotable::wire(__rzc::WireKind::<#ty>::START.pick()))
}

/// `(a, (b, ()))` of `a` and `b`: the runtime has one impl for any number of arguments.
fn pairs<T: quote::ToTokens>(items: impl DoubleEndedIterator<Item = T>) -> TokenStream {
    items.rfold(quote!(()), |rest, item| quote!((#item, #rest)))
}
