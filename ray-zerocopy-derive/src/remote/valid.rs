//! Third stage: selects the methods that can be called remotely, and reports why others cannot.

use super::ast::{Access, Argument, Block, Method};
use super::attr::{MethodOption, Options};
use super::items;
use super::reserved::RESERVED;
use super::rows;
use crate::errors::Errors;
use crate::names;
use syn::visit::Visit;
use syn::{
    FnArg, GenericParam, Ident, ImplItem, ImplItemFn, Pat, PatType, Receiver, ReturnType, Signature, Type, TypeBareFn,
    TypeImplTrait, TypeReference, Visibility, parse_quote,
};

/// The block's pub methods with a receiver. A method that cannot be called remotely is an error and
/// is left out.
pub(crate) fn methods<'a>(block: &Block<'a>, options: &Options, errors: &mut Errors) -> Vec<Method<'a>> {
    let mut seen = false;
    let mut methods = Vec::new();
    for (position, item) in block.item.items.iter().enumerate() {
        let ImplItem::Fn(item) = item else { continue };
        let Some(receiver) = item.sig.receiver() else { continue };
        let option = options.get(&position);
        let span = match option {
            Some(MethodOption::Skip | MethodOption::OnSwap(_)) => continue,
            Some(MethodOption::Batch(batch)) => Some(batch.span),
            Some(MethodOption::Stream(span)) => Some(*span),
            None => None,
        };
        if !matches!(item.vis, Visibility::Public(_)) {
            if let Some(span) = span {
                errors.push(syn::Error::new(span, "only a `pub` method can be called remotely"));
            }
            continue;
        }
        seen = true;
        methods.extend(method(block, item, receiver, option, errors));
    }
    if !seen {
        errors.at(
            block.ty,
            "no method to call remotely: the block has no `pub fn` that takes `&self` or `&mut self` and is not skipped",
        );
    }
    methods
}

/// The function that moves the state of an actor to the next weights, if there is one.
pub(crate) fn on_swap<'a>(block: &Block<'a>, options: &Options, errors: &mut Errors) -> Option<&'a Ident> {
    let mut found = None;
    for (position, item) in block.item.items.iter().enumerate() {
        let (ImplItem::Fn(item), Some(MethodOption::OnSwap(span))) = (item, options.get(&position)) else { continue };
        if found.is_some() {
            errors.push(syn::Error::new(*span, "a block has one function that moves the state: remove one"));
        } else if moves_state(&item.sig, block.ty) {
            found = Some(&item.sig.ident);
        } else {
            errors.at(
                &item.sig,
                "the function that moves the state gets the pipeline with the new weights, and that with the old ones: \
                 `fn on_swap(&mut self, old: &mut Self)`",
            );
        }
    }
    found
}

/// Whether a signature is `fn name(&mut self, old: &mut Self)`.
fn moves_state(signature: &Signature, own: &Type) -> bool {
    let is_own = |ty: &Type| *ty == parse_quote!(Self) || ty == own;
    let is_exclusive = |receiver: &Receiver| {
        receiver.reference.is_some() && receiver.mutability.is_some() && receiver.colon_token.is_none()
    };
    let takes = matches!(signature.inputs.iter().collect::<Vec<_>>()[..], [FnArg::Receiver(receiver), FnArg::Typed(old)]
        if is_exclusive(receiver)
            && matches!(&*old.ty, Type::Reference(TypeReference { mutability: Some(_), elem, .. }) if is_own(elem)));
    let is_plain = signature.asyncness.is_none() && signature.unsafety.is_none() && signature.abi.is_none();
    takes && is_plain && signature.generics.params.is_empty() && matches!(signature.output, ReturnType::Default)
}

fn method<'a>(
    block: &Block<'a>,
    item: &'a ImplItemFn,
    receiver: &Receiver,
    option: Option<&MethodOption>,
    errors: &mut Errors,
) -> Option<Method<'a>> {
    let batch = match option {
        Some(MethodOption::Batch(batch)) => Some(batch),
        _ => None,
    };
    let stream = match option {
        Some(MethodOption::Stream(span)) => Some(*span),
        _ => None,
    };
    let named = name(&item.sig, errors);
    let qualified = qualifiers(&item.sig, errors);
    let generic = generics(&item.sig, errors);
    let access = access(receiver, errors);
    let arguments = item.sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(argument) => Some(argument),
        FnArg::Receiver(_) => None,
    });
    let arguments: Vec<Option<Argument>> = arguments.map(|input| argument(block, input, errors)).collect();
    let output = if let Some(span) = stream {
        items::item(&item.sig.output, span, errors)
            .filter(|item| owned(item, "an item", errors))
            .map(|item| block.outside(&item))
    } else {
        output(block, &item.sig.output, errors)
    };
    if let Some(batch) = batch
        && !rows::check(batch, &arguments, output.as_ref(), errors)
    {
        return None;
    }
    if !(named && qualified && generic) {
        return None;
    }
    Some(Method {
        attrs: &item.attrs,
        ident: &item.sig.ident,
        access: access?,
        arguments: arguments.into_iter().collect::<Option<_>>()?,
        output: output?,
        where_clause: item.sig.generics.where_clause.as_ref().map(|clause| block.outside_where(clause)),
        batch: batch.cloned(),
        stream: stream.is_some(),
    })
}

