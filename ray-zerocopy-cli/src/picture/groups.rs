//! Grouping: the module of each operation, by the paths of the weights.
//!
//! An operation with weights belongs to the module that contains them. One without weights lies
//! between modules: it belongs to the innermost module that contains operations with weights before
//! and after it. Operations between two numbered modules belong to the first one, so that the
//! residual addition of a layer is a part of the layer. What follows the last weights is a group of
//! its own.

use std::collections::HashMap;

use super::kinds::Kind;
use super::nodes::Nodes;

/// Most components of a path that become groups.
const DEEPEST: usize = 24;
/// Most modules before or after an operation that are compared.
const MOST_NEAR: usize = 16;
/// Fewest operations after the last weights that become a group.
const FEWEST_LAST: usize = 3;

type Path = Vec<String>;

/// The modules of a graph's operations.
pub(crate) struct Modules {
    /// What all paths have in common.
    pub prefix: String,
    /// The module of each node, without the prefix.
    pub paths: Vec<Path>,
}

/// Finds the module of each node.
pub(crate) fn modules(nodes: &Nodes) -> Modules {
    let mut weighted = weighted(nodes);
    let prefix = prefix(&weighted);
    for path in weighted.iter_mut().flatten() {
        path.drain(..prefix.len());
        path.truncate(DEEPEST);
    }
    let (before, after) = (before(nodes, &weighted), after(nodes, &weighted));
    let mut paths: Vec<Path> = Vec::with_capacity(nodes.nodes.len());
    // Names of the operations without weights that are directly in a module.
    let mut own: HashMap<Path, Vec<&str>> = HashMap::new();
    let mut last = Vec::new();
    for (at, node) in nodes.nodes.iter().enumerate() {
        if node.step.is_none() || !node.is_visible {
            paths.push(Path::new());
            continue;
        }
        if let Some(path) = &weighted[at] {
            paths.push(path.clone());
            continue;
        }
        let inner = match (&before[at][..], &after[at][..]) {
            ([], [first, rest @ ..]) => rest.iter().fold(first.clone(), |path, other| common(&path, other)),
            (before, after) => between(before, after, node.sources.len() > 1),
        };
        // The last one of a list of modules takes what its predecessor has, too.
        let count =
            |module: &Path| own.get(module).map_or(0, |own| own.iter().filter(|own| **own == node.title).count());
        let list = preceding(nodes, &paths, at).filter(|(module, sibling)| {
            module.len() > inner.len() && module.starts_with(&inner) && count(module) < count(sibling)
        });
        if list.is_none() && after[at].is_empty() {
            last.push(at);
        }
        let path = list.map_or(inner, |(module, _)| module);
        own.entry(path.clone()).or_default().push(&node.title);
        paths.push(path);
    }
    enclose(nodes, &weighted, &mut paths);
    name_last(nodes, &weighted, &last, &mut paths);
    Modules { prefix: prefix.join("."), paths }
}

/// The module of each node with weights: what the paths of its weights have in common, without their names.
///
/// Equal and tied weights have one path, which is that of their first reader. Others are in this module too if they are
/// the same operation, as in a recurrent layer, and it is not one of a list.
fn weighted(nodes: &Nodes) -> Vec<Option<Path>> {
    let mut first: HashMap<usize, &str> = HashMap::new();
    let mut module = |weight: usize, title| {
        let mut path = components(nodes.weights[weight].origin.as_deref()?);
        path.pop();
        let is_first = !first.contains_key(&weight);
        let is_again = *first.entry(weight).or_insert(title) == title && !path.iter().any(|name| is_number(name));
        (is_first || is_again).then_some(path)
    };
    let mut found = Vec::with_capacity(nodes.nodes.len());
    for node in &nodes.nodes {
        let read: &[usize] = if node.is_visible { &node.weights } else { &[] };
        let paths = read.iter().filter_map(|&weight| module(weight, &node.title));
        found.push(paths.reduce(|path, other| common(&path, &other)));
    }
    found
}

/// The parts of a path such as `encoder.layers[0]` or `heads["a.b"].weight`.
fn components(path: &str) -> Path {
    let (mut parts, mut part, mut is_quoted) = (Path::new(), String::new(), false);
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => part.extend([c].into_iter().chain(chars.next())),
            '.' | '[' | ']' if !is_quoted => {
                parts.extend(Some(std::mem::take(&mut part)).filter(|part| !part.is_empty()));
            }
            c => part.push(c),
        }
    }
    parts.extend(Some(part).filter(|part| !part.is_empty()));
    parts
}

/// The nearest modules with weights before each node.
fn before(nodes: &Nodes, weighted: &[Option<Path>]) -> Vec<Vec<Path>> {
    let mut near: Vec<Vec<Path>> = Vec::with_capacity(weighted.len());
    for node in &nodes.nodes {
        let mut own = Vec::new();
        for &source in &node.sources {
            match &weighted[source] {
                Some(path) => add(&mut own, path),
                None => near[source].iter().for_each(|path| add(&mut own, path)),
            }
        }
        near.push(own);
    }
    near
}

/// The nearest modules with weights after each node.
fn after(nodes: &Nodes, weighted: &[Option<Path>]) -> Vec<Vec<Path>> {
    let mut near: Vec<Vec<Path>> = vec![Vec::new(); weighted.len()];
    for (at, node) in nodes.nodes.iter().enumerate().rev().filter(|(_, node)| node.is_visible) {
        let own = match &weighted[at] {
            Some(path) => vec![path.clone()],
            None => near[at].clone(),
        };
        for &source in &node.sources {
            own.iter().for_each(|path| add(&mut near[source], path));
        }
    }
    near
}

