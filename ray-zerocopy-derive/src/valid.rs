//! Third stage: semantic checks. Each error is on the tokens that cause it.

use crate::ast::{Body, Field, Input};
use crate::attr::Role;
use crate::errors::Errors;
use crate::shape::Shape;
use std::collections::HashMap;
use syn::LitStr;

impl Input<'_> {
    pub(crate) fn validate(&self, errors: &mut Errors) {
        for lifetime in self.generics.lifetimes() {
            let name = &lifetime.lifetime;
            errors.at(
                name,
                format!("a pipeline is rebuilt in other processes and cannot borrow: own the data instead of `{name}`"),
            );
        }
        match &self.data {
            Body::Struct(fields) => {
                validate_fields(fields, errors);
                self.validate_rebuild(fields, errors);
            }
            Body::Enum(variants) => {
                for variant in variants {
                    validate_fields(&variant.fields, errors);
                    for (_, config) in roles(&variant.fields, Role::Config) {
                        errors.at(
                            config,
                            "only a struct has a config, since every variant would need it: give the enum \
                             `#[pipeline(init = path)]`, or nothing if a struct around it rebuilds it",
                        );
                    }
                }
            }
            Body::Union => errors.at(
                self.ident,
                "a union does not record which of its fields is active and cannot be a pipeline: use an enum",
            ),
        }
    }

    /// Checks that there is at most one way to rebuild the pipeline.
    fn validate_rebuild(&self, fields: &[Field], errors: &mut Errors) {
        let configs = roles(fields, Role::Config);
        for (field, config) in configs.iter().skip(1) {
            errors.at(
                config,
                format!("a pipeline has one config: copy `{}` with `#[pipeline(copy)]` instead", field.name()),
            );
        }
        if let (Some(init), Some((field, _))) = (&self.attrs.init, configs.first()) {
            errors.at(
                init,
                format!(
                    "`init` and the config field `{}` both say how to rebuild the pipeline: keep one",
                    field.name()
                ),
            );
        }
    }
}

fn validate_fields(fields: &[Field], errors: &mut Errors) {
    for field in fields {
        validate_options(field, errors);
        if field.is_visited() {
            validate_type(field, errors);
        }
    }
    validate_names(fields, errors);
}

fn validate_options(field: &Field, errors: &mut Errors) {
    if let [(_, first), others @ ..] = field.attrs.roles.as_slice() {
        for (_, other) in others {
            errors.at(other, format!("`{first}` and `{other}` exclude each other: keep one"));
        }
    }
    if let Some(rename) = &field.attrs.rename {
        if field.attrs.role() == Some(Role::Skip) {
            errors.at(rename, "a field that is skipped has no name in the arena: remove `rename` or `skip`");
        }
        validate_rename(rename, errors);
    }
}

/// Checks a name. Names are segments of paths like `heads["fr"].2.weight`, which must stay
/// unambiguous.
fn validate_rename(rename: &LitStr, errors: &mut Errors) {
    let name = rename.value();
    if name.is_empty() {
        errors.at(rename, "a field needs a name that is not empty");
    } else if name.contains(['.', '[', ']', '"']) || name.contains(char::is_control) {
        errors.at(
            rename,
            "a name takes no `.`, `[`, `]`, `\"` or control characters, which separate the parts of a path",
        );
    }
}

fn validate_type(field: &Field, errors: &mut Errors) {
    for (what, ty) in Shape::of(field.ty).foreign() {
        errors.at(
            ty,
            format!(
                "field `{}` holds {what}, which another process cannot own: {}, or leave the field out with \
                 `#[pipeline(skip)]`",
                field.name(),
                way_out(what),
            ),
        );
    }
}

fn way_out(what: &str) -> &'static str {
    match what {
        "a reference" => "own the value (`String` for `&str`, `Vec<T>` for `&[T]`)",
        "a raw pointer" => "own what it points to (`Box<T>`, `Vec<T>`)",
        "a function pointer" => "name the choices in an enum",
        _ => "hold a concrete type, or an enum of the possible types",
    }
}

fn validate_names(fields: &[Field], errors: &mut Errors) {
    let mut seen: HashMap<String, &Field> = HashMap::new();
    for field in fields.iter().filter(|field| field.is_visited()) {
        let name = field.name();
        let message = format!("two fields are called `{name}`: rename one of them differently");
        match seen.get(&name).map(|earlier| &earlier.attrs.rename) {
            None => {
                seen.insert(name, field);
            }
            // The error is on the renamed field, or on the later one if both are renamed.
            Some(earlier) => match field.attrs.rename.as_ref().or(earlier.as_ref()) {
                Some(rename) => errors.at(rename, message),
                None => errors.at(field.original, message),
            },
        }
    }
}

/// The fields with a role, and where it was given.
fn roles<'f, 'a>(fields: &'f [Field<'a>], role: Role) -> Vec<(&'f Field<'a>, &'f syn::Ident)> {
    let given = fields.iter().filter_map(|field| {
        let (_, ident) = field.attrs.roles.iter().find(|(given, _)| *given == role)?;
        Some((field, ident))
    });
    given.collect()
}
