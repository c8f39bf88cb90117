//! Architecture tests of `ray-zerocopy/src`: the dependencies between its rooms are those of
//! `ray-zerocopy/rooms.txt`, and the documents list its rooms.
//!
//! A room is a folder, or a file directly in `src` or in a folder with subfolders. `BLESS=1`
//! rewrites the list and the tables.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

const LIST: &str = "ray-zerocopy/rooms.txt";
/// Head of the list.
const HEAD: &str = "\
# The rooms of ray-zerocopy/src, and the rooms that each of them uses. `cargo test -p xtask` compares this list with the `use`
# declarations and paths of the code, and refuses a cycle. A new dependency is a decision: add it here, and give the reason in the
# commit message. `BLESS=1 cargo test -p xtask --test architecture` rewrites the list.
";
/// Documents with a table of the rooms, between the comments `BEGIN` and `END`.
const TABLES: [&str; 2] = ["book/src/design.md", "CONTRIBUTING.md"];
const BEGIN: &str = "<!-- rooms: written by `BLESS=1 cargo test -p xtask --test architecture` -->\n";
const END: &str = "<!-- end of rooms -->";

type Module = Vec<String>;
type Edges = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    // Not that of the compiler: checkouts that share a target folder share this program.
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().to_owned()
}

/// Collects the modules of the crate with their files.
fn modules(folder: &Path, module: &Module, found: &mut BTreeMap<Module, PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let child = [&module[..], std::slice::from_ref(&stem)].concat();
        if path.is_dir() {
            modules(&path, &child, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let at = if ["mod", "lib"].contains(&stem.as_str()) { module.clone() } else { child };
            found.insert(at, path);
        }
    }
}

/// Collects the paths that begin with `crate`, `self` or `super`, in code that is not a test.
fn paths(tokens: TokenStream, module: &Module, found: &mut BTreeSet<Module>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let ident = |at: usize| match tokens.get(at) {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    };
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Punct(punct) if punct.as_char() == '#' && is_test(tokens.get(at + 1)) => {
                // Skips the attribute and its item, which ends with a block or a semicolon.
                at += 2;
                while at < tokens.len() {
                    let end = match &tokens[at] {
                        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                        TokenTree::Punct(punct) => punct.as_char() == ';',
                        _ => false,
                    };
                    if end {
                        break;
                    }
                    at += 1;
                }
            }
            // `$crate` is a path in the code that uses the macro.
            TokenTree::Punct(punct) if punct.as_char() == '$' => at += 1,
            TokenTree::Ident(word) if word == "mod" && matches!(tokens.get(at + 2), Some(TokenTree::Group(_))) => {
                let Some(TokenTree::Group(group)) = tokens.get(at + 2) else { unreachable!() };
                paths(group.stream(), &[&module[..], &[ident(at + 1).unwrap()]].concat(), found);
                at += 2;
            }
            TokenTree::Ident(word) if ["crate", "self", "super"].contains(&word.to_string().as_str()) => {
                at = path(&tokens, at, Vec::new(), module, found);
                continue;
            }
            TokenTree::Group(group) => paths(group.stream(), module, found),
            _ => {}
        }
        at += 1;
    }
}

/// Returns `true` if the group after `#` is a `cfg` that contains `test`, such as `cfg(test)`.
fn is_test(token: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Group(group)) = token else { return false };
    let text = group.stream().to_string().replace(' ', "");
    text.starts_with("cfg(") && text.contains("test") && !text.contains("not(test)")
}

/// Collects one path, and the tree after it in a `use`. Returns the index of the next token.
fn path(
    tokens: &[TokenTree],
    mut at: usize,
    mut so_far: Module,
    module: &Module,
    found: &mut BTreeSet<Module>,
) -> usize {
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(word)) => so_far.push(word.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace && !so_far.is_empty() => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let mut inside = 0;
                while inside < inner.len() {
                    inside = path(&inner, inside, so_far.clone(), module, found) + 1;
                }
                return at + 1;
            }
            _ => break,
        }
        at += 1;
        let colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
        if !(colon(at) && colon(at + 1)) {
            // Skips `as name` in a `use`.
            if matches!(tokens.get(at), Some(TokenTree::Ident(word)) if word == "as") {
                at += 2;
            }
            break;
        }
        at += 2;
    }
    if so_far.len() > 1 {
        found.insert(absolute(&so_far, module));
    }
    at
}

/// Resolves a path from the root of the crate.
fn absolute(path: &Module, module: &Module) -> Module {
    let mut base = module.clone();
    let mut rest = path.as_slice();
    match rest[0].as_str() {
        "crate" => {
            base.clear();
            rest = &rest[1..];
        }
        _ => {
            while let [first, others @ ..] = rest {
                match first.as_str() {
                    "self" => {}
                    "super" => drop(base.pop()),
                    _ => break,
                }
                rest = others;
            }
        }
    }
    [base, rest.to_vec()].concat()
}

/// Returns the module that contains the item of a path.
fn target<'a>(path: &'a Module, known: &BTreeSet<Module>) -> &'a [String] {
    (0..=path.len()).rev().map(|len| &path[..len]).find(|module| known.contains(*module)).unwrap_or(&[])
}

