//! A picture as one HTML page, which needs no other file and no network.
//!
//! The page contains the graph as JSON. `viewer.js` places and draws it, as `place` and `svg` do,
//! because opening and closing groups changes all places.

use serde_json::{Value, json};

use super::faces::{Face, heading};
use super::layers::Cell;
use super::svg::escaped;
use super::{Picture, kinds, place};
use crate::table::{count, size};

const SCRIPT: &str = include_str!("viewer.js");
const STYLE: &str = include_str!("viewer.css");

/// Writes a page.
pub(crate) fn page(picture: &Picture) -> String {
    let title = escaped(&picture.origin);
    // A `<` in a string would end the element, as in `</script>`.
    let data = data(picture).to_string().replace('<', "\\u003c");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline'; \
         style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}{}</style>\n</head>\n<body>\n\
         <script type=\"application/json\" id=\"data\">{data}</script>\n<script>\n{SCRIPT}</script>\n\
         </body>\n</html>\n",
        kinds::style()
    )
}

fn data(picture: &Picture) -> Value {
    let closed = picture.closed();
    let panels = picture.panels.iter().enumerate().map(|(at, own)| {
        let inside = picture.inside(at);
        let operations = inside.iter().filter(|&&id| picture.nodes.nodes[id].step.is_some()).count();
        let bytes = picture.weight_bytes(&inside);
        json!({
            "heading": heading(picture, at),
            "path": own.path,
            "repeats": own.repeats,
            "parent": own.parent,
            "closed": closed[at],
            "cells": own.cells.iter().map(|cell| cell_data(*cell)).collect::<Vec<_>>(),
            "rows": own.rows,
            "segments": own.segments,
            "face": face(&picture.closed_faces[at]),
            "operations": count(operations, "operation"),
            "weights": size(bytes),
            "time": super::faces::time(picture, &inside),
        })
    });
    let mut nodes = serde_json::Map::new();
    for &id in picture.members.keys() {
        nodes.insert(id.to_string(), node(picture, id));
    }
    json!({
        "title": picture.origin,
        "subtitle": subtitle(picture),
        "kinds": picture.kinds().iter().map(|kind| json!([kind.class(), kind.label()])).collect::<Vec<_>>(),
        "fused": picture.has_fused(),
        "timed": picture.profile.is_some(),
        "sizes": {
            "gap": place::GAP,
            "space": place::SPACE,
            "padding": place::PADDING,
            "title": place::TITLE,
            "text": place::TEXT,
            "lane": place::LANE,
        },
        "panels": panels.collect::<Vec<_>>(),
        "nodes": nodes,
    })
}

fn subtitle(picture: &Picture) -> String {
    let operations = picture.nodes.nodes.iter().filter(|node| node.step.is_some()).count();
    let mut parts = vec![count(operations, "operation")];
    if !picture.prefix.is_empty() {
        parts.push(format!("weights in {}", picture.prefix));
    }
    parts.extend(picture.profile.as_ref().map(|profile| profile.about.clone()));
    parts.join(" · ")
}

fn cell_data(cell: Cell) -> Value {
    match cell {
        Cell::Node(id) => json!(["node", id]),
        Cell::Group(at) => json!(["group", at]),
        Cell::Entry(net) => json!(["entry", net]),
        Cell::Exit(net) => json!(["exit", net]),
        Cell::Lane(net) => json!(["lane", net]),
    }
}

fn face(face: &Face) -> Value {
    json!({ "title": face.title, "lines": face.lines, "below": face.below, "width": face.width, "height": face.height })
}

fn node(picture: &Picture, id: usize) -> Value {
    let own = &picture.nodes.nodes[id];
    let members: Vec<_> = picture.members.get(&id).into_iter().flatten().map(|&id| &picture.nodes.nodes[id]).collect();
    let mut weights: Vec<usize> = members.iter().flat_map(|node| node.weights.iter().copied()).collect();
    weights.sort_unstable();
    weights.dedup();
    let weights = weights.into_iter().map(|weight| {
        let weight = &picture.nodes.weights[weight];
        let packed = weight.packed.map(|[rows, columns]| format!(", packed {rows} × {columns}")).unwrap_or_default();
        let bytes = weight.tensor.bytes.map(|bytes| format!(", {}", size(bytes))).unwrap_or_default();
        json!([weight.origin.as_ref().unwrap_or(&weight.path), format!("{}{bytes}{packed}", weight.tensor)])
    });
    let (read, written) =
        picture.measured(id).fold((0, 0), |(read, written), step| (read + step.read, written + step.written));
    json!({
        "face": face(&picture.faces[&id]),
        "kind": own.kind.class(),
        "label": own.kind.label(),
        "fused": own.is_fused,
        "steps": members.iter().filter_map(|node| node.step).collect::<Vec<_>>(),
        "operands": own.operands,
        "results": own.results,
        "weights": weights.collect::<Vec<_>>(),
        "time": super::faces::time(picture, &[id]),
        "percent": picture.profile.as_ref().map(|profile| profile.percent(picture.spent(id))),
        "bytes": picture.profile.as_ref().map(|_| format!("{} read, {} written", size(read), size(written))),
    })
}
