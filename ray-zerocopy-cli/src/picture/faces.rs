//! What is written on nodes and closed groups, and how large that makes them.

use std::time::Duration;

use super::Picture;
use super::layers::Cell;
use crate::table::{count, size};

/// Most characters of a line.
const LONGEST: usize = 44;

/// Lines of text, and the size of the rectangle around them.
#[derive(Debug, Clone)]
pub(crate) struct Face {
    pub title: String,
    /// Further lines.
    pub lines: Vec<String>,
    /// What is written on the edge below.
    pub below: String,
    pub width: f64,
    pub height: f64,
}

impl Face {
    fn new(title: &str, lines: Vec<String>, below: &str) -> Self {
        let title = short(title);
        let lines: Vec<_> = lines.iter().filter(|line| !line.is_empty()).map(|line| short(line)).collect();
        let below = short(below);
        let wide = |text: &str, width: f64| text.chars().count() as f64 * width;
        let widths = lines.iter().map(|line| wide(line, 6.2)).chain([wide(&title, 7.6)]);
        let width = widths.fold(64.0, f64::max).max(wide(&below, 5.6) - 20.0) + 24.0;
        Self { height: 26.0 + 15.0 * lines.len() as f64, title, lines, below, width }
    }
}

/// Shortens a text from a file, and removes control characters.
pub(crate) fn short(text: &str) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let start: String = chars.by_ref().take(LONGEST).collect();
    if chars.next().is_some() { format!("{start}…") } else { start }
}

/// The face of a node.
pub(crate) fn node(picture: &Picture, id: usize) -> Face {
    let node = &picture.nodes.nodes[id];
    let name = picture.folded.names.get(&id);
    let title = match name {
        Some((_, repeats)) if *repeats > 1 => format!("{} ×{repeats}", node.title),
        _ => node.title.clone(),
    };
    let mut about = vec![name.map_or_else(|| modules(picture, id), |(name, _)| name.clone())];
    about.retain(|name| !name.is_empty());
    let largest = node.weights.iter().map(|&weight| &picture.nodes.weights[weight]);
    if let Some(weight) = largest.max_by_key(|weight| weight.tensor.bytes)
        && about.first().is_none_or(|name| name.chars().count() < LONGEST / 2 + 6)
    {
        about.push(match weight.packed {
            Some([rows, columns]) => format!("{rows} × {columns} packed"),
            None => weight.tensor.shape.join(" × "),
        });
    }
    let result = node.results.first().map(String::as_str).unwrap_or_default();
    let (lines, below) =
        if node.step.is_none() { (vec![result.to_owned()], "") } else { (vec![about.join(" · ")], result) };
    Face::new(&title, lines.into_iter().chain(time(picture, &[id])).collect(), below)
}

/// The last names of the modules whose weights an operation reads, if they are several.
fn modules(picture: &Picture, id: usize) -> String {
    let weights = picture.nodes.nodes[id].weights.iter().map(|&weight| &picture.nodes.weights[weight]);
    let mut names: Vec<_> = weights.filter_map(|weight| weight.origin.as_deref()?.rsplit('.').nth(1)).collect();
    names.dedup();
    // A single one is the name of the group.
    if names.len() > 1 { names.join(" + ") } else { String::new() }
}

/// The face of a closed group.
pub(crate) fn group(picture: &Picture, at: usize) -> Face {
    let inner = picture.inside(at);
    let operations = inner.iter().filter(|&&id| picture.nodes.nodes[id].step.is_some()).count();
    let bytes = picture.weight_bytes(&inner);
    let mut lines = vec![count(operations, "operation")];
    if bytes > 0 {
        lines.push(format!("{} of weights", size(bytes)));
    }
    lines.extend(time(picture, &inner));
    let results = picture.panels[at].cells.iter().filter_map(|cell| match cell {
        Cell::Exit(id) => picture.nodes.nodes[*id].results.first(),
        _ => None,
    });
    let results: Vec<_> = results.map(String::as_str).collect();
    let below = if let [only] = results[..] { only } else { "" };
    Face::new(&heading(picture, at), lines, below)
}

/// The title of a group.
pub(crate) fn heading(picture: &Picture, at: usize) -> String {
    let own = &picture.panels[at];
    if own.repeats > 1 { format!("{} ×{}", short(&own.name), own.repeats) } else { short(&own.name) }
}

/// The time of these nodes and of those that are folded into them, if it was measured.
pub(crate) fn time(picture: &Picture, ids: &[usize]) -> Option<String> {
    let profile = picture.profile.as_ref()?;
    if ids.iter().all(|&id| picture.nodes.nodes[id].step.is_none()) {
        return None;
    }
    let spent: Duration = ids.iter().map(|&id| picture.spent(id)).sum();
    Some(format!("{} · {:.1}%", duration(spent), profile.percent(spent)))
}

/// Formats a time: `12.3 µs`.
pub(crate) fn duration(time: Duration) -> String {
    match time.as_nanos() as f64 {
        nanos if nanos < 1e6 => format!("{:.1} µs", nanos / 1e3),
        nanos if nanos < 1e9 => format!("{:.2} ms", nanos / 1e6),
        nanos => format!("{:.2} s", nanos / 1e9),
    }
}

/// Width and height of a cell that is not an open group.
pub(crate) fn size_of(picture: &Picture, cell: Cell) -> (f64, f64) {
    let face = match cell {
        Cell::Node(id) => &picture.faces[&id],
        Cell::Group(at) => &picture.closed_faces[at],
        Cell::Entry(_) | Cell::Exit(_) | Cell::Lane(_) => return (0.0, 0.0),
    };
    (face.width, face.height)
}
