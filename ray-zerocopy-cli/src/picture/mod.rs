//! Pictures of graphs: operations in groups, which follow the paths of their weights.
//!
//! | file | what |
//! | --- | --- |
//! | `nodes` | inputs, operations and outputs, and what each reads |
//! | `kinds` | kinds of operations, and their colours |
//! | `groups` | the module of each operation |
//! | `fold` | the tree of groups, with repeated groups folded |
//! | `layers` | the rows of each group |
//! | `faces` | the texts on nodes |
//! | `place` | coordinates |
//! | `svg` | a picture as SVG |
//! | `html` | a picture as a page that can be searched, folded and zoomed |

pub(crate) mod faces;
mod fold;
mod groups;
pub(crate) mod html;
pub(crate) mod kinds;
mod layers;
mod nodes;
mod place;
pub(crate) mod svg;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use anyhow::{Result, ensure};
use ray_zerocopy::jit::{GraphInfo, Profile, StepProfile};

use self::faces::Face;
use self::fold::Folded;
use self::layers::{Cell, Panel};
use self::nodes::Nodes;

/// Most nodes of a picture that are shown at first. Beyond that, the innermost groups are closed.
const MOST: usize = 220;

/// Most operations of a picture: several times those of the largest models. A graph may be made to have many more, and the
/// time of a picture grows with the square of their number.
const MOST_OPERATIONS: usize = 20_000;

/// Most operands of all operations, and most results.
const MOST_OPERANDS: usize = 200_000;

/// A graph in groups, with the rows of each group.
pub(crate) struct Picture {
    /// Path of the pipeline's type.
    origin: String,
    /// What the paths of all weights have in common.
    prefix: String,
    nodes: Nodes,
    folded: Folded,
    /// The groups. The first one is the whole graph, and each comes after the one around it.
    panels: Vec<Panel>,
    /// The nodes that each shown node stands for.
    members: HashMap<usize, Vec<usize>>,
    faces: HashMap<usize, Face>,
    closed_faces: Vec<Face>,
    profile: Option<Times>,
    /// Whether views are shown, and unrolled loops.
    views: bool,
}

/// Time and bytes of each operation.
pub(crate) struct Times {
    /// By the number of the operation.
    steps: HashMap<usize, StepProfile>,
    /// The sum of all times.
    pub total: Duration,
    /// How they were measured.
    pub about: String,
}

impl Times {
    pub(crate) fn new(profile: &Profile, about: String) -> Self {
        let steps: HashMap<_, _> = profile.steps.iter().map(|step| (step.number, step.clone())).collect();
        Self { total: profile.steps.iter().map(|step| step.time).sum(), steps, about }
    }