/// Returns the dependencies between the children of each folder with subfolders.
fn edges(sources: &BTreeMap<Module, PathBuf>) -> Edges {
    let known: BTreeSet<Module> = sources.keys().cloned().collect();
    let mut edges = Edges::new();
    for (module, file) in sources {
        let text = fs::read_to_string(file).unwrap();
        let mut found = BTreeSet::new();
        paths(text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display())), module, &mut found);
        for path in found {
            let to = target(&path, &known);
            // A test module in its own file.
            if module.last().is_some_and(|name| name == "tests") {
                continue;
            }
            let shared = module.iter().zip(to).take_while(|(from, to)| from == to).count();
            // `mod.rs` belongs to the folder itself, and `lib.rs` to the crate.
            let (Some(from), Some(to)) = (module.get(..=shared), to.get(..=shared)) else { continue };
            let parent = &module[..shared];
            let has_folders = known.iter().any(|other| other.len() > shared + 1 && other.starts_with(parent));
            let folder =
                |room: &[String]| known.iter().any(|other| other.len() > room.len() && other.starts_with(room));
            if has_folders && (shared == 0 || folder(from) || folder(to)) {
                edges.entry(from.join("/")).or_default().insert(to.join("/"));
            }
        }
        // `lib.rs` re-exports, and may use everything.
        if module.len() == 1 {
            edges.entry(module[0].clone()).or_default();
        }
    }
    edges
}

/// Finds a cycle among the rooms. Returns `None` if there is no cycle.
fn cycle(edges: &Edges) -> Option<Vec<String>> {
    fn visit(room: &String, edges: &Edges, trail: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        if trail.contains(room) {
            trail.push(room.clone());
            return true;
        }
        trail.push(room.clone());
        for next in edges.get(room).into_iter().flatten() {
            if !done.contains(next) && visit(next, edges, trail, done) {
                return true;
            }
        }
        trail.pop();
        done.insert(room.clone());
        false
    }
    let (mut trail, mut done) = (Vec::new(), BTreeSet::new());
    edges.keys().any(|room| visit(room, edges, &mut trail, &mut done)).then_some(trail)
}

fn listed(edges: &Edges) -> String {
    let line = |(room, uses): (&String, &BTreeSet<String>)| {
        format!("{room}: {}", uses.iter().map(String::as_str).collect::<Vec<_>>().join(" ")).trim_end().to_owned()
            + "\n"
    };
    HEAD.to_owned() + &edges.iter().map(line).collect::<String>()
}

/// Formats the rooms of the crate, each with the first sentence of its documentation, as a table.
fn table(sources: &BTreeMap<Module, PathBuf>) -> String {
    let mut text = String::from("| room of `ray-zerocopy/src` | what it is |\n| --- | --- |\n");
    for (module, file) in sources {
        let is_folder = file.file_name().is_some_and(|name| name == "mod.rs");
        if !is_folder && module.len() != 1 {
            continue;
        }
        let source = fs::read_to_string(file).unwrap();
        let comment: Vec<_> = source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
        let first: Vec<_> = comment.iter().copied().take_while(|line| !line.is_empty()).collect();
        let first = first.join(" ");
        let sentence = first.split_once(". ").map_or(first.as_str(), |(sentence, _)| sentence).trim_end_matches('.');
        assert!(!sentence.is_empty(), "{} has no module documentation", file.display());
        // The table is outside of rustdoc, where its links lead nowhere.
        let sentence = sentence.replace("[`", "`").replace("`]", "`");
        text += &format!("| `{}{}` | {sentence} |\n", module.join("/"), if is_folder { "/" } else { ".rs" });
    }
    text
}

/// Compares a file with its expected text, or rewrites it.
fn agree(path: &str, expected: &str) {
    let file = root().join(path);
    if std::env::var_os("BLESS").is_some() {
        return fs::write(file, expected).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(
        found == expected,
        "{path} differs from the code: {differs:?} (found, expected); `BLESS=1 cargo test -p xtask --test architecture` rewrites it"
    );
}

fn sources() -> BTreeMap<Module, PathBuf> {
    let mut sources = BTreeMap::new();
    modules(&root().join("ray-zerocopy/src"), &Vec::new(), &mut sources);
    sources.retain(|module, _| !module.is_empty());
    sources
}

#[test]
fn rooms_use_only_what_the_list_allows() {
    agree(LIST, &listed(&edges(&sources())));
}

#[test]
fn no_cycle_between_rooms() {
    let cycle = cycle(&edges(&sources()));
    assert!(cycle.is_none(), "rooms depend on each other in a cycle: {cycle:?}");
}

#[test]
fn documents_show_the_rooms() {
    let table = table(&sources());
    for document in TABLES {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let (before, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("{document} has no `{}`", BEGIN.trim()));
        let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("{document} has no `{END}`"));
        agree(document, &format!("{before}{BEGIN}\n{table}\n{END}{after}"));
    }
}

#[test]
fn a_cycle_is_found() {
    let edges = |pairs: &[(&str, &str)]| {
        let mut edges = Edges::new();
        for (from, to) in pairs {
            edges.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        edges
    };
    assert_eq!(cycle(&edges(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    assert!(cycle(&edges(&[("a", "b"), ("b", "c"), ("c", "a")])).is_some());
}

#[test]
fn paths_of_code_are_found_and_those_of_tests_are_not() {
    let code = "
        use crate::arena::{file::ArenaFile, io as bytes};
        fn f() { super::engine::call(self::g::<crate::os::Mutex>()) }
        mod inner { use super::tensor::dtype; }
        macro_rules! m { () => { $crate::remote::call() } }
        #[cfg(test)]
        mod tests { use crate::report; }
        #[cfg(all(test, unix))]
        fn helper() { crate::jit::open() }
    ";
    let mut found = BTreeSet::new();
    paths(code.parse().unwrap(), &vec!["pipeline".to_owned(), "share".to_owned()], &mut found);
    let found: Vec<_> = found.iter().map(|path| path.join("::")).collect();
    let expected = [
        "arena::file::ArenaFile",
        "arena::io",
        "os::Mutex",
        "pipeline::engine::call",
        "pipeline::share::g",
        "pipeline::share::tensor::dtype",
    ];
    assert_eq!(found, expected);
}
