//! Writes the walk over one field: an expression with one call for each container in the field's
//! type and one for each leaf.
//!
//! The runtime walks in both directions. The expression tells it where the leaves are, since a
//! generic function cannot find out which traits a leaf has.

use crate::names::blame;
use crate::shape::{Kind, Shape};
use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::Type;

/// How the treatment of a field's leaves is decided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// By the compiler, from the traits of the type.
    Found,
    /// By the user: every leaf is a burn module.
    Modules,
    /// By the user: the field is copied, whatever it holds.
    Copied,
}

/// The walk over a field. Its code stands where [`scope`](crate::names::Runtime::scope) holds.
pub(crate) fn field(ty: &Type, leaves: Leaves) -> TokenStream {
    if leaves == Leaves::Copied {
        return quote_spanned!(blame(ty)=> <#ty as __rzc::CopyField>::walk());
    }
    let shape = Shape::of(ty);
    let inside = inside(&shape, leaves);
    if !shape.is_container() {
        return inside;
    }
    // A container is wrapped once, at its outermost level: one without tensors is copied there.
    let new = if shape.is_plain() { quote!(plain) } else { quote!(new) };
    let copy = quote_spanned!(blame(ty)=> __rzc::SerdeProbe::<#ty>::START.pick());
    quote!(__rzc::Container::#new(#copy, #inside))
}

fn inside(shape: &Shape, leaves: Leaves) -> TokenStream {
    let ty = shape.ty;
    let span = blame(ty);
    match &shape.kind {
        // Foreign types do not pass validation, unless the field is skipped.
        Kind::Nothing | Kind::Foreign(_) => quote!(__rzc::Nothing),
        Kind::Leaf if leaves == Leaves::Modules => quote_spanned!(span=> <#ty as __rzc::ModuleField>::walk()),
        Kind::Leaf => {
            quote_spanned!(span=> __rzc::PipelineField::walk(__rzc::FieldKind::<#ty>::START.pick()))
        }
        Kind::List(item) => {
            let (item, of) = (inside(item, leaves), item.ty);
            quote_spanned!(span=> <<#ty as __rzc::PipelineList<#of>>::Walk as __rzc::Over>::over(#item))
        }
        Kind::Tuple(items) => {
            let items = items.iter().map(|item| inside(item, leaves));
            quote!((#(#items,)*))
        }
        Kind::Option(item) | Kind::Box(item) | Kind::Arc(item) => {
            let item = inside(item, leaves);
            quote_spanned!(span=> <<#ty as __rzc::PipelineContainer>::Walk as __rzc::Over>::over(#item))
        }
        Kind::Map(value) => {
            let value = inside(value, leaves);
            quote_spanned!(span=> <<#ty as __rzc::PipelineMap>::Key as __rzc::MapKey>::over(#value))
        }
    }
}
