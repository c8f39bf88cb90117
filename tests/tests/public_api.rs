//! The public API of `ray-zerocopy`, read out of its source and compared with `tests/public_api.txt`.
//!
//! `BLESS=1 cargo test --workspace --test public_api` rewrites the file. A change of it is a change
//! of the API, which belongs in the commit message and in `CHANGELOG.md`. The test reads the source
//! and not the output of a compiler, so it needs no nightly toolchain and lists items of all
//! features and platforms.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use quote::ToTokens;
use syn::{
    Attribute, Fields, FieldsNamed, File, FnArg, ImplItem, Item, ItemImpl, ItemMod, ItemUse, Pat, Signature, TraitItem,
    Type, UseTree, Visibility, parse_quote,
};

/// The path of a module, or of an item in one.
type Name = Vec<String>;

/// Types whose variants or fields are final, so that they need not be `non_exhaustive`.
const CLOSED: [&str; 5] = ["TensorKind", "HugePages", "Placement", "Schema", "ProcessRole"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The items of each module of the crate.
struct Source(BTreeMap<Name, Vec<Item>>);

/// An item that a public module exports.
struct Export {
    /// Its module and name, where it is defined.
    definition: Name,
    /// Its exported name.
    name: String,
    /// The features that it requires.
    cfg: Vec<Attribute>,
}

impl Source {
    fn read() -> Self {
        let mut source = Self(BTreeMap::new());
        let folder = root().join("ray-zerocopy/src");
        source.file(&folder.join("lib.rs"), &folder, &Name::new());
        source
    }

    fn file(&mut self, file: &Path, folder: &Path, module: &Name) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let File { items, .. } = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.module(items, folder, module);
    }

    fn module(&mut self, items: Vec<Item>, folder: &Path, module: &Name) {
        for item in &items {
            let Item::Mod(ItemMod { ident, content, attrs, .. }) = item else { continue };
            if is_test(attrs) {
                continue;
            }
            let (name, own) = (child(module, &ident.to_string()), folder.join(ident.to_string()));
            match content {
                Some((_, items)) => self.module(items.clone(), &own, &name),
                None if own.join("mod.rs").exists() => self.file(&own.join("mod.rs"), &own, &name),
                None => self.file(&own.with_extension("rs"), &own, &name),
            }
        }
        self.0.insert(module.clone(), items);
    }

    /// The definition of a path, resolved from a module. Returns `None` for an item of another
    /// crate.
    fn resolve(&self, module: &Name, path: &[String]) -> Option<Name> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.absolute(Name::new(), rest),
            "self" => self.absolute(module.clone(), rest),
            "super" => {
                let parent = module[..module.len() - 1].to_vec();
                let from: Name = std::iter::once("self".to_owned()).chain(rest.iter().cloned()).collect();
                self.resolve(&parent, &from)
            }
            _ => self.absolute(module.clone(), path),
        }
    }

    /// The definition of a path below a module.
    fn absolute(&self, module: Name, path: &[String]) -> Option<Name> {
        let (first, rest) = path.split_first()?;
        let below = child(&module, first);
        if !rest.is_empty() && self.0.contains_key(&below) {
            return self.absolute(below, rest);
        }
        for item in self.0.get(&module)? {
            if !rest.is_empty() {
                break;
            }
            if name_of(item).is_some_and(|name| name == *first) {
                return Some(below);
            }
        }
        for item in self.0.get(&module)? {
            let Item::Use(ItemUse { tree, .. }) = item else { continue };
            for (name, target) in imports(tree) {
                // An import of the same name from the module itself would recurse without end.
                if name == *first && target.first() != Some(first) {
                    let target: Name = target.into_iter().chain(rest.iter().cloned()).collect();
                    return self.resolve(&module, &target);
                }
            }
        }
        None
    }

    fn item(&self, name: &Name) -> Option<&Item> {
        let (last, module) = name.split_last()?;
        self.0.get(module)?.iter().find(|item| name_of(item).is_some_and(|name| name == *last))
    }

    /// The exports of a public module.
    fn exports(&self, module: &Name) -> (Vec<Export>, Vec<ItemUse>) {
        let (mut exports, mut foreign) = (Vec::new(), Vec::new());
        for item in &self.0[module] {
            match item {
                Item::Use(item) if is_public(&item.vis) && !is_hidden(&item.attrs) => {
                    for (name, target) in imports(&item.tree) {
                        let cfg = cfgs(&item.attrs);
                        match self.resolve(module, &target) {
                            Some(definition) => exports.push(Export { definition, name, cfg }),
                            None => foreign.push(foreign_use(&target)),
                        }
                    }
                }
                Item::Mod(_) | Item::Use(_) => {}
                item => {
                    if let (Some(name), Some((vis, attrs))) = (name_of(item), visibility(item))
                        && is_public(vis)
                        && !is_hidden(attrs)
                    {
                        exports.push(Export { definition: child(module, &name), name, cfg: Vec::new() });
                    }
                }
            }
        }
        exports.sort_by(|a, b| a.name.cmp(&b.name));
        (exports, foreign)
    }

    /// Every `impl` of a type, with its types and `where` clause as in the source.
    fn impls(&self, definition: &Name) -> Vec<&ItemImpl> {
        let mut found = Vec::new();
        for (module, items) in &self.0 {
            for item in items {
                let Item::Impl(item) = item else { continue };
                let Type::Path(path) = &*item.self_ty else { continue };
                let path: Name = path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
                if self.resolve(module, &path).as_ref() == Some(definition) && !is_test(&item.attrs) {
                    found.push(item);
                }
            }
        }
        found
    }
}

