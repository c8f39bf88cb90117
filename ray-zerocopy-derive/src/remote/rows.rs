//! Whether the argument and the result of a method under `#[remote(batch)]` can have rows.
//!
//! The compiler decides that by traits, and reports each place where a trait is missing. So types
//! that certainly have no rows are reported here, once.

use super::ast::Argument;
use super::attr::BatchOption;
use crate::errors::Errors;
use syn::{GenericArgument, PathArguments, Type};

/// Names of types without rows.
const WITHOUT: &[&str] = &[
    "String", "bool", "char", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize",
    "f32", "f64", "Option", "Box", "HashMap", "BTreeMap",
];

/// Checks the first argument and the result. Returns `false` after an error.
pub(crate) fn check(
    batch: &BatchOption,
    arguments: &[Option<Argument>],
    output: Option<&Type>,
    errors: &mut Errors,
) -> bool {
    let Some(first) = arguments.first() else {
        let message = "such a method needs an argument with rows: a `Vec`, or a tensor";
        errors.push(syn::Error::new(batch.span, message));
        return false;
    };
    let mut valid = true;
    if let Some(first) = first
        && !may_have_rows(&first.ty)
    {
        errors.at(
            &first.ty,
            "the first argument of a method under `#[remote(batch)]` has a row for each call: take a `Vec` or a tensor",
        );
        valid = false;
    }
    if let Some(output) = output
        && !may_be_divided(output)
    {
        errors.at(
            output,
            "a method under `#[remote(batch)]` returns one row for each row of its first argument: a `Vec`, a tensor, a \
             tuple of them, or a `Result` of that",
        );
        valid = false;
    }
    valid
}

fn may_have_rows(ty: &Type) -> bool {
    match ty {
        Type::Path(path) => {
            path.path.segments.last().is_some_and(|last| !WITHOUT.iter().any(|name| last.ident == name))
        }
        Type::Group(group) => may_have_rows(&group.elem),
        Type::Paren(paren) => may_have_rows(&paren.elem),
        Type::Macro(_) => true,
        _ => false,
    }
}

/// A `Result` in a tuple would not be an error of the method.
fn is_result(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Result"))
}

fn may_be_divided(ty: &Type) -> bool {
    match ty {
        Type::Tuple(tuple) => {
            (2..=3).contains(&tuple.elems.len())
                && tuple.elems.iter().all(|elem| may_have_rows(elem) && !is_result(elem))
        }
        Type::Group(group) => may_be_divided(&group.elem),
        Type::Paren(paren) => may_be_divided(&paren.elem),
        Type::Path(path) => match path.path.segments.last() {
            Some(last) if last.ident == "Result" => match &last.arguments {
                PathArguments::AngleBracketed(arguments) => match arguments.args.first() {
                    Some(GenericArgument::Type(value)) => may_be_divided(value),
                    _ => true,
                },
                _ => true,
            },
            _ => may_have_rows(ty),
        },
        _ => may_have_rows(ty),
    }
}
