//! Layers of each group: the rows of a layered drawing, from top to bottom.
//!
//! An edge between nodes of different groups enters and leaves each group at a port of its own. An
//! edge that passes rows gets a lane in each of them. So the layers of a group do not depend on
//! which groups are open.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Result, ensure};

use super::fold::{Child, Folded, Group};
use super::nodes::Nodes;

/// Number of sweeps that order the rows.
const SWEEPS: usize = 6;

/// Most places of a picture: an edge that passes many rows has one in each.
const MOST_PLACES: usize = 2_000_000;

/// A group with its layers.
#[derive(Debug)]
pub(crate) struct Panel {
    pub name: String,
    pub path: String,
    pub repeats: usize,
    pub parent: Option<usize>,
    pub cells: Vec<Cell>,
    /// The cells of each row, from left to right.
    pub rows: Vec<Vec<usize>>,
    /// Parts of edges, from a cell to one of the next row, with the node whose result it is.
    pub segments: Vec<(usize, usize, usize)>,
}

/// A place in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Cell {
    Node(usize),
    /// A group, by the index of its panel.
    Group(usize),
    /// Where the result of a node enters the group.
    Entry(usize),
    /// Where the result of a node leaves the group.
    Exit(usize),
    /// Where the result of a node passes.
    Lane(usize),
}

/// Creates the panels of all groups. The first one is the whole graph.
///
/// # Errors
/// If they would have too many places.
pub(crate) fn panels(nodes: &Nodes, folded: &Folded) -> Result<Vec<Panel>> {
    let mut all = Panels::default();
    all.add(&folded.root, None);
    for (reader, node) in nodes.nodes.iter().enumerate() {
        if !node.is_visible || folded.shown_as[reader] != reader {
            continue;
        }
        for &source in &node.sources {
            let source = folded.shown_as[source];
            // What the first one of folded groups reads comes before it.
            if source < reader {
                all.connect(source, reader);
            }
        }
    }
    // From the outside in: results enter a group in the order in which they reach it.
    let mut done: Vec<Panel> = Vec::with_capacity(all.panels.len());
    let mut free = MOST_PLACES;
    for (at, (own, edges)) in all.panels.into_iter().zip(all.edges).enumerate() {
        let entries =
            own.parent.and_then(|parent| done.get(parent)).map(|parent| entries(parent, at)).unwrap_or_default();
        let panel = layered(own, &edges, &entries, nodes.inputs, free)?;
        free = free.saturating_sub(panel.cells.len());
        done.push(panel);
    }
    Ok(done)
}

/// The results that enter a child of a panel, from left to right.
fn entries(parent: &Panel, child: usize) -> Vec<usize> {
    let places = parent.rows.iter().flat_map(|row| row.iter().enumerate());
    let places: HashMap<_, _> = places.map(|(place, &cell)| (cell, place)).collect();
    let enters = parent.segments.iter().filter(|(_, to, _)| parent.cells[*to] == Cell::Group(child));
    let mut found: Vec<_> = enters.map(|&(from, _, net)| (places.get(&from), net)).collect();
    // One result may branch off of the same place as another: the latest one first.
    found.sort_by_key(|&(place, net)| (place, std::cmp::Reverse(net)));
    found.into_iter().map(|(_, net)| net).collect()
}

type Edges = BTreeSet<(Cell, Cell, usize)>;

#[derive(Default)]
struct Panels {
    panels: Vec<Panel>,
    edges: Vec<Edges>,
    /// The panel of each node.
    home: HashMap<usize, usize>,
}

impl Panels {
    fn add(&mut self, group: &Group, parent: Option<usize>) -> usize {
        let at = self.panels.len();
        let (name, path, repeats) = (group.name.clone(), group.path.clone(), group.repeats);
        self.edges.push(Edges::new());
        self.panels.push(Panel { name, path, repeats, parent, cells: vec![], rows: vec![], segments: vec![] });
        for child in &group.children {
            let cell = match child {
                Child::Node(id) => {
                    self.home.insert(*id, at);
                    Cell::Node(*id)
                }
                Child::Group(inner) => Cell::Group(self.add(inner, Some(at))),
            };
            self.panels[at].cells.push(cell);
        }
        at
    }

