//! The tree of groups, in which repeated groups of the same structure are folded into one.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use super::groups::Modules;
use super::nodes::Nodes;

/// A group of nodes, or the whole graph.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Name, relative to the group around it: `encoder.layer.0–5`.
    pub name: String,
    /// Path of the first of the folded groups.
    pub path: String,
    /// Number of groups that are folded into this one.
    pub repeats: usize,
    pub children: Vec<Child>,
}

/// A part of a group.
#[derive(Debug)]
pub(crate) enum Child {
    Node(usize),
    Group(Group),
}

/// A tree of groups.
#[derive(Debug)]
pub(crate) struct Folded {
    pub root: Group,
    /// The node that stands for each node.
    pub shown_as: Vec<usize>,
    /// The name of each node that was a group of its own, and how many of them are folded.
    pub names: HashMap<usize, (String, usize)>,
}

/// Builds the tree.
pub(crate) fn fold(nodes: &Nodes, modules: &Modules) -> Folded {
    let visible = (0..nodes.nodes.len()).filter(|&at| nodes.nodes[at].is_visible).collect();
    let mut root = build(nodes, &modules.paths, visible, 0);
    root.repeats = 1;
    let mut shown_as: Vec<usize> = (0..nodes.nodes.len()).collect();
    fold_children(nodes, &mut root, &mut shown_as);
    for at in 0..shown_as.len() {
        let mut to = shown_as[at];
        while shown_as[to] != to {
            to = shown_as[to];
        }
        shown_as[at] = to;
    }
    let mut names = HashMap::new();
    simplify(&mut root, &mut names);
    set_paths(&mut root, &modules.prefix);
    Folded { root, shown_as, names }
}

/// Most groups beside each other that may get further nodes. The node after that begins a second group of the same name.
const MOST_OPEN: usize = 256;

/// Groups nodes by the component of their path at this depth, in the order of their first nodes. A module that is used
/// again after others that depend on it becomes a second group, so that groups do not depend on each other in a circle.
fn build(nodes: &Nodes, paths: &[Vec<String>], ids: Vec<usize>, depth: usize) -> Group {
    struct Open<'a> {
        name: &'a str,
        own: HashSet<usize>,
        ids: Vec<usize>,
        /// Nodes outside of the group that depend on it.
        dependent: HashSet<usize>,
    }
    enum Part {
        Node(usize),
        Open(usize),
    }
    let (mut open, mut parts): (Vec<Open<'_>>, Vec<Part>) = (Vec::new(), Vec::new());
    for id in ids {
        let sources = &nodes.nodes[id].sources;
        let name = paths[id].get(depth).map(String::as_str);
        let first = open.len().saturating_sub(MOST_OPEN);
        let known = name.and_then(|name| open[first..].iter().rposition(|group| group.name == name));
        let known = known.map(|at| first + at);
        let known = known.filter(|&at| !sources.iter().any(|source| open[at].dependent.contains(source)));
        for (at, group) in open.iter_mut().enumerate().skip(first) {
            let depends = |source: &usize| group.own.contains(source) || group.dependent.contains(source);
            if Some(at) == known {
                group.own.insert(id);
                group.ids.push(id);
            } else if sources.iter().any(depends) {
                group.dependent.insert(id);
            }
        }
        match (name, known) {
            (None, _) => parts.push(Part::Node(id)),
            (Some(_), Some(_)) => {}
            (Some(name), None) => {
                parts.push(Part::Open(open.len()));
                open.push(Open { name, own: HashSet::from([id]), ids: vec![id], dependent: HashSet::new() });
            }
        }
    }
    let child = |part: Part| match part {
        Part::Node(id) => Child::Node(id),
        Part::Open(at) => {
            let inner = build(nodes, paths, open[at].ids.clone(), depth + 1);
            Child::Group(Group { name: open[at].name.to_owned(), repeats: 1, ..inner })
        }
    };
    Group { children: parts.into_iter().map(child).collect(), ..Group::default() }
}

impl Group {
    /// The nodes in the group, in the order of the tree.
    pub(crate) fn nodes(&self) -> Vec<usize> {
        let mut found = Vec::new();
        for child in &self.children {
            match child {
                Child::Node(id) => found.push(*id),
                Child::Group(group) => found.extend(group.nodes()),
            }
        }
        found
    }
}

