//! The type of the items of a method under `#[remote(stream)]`.

use crate::errors::Errors;
use crate::names::blame;
use proc_macro2::Span;
use syn::punctuated::Punctuated;
use syn::{GenericArgument, PathArguments, ReturnType, Token, Type, TypeParamBound, parse_quote_spanned};

/// Traits whose associated type `Item` is that of the items.
const TRAITS: &[&str] = &["Iterator", "IntoIterator", "DoubleEndedIterator", "ExactSizeIterator", "FusedIterator"];

/// The type of the items that a method returns, under an option at `option`. Returns `None` after an error.
pub(crate) fn item(output: &ReturnType, option: Span, errors: &mut Errors) -> Option<Type> {
    let message = "a method under `#[remote(stream)]` returns an iterator: `impl Iterator<Item = T>`, `Box<dyn Iterator<Item \
                   = T>>`, or a type that implements `IntoIterator`";
    match output {
        ReturnType::Type(_, ty) if is_result(ty) => {
            errors.at(
                ty,
                "a method under `#[remote(stream)]` returns the iterator itself: make the items a `Result`, \
                 `impl Iterator<Item = Result<T, E>>`",
            );
            None
        }
        ReturnType::Type(_, ty) => of_type(ty).or_else(|| {
            errors.at(ty, message);
            None
        }),
        ReturnType::Default => {
            errors.push(syn::Error::new(option, message));
            None
        }
    }
}

fn is_result(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Result"))
}

fn of_type(ty: &Type) -> Option<Type> {
    match ty {
        Type::ImplTrait(ty) => of_bounds(&ty.bounds),
        Type::TraitObject(ty) => of_bounds(&ty.bounds),
        Type::Group(group) => of_type(&group.elem),
        Type::Paren(paren) => of_type(&paren.elem),
        Type::Path(path) => {
            // `Box<dyn Iterator<Item = T>>` may borrow, so the type itself is not named elsewhere.
            let boxed =
                path.path.segments.last().filter(|last| last.ident == "Box").and_then(|last| match &last.arguments {
                    PathArguments::AngleBracketed(arguments) => arguments.args.first(),
                    _ => None,
                });
            match boxed {
                Some(GenericArgument::Type(ty @ Type::TraitObject(_))) => of_type(ty),
                _ => Some(parse_quote_spanned!(blame(ty)=> <#ty as ::core::iter::IntoIterator>::Item)),
            }
        }
        _ => None,
    }
}

fn of_bounds(bounds: &Punctuated<TypeParamBound, Token![+]>) -> Option<Type> {
    bounds.iter().find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else { return None };
        let last = bound.path.segments.last().filter(|last| TRAITS.iter().any(|name| last.ident == name))?;
        let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
        arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::AssocType(item) if item.ident == "Item" => Some(item.ty.clone()),
            _ => None,
        })
    })
}
