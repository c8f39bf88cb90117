// Places and draws the graph of this page. All texts are from files: they are set as text, never as markup.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const { panels, nodes, sizes } = data;
const closed = panels.map((panel) => panel.closed);
let chosen = null, hits = [], hit = -1, heat = data.timed, placed = [], view = { x: 20, y: 20, scale: 1 };

function html(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}
function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Places.
function faceOf([what, at]) {
  return what === "node" ? nodes[at].face : what === "group" && closed[at] ? panels[at].face : null;
}
function sizeOf(cell) {
  const face = faceOf(cell);
  if (face) return [face.width, face.height];
  return cell[0] === "group" ? [placed[cell[1]].width, placed[cell[1]].height] : [0, 0];
}
function portOf(cell, net, into) {
  if (cell[0] === "group" && !closed[cell[1]]) {
    const at = panels[cell[1]].cells.findIndex(([what, own]) => own === net && what === (into ? "entry" : "exit"));
    if (at >= 0) return placed[cell[1]].cells[at][0];
  }
  return sizeOf(cell)[0] / 2;
}
// The nearest sequence that does not decrease.
function monotonous(wanted, weights) {
  const pools = [];
  wanted.forEach((value, index) => {
    pools.push([value, weights[index], 1]);
    while (pools.length > 1 && pools[pools.length - 2][0] > pools[pools.length - 1][0]) {
      const [other, second, others] = pools.pop(), [one, first, ones] = pools.pop();
      pools.push([(one * first + other * second) / (first + second), first + second, ones + others]);
    }
  });
  return pools.flatMap(([value, , count]) => Array(count).fill(value));
}
function place(at) {
  const { cells, rows, segments } = panels[at];
  const size = cells.map(sizeOf), left = cells.map(() => 0), near = [cells.map(() => []), cells.map(() => [])];
  const isLane = (cell) => cells[cell][0] === "lane";
  const space = (one, other) => (size[one][0] === 0 || size[other][0] === 0 ? sizes.lane + sizes.space / 4 : sizes.space);
  const weight = (cell, other) => (isLane(cell) ? (isLane(other) ? 4 : 1) : isLane(other) ? 0.15 : 1);
  for (const [from, to, net] of segments) {
    const out = portOf(cells[from], net, false), into = portOf(cells[to], net, true);
    near[0][to].push([from, out, into]);
    near[1][from].push([to, into, out]);
  }
  for (const row of rows) {
    let x = 0;
    row.forEach((cell, index) => {
      if (index > 0) x += size[row[index - 1]][0] + space(row[index - 1], cell);
      left[cell] = x;
    });
    const width = x + size[row[row.length - 1]][0];
    for (const cell of row) left[cell] -= width / 2;
  }
  for (let sweep = 0; sweep < 8; sweep++) {
    for (const row of sweep % 2 === 0 ? rows : [...rows].reverse()) {
      const wanted = row.map((cell) => {
        let sum = 0, weights = 0;
        for (const [other, port, own] of near[sweep % 2][cell]) {
          const own_weight = weight(cell, other);
          sum += own_weight * (left[other] + port - own);
          weights += own_weight;
        }
        return weights > 0 ? sum / weights : left[cell];
      });
      const offsets = [0];
      for (let index = 1; index < row.length; index++) {
        offsets.push(offsets[index - 1] + size[row[index - 1]][0] + space(row[index - 1], row[index]));
      }
      const free = monotonous(wanted.map((x, index) => x - offsets[index]), row.map((cell) => (isLane(cell) ? 0.05 : 1)));
      row.forEach((cell, index) => (left[cell] = free[index] + offsets[index]));
    }
  }
  const least = left.reduce((least, x) => Math.min(least, x), Infinity), title = at === 0 ? 0 : sizes.title;
  const own = { width: headingOf(at).length * 7.6 + 24, height: title, cells: cells.map(() => [0, 0, 0, 0]), bottoms: [] };
  for (const row of rows) {
    const height = row.reduce((most, cell) => Math.max(most, size[cell][1]), 0);
    for (const cell of row) {
      own.bottoms[cell] = own.height + (height > 0 ? height + sizes.text : 0);
      own.cells[cell] = [left[cell] - least + sizes.padding, own.height, size[cell][0], isLane(cell) ? height : size[cell][1]];
      own.width = Math.max(own.width, left[cell] - least + size[cell][0] + 2 * sizes.padding);
    }
    own.height += height + (height === 0 ? sizes.gap / 2 : sizes.gap);
  }
  const last = rows.length > 0 && rows[rows.length - 1].every((cell) => size[cell][1] === 0);
  own.height = Math.max(own.height + (last ? -sizes.gap / 2 : sizes.padding - sizes.gap), title + sizes.padding);
  return own;
}