/// Folds consecutive groups whose operations, weights, sizes and connections are equal. Their names
/// differ in numbers, or they are one module that is used several times.
fn fold_children(nodes: &Nodes, group: &mut Group, shown_as: &mut [usize]) {
    let mut kept: Vec<(Child, Option<String>)> = Vec::new();
    for child in std::mem::take(&mut group.children) {
        let Child::Group(next) = child else {
            kept.push((child, None));
            continue;
        };
        let structure = structure(nodes, &next);
        if let Some((Child::Group(first), Some(known))) = kept.last_mut()
            && *known == structure
            && without_digits(&first.name) == without_digits(&next.name)
        {
            for (own, other) in first.nodes().into_iter().zip(next.nodes()) {
                shown_as[other] = own;
            }
            first.repeats += 1;
            first.path.clone_from(&next.name);
            continue;
        }
        kept.push((Child::Group(next), Some(structure)));
    }
    group.children = kept.into_iter().map(|(child, _)| child).collect();
    for child in &mut group.children {
        if let Child::Group(group) = child {
            let last = std::mem::take(&mut group.path);
            if group.repeats > 1 && group.name != last {
                group.name = format!("{}–{}", group.name, last.trim_start_matches(|c: char| !c.is_ascii_digit()));
            }
            fold_children(nodes, group, shown_as);
        }
    }
}

/// Describes a group without names that contain its number. Equal descriptions: equal structure.
fn structure(nodes: &Nodes, group: &Group) -> String {
    let places: HashMap<_, _> = group.nodes().into_iter().enumerate().map(|(at, id)| (id, at)).collect();
    let mut text = String::new();
    fn walk(nodes: &Nodes, group: &Group, places: &HashMap<usize, usize>, text: &mut String) {
        for child in &group.children {
            match child {
                Child::Node(id) => {
                    let node = &nodes.nodes[*id];
                    // Writing to a string cannot fail.
                    let _ = write!(text, "{}{:?}(", node.title, node.results);
                    for source in &node.sources {
                        match places.get(source) {
                            Some(at) => text.push_str(&format!("#{at} ")),
                            None => text.push_str("outside "),
                        }
                    }
                    for &weight in &node.weights {
                        let weight = &nodes.weights[weight];
                        text.push_str(&format!("{} {:?} ", weight.tensor, weight.packed));
                    }
                    text.push_str(");");
                }
                Child::Group(group) => {
                    text.push_str(&format!("{:?}{{", group.name));
                    walk(nodes, group, places, text);
                    text.push('}');
                }
            }
        }
    }
    walk(nodes, group, &places, &mut text);
    text
}

/// A name with `#` for each number.
fn without_digits(name: &str) -> String {
    let mut shape = String::new();
    for c in name.chars() {
        if !c.is_ascii_digit() {
            shape.push(c);
        } else if !shape.ends_with('#') {
            shape.push('#');
        }
    }
    shape
}

/// Joins groups that contain nothing but another group, and replaces those of one node by the node.
fn simplify(group: &mut Group, names: &mut HashMap<usize, (String, usize)>) {
    for child in &mut group.children {
        let Child::Group(inner) = child else { continue };
        simplify(inner, names);
        if let [Child::Group(_)] = inner.children[..]
            && let Some(Child::Group(only)) = inner.children.pop()
        {
            if inner.repeats > 1 && only.repeats > 1 {
                inner.children.push(Child::Group(only));
            } else {
                inner.name = format!("{}.{}", inner.name, only.name);
                inner.repeats = inner.repeats.max(only.repeats);
                inner.children = only.children;
            }
        }
        if let [Child::Node(id)] = inner.children[..] {
            let (name, repeats) = names.remove(&id).map_or_else(
                || (inner.name.clone(), inner.repeats),
                |(name, repeats)| (format!("{}.{name}", inner.name), inner.repeats * repeats),
            );
            names.insert(id, (name, repeats));
            *child = Child::Node(id);
        }
    }
}

fn set_paths(group: &mut Group, path: &str) {
    group.path = path.to_owned();
    for child in &mut group.children {
        if let Child::Group(inner) = child {
            let path = if path.is_empty() { inner.name.clone() } else { format!("{path}.{}", inner.name) };
            set_paths(inner, &path);
        }
    }
}
