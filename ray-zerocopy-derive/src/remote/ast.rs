//! Second stage: the block and its methods in the macro's own terms, borrowed from syn.

use super::attr::BatchOption;
use crate::errors::Errors;
use crate::expand::static_parameters;
use proc_macro2::Span;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, ExprPath, Generics, Ident, ItemImpl, PatIdent, Path, QSelf, Token, Type, TypePath, WhereClause};

/// An inherent impl block that names a type.
pub(crate) struct Block<'a> {
    pub item: &'a ItemImpl,
    pub ty: &'a Type,
    /// The type's own name, from which those of the generated types are made.
    pub ident: &'a Ident,
    /// The block's generics, fit for items outside of it: no `Self`, and no borrowing.
    pub generics: Generics,
}

/// A method that can be called remotely. Only made by [`crate::remote::valid`].
pub(crate) struct Method<'a> {
    pub attrs: &'a [Attribute],
    pub ident: &'a Ident,
    pub access: Access,
    pub arguments: Vec<Argument<'a>>,
    /// What it returns, or an item of it if it returns a stream.
    pub output: Type,
    pub where_clause: Option<WhereClause>,
    pub batch: Option<BatchOption>,
    /// Whether it returns a stream.
    pub stream: bool,
}

/// How a method takes its pipeline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Shared,
    Exclusive,
}

pub(crate) struct Argument<'a> {
    pub ident: &'a Ident,
    pub ty: Type,
}

impl<'a> Block<'a> {
    /// Returns `None` if the block cannot be used, and adds the reason to `errors`.
    pub(crate) fn new(item: &'a ItemImpl, errors: &mut Errors) -> Option<Self> {
        let mut usable = true;
        if let Some((_, of, _)) = &item.trait_ {
            errors.at(
                of,
                "`#[remote]` goes on an inherent impl block: move the methods to `impl Search { ... }`, or call the \
                 trait's from there",
            );
            usable = false;
        }
        for lifetime in item.generics.lifetimes() {
            errors.at(
                &lifetime.lifetime,
                "a pipeline that borrows cannot be sent to another process: own the data and remove the lifetime",
            );
            usable = false;
        }
        let ident = named(&item.self_ty);
        if ident.is_none() {
            errors.at(&item.self_ty, "`#[remote]` needs a type that has a name, a struct or an enum");
        }
        let block = Block { item, ty: &item.self_ty, ident: ident?, generics: static_parameters(&item.generics) };
        usable.then(|| block.without_self())
    }

    fn without_self(mut self) -> Self {
        let mut replace = ReplaceSelf(self.ty);
        replace.visit_generics_mut(&mut self.generics);
        self
    }

    /// The span for errors in items that are made from the block. The likely error is two blocks
    /// for one type.
    pub(crate) fn span(&self) -> Span {
        self.ident.span().resolved_at(Span::call_site())
    }

    /// `ty` with `Self` written out, so that it means the same outside of the block.
    pub(crate) fn outside(&self, ty: &Type) -> Type {
        let mut ty = ty.clone();
        ReplaceSelf(self.ty).visit_type_mut(&mut ty);
        ty
    }

    pub(crate) fn outside_where(&self, clause: &WhereClause) -> WhereClause {
        let mut clause = clause.clone();
        ReplaceSelf(self.ty).visit_where_clause_mut(&mut clause);
        clause
    }
}

impl<'a> Argument<'a> {
    pub(crate) fn new(pattern: &'a PatIdent, ty: Type) -> Self {
        Argument { ident: &pattern.ident, ty }
    }
}

fn named(ty: &Type) -> Option<&Ident> {
    match ty {
        Type::Path(TypePath { qself: None, path }) => path.segments.last().map(|last| &last.ident),
        Type::Group(group) => named(&group.elem),
        Type::Paren(paren) => named(&paren.elem),
        _ => None,
    }
}

/// Replaces `Self` by the type that it stands for.
struct ReplaceSelf<'a>(&'a Type);

impl ReplaceSelf<'_> {
    /// `Self::N` is `<Search>::N`.
    fn qualify(&self, qself: &mut Option<QSelf>, path: &mut Path) {
        if qself.is_some() || path.leading_colon.is_some() || path.segments.len() < 2 {
            return;
        }
        if path.segments.first().is_none_or(|first| first.ident != "Self") {
            return;
        }
        path.segments = std::mem::take(&mut path.segments).into_iter().skip(1).collect();
        path.leading_colon = Some(<Token![::]>::default());
        *qself = Some(QSelf {
            lt_token: <Token![<]>::default(),
            ty: Box::new(self.0.clone()),
            position: 0,
            as_token: None,
            gt_token: <Token![>]>::default(),
        });
    }
}

impl VisitMut for ReplaceSelf<'_> {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        match ty {
            Type::Path(path) if path.qself.is_none() && path.path.is_ident("Self") => *ty = self.0.clone(),
            _ => visit_mut::visit_type_mut(self, ty),
        }
    }

    fn visit_type_path_mut(&mut self, path: &mut TypePath) {
        self.qualify(&mut path.qself, &mut path.path);
        visit_mut::visit_type_path_mut(self, path);
    }

    fn visit_expr_path_mut(&mut self, path: &mut ExprPath) {
        self.qualify(&mut path.qself, &mut path.path);
        visit_mut::visit_expr_path_mut(self, path);
    }
}