fn name(signature: &Signature, errors: &mut Errors) -> bool {
    let name = names::plain(&signature.ident);
    let is_reserved = RESERVED.contains(&name.as_str());
    if is_reserved {
        errors.at(
            &signature.ident,
            format!(
                "the wrappers have a method `{name}` of their own, which would be called instead: rename it, or leave \
                 it out with `#[remote(skip)]`"
            ),
        );
    }
    !is_reserved
}

fn qualifiers(signature: &Signature, errors: &mut Errors) -> bool {
    let name = &signature.ident;
    if let Some(token) = &signature.asyncness {
        errors.at(
            token,
            format!(
                "`{name}` runs in a worker that has no executor: make it a plain fn, its caller can await the result \
                 all the same; or leave it out with `#[remote(skip)]`"
            ),
        );
    }
    if let Some(token) = &signature.unsafety {
        errors.at(
            token,
            format!(
                "`{name}` is unsafe, and a remote caller cannot check what it requires: leave it out with \
                 `#[remote(skip)]`"
            ),
        );
    }
    if let Some(abi) = &signature.abi {
        errors.at(abi, format!("`{name}` has a foreign calling convention: leave it out with `#[remote(skip)]`"));
    }
    signature.asyncness.is_none() && signature.unsafety.is_none() && signature.abi.is_none()
}

fn generics(signature: &Signature, errors: &mut Errors) -> bool {
    let name = &signature.ident;
    for parameter in &signature.generics.params {
        let message = match parameter {
            GenericParam::Lifetime(_) => "a remote call cannot borrow: own the arguments and the result",
            GenericParam::Type(_) | GenericParam::Const(_) => {
                "the worker has to know which of its instances to call: name a type, or move the parameter to the impl"
            }
        };
        errors.at(parameter, format!("`{name}` is generic, but {message}; or leave it out with `#[remote(skip)]`"));
    }
    signature.generics.params.is_empty()
}

fn access(receiver: &Receiver, errors: &mut Errors) -> Option<Access> {
    let is_plain = receiver.colon_token.is_none() && receiver.lifetime().is_none();
    match &receiver.reference {
        Some(_) if is_plain && receiver.mutability.is_some() => return Some(Access::Exclusive),
        Some(_) if is_plain => return Some(Access::Shared),
        Some(_) => {}
        None if receiver.colon_token.is_none() => {
            errors.at(
                receiver,
                "a worker keeps its pipeline for the next call: take `&self` or `&mut self`, or leave the method out \
                 with `#[remote(skip)]`",
            );
            return None;
        }
        None => {}
    }
    errors.at(receiver, "expected `&self` or `&mut self`; leave the method out with `#[remote(skip)]` otherwise");
    None
}

fn argument<'a>(block: &Block, input: &'a PatType, errors: &mut Errors) -> Option<Argument<'a>> {
    let mut valid = owned(&input.ty, "an argument", errors);
    if let Some(attribute) = input.attrs.first() {
        errors.at(attribute, "an argument of a remote method takes no attributes: put them on the method");
        valid = false;
    }
    match &*input.pat {
        Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.subpat.is_none() => {
            valid.then(|| Argument::new(pattern, block.outside(&input.ty)))
        }
        pattern => {
            errors.at(pattern, "an argument of a remote method needs a name: take it apart inside the method");
            None
        }
    }
}

fn output(block: &Block, output: &ReturnType, errors: &mut Errors) -> Option<Type> {
    match output {
        ReturnType::Default => Some(parse_quote!(())),
        ReturnType::Type(_, ty) if matches!(**ty, Type::Never(_)) => {
            errors.at(ty, "a call that never returns has no result to wait for: return `()`, or leave it out with `#[remote(skip)]`");
            None
        }
        ReturnType::Type(_, ty) => owned(ty, "a result", errors).then(|| block.outside(ty)),
    }
}

/// Whether a value of the type can be serialised and rebuilt in another process.
fn owned(ty: &Type, what: &'static str, errors: &mut Errors) -> bool {
    let mut search = Unsendable { what, errors, found: false };
    search.visit_type(ty);
    !search.found
}

struct Unsendable<'e> {
    what: &'static str,
    errors: &'e mut Errors,
    found: bool,
}

impl<'ast> Visit<'ast> for Unsendable<'_> {
    fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
        let instead = match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => "take `String` instead of `&str`",
            Type::Slice(_) => "take `Vec<T>` instead of `&[T]`",
            _ => "take `T` instead of `&T`",
        };
        let instead = if self.what == "an argument" { instead.to_owned() } else { instead.replace("take", "return") };
        self.errors.at(reference, format!("{} of a remote method crosses to another process: {instead}", self.what));
        self.found = true;
    }

    fn visit_type_impl_trait(&mut self, ty: &'ast TypeImplTrait) {
        self.errors.at(ty, format!("{} of a remote method needs a concrete type: name it", self.what));
        self.found = true;
    }

    // `fn(&str)` borrows nothing itself.
    fn visit_type_bare_fn(&mut self, _: &'ast TypeBareFn) {}
}
