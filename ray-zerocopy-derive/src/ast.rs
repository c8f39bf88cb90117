//! Second stage: the input in the macro's own terms, borrowed from syn.
//!
//! Knows the names and types of fields; does not validate them.

use crate::attr::{self, FieldAttrs, Role, TypeAttrs};
use crate::errors::Errors;
use crate::names;
use crate::shape::{Kind, Shape};
use syn::{Attribute, Data, DeriveInput, Fields, Generics, Ident, Index, Member, Type};

pub(crate) struct Input<'a> {
    pub original: &'a [Attribute],
    pub ident: &'a Ident,
    pub generics: &'a Generics,
    pub attrs: TypeAttrs,
    pub data: Body<'a>,
}

pub(crate) enum Body<'a> {
    Struct(Vec<Field<'a>>),
    Enum(Vec<Variant<'a>>),
    Union,
}

pub(crate) struct Variant<'a> {
    pub attrs: &'a [Attribute],
    pub ident: &'a Ident,
    pub fields: Vec<Field<'a>>,
}

pub(crate) struct Field<'a> {
    pub original: &'a syn::Field,
    pub attrs: FieldAttrs,
    pub member: Member,
    pub ty: &'a Type,
}

impl<'a> Input<'a> {
    pub(crate) fn from_syn(node: &'a DeriveInput, errors: &mut Errors) -> Self {
        Input {
            original: &node.attrs,
            ident: &node.ident,
            generics: &node.generics,
            attrs: TypeAttrs::from_syn(&node.attrs, errors),
            data: match &node.data {
                Data::Struct(data) => Body::Struct(Field::all(&data.fields, errors)),
                Data::Enum(data) => {
                    Body::Enum(data.variants.iter().map(|variant| Variant::from_syn(variant, errors)).collect())
                }
                Data::Union(_) => Body::Union,
            },
        }
    }

    /// The field whose value rebuilds the pipeline, if there is one.
    pub(crate) fn config(&self) -> Option<&Field<'a>> {
        match &self.data {
            Body::Struct(fields) => fields.iter().find(|field| field.attrs.role() == Some(Role::Config)),
            Body::Enum(_) | Body::Union => None,
        }
    }
}

impl<'a> Variant<'a> {
    fn from_syn(node: &'a syn::Variant, errors: &mut Errors) -> Self {
        attr::none_on_variant(&node.attrs, errors);
        Variant { attrs: &node.attrs, ident: &node.ident, fields: Field::all(&node.fields, errors) }
    }
}

impl<'a> Field<'a> {
    fn all(fields: &'a Fields, errors: &mut Errors) -> Vec<Self> {
        let members = fields.members();
        let field = |(member, field): (Member, &'a syn::Field)| Field {
            original: field,
            attrs: FieldAttrs::from_syn(&field.attrs, errors),
            member,
            ty: &field.ty,
        };
        members.zip(fields).map(field).collect()
    }

    /// Whether the field is in the arena.
    pub(crate) fn is_visited(&self) -> bool {
        match self.attrs.role() {
            Some(role) => role != Role::Skip,
            None => !matches!(Shape::of(self.ty).kind, Kind::Nothing),
        }
    }

    /// The field's name in paths and in the arena.
    pub(crate) fn name(&self) -> String {
        match (&self.attrs.rename, &self.member) {
            (Some(rename), _) => rename.value(),
            (None, Member::Named(ident)) => names::plain(ident),
            (None, Member::Unnamed(Index { index, .. })) => index.to_string(),
        }
    }
}