function headingOf(at) {
  return "▾ " + panels[at].heading + (panels[at].time ? " · " + panels[at].time : "");
}

// Drawing.
function rectangle([x, y, width, height], rx) {
  return svg("rect", { x, y, width, height, rx });
}
function stack(into, repeats, [x, y, width, height]) {
  if (repeats < 2) return;
  for (let behind = Math.min(repeats, 3) - 1; behind >= 0; behind--) {
    const group = svg("g", { class: "stack" });
    group.append(rectangle([x + 4 * behind, y + 4 * behind, width, height], 8));
    into.append(group);
  }
}
function drawFace(into, className, face, at, radius) {
  const group = svg("g", { class: className });
  group.append(rectangle(at, radius));
  const middle = at[0] + at[2] / 2;
  const line = (className, y, text) => group.append(svg("text", { class: className, x: middle, y, "text-anchor": "middle" }, text));
  line("title", at[1] + 18, face.title);
  face.lines.forEach((text, index) => line("line", at[1] + 33 + 15 * index, text));
  if (face.below) line("below", at[1] + at[3] + 13, face.below);
  into.append(group);
  return group;
}
function drawPanel(at, x, y, into) {
  const own = panels[at], place = placed[at];
  if (at > 0) {
    const area = [x, y, place.width, place.height];
    stack(into, own.repeats, area);
    const group = svg("g", { class: "group" + (chosen === "g" + at ? " chosen" : "") });
    group.append(rectangle(area, 8));
    group.addEventListener("click", () => toggle(at));
    into.append(group);
  }
  own.cells.forEach((cell, index) => {
    const [left, top, width, height] = place.cells[index], area = [x + left, y + top, width, height];
    if (cell[0] === "node") {
      const node = nodes[cell[1]], id = "n" + cell[1];
      let className = "node " + node.kind + (node.fused ? " fused" : "") + (chosen === id ? " chosen" : "");
      if (hits.length > 0) className += hits.includes(cell[1]) ? " hit" : " dim";
      const group = drawFace(into, className, node.face, area, node.kind === "port" ? height / 2 : 5);
      if (heat && node.percent !== null && node.steps.length > 0) {
        group.classList.add("heat");
        group.firstChild.style.fillOpacity = Math.min(0.03 + node.percent / 25, 1);
      }
      group.addEventListener("click", () => choose(id));
    } else if (cell[0] === "group" && closed[cell[1]]) {
      stack(into, panels[cell[1]].repeats, area);
      const face = { ...panels[cell[1]].face };
      face.title = "▸ " + face.title;
      drawFace(into, "group", face, area, 8).addEventListener("click", () => toggle(cell[1]));
    } else if (cell[0] === "group") {
      drawPanel(cell[1], area[0], area[1], into);
    } else {
      const start = area[1] - (cell[0] === "entry" ? sizes.title : 0);
      if (area[1] + height > start) into.append(edge(cell[1], `M${area[0]} ${start}V${area[1] + height}`));
    }
  });
  for (const [from, to, net] of own.segments) {
    const [fromX, fromY, , fromHeight] = place.cells[from], [toX, toY, toWidth] = place.cells[to];
    const source = own.cells[from], target = own.cells[to], face = faceOf(source);
    const start = x + fromX + portOf(source, net, false);
    const top = y + fromY + fromHeight + (face && face.below ? sizes.text : 0), bottom = y + place.bottoms[from];
    const isEnd = faceOf(target) !== null, end = y + toY - (isEnd ? 5 : 0), middle = (bottom + end) / 2;
    const at = isEnd ? Math.min(Math.max(start, x + toX + 14), x + toX + toWidth - 14) : x + toX + portOf(target, net, true);
    into.append(edge(net, `M${start} ${top}V${bottom}C${start} ${middle} ${at} ${middle} ${at} ${end}`));
    if (isEnd) into.append(svg("path", { class: "arrow", d: `M${at - 4} ${end - 2}h8l-4 7z` }));
  }
  // Above the edges.
  if (at > 0) into.append(svg("text", { class: "title over", x: x + 10, y: y + 18 }, headingOf(at)));
}
function edge(net, d) {
  return svg("path", { class: "edge" + (chosen === "n" + net ? " near" : ""), d });
}
function draw() {
  placed = [];
  for (let at = panels.length - 1; at >= 0; at--) placed[at] = closed[at] ? null : place(at);
  const layer = svg("g", { id: "layer" });
  drawPanel(0, 0, 0, layer);
  picture.replaceChildren(layer);
  move();
}
function move() {
  picture.firstChild.setAttribute("transform", `translate(${view.x} ${view.y}) scale(${view.scale})`);
}

