//! Writes the walk over one field: down through its containers to the leaves, for collecting and for attaching.
//!
//! The two directions must visit the same leaves under the same paths, so they are written once.

use crate::names::{Runtime, blame};
use crate::shape::{Kind, Shape};
use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Index, Type};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the pipeline into the arena, over `&self`.
    Collect,
    /// From the arena into the skeleton, over `&mut self`.
    Attach,
}

/// Who says what a leaf is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// The compiler, by the traits the type has.
    Found,
    /// The user: every leaf is a burn module.
    Modules,
    /// The user: the field is copied as a whole, whatever it is made of.
    CopiedTensor,
}

pub(crate) struct Walk<'a> {
    pub runtime: &'a Runtime,
    pub direction: Direction,
    pub leaves: Leaves,
}

impl Walk<'_> {
    /// The walk over a field; `value` is a reference to it, exclusive when attaching.
    pub(crate) fn field(&self, ty: &Type, value: &TokenStream) -> TokenStream {
        if self.leaves == Leaves::CopiedTensor {
            return self.leaf(ty, value);
        }
        let shape = Shape::of(ty);
        if shape.is_container() { self.container(&shape, value) } else { self.inside(&shape, value) }
    }

    /// A container is wrapped once, at its outermost level: one without tensors is copied as a whole, so that its
    /// length and its keys travel too.
    fn container(&self, shape: &Shape, value: &TokenStream) -> TokenStream {
        let ty = shape.ty;
        let whole = self.whole(ty);
        let elements = self.inside(shape, value);
        match self.direction {
            Direction::Attach => quote! {
                let __whole = #whole;
                if !__attacher.copy_whole::<#ty>(__whole, #value)? {
                    #elements
                }
            },
            Direction::Collect => {
                let elements = if shape.is_plain() {
                    // No leaf holds a tensor: they are only of use if the whole cannot be copied, as with `[f32; 64]`.
                    quote!(if ::core::option::Option::is_none(&__whole) { #elements })
                } else {
                    elements
                };
                quote! {
                    let __whole = #whole;
                    let __mark = __collector.begin_container();
                    #elements
                    __collector.end_container::<#ty>(__mark, __whole, #value)?;
                }
            }
        }
    }

    fn inside(&self, shape: &Shape, value: &TokenStream) -> TokenStream {
        match &shape.kind {
            // Foreign types do not pass validation, unless the field is skipped.
            Kind::Nothing | Kind::Foreign(_) => TokenStream::new(),
            Kind::Leaf => self.leaf(shape.ty, value),
            Kind::List(item) => self.list(shape.ty, item, value),
            Kind::Tuple(items) => self.tuple(items, value),
            Kind::Option(item) => {
                let inside = self.inside(item, &quote!(__item));
                quote! {
                    if let ::core::option::Option::Some(__item) = #value {
                        #inside
                    }
                }
            }
            Kind::Box(item) => {
                let inside = self.inside(item, &quote!(__item));
                let borrow = self.pick(quote!(&**#value), quote!(&mut **#value));
                quote! {
                    let __item = #borrow;
                    #inside
                }
            }
            Kind::Arc(item) => {
                let runtime = self.runtime;
                let inside = self.inside(item, &quote!(__item));
                let borrow = self.pick(quote!(&**#value), quote!(#runtime::unshare(#value, &*__attacher)?));
                quote! {
                    let __item = #borrow;
                    #inside
                }
            }
            Kind::Map(item) => self.map(shape.ty, item, value),
        }
    }

    fn list(&self, ty: &Type, item: &Shape, value: &TokenStream) -> TokenStream {
        let cursor = self.cursor();
        let inside = self.inside(item, &quote!(__item));
        let span = blame(ty);
        let items = self.pick(quote_spanned!(span=> #value.iter()), quote_spanned!(span=> #value.iter_mut()));
        quote! {
            for (__index, __item) in ::core::iter::Iterator::enumerate(#items) {
                #cursor.enter_index(__index);
                #inside
                #cursor.exit();
            }
        }
    }

    fn tuple(&self, items: &[Shape], value: &TokenStream) -> TokenStream {
        let cursor = self.cursor();
        let items = items.iter().enumerate().map(|(position, item)| {
            let member = Index::from(position);
            let inside = self.inside(item, &quote!(__item));
            let borrow = self.pick(quote!(&#value.#member), quote!(&mut #value.#member));
            quote! {
                #cursor.enter_index(#position);
                {
                    let __item = #borrow;
                    #inside
                }
                #cursor.exit();
            }
        });
        quote!(#(#items)*)
    }

    fn map(&self, ty: &Type, item: &Shape, value: &TokenStream) -> TokenStream {
        let cursor = self.cursor();
        let inside = self.inside(item, &quote!(__item));
        let span = blame(ty);
        let runtime = self.runtime.at(span);
        let entries = self.pick(quote_spanned!(span=> entries), quote_spanned!(span=> entries_mut));
        let entries = quote_spanned!(span=> #runtime::#entries::<#ty>(#value)?);
        quote! {
            for (__key, __item) in #entries {
                #cursor.enter_key(&*__key);
                #inside
                #cursor.exit();
            }
        }
    }

    fn leaf(&self, ty: &Type, value: &TokenStream) -> TokenStream {
        let runtime = self.runtime;
        let cursor = self.cursor();
        let operation = self.pick(quote!(collect), quote!(attach));
        let span = blame(ty);
        let operations = match self.leaves {
            // The type is named outside the scope of the import, where a type of the user's called like one of the
            // runtime's traits would be shadowed.
            Leaves::Found => quote_spanned! {span=> {
                let __leaf = #runtime::leaf::Leaf::<#ty>::NEW;
                {
                    use #runtime::leaf::*;
                    (&&&&&__leaf).ops()
                }
            }},
            Leaves::Modules => quote_spanned!(span=> #runtime::leaf::module::<#ty>()),
            Leaves::CopiedTensor => quote_spanned!(span=> #runtime::leaf::copy::<#ty>()),
        };
        quote! {
            let __ops = #operations;
            (__ops.#operation)(#value, #cursor)?;
        }
    }

    /// How to copy a container as a whole, if it can be.
    fn whole(&self, ty: &Type) -> TokenStream {
        let runtime = self.runtime;
        quote_spanned! {blame(ty)=> {
            let __type = #runtime::whole::Whole::<#ty>::NEW;
            {
                use #runtime::whole::*;
                (&&__type).copy()
            }
        }}
    }

    /// The collector or the attacher, which keeps the path.
    pub(crate) fn cursor(&self) -> TokenStream {
        self.pick(quote!(__collector), quote!(__attacher))
    }

    fn pick(&self, collect: TokenStream, attach: TokenStream) -> TokenStream {
        match self.direction {
            Direction::Collect => collect,
            Direction::Attach => attach,
        }
    }
}