fn child(module: &Name, name: &str) -> Name {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

fn name_of(item: &Item) -> Option<String> {
    Some(
        match item {
            Item::Const(item) => &item.ident,
            Item::Enum(item) => &item.ident,
            Item::Fn(item) => &item.sig.ident,
            Item::Struct(item) => &item.ident,
            Item::Trait(item) => &item.ident,
            Item::Type(item) => &item.ident,
            _ => return None,
        }
        .to_string(),
    )
}

fn visibility(item: &Item) -> Option<(&Visibility, &[Attribute])> {
    Some(match item {
        Item::Const(item) => (&item.vis, &item.attrs),
        Item::Enum(item) => (&item.vis, &item.attrs),
        Item::Fn(item) => (&item.vis, &item.attrs),
        Item::Struct(item) => (&item.vis, &item.attrs),
        Item::Trait(item) => (&item.vis, &item.attrs),
        Item::Type(item) => (&item.vis, &item.attrs),
        _ => return None,
    })
}

/// The names that a `use` imports, and their paths.
fn imports(tree: &UseTree) -> Vec<(String, Name)> {
    match tree {
        UseTree::Path(path) => imports(&path.tree)
            .into_iter()
            .map(|(name, target)| {
                let name = if name == "self" { path.ident.to_string() } else { name };
                let target = target.into_iter().filter(|part| part != "self");
                (name, std::iter::once(path.ident.to_string()).chain(target).collect())
            })
            .collect(),
        UseTree::Name(name) => vec![(name.ident.to_string(), vec![name.ident.to_string()])],
        UseTree::Rename(rename) => vec![(rename.rename.to_string(), vec![rename.ident.to_string()])],
        UseTree::Group(group) => group.items.iter().flat_map(imports).collect(),
        UseTree::Glob(_) => Vec::new(),
    }
}

fn foreign_use(target: &Name) -> ItemUse {
    syn::parse_str(&format!("pub use {};", target.join("::"))).unwrap()
}

fn is_public(vis: &Visibility) -> bool {
    matches!(vis, Visibility::Public(_))
}

fn is_hidden(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| attr.path().is_ident("doc") && attr.to_token_stream().to_string().contains("hidden"))
}

fn is_test(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| attr.to_token_stream().to_string().replace(' ', "") == "#[cfg(test)]")
}

fn cfgs(attrs: &[Attribute]) -> Vec<Attribute> {
    attrs.iter().filter(|attr| attr.path().is_ident("cfg")).cloned().collect()
}