// Where a node or a group is in the picture, or the closed group that contains it.
function areaOf(panel, wanted) {
  const around = [];
  for (let at = panel; at !== null; at = panels[at].parent) around.unshift(at);
  let x = 0, y = 0, area = null;
  for (let depth = 0; depth < around.length && !closed[around[depth]]; depth++) {
    const next = depth + 1 < around.length ? ["group", around[depth + 1]] : wanted;
    const index = panels[around[depth]].cells.findIndex(([what, own]) => what === next[0] && own === next[1]);
    if (index < 0) break;
    const [left, top, width, height] = placed[around[depth]].cells[index];
    area = [x + left, y + top, width, height];
    [x, y] = area;
  }
  return area;
}
function panelOf(id) {
  return panels.findIndex((panel) => panel.cells.some(([what, own]) => what === "node" && own === id));
}
function center(area) {
  if (!area) return;
  const { width, height } = picture.getBoundingClientRect();
  view.x = width / 2 - (area[0] + area[2] / 2) * view.scale;
  view.y = height / 2 - (area[1] + Math.min(area[3], height / view.scale) / 2) * view.scale;
  move();
}
function fit() {
  const { width, height } = picture.getBoundingClientRect(), whole = placed[0];
  show(Math.min(width / (whole.width + 40), height / (whole.height + 40), 1.25));
}
// Shows the start of the picture.
function show(scale) {
  const { width, height } = picture.getBoundingClientRect(), whole = placed[0];
  view.scale = scale;
  view.x = (width - whole.width * scale) / 2;
  view.y = Math.max((height - whole.height * scale) / 2, 16);
  move();
}
function zoom(factor, x, y) {
  const scale = Math.min(Math.max(view.scale * factor, 0.05), 4);
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  move();
}

// Details.
function section(title, items) {
  if (items.length === 0) return;
  aside.append(html("h3", "", title));
  for (const item of items) aside.append(item);
}
function lines(texts) {
  return texts.map((text) => html("div", "item", text));
}
function details() {
  aside.replaceChildren();
  aside.hidden = chosen === null;
  if (chosen === null) return;
  const at = Number(chosen.slice(1));
  if (chosen[0] === "g") {
    const panel = panels[at];
    aside.append(html("h2", "", panel.heading), html("div", "soft", panel.path));
    section("Contents", lines([panel.operations + (panel.repeats > 1 ? " in each, " + panel.repeats + " times" : "")]));
    section("Weights", lines([panel.weights]));
    if (panel.time) section("Time", lines([panel.time]));
    return;
  }
  const node = nodes[at];
  aside.append(html("h2", "", node.face.title), html("div", "soft", node.label + (node.fused ? ", fused or packed" : "")));
  if (node.time) section("Time", lines([node.time, node.bytes]));
  section(node.steps.length > 1 ? "Operations" : "Operation", node.steps.length > 0 ? lines([node.steps.map((step) => "#" + step).join(", ")]) : []);
  section("Operands", lines(node.operands));
  section("Results", lines(node.results));
  section("Weights", node.weights.map(([path, about]) => {
    const item = html("div", "item", path);
    item.append(html("div", "soft", about));
    return item;
  }));
}
function choose(id) {
  if (moved) return;
  chosen = chosen === id ? null : id;
  details();
  draw();
}
function toggle(at) {
  if (moved) return;
  const before = areaOf(panels[at].parent, ["group", at]);
  closed[at] = !closed[at];
  chosen = "g" + at;
  details();
  draw();
  // The group stays where the pointer is.
  const after = areaOf(panels[at].parent, ["group", at]);
  if (before && after) {
    view.x += (before[0] - after[0]) * view.scale;
    view.y += (before[1] - after[1]) * view.scale;
    move();
  }
}