    /// The share of the total in percent.
    pub(crate) fn percent(&self, time: Duration) -> f64 {
        100.0 * time.as_secs_f64() / self.total.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

impl Picture {
    /// Arranges a graph. With `views`, operations that only view a tensor are shown too.
    ///
    /// # Errors
    /// If the graph is too large for a picture.
    pub(crate) fn new(graph: &GraphInfo, views: bool, profile: Option<Times>) -> Result<Self> {
        let steps = graph.steps();
        let (operands, results) =
            steps.fold((0, 0), |(read, given), step| (read + step.inputs.len(), given + step.outputs.len()));
        let ports = graph.inputs().count() + graph.outputs().count();
        for (found, what, most) in [
            (graph.operations() + ports, "operations, inputs and outputs", MOST_OPERATIONS),
            (operands, "operands", MOST_OPERANDS),
            (results, "results of operations", MOST_OPERANDS),
        ] {
            ensure!(
                found <= most,
                "the graph has {found} {what}, and a picture at most {most}: leave out --svg and --html"
            );
        }
        let nodes = Nodes::of(graph, views);
        let modules = groups::modules(&nodes);
        let folded = fold::fold(&nodes, &modules);
        let panels = layers::panels(&nodes, &folded)?;
        let mut members: HashMap<usize, Vec<usize>> = HashMap::new();
        for (id, &shown) in folded.shown_as.iter().enumerate().filter(|(id, _)| nodes.nodes[*id].is_visible) {
            members.entry(shown).or_default().push(id);
        }
        let mut own = Self {
            origin: graph.origin().to_owned(),
            prefix: modules.prefix,
            nodes,
            folded,
            panels,
            members,
            faces: HashMap::new(),
            closed_faces: Vec::new(),
            profile,
            views,
        };
        own.faces = own.members.keys().map(|&id| (id, faces::node(&own, id))).collect();
        own.closed_faces = (0..own.panels.len()).map(|at| faces::group(&own, at)).collect();
        Ok(own)
    }

    /// Whether each group is closed at first: unrolled loops are, and inner groups if there are too many nodes.
    fn closed(&self) -> Vec<bool> {
        let mut closed: Vec<_> =
            (0..self.panels.len()).map(|at| at > 0 && !self.views && self.is_unrolled(at)).collect();
        let depth = |mut at: usize| {
            let mut depth = 0;
            while let Some(parent) = self.panels[at].parent {
                (at, depth) = (parent, depth + 1);
            }
            depth
        };
        let mut inner: Vec<_> = (1..self.panels.len()).map(|at| (depth(at), at)).collect();
        inner.sort_unstable();
        let hidden: usize = (0..closed.len()).filter(|&at| closed[at]).map(|at| self.inside(at).len()).sum();
        let mut shown = self.members.len().saturating_sub(hidden);
        inner.retain(|&(_, at)| !closed[at]);
        while shown > MOST
            && let Some((_, at)) = inner.pop()
        {
            closed[at] = true;
            // All groups in it are closed already, and count as one.
            shown = (shown + 1).saturating_sub(self.panels[at].cells.iter().filter(|cell| is_child(**cell)).count());
        }
        closed
    }

    /// Whether modules of a group are used in turns, as those of a recurrent layer are in each step.
    fn is_unrolled(&self, at: usize) -> bool {
        let mut names = HashSet::new();
        self.panels[at].cells.iter().any(|cell| match cell {
            Cell::Group(inner) => !names.insert(self.panels[*inner].name.as_str()),
            Cell::Node(id) => self.folded.names.get(id).is_some_and(|(name, _)| !names.insert(name)),
            _ => false,
        })
    }

    /// The shown nodes in a group.
    fn inside(&self, at: usize) -> Vec<usize> {
        let mut found = Vec::new();
        for cell in &self.panels[at].cells {
            match cell {
                Cell::Node(id) => found.push(*id),
                Cell::Group(inner) => found.extend(self.inside(*inner)),
                _ => {}
            }
        }
        found
    }

    /// The measurements of a node and of those that are folded into it.
    fn measured(&self, id: usize) -> impl Iterator<Item = &StepProfile> {
        let members = self.members.get(&id).into_iter().flatten();
        members.filter_map(|&id| self.profile.as_ref()?.steps.get(&self.nodes.nodes[id].step?))
    }

    /// The time of a node and of those that are folded into it.
    fn spent(&self, id: usize) -> Duration {
        self.measured(id).map(|step| step.time).sum()
    }

    /// Size of the weights that nodes and those that are folded into them read. A weight is counted once.
    fn weight_bytes(&self, ids: &[usize]) -> u64 {
        let members = ids.iter().filter_map(|id| self.members.get(id)).flatten();
        let weights: BTreeSet<_> = members.flat_map(|&id| &self.nodes.nodes[id].weights).collect();
        weights.into_iter().filter_map(|&weight| self.nodes.weights[weight].tensor.bytes).sum()
    }

    /// The kinds of the shown nodes, for the legend.
    fn kinds(&self) -> Vec<kinds::Kind> {
        let occurs = |kind: &kinds::Kind| self.members.keys().any(|&id| self.nodes.nodes[id].kind == *kind);
        kinds::Kind::ALL.into_iter().filter(occurs).collect()
    }

    fn has_fused(&self) -> bool {
        self.members.keys().any(|&id| self.nodes.nodes[id].is_fused)
    }

    /// Names of the folded groups, with how often each occurs.
    #[cfg(test)]
    pub(crate) fn repeated(&self) -> Vec<(&str, usize)> {
        self.panels.iter().filter(|own| own.repeats > 1).map(|own| (own.name.as_str(), own.repeats)).collect()
    }
}

fn is_child(cell: Cell) -> bool {
    matches!(cell, Cell::Node(_) | Cell::Group(_))
}

#[cfg(test)]
mod tests;