/// Keeps the attributes that affect callers.
fn trim(attrs: &mut Vec<Attribute>) {
    attrs.retain(|attr| ["cfg", "derive", "must_use", "non_exhaustive"].iter().any(|kept| attr.path().is_ident(kept)));
}

fn trim_fields(fields: &mut Fields, of_variant: bool) {
    match fields {
        Fields::Named(FieldsNamed { named, .. }) => {
            let kept = named.iter().filter(|field| of_variant || is_public(&field.vis)).cloned();
            *named = kept.filter(|field| !is_hidden(&field.attrs)).collect();
            named.iter_mut().for_each(|field| trim(&mut field.attrs));
        }
        Fields::Unnamed(fields) => {
            for field in &mut fields.unnamed {
                trim(&mut field.attrs);
                if !of_variant && !is_public(&field.vis) {
                    field.vis = Visibility::Inherited;
                    field.ty = parse_quote!(_);
                }
            }
        }
        Fields::Unit => {}
    }
}

/// Removes `mut` from parameters, because callers do not see it.
fn trim_signature(signature: &mut Signature) {
    for input in &mut signature.inputs {
        match input {
            FnArg::Receiver(receiver) if receiver.reference.is_none() => receiver.mutability = None,
            FnArg::Receiver(_) => {}
            FnArg::Typed(typed) => {
                if let Pat::Ident(pat) = &mut *typed.pat {
                    pat.mutability = None;
                }
            }
        }
    }
}

/// An item without bodies, documentation and private parts.
fn trimmed(item: &Item) -> Item {
    let mut item = item.clone();
    match &mut item {
        Item::Const(item) => {
            trim(&mut item.attrs);
            *item.expr = parse_quote!(_);
        }
        Item::Enum(item) => {
            trim(&mut item.attrs);
            let kept = item.variants.iter().filter(|variant| !is_hidden(&variant.attrs)).cloned();
            item.variants = kept.collect();
            for variant in &mut item.variants {
                trim(&mut variant.attrs);
                trim_fields(&mut variant.fields, true);
            }
        }
        Item::Fn(item) => {
            trim(&mut item.attrs);
            trim_signature(&mut item.sig);
            item.block.stmts.clear();
        }
        Item::Struct(item) => {
            trim(&mut item.attrs);
            trim_fields(&mut item.fields, false);
        }
        Item::Trait(item) => {
            trim(&mut item.attrs);
            item.items.retain(|item| match item {
                TraitItem::Fn(item) => !is_hidden(&item.attrs),
                TraitItem::Type(item) => !is_hidden(&item.attrs),
                TraitItem::Const(item) => !is_hidden(&item.attrs),
                _ => true,
            });
            for item in &mut item.items {
                match item {
                    TraitItem::Fn(item) => {
                        trim(&mut item.attrs);
                        item.default = item.default.as_ref().map(|_| parse_quote!({}));
                    }
                    TraitItem::Type(item) => trim(&mut item.attrs),
                    TraitItem::Const(item) => trim(&mut item.attrs),
                    _ => {}
                }
            }
        }
        Item::Type(item) => trim(&mut item.attrs),
        _ => {}
    }
    item
}

/// An `impl` without bodies and private items. Returns `None` if it is empty then.
fn trimmed_impl(item: &ItemImpl) -> Option<ItemImpl> {
    let mut item = item.clone();
    trim(&mut item.attrs);
    if item.trait_.is_some() {
        item.items.retain(|item| matches!(item, ImplItem::Type(_)));
        return Some(item);
    }
    item.items.retain(|item| match item {
        ImplItem::Fn(item) => is_public(&item.vis) && !is_hidden(&item.attrs),
        ImplItem::Const(item) => is_public(&item.vis) && !is_hidden(&item.attrs),
        _ => false,
    });
    for item in &mut item.items {
        match item {
            ImplItem::Fn(item) => {
                trim(&mut item.attrs);
                item.block.stmts.clear();
                trim_signature(&mut item.sig);
            }
            ImplItem::Const(item) => {
                trim(&mut item.attrs);
                item.expr = parse_quote!(_);
            }
            _ => {}
        }
    }
    if item.items.is_empty() { None } else { Some(item) }
}