// Search.
const texts = Object.entries(nodes).map(([id, node]) => {
  const weights = node.weights.map(([path]) => path);
  return [Number(id), [node.face.title, node.label, ...node.face.lines, ...weights, ...node.steps.map((step) => "#" + step)].join("\n").toLowerCase()];
});
function find() {
  const wanted = search.value.trim().toLowerCase();
  hits = wanted === "" ? [] : texts.filter(([, text]) => text.includes(wanted)).map(([id]) => id);
  hit = -1;
  found.textContent = wanted === "" ? "" : hits.length === 1 ? "1 found" : hits.length + " found";
  draw();
}
function next() {
  if (hits.length === 0) return;
  hit = (hit + 1) % hits.length;
  const panel = panelOf(hits[hit]);
  for (let at = panel; at !== null; at = panels[at].parent) closed[at] = false;
  chosen = "n" + hits[hit];
  details();
  draw();
  center(areaOf(panel, ["node", hits[hit]]));
}

// The page.
const header = html("header"), search = html("input"), found = html("span", "soft"), main = html("main"), aside = html("aside");
const picture = svg("svg", { id: "picture" });
function button(text, action) {
  const made = html("button", "", text);
  made.addEventListener("click", action);
  header.append(made);
}
header.append(html("h1", "", data.title), html("span", "soft", data.subtitle), search, found);
search.type = "search";
search.placeholder = "Search: name, weight, operation";
search.setAttribute("aria-label", search.placeholder);
search.addEventListener("input", find);
search.addEventListener("keydown", (event) => event.key === "Enter" && next());
button("Open all", () => { closed.fill(false); draw(); fit(); });
button("Close all", () => { closed.fill(true, 1); draw(); fit(); });
button("Fit", fit);
button("+", () => zoom(1.25, picture.clientWidth / 2, picture.clientHeight / 2));
button("−", () => zoom(0.8, picture.clientWidth / 2, picture.clientHeight / 2));
if (data.timed) button("Colours: time or kind", () => { heat = !heat; draw(); });
const legend = html("div", "legend");
for (const [className, label] of [...data.kinds, ...(data.fused ? [["product fused", "fused or packed"]] : [])]) {
  const entry = html("span"), chip = svg("svg", { width: 16, height: 13 }), group = svg("g", { class: className });
  group.append(rectangle([1.5, 1.5, 13, 10], 3));
  chip.append(group);
  entry.append(chip, label);
  legend.append(entry);
}
if (data.timed) legend.append(html("span", "", "red: share of the time"));
header.append(legend);
aside.hidden = true;
main.append(picture, aside);
document.body.append(header, main);

// Dragging moves the picture. A click that was a drag chooses nothing.
let drag = null, moved = false;
picture.addEventListener("pointerdown", (event) => { drag = [event.clientX, event.clientY]; moved = false; });
window.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const [x, y] = [event.clientX - drag[0], event.clientY - drag[1]];
  if (!moved && Math.hypot(x, y) < 4) return;
  moved = true;
  view.x += x;
  view.y += y;
  drag = [event.clientX, event.clientY];
  move();
});
window.addEventListener("pointerup", () => (drag = null));
picture.addEventListener("wheel", (event) => {
  event.preventDefault();
  const { left, top } = picture.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.clientX - left, event.clientY - top);
}, { passive: false });
draw();
show(Math.min(Math.max(picture.getBoundingClientRect().width / (placed[0].width + 40), 0.5), 1));