    /// The panels around a node, from the inside out, each with its cell that contains the node.
    fn around(&self, id: usize) -> Vec<(usize, Cell)> {
        let (mut cell, mut next) = (Cell::Node(id), self.home.get(&id).copied());
        let mut found = Vec::new();
        while let Some(at) = next {
            found.push((at, cell));
            (cell, next) = (Cell::Group(at), self.panels[at].parent);
        }
        found
    }

    fn connect(&mut self, source: usize, reader: usize) {
        let (from, to) = (self.around(source), self.around(reader));
        let Some(&(shared, leaves)) = from.iter().find(|(at, _)| to.iter().any(|(other, _)| other == at)) else {
            return;
        };
        let Some(&(_, enters)) = to.iter().find(|(at, _)| *at == shared) else { return };
        for &(at, cell) in from.iter().take_while(|(at, _)| *at != shared) {
            self.edges[at].insert((cell, Cell::Exit(source), source));
        }
        for &(at, cell) in to.iter().take_while(|(at, _)| *at != shared) {
            self.edges[at].insert((Cell::Entry(source), cell, source));
        }
        if leaves != enters {
            self.edges[shared].insert((leaves, enters, source));
        }
    }
}

/// Assigns the children of a panel to rows, and orders each row. Fails beyond this number of places.
fn layered(mut own: Panel, edges: &Edges, entries: &[usize], inputs: usize, most: usize) -> Result<Panel> {
    // The latest result first: older ones, such as residuals, leave on the right.
    let ports: BTreeSet<_> = edges.iter().flat_map(|(from, to, net)| [(*net, *from), (*net, *to)]).collect();
    own.cells.extend(
        ports.into_iter().rev().map(|(_, cell)| cell).filter(|cell| matches!(cell, Cell::Entry(_) | Cell::Exit(_))),
    );
    let places: HashMap<_, _> = own.cells.iter().enumerate().map(|(at, cell)| (*cell, at)).collect();
    let edges = edges.iter().filter_map(|(from, to, net)| Some((*places.get(from)?, *places.get(to)?, *net)));
    let mut edges: Vec<_> = edges.collect();
    let mut ranks = ranks(&own.cells, &edges, inputs);
    edges.retain(|&(from, to, _)| ranks[from] < ranks[to]);
    // Each result has one lane, from which its readers branch off.
    let mut nets: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for (from, to, net) in edges {
        nets.entry((from, net)).or_default().push(to);
    }
    for ((from, net), mut readers) in nets {
        readers.sort_by_key(|&to| ranks[to]);
        let (mut lane, mut rank) = (from, ranks[from]);
        for to in readers {
            let places = own.cells.len() + ranks[to].saturating_sub(rank + 1);
            ensure!(
                places <= most,
                "a picture of the graph would have more than {MOST_PLACES} places, most of them where results pass others: \
                 leave out --svg and --html"
            );
            while rank + 1 < ranks[to] {
                let next = own.cells.len();
                own.cells.push(Cell::Lane(net));
                rank += 1;
                ranks.push(rank);
                own.segments.push((lane, next, net));
                lane = next;
            }
            own.segments.push((lane, to, net));
        }
    }
    own.rows = vec![Vec::new(); ranks.iter().max().map_or(0, |most| most + 1)];
    for (at, &rank) in ranks.iter().enumerate() {
        own.rows[rank].push(at);
    }
    own.rows.retain(|row| !row.is_empty());
    let entries: HashMap<_, _> = entries.iter().enumerate().map(|(at, net)| (*net, at)).collect();
    for row in &mut own.rows {
        let cells = &own.cells;
        row.sort_by_key(|&cell| match cells[cell] {
            Cell::Entry(net) => entries.get(&net),
            _ => None,
        });
    }
    order(&mut own);
    Ok(own)
}