fn add(paths: &mut Vec<Path>, path: &Path) {
    if paths.len() < MOST_NEAR && !paths.contains(path) {
        paths.push(path.clone());
    }
}

/// The module between others: the one whose results it joins, the numbered one that it follows, or the innermost one
/// around it.
fn between(before: &[Path], after: &[Path], joins: bool) -> Path {
    let joined = before.iter().cloned().reduce(|path, other| common(&path, &other));
    let joined = joined.filter(|_| joins && before.len() > 1);
    let inner = longest(before, after);
    if let Some(joined) = joined.filter(|joined| joined.len() > inner.len()) {
        return joined;
    }
    let number =
        |path: &&Path| path.strip_prefix(&inner[..])?.first().filter(|name| is_number(name))?.parse::<u64>().ok();
    let follows = before.iter().filter(|path| number(path).is_some()).max_by_key(number);
    match follows {
        Some(path) if after.iter().any(|path| number(&path).is_some()) => path[..=inner.len()].to_vec(),
        _ => inner,
    }
}

/// The numbered module that a node directly follows, and the one before that in its list.
fn preceding(nodes: &Nodes, paths: &[Path], at: usize) -> Option<(Path, Path)> {
    let mut sources = nodes.nodes[at].sources.clone();
    sources.sort_unstable();
    sources.into_iter().rev().find_map(|source| {
        let path = &paths[source];
        let number = path.iter().position(|name| is_number(name))?;
        let module = path[..=number].to_vec();
        let mut sibling = module.clone();
        sibling[number] = path[number].parse::<u32>().ok()?.checked_sub(1)?.to_string();
        Some((module, sibling))
    })
}

/// Moves nodes without weights into the module that surrounds them: that of everything they read and that reads them.
fn enclose(nodes: &Nodes, weighted: &[Option<Path>], paths: &mut [Path]) {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); paths.len()];
    for (at, node) in nodes.nodes.iter().enumerate().filter(|(_, node)| node.is_visible) {
        node.sources.iter().for_each(|&source| readers[source].push(at));
    }
    for at in (0..paths.len()).filter(|&at| weighted[at].is_none() && nodes.nodes[at].step.is_some()) {
        let (sources, readers) = (&nodes.nodes[at].sources, &readers[at]);
        if sources.is_empty() || readers.is_empty() {
            continue;
        }
        let around = sources.iter().chain(readers).map(|&near| paths[near].clone());
        let around = around.reduce(|path, other| common(&path, &other)).unwrap_or_default();
        if around.len() > paths[at].len() && around.starts_with(&paths[at]) {
            paths[at] = around;
        }
    }
}

/// What all modules have in common, up to the first number. Their names stay, if there is a single module.
fn prefix(weighted: &[Option<Path>]) -> Path {
    let all = weighted.iter().flatten().cloned().reduce(|path, other| common(&path, &other)).unwrap_or_default();
    all.into_iter().take_while(|name| !is_number(name)).collect()
}

/// Puts the operations after the last weights into a group.
fn name_last(nodes: &Nodes, weighted: &[Option<Path>], last: &[usize], paths: &mut [Path]) {
    let last: Vec<_> = last.iter().copied().filter(|&at| paths[at].is_empty()).collect();
    if last.len() < FEWEST_LAST || weighted.iter().all(Option::is_none) {
        return;
    }
    let pools = last.iter().any(|&at| nodes.nodes[at].kind == Kind::Reduction);
    let mut name = if pools { "pooling" } else { "output" }.to_owned();
    while paths.iter().any(|path| path.first() == Some(&name)) {
        name.push('\u{2032}');
    }
    for at in last {
        paths[at].push(name.clone());
    }
}

fn is_number(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// The longest path that a module before and one after have in common.
fn longest(before: &[Path], after: &[Path]) -> Path {
    let pairs = before.iter().flat_map(|path| after.iter().map(move |other| common(path, other)));
    pairs.max_by_key(Path::len).unwrap_or_default()
}

fn common(path: &Path, other: &Path) -> Path {
    path.iter().zip(other).take_while(|(own, other)| own == other).map(|(own, _)| own.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::{between, components};

    #[test]
    fn paths_have_components() {
        let is = |path: &str, expected: &[&str]| assert_eq!(components(path), expected, "{path}");
        is("encoder.layer.0.weight", &["encoder", "layer", "0", "weight"]);
        is("layers[0].weight", &["layers", "0", "weight"]);
        is(r#"heads["a.b\"]["][1].weight"#, &["heads", r#"a.b\"]["#, "1", "weight"]);
        is("..weight", &["weight"]);
        is("", &[]);
    }

    #[test]
    fn operations_belong_to_what_they_lie_between() {
        let paths = |paths: &[&str]| paths.iter().map(|path| components(path)).collect::<Vec<_>>();
        let is = |before: &[&str], after: &[&str], expected: &str| {
            assert_eq!(
                between(&paths(before), &paths(after), before.len() > 1).join("."),
                expected,
                "{before:?} {after:?}"
            );
        };
        is(&["layer.0.up"], &["layer.0.down"], "layer.0");
        is(&["layer.0.q", "layer.0.k"], &["layer.0.out"], "layer.0");
        is(&["layer.0.self.q", "layer.0.self.k"], &["layer.0.out"], "layer.0.self");
        is(&["layer.1.down", "layer.0.down"], &["layer.2.norm"], "layer.1");
        is(&["layer.0.down"], &["head"], "");
        // A single operand, which is a residual sum, joins nothing.
        assert!(between(&paths(&["layer.1.down", "layer.0.down"]), &paths(&["head"]), false).is_empty());
    }
}
