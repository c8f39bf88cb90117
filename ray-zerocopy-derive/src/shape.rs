//! The shape of a field's type: the containers that have to be walked to reach its leaves.
//!
//! Goes by names alone, since a macro cannot look up a type. So it only takes apart the containers
//! that it knows by name, and leaves everything else to the compiler, which tells leaves apart by
//! their traits.

use syn::{GenericArgument, PathArguments, PathSegment, Type, TypePath};

pub(crate) struct Shape<'a> {
    pub ty: &'a Type,
    pub kind: Kind<'a>,
}

pub(crate) enum Kind<'a> {
    /// `()` and `PhantomData`: nothing to share or to copy.
    Nothing,
    /// A type that is not taken apart.
    Leaf,
    /// `Vec`, `VecDeque`, `[T; N]` and, inside a box, `[T]`.
    List(Box<Shape<'a>>),
    Tuple(Vec<Shape<'a>>),
    Option(Box<Shape<'a>>),
    Box(Box<Shape<'a>>),
    Arc(Box<Shape<'a>>),
    /// The shape of the values; keys are part of the path.
    Map(Box<Shape<'a>>),
    /// A type that another process cannot own. Holds a description, with its article.
    Foreign(&'static str),
}

impl<'a> Shape<'a> {
    pub(crate) fn of(ty: &'a Type) -> Self {
        let kind = match ty {
            Type::Group(group) => return Shape::of(&group.elem),
            Type::Paren(paren) => return Shape::of(&paren.elem),
            Type::Array(array) => Kind::List(Shape::boxed(&array.elem)),
            Type::Slice(slice) => Kind::List(Shape::boxed(&slice.elem)),
            Type::Tuple(tuple) if tuple.elems.is_empty() => Kind::Nothing,
            Type::Tuple(tuple) => Kind::Tuple(tuple.elems.iter().map(Shape::of).collect()),
            Type::Reference(_) => Kind::Foreign("a reference"),
            Type::Ptr(_) => Kind::Foreign("a raw pointer"),
            Type::BareFn(_) => Kind::Foreign("a function pointer"),
            Type::TraitObject(_) => Kind::Foreign("a trait object"),
            Type::Path(path) => of_path(path),
            _ => Kind::Leaf,
        };
        Shape { ty, kind }
    }

    fn boxed(ty: &'a Type) -> Box<Self> {
        Box::new(Shape::of(ty))
    }

    /// The shapes one level down.
    fn inner(&self) -> &[Shape<'a>] {
        match &self.kind {
            Kind::Nothing | Kind::Leaf | Kind::Foreign(_) => &[],
            Kind::Tuple(items) => items,
            Kind::List(item) | Kind::Option(item) | Kind::Box(item) | Kind::Arc(item) | Kind::Map(item) => {
                std::slice::from_ref(item)
            }
        }
    }

    pub(crate) fn is_container(&self) -> bool {
        !self.inner().is_empty()
    }

    /// The types in it that another process cannot own, at any depth.
    pub(crate) fn foreign(&self) -> Vec<(&'static str, &'a Type)> {
        let own = match self.kind {
            Kind::Foreign(what) => Some((what, self.ty)),
            _ => None,
        };
        own.into_iter().chain(self.inner().iter().flat_map(Shape::foreign)).collect()
    }

    /// Whether every leaf is a number, a `bool`, a `char` or a `String`. Such a type holds no
    /// tensor, so a vocabulary, say, is not walked word by word.
    pub(crate) fn is_plain(&self) -> bool {
        match self.kind {
            Kind::Nothing => true,
            Kind::Leaf => matches!(self.ty, Type::Path(path) if path.path.get_ident().is_some_and(is_plain_name)),
            Kind::Foreign(_) => false,
            _ => self.inner().iter().all(Shape::is_plain),
        }
    }
}

fn of_path(ty: &TypePath) -> Kind<'_> {
    let Some(last) = ty.path.segments.last() else {
        return Kind::Leaf;
    };
    let types = type_arguments(last);
    match (last.ident.to_string().as_str(), types.as_slice()) {
        ("PhantomData", _) => Kind::Nothing,
        ("Vec" | "VecDeque", [item, ..]) => Kind::List(Shape::boxed(item)),
        ("Option", [item]) => Kind::Option(Shape::boxed(item)),
        // The `str` in a `Box<str>` is not a value of its own, so the box is the leaf.
        ("Box" | "Arc", [item, ..]) if is_unsized_text(item) => Kind::Leaf,
        ("Box", [item, ..]) => Kind::Box(Shape::boxed(item)),
        ("Arc", [item, ..]) => Kind::Arc(Shape::boxed(item)),
        ("HashMap" | "BTreeMap" | "IndexMap", [_, value, ..]) => Kind::Map(Shape::boxed(value)),
        _ => Kind::Leaf,
    }
}

fn type_arguments(segment: &PathSegment) -> Vec<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return Vec::new();
    };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    });
    types.collect()
}

fn is_unsized_text(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    let last = path.path.segments.last().map(|last| last.ident.to_string());
    matches!(last.as_deref(), Some("str" | "Path" | "OsStr" | "CStr"))
}

fn is_plain_name(name: &syn::Ident) -> bool {
    const PLAIN: [&str; 17] = [
        "bool", "char", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f32",
        "f64", "String",
    ];
    PLAIN.iter().any(|plain| name == plain)
}