fn is_impl_of(item: &ItemImpl, name: &str) -> bool {
    let last = |path: &syn::Path| path.segments.last().is_some_and(|last| last.ident == name);
    item.trait_.as_ref().is_some_and(|(_, path, _)| last(path))
}

fn has_attribute(item: &Item, name: &str, word: &str) -> bool {
    let (Item::Struct(syn::ItemStruct { attrs, .. }) | Item::Enum(syn::ItemEnum { attrs, .. })) = item else {
        return false;
    };
    attrs.iter().any(|attr| attr.path().is_ident(name) && attr.to_token_stream().to_string().contains(word))
}

/// The public module as one item, and violations of the API rules.
fn module(source: &Source, name: &Name, objections: &mut BTreeSet<String>) -> Vec<Item> {
    let mut items = Vec::new();
    let (exports, foreign) = source.exports(name);
    items.extend(foreign.into_iter().map(Item::Use));
    for Export { definition, name: exported, cfg } in exports {
        let item = source.item(&definition).unwrap_or_else(|| panic!("{definition:?} is not an item"));
        let mut shown = trimmed(item);
        let ident = definition.last().unwrap();
        assert_eq!(*ident, exported, "an export under another name");
        if let Item::Struct(syn::ItemStruct { attrs, .. })
        | Item::Enum(syn::ItemEnum { attrs, .. })
        | Item::Trait(syn::ItemTrait { attrs, .. })
        | Item::Fn(syn::ItemFn { attrs, .. }) = &mut shown
        {
            attrs.splice(0..0, cfg);
        }
        let impls = source.impls(&definition);
        let is_data = match item {
            Item::Enum(_) => true,
            Item::Struct(item) => item.fields.iter().any(|field| is_public(&field.vis)),
            _ => false,
        };
        if is_data && !has_attribute(item, "non_exhaustive", "") && !CLOSED.contains(&exported.as_str()) {
            objections.insert(format!("`{exported}` has public fields or variants, and is not `non_exhaustive`"));
        }
        if matches!(item, Item::Struct(_) | Item::Enum(_))
            && !has_attribute(item, "derive", "Debug")
            && !impls.iter().any(|item| is_impl_of(item, "Debug"))
        {
            objections.insert(format!("`{exported}` is not `Debug`"));
        }
        items.push(shown);
        let mut impls: Vec<_> = impls.into_iter().filter_map(trimmed_impl).collect();
        impls.sort_by_cached_key(|item| {
            let text = item.to_token_stream().to_string();
            (item.trait_.is_some(), text)
        });
        items.extend(impls.into_iter().map(Item::Impl));
    }
    let children = source.0[name].iter().filter_map(|item| match item {
        Item::Mod(item) if is_public(&item.vis) && !is_hidden(&item.attrs) => Some(item),
        _ => None,
    });
    for item in children {
        let content = module(source, &child(name, &item.ident.to_string()), objections);
        let (ident, cfg) = (&item.ident, cfgs(&item.attrs));
        items.push(parse_quote!(#(#cfg)* pub mod #ident { #(#content)* }));
    }
    items
}

#[test]
fn public_api_equals_the_snapshot() {
    let mut objections = BTreeSet::new();
    let items = module(&Source::read(), &Name::new(), &mut objections);
    assert!(objections.is_empty(), "{objections:#?}");
    let found = prettyplease::unparse(&File { shebang: None, attrs: Vec::new(), items });
    let path = root().join("tests/public_api.txt");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let first = found.lines().zip(written.lines()).position(|(found, written)| found != written);
    let line = first.unwrap_or_else(|| found.lines().count().min(written.lines().count()));
    let shown = |text: &str| text.lines().nth(line).unwrap_or("the end").trim().to_owned();
    assert!(
        found == written,
        "line {} of tests/public_api.txt: `{}` is written down, and the source has `{}`; \
         if the public API is to change, `BLESS=1 cargo test --workspace --test public_api` rewrites it",
        line + 1,
        shown(&written),
        shown(&found)
    );
}