/// The row of each cell: entries in the first one, exits in the last one, and others after what they read.
fn ranks(cells: &[Cell], edges: &[(usize, usize, usize)], inputs: usize) -> Vec<usize> {
    let mut ranks: Vec<usize> = cells.iter().map(|cell| usize::from(!matches!(cell, Cell::Entry(_)))).collect();
    let (mut readers, mut missing) = (vec![Vec::new(); cells.len()], vec![0_usize; cells.len()]);
    for &(from, to, _) in edges {
        readers[from].push(to);
        missing[to] += 1;
    }
    let mut ready: BTreeSet<usize> = (0..cells.len()).filter(|&at| missing[at] == 0).collect();
    let mut left: BTreeSet<usize> = (0..cells.len()).collect();
    // If children depend on each other in a circle, the first one is placed first.
    while let Some(at) = ready.pop_first().or_else(|| left.first().copied()) {
        if !left.remove(&at) {
            continue;
        }
        for &to in &readers[at] {
            if left.contains(&to) {
                ranks[to] = ranks[to].max(ranks[at] + 1);
                missing[to] -= 1;
                if missing[to] == 0 {
                    ready.insert(to);
                }
            }
        }
    }
    // What reads nothing is placed directly above its first reader, except for inputs.
    let is_placed = |cell: Cell| matches!(cell, Cell::Entry(_)) || matches!(cell, Cell::Node(id) if id < inputs);
    let mut has_source = vec![false; cells.len()];
    edges.iter().for_each(|&(_, to, _)| has_source[to] = true);
    for at in (0..cells.len()).filter(|&at| !has_source[at] && !is_placed(cells[at])) {
        if let Some(first) = readers[at].iter().map(|&to| ranks[to]).min() {
            ranks[at] = ranks[at].max(first.saturating_sub(1));
        }
    }
    let last = ranks.iter().copied().max().unwrap_or(0);
    let is_exit = |cell: &Cell| matches!(cell, Cell::Exit(_));
    let inner =
        cells.iter().zip(&ranks).filter(|(cell, _)| !is_exit(cell)).map(|(_, rank)| *rank).max().unwrap_or(last);
    cells.iter().zip(ranks).map(|(cell, rank)| if is_exit(cell) { inner + 1 } else { rank }).collect()
}

/// Orders the cells of each row by the mean place of their neighbours, which reduces crossings.
fn order(own: &mut Panel) {
    let mut neighbours = [vec![Vec::new(); own.cells.len()], vec![Vec::new(); own.cells.len()]];
    for &(from, to, _) in &own.segments {
        neighbours[0][to].push(from);
        neighbours[1][from].push(to);
    }
    let mut place = vec![0.0; own.cells.len()];
    let renumber = |row: &[usize], place: &mut [f64]| {
        for (at, &cell) in row.iter().enumerate() {
            place[cell] = at as f64 - (row.len() as f64 - 1.0) / 2.0;
        }
    };
    own.rows.iter().for_each(|row| renumber(row, &mut place));
    for sweep in 0..SWEEPS {
        let count = own.rows.len();
        for step in 0..count {
            let row = if sweep % 2 == 0 { step } else { count - 1 - step };
            if own.rows[row].iter().any(|&cell| matches!(own.cells[cell], Cell::Entry(_))) {
                continue;
            }
            let near = &neighbours[sweep % 2];
            let mean = |cell: usize| match &near[cell][..] {
                [] => place[cell],
                near => near.iter().map(|&at| place[at]).sum::<f64>() / near.len() as f64,
            };
            let means: HashMap<_, _> = own.rows[row].iter().map(|&cell| (cell, mean(cell))).collect();
            own.rows[row].sort_by(|left, right| means[left].total_cmp(&means[right]));
            renumber(&own.rows[row], &mut place);
        }
    }
}
