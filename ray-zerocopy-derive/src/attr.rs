//! First stage: reads `#[pipeline(...)]`.
//!
//! Knows the options and where each is allowed, not which of them exclude each other: see
//! [`crate::valid`].

use crate::errors::Errors;
use proc_macro2::Ident;
use quote::ToTokens;
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ExprLit, ExprPath, Lit, LitStr, Meta, Path, Token};

const ON_TYPE: &str = "`init = path` and `crate = \"path\"`";
const ON_FIELD: &str = "`config`, `module`, `copy`, `skip` and `rename = \"name\"`";

/// `#[pipeline(...)]` above the struct or enum.
#[derive(Default)]
pub(crate) struct TypeAttrs {
    pub krate: Option<Path>,
    pub init: Option<ExprPath>,
}

/// `#[pipeline(...)]` on a field.
#[derive(Default)]
pub(crate) struct FieldAttrs {
    /// The roles as written. More than one is an error of a later stage.
    pub roles: Vec<(Role, Ident)>,
    pub rename: Option<LitStr>,
}

/// How a field is treated, instead of by the traits of its type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Config,
    Module,
    Copy,
    Skip,
}

impl Role {
    fn named(name: &Ident) -> Option<Self> {
        match name.to_string().as_str() {
            "config" => Some(Role::Config),
            "module" => Some(Role::Module),
            "copy" => Some(Role::Copy),
            "skip" => Some(Role::Skip),
            _ => None,
        }
    }
}

impl TypeAttrs {
    pub(crate) fn from_syn(attributes: &[Attribute], errors: &mut Errors) -> Self {
        let mut attrs = TypeAttrs::default();
        for option in options(attributes, errors) {
            match name(&option).as_str() {
                "init" if attrs.init.is_some() => duplicate(&option, errors),
                "init" => attrs.init = init(&option, errors),
                "crate" if attrs.krate.is_some() => duplicate(&option, errors),
                "crate" => attrs.krate = krate(&option, errors),
                field @ ("config" | "module" | "copy" | "skip" | "rename") => errors.at(
                    option.path(),
                    format!("`{field}` is an option of a field: put `#[pipeline({field})]` on the field that is meant"),
                ),
                _ => unknown(&option, &format!("the whole pipeline takes {ON_TYPE}"), errors),
            }
        }
        attrs
    }
}

impl FieldAttrs {
    pub(crate) fn from_syn(attributes: &[Attribute], errors: &mut Errors) -> Self {
        let mut attrs = FieldAttrs::default();
        for option in options(attributes, errors) {
            let ident = option.path().get_ident();
            if let Some((role, ident)) = ident.and_then(|ident| Some((Role::named(ident)?, ident))) {
                if attrs.roles.iter().any(|(earlier, _)| *earlier == role) {
                    duplicate(&option, errors);
                } else if let Meta::Path(_) = option {
                    attrs.roles.push((role, ident.clone()));
                } else {
                    errors.at(&option, format!("`{ident}` takes no value"));
                }
                continue;
            }
            match name(&option).as_str() {
                "rename" if attrs.rename.is_some() => duplicate(&option, errors),
                "rename" => attrs.rename = string(&option, "a name, as in `rename = \"encoder\"`", errors),
                whole @ ("init" | "crate") => errors.at(
                    option.path(),
                    format!("`{whole}` is an option of the whole pipeline: put `#[pipeline({whole} = ...)]` above it"),
                ),
                _ => unknown(&option, &format!("a field takes {ON_FIELD}"), errors),
            }
        }
        attrs
    }

    /// The role. Returns the first one if an invalid input names several.
    pub(crate) fn role(&self) -> Option<Role> {
        self.roles.first().map(|(role, _)| *role)
    }
}

/// Reports each option on a variant, which takes none.
pub(crate) fn none_on_variant(attributes: &[Attribute], errors: &mut Errors) {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("pipeline")) {
        errors.at(attribute, "a variant takes no options; put `#[pipeline(...)]` on one of its fields");
    }
}

/// Reads `crate = "path"`, which `#[remote(...)]` takes as well.
pub(crate) fn krate(option: &Meta, errors: &mut Errors) -> Option<Path> {
    let hint = "the path under which ray-zerocopy is found, as in `crate = \"my_crate::ray_zerocopy\"`";
    let path = string(option, hint, errors)?;
    match path.parse_with(Path::parse_mod_style) {
        Ok(path) => Some(path),
        Err(_) => {
            errors.at(&path, format!("expected {hint}"));
            None
        }
    }
}

/// The comma separated options of every `#[pipeline(...)]`.
fn options(attributes: &[Attribute], errors: &mut Errors) -> Vec<Meta> {
    let ours = attributes.iter().filter(|attribute| attribute.path().is_ident("pipeline"));
    let parsed = ours.filter_map(|attribute| {
        let Meta::List(list) = &attribute.meta else {
            errors.at(&attribute.meta, "expected options in parentheses, as in `#[pipeline(skip)]`");
            return None;
        };
        errors.ok(list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated))
    });
    parsed.flatten().collect()
}

fn init(option: &Meta, errors: &mut Errors) -> Option<ExprPath> {
    const HINT: &str = "expected the path of a function from `&Device` to `Self`, as in `init = Search::new`";
    match option {
        Meta::NameValue(pair) => match &pair.value {
            Expr::Path(path) => return Some(path.clone()),
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => {
                errors.at(text, format!("{HINT}; write it without quotes"));
            }
            other => errors.at(other, HINT),
        },
        _ => errors.at(option, HINT),
    }
    None
}

fn string(option: &Meta, hint: &str, errors: &mut Errors) -> Option<LitStr> {
    match option {
        Meta::NameValue(pair) => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => return Some(text.clone()),
            other => errors.at(other, format!("expected {hint}")),
        },
        _ => errors.at(option, format!("expected {hint}")),
    }
    None
}

pub(crate) fn unknown(option: &Meta, known: &str, errors: &mut Errors) {
    let path = option.path().to_token_stream().to_string().replace(' ', "");
    errors.at(option.path(), format!("unknown option `{path}`: {known}"));
}

pub(crate) fn duplicate(option: &Meta, errors: &mut Errors) {
    errors.at(option.path(), format!("`{}` is given twice", name(option)));
}

/// The option's name. Returns an empty string for a path like `a::b`, which is not an option's
/// name.
fn name(option: &Meta) -> String {
    option.path().get_ident().map(Ident::to_string).unwrap_or_default()
}
