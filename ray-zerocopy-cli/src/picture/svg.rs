//! A picture as SVG, from top to bottom.

use std::fmt::Write as _;

use super::faces::{Face, heading, short, size_of};
use super::layers::Cell;
use super::place::{Placed, TEXT, TITLE, place};
use super::{Picture, kinds};
use crate::table::count;

/// Height of the title and the legend.
const HEAD: f64 = 58.0;
/// Distance to the border of the picture.
const MARGIN: f64 = 16.0;

/// Rules of the parts that are not operations.
const STYLE: &str = "\
text { font: 11px system-ui, 'Segoe UI', 'Liberation Sans', sans-serif; fill: #374151; }
.title { font-size: 13px; font-weight: 600; fill: #111827; }
.over { paint-order: stroke; stroke: #f4f6f8; stroke-width: 4px; stroke-linejoin: round; }
.head { font-size: 17px; font-weight: 600; fill: #111827; }
.page { fill: #ffffff; }
.group > rect { fill: #64748b; fill-opacity: 0.06; stroke: #94a3b8; }
.fused rect { stroke-width: 2.6; }
.edge { fill: none; stroke: #64748b; stroke-width: 1.3; }
.arrow { fill: #64748b; }
.below { font-size: 10px; fill: #4b5563; }
.stack > rect { fill: #f4f6f8; stroke: #94a3b8; }
@media (prefers-color-scheme: dark) {
text { fill: #cbd5e1; } .title, .head { fill: #f1f5f9; } .page { fill: #0f1420; }
.edge { stroke: #94a3b8; } .arrow { fill: #94a3b8; } .below { fill: #aab4c3; }
.stack > rect { fill: #1a212e; } .over { stroke: #1a212e; }
}
";

/// Draws a picture.
pub(crate) fn draw(picture: &Picture) -> String {
    let closed = picture.closed();
    let mut placed = vec![Placed::default(); picture.panels.len()];
    for at in (0..picture.panels.len()).rev().filter(|&at| !closed[at]) {
        let size = |cell: Cell| match cell {
            Cell::Group(inner) if !closed[inner] => (placed[inner].width, placed[inner].height),
            cell => size_of(picture, cell),
        };
        let port = |cell: Cell, net: usize, into: bool| port(picture, &closed, &placed, cell, net, into);
        let mut own = place(&picture.panels[at], at == 0, size, port);
        own.width = own.width.max(heading(picture, at).chars().count() as f64 * 7.6 + 24.0);
        placed[at] = own;
    }
    let legend = legend(picture);
    let title = format!(
        "{} · {}",
        picture.origin,
        count(picture.nodes.nodes.iter().filter(|node| node.step.is_some()).count(), "operation")
    );
    let wide = placed[0].width.max(legend.1).max(short(&title).chars().count() as f64 * 10.0);
    let (width, height) = (wide + 2.0 * MARGIN, placed[0].height + HEAD + legend.2 + MARGIN);
    let mut svg = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n<style>\n{STYLE}{}</style>\n\
         <rect class=\"page\" width=\"100%\" height=\"100%\"/>\n",
        kinds::style()
    );
    let _ = writeln!(svg, "<text class=\"head\" x=\"{MARGIN}\" y=\"30\">{}</text>", escaped(&title));
    let _ = writeln!(svg, "<g transform=\"translate({MARGIN} 44)\">{}</g>", legend.0);
    let left = MARGIN + (wide - placed[0].width) / 2.0;
    let mut drawing = Drawing { picture, closed: &closed, placed: &placed, svg };
    drawing.group(0, left, HEAD + legend.2);
    drawing.svg.push_str("</svg>\n");
    drawing.svg
}

/// The place at which a result enters or leaves a cell, relative to it.
fn port(picture: &Picture, closed: &[bool], placed: &[Placed], cell: Cell, net: usize, into: bool) -> f64 {
    match cell {
        Cell::Group(inner) if !closed[inner] => {
            let wanted = if into { Cell::Entry(net) } else { Cell::Exit(net) };
            let found = picture.panels[inner].cells.iter().position(|cell| *cell == wanted);
            found.map_or(placed[inner].width / 2.0, |at| placed[inner].cells[at][0])
        }
        cell => size_of(picture, cell).0 / 2.0,
    }
}

struct Drawing<'a> {
    picture: &'a Picture,
    closed: &'a [bool],
    placed: &'a [Placed],
    svg: String,
}

impl Drawing<'_> {
    /// Draws an open group at this place. Writing to a string cannot fail, so results are ignored.
    fn group(&mut self, at: usize, left: f64, top: f64) {
        let (own, placed) = (&self.picture.panels[at], &self.placed[at]);
        if at > 0 {
            self.stack(own.repeats, [left, top, placed.width, placed.height]);
            let _ = writeln!(
                self.svg,
                "<g class=\"group\">{}</g>",
                rectangle([left, top, placed.width, placed.height], 8.0)
            );
        }
        for (place, cell) in own.cells.iter().enumerate() {
            let [x, y, width, height] = placed.cells[place];
            let at = [left + x, top + y, width, height];
            match *cell {
                Cell::Node(id) => self.node(id, at),
                Cell::Group(inner) if self.closed[inner] => {
                    self.stack(self.picture.panels[inner].repeats, at);
                    self.face("group", &self.picture.closed_faces[inner], at, &self.picture.panels[inner].path);
                }
                Cell::Group(inner) => self.group(inner, at[0], at[1]),
                Cell::Lane(_) | Cell::Entry(_) | Cell::Exit(_) => {
                    let over = if matches!(cell, Cell::Entry(_)) { TITLE } else { 0.0 };
                    let (start, end) = (at[1] - over, at[1] + height);
                    if end > start {
                        let _ = writeln!(self.svg, "<path class=\"edge\" d=\"M{:.1} {start:.1}V{end:.1}\"/>", at[0]);
                    }
                }
            }
        }
        for &(from, to, net) in &own.segments {
            self.edge(at, (from, to, net), left, top);
        }
        if at > 0 {
            // Above the edges.
            let (x, y, title) = (left + 10.0, top + 18.0, escaped(&heading(self.picture, at)));
            let _ = writeln!(self.svg, "<text class=\"title over\" x=\"{x:.1}\" y=\"{y:.1}\">{title}</text>");
        }
    }

    /// Rectangles behind a folded group.
    fn stack(&mut self, repeats: usize, [left, top, width, height]: [f64; 4]) {
        for behind in (0..repeats.min(3)).rev().filter(|_| repeats > 1) {
            let offset = 4.0 * behind as f64;
            let _ = write!(
                self.svg,
                "<g class=\"stack\">{}</g>",
                rectangle([left + offset, top + offset, width, height], 8.0)
            );
        }
    }

    fn edge(&mut self, at: usize, (from, to, net): (usize, usize, usize), left: f64, top: f64) {
        let (own, placed) = (&self.picture.panels[at], &self.placed[at]);
        let port = |place: usize, into| port(self.picture, self.closed, self.placed, own.cells[place], net, into);
        let ([from_x, from_y, _, from_height], [to_x, to_y, to_width, _]) = (placed.cells[from], placed.cells[to]);
        let x = left + from_x + port(from, false);
        // Below the text.
        let y = top + from_y + from_height + if self.has_text(own.cells[from]) { TEXT } else { 0.0 };
        let is_end = match own.cells[to] {
            Cell::Node(_) => true,
            Cell::Group(inner) => self.closed[inner],
            _ => false,
        };
        // Edges from the side end at the side.
        let end = left + to_x;
        let end = if is_end { x.clamp(end + 14.0, end + to_width - 14.0) } else { end + port(to, true) };
        let (bottom, to_y) = (top + placed.bottoms[from], top + to_y - if is_end { 5.0 } else { 0.0 });
        let middle = f64::midpoint(bottom, to_y);
        let _ = writeln!(
            self.svg,
            "<path class=\"edge\" d=\"M{x:.1} {y:.1}V{bottom:.1}\
             C{x:.1} {middle:.1} {end:.1} {middle:.1} {end:.1} {to_y:.1}\"/>"
        );
        if is_end {
            let _ = writeln!(self.svg, "<path class=\"arrow\" d=\"M{:.1} {:.1}h8l-4 7z\"/>", end - 4.0, to_y - 2.0);
        }
    }

    fn has_text(&self, cell: Cell) -> bool {
        match cell {
            Cell::Node(id) => !self.picture.faces[&id].below.is_empty(),
            Cell::Group(at) => self.closed[at] && !self.picture.closed_faces[at].below.is_empty(),
            _ => false,
        }
    }

    fn node(&mut self, id: usize, at: [f64; 4]) {
        let node = &self.picture.nodes.nodes[id];
        let class = format!("{}{}", node.kind.class(), if node.is_fused { " fused" } else { "" });
        let about: Vec<_> =
            node.weights.iter().map(|&weight| self.picture.nodes.weights[weight].path.as_str()).collect();
        self.face(&class, &self.picture.faces[&id], at, &about.join("\n"));
    }

    fn face(&mut self, class: &str, face: &Face, [left, top, width, height]: [f64; 4], about: &str) {
        let radius = if class == "port" { height / 2.0 } else { 5.0 };
        let _ = write!(self.svg, "<g class=\"{class}\">{}", rectangle([left, top, width, height], radius));
        let middle = left + width / 2.0;
        let mut line = |class: &str, y: f64, text: &str| {
            let _ = write!(
                self.svg,
                "<text class=\"{class}\" x=\"{middle:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>",
                escaped(text)
            );
        };
        line("title", top + 18.0, &face.title);
        for (at, text) in face.lines.iter().enumerate() {
            line("line", top + 33.0 + 15.0 * at as f64, text);
        }
        if !face.below.is_empty() {
            line("below", top + height + 13.0, &face.below);
        }
        let _ = writeln!(self.svg, "<title>{}</title></g>", escaped(about));
    }
}

fn rectangle([left, top, width, height]: [f64; 4], radius: f64) -> String {
    format!("<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{radius:.1}\"/>")
}

/// The kinds with their colours, and the width and height of that.
fn legend(picture: &Picture) -> (String, f64, f64) {
    const WIDEST: f64 = 760.0;
    let kinds = picture.kinds();
    let mut entries: Vec<_> = kinds.iter().map(|kind| (kind.class().to_owned(), kind.label())).collect();
    if picture.has_fused() {
        entries.push(("product fused".to_owned(), "fused or packed"));
    }
    let (mut svg, mut x, mut y, mut widest) = (String::new(), 0.0, 0.0, 0.0_f64);
    for (class, label) in entries {
        let width = label.chars().count() as f64 * 6.0 + 34.0;
        if x > 0.0 && x + width > WIDEST {
            (x, y) = (0.0, y + 18.0);
        }
        let chip = rectangle([x, y, 14.0, 12.0], 3.0);
        let _ = write!(
            svg,
            "<g class=\"{class}\">{chip}<text x=\"{:.1}\" y=\"{:.1}\">{label}</text></g>",
            x + 19.0,
            y + 10.0
        );
        x += width;
        widest = widest.max(x);
    }
    (svg, widest, y + 18.0)
}

/// Escapes a text for XML, and removes characters that XML does not allow.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn markup_is_escaped() {
        assert_eq!(
            escaped("</script><img onerror='x' y=\"\u{1}&\">"),
            "&lt;/script&gt;&lt;img onerror=&#39;x&#39; y=&quot; &amp;&quot;&gt;"
        );
    }
}
