// The family tree page: draws what is in #data with Cytoscape.js.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const element = (id) => document.getElementById(id);
  // Cividis, and the colours of Okabe and Ito: both can be told apart with every kind of colour vision.
  const SCALE = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
  const SET = ["#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2", "#bbbbbb"];
  const NONE = "#e8e8e8";
  const MOST_LABELLED = 30; // edges
  // The page's colours, light or dark; a file of its own is always light.
  const css = (name, otherwise) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim() || otherwise;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const nodes = data.nodes.map((node) => ({ data: { ...node, colour: NONE, label: "" } }));
  const edges = data.edges.map((edge) => ({
    data: { ...edge, source: edge.parent, target: edge.child, label: "", head: edge.kind === "duplicate" ? "none" : "triangle" },
  }));
  const cy = cytoscape({
    container: element("tree"),
    elements: { nodes, edges },
    minZoom: 0.02, maxZoom: 4, hideEdgesOnViewport: nodes.length > 800,
    style: style(),
  });
  function style() {
    const ink = css("ink", "#1b1f24"), paper = css("paper", "#ffffff"), soft = css("soft", "#444");
    return [
      { selector: "node", style: {
        "background-color": "data(colour)", "border-width": 1.5, "border-color": soft, shape: "data(shape)", width: 26, height: 26, label: "data(label)",
        color: ink, "text-background-color": paper, "text-background-opacity": 0.95, "text-background-padding": 1 } },
      { selector: "node[?below]", style: { "text-valign": "bottom", "text-margin-y": 4 } },
      { selector: "node[!below]", style: { "text-valign": "center", "text-halign": "right", "text-margin-x": 5 } },
      { selector: "node[!given]", style: { "border-style": "dashed", "border-width": 2 } },
      { selector: "node[?head]", style: { "font-weight": "bold", "z-index": 2 } },
      { selector: "node[?best]", style: { "border-color": "#d55e00", "border-width": 4 } },
      { selector: "edge", style: {
        opacity: nodes.length > 150 ? 0.6 : 1, "target-arrow-shape": "data(head)", "arrow-scale": 0.9, "curve-style": "bezier", label: "data(label)",
        color: soft, "text-background-color": paper, "text-background-opacity": 0.9, "text-background-padding": 1 } },
      ...Object.entries(data.kinds).map(([kind, { colour, dash }]) => ({ selector: `edge[kind = "${kind}"]`, style: {
        "line-color": colour, "target-arrow-color": colour, "line-style": dash.length ? "dashed" : "solid", "line-dash-pattern": dash.length ? dash.map((length) => 2 * length) : [6, 3] } })),
      { selector: ".dim", style: { opacity: 0.15 } },
      { selector: ".near", style: { "border-color": ink, "border-width": 3.5 } },
    ];
  }
  dark.addEventListener("change", () => { cy.style(style()); resize(); });

  // Names have one size on the screen, however far away the tree is seen from; those that would lie on others are
  // shortened, or left out until there is room. The most telling ones come first.
  const NAME = 12, NOTE = 11, FAMILY = "Helvetica Neue, Helvetica, sans-serif";
  const pen = document.createElement("canvas").getContext("2d");
  const widths = new Map();
  const width = (text, size) => {
    const key = `${size} ${text}`;
    if (!widths.has(key)) { pen.font = `${size}px ${FAMILY}`; widths.set(key, pen.measureText(text).width); }
    return widths.get(key);
  };
  // Of a long name, what tells it from those beside it in the alphabet is kept: the word in which it differs from both.
  const differs = new Map();
  const names = [...new Set(cy.nodes().map((node) => node.data("name")))].sort();
  names.forEach((name, place) => {
    const alike = [names[place - 1] || "", names[place + 1] || ""].map((other) => [...name].findIndex((letter, index) => letter !== other[index]));
    const first = Math.max(...alike, 0);
    differs.set(name, Math.max(name.slice(0, first).search(/[^-_\s]*$/), first - 5));
  });
  const shortened = (name, most) => {
    if (name.length <= most) return name;
    const start = Math.min(differs.get(name) || 0, name.length - most + 1), full = start + most - (start > 0), end = full < name.length ? full - 1 : full;
    return `${start > 0 ? "…" : ""}${name.slice(start, end)}${end < name.length ? "…" : ""}`;
  };
  const rank = (node) => (node.data("head") || node.data("best") ? 1e6 : 0) + node.degree();
  let due = 0;
  const soon = () => { if (!due) due = requestAnimationFrame(() => { due = 0; label(); }); };
  function label() {
    const taken = [], view = { x2: cy.width(), y2: cy.height() };
    const meets = (box) => taken.some((other) => box.x1 < other.x2 && other.x1 < box.x2 && box.y1 < other.y2 && other.y1 < box.y2);
    const seen = (at) => at.x >= 0 && at.y >= 0 && at.x <= view.x2 && at.y <= view.y2;
    const radius = (node) => node.renderedWidth() / 2;
    const visible = cy.nodes().filter((node) => seen(node.renderedPosition())).sort((one, other) => rank(other) - rank(one));
    visible.forEach((node) => { const at = node.renderedPosition(), r = radius(node); taken.push({ x1: at.x - r, y1: at.y - r, x2: at.x + r, y2: at.y + r }); });
    const texts = new Map();
    let shown = 0;
    visible.forEach((node) => {
      const at = node.renderedPosition(), r = radius(node), name = node.data("name"), down = node.data("below");
      for (const text of new Set([name, shortened(name, 32), shortened(name, 20), shortened(name, 12)])) {
        const wide = width(text, NAME) * (node.data("head") ? 1.1 : 1) + 4, high = NAME + 3;
        const box = down ? { x1: at.x - wide / 2, x2: at.x + wide / 2, y1: at.y + r + 3, y2: at.y + r + 3 + high } : { x1: at.x + r + 3, x2: at.x + r + 3 + wide, y1: at.y - high / 2, y2: at.y + high / 2 };
        if (meets(box)) continue;
        taken.push(box); texts.set(node.id(), text); shown += 1;
        break;
      }
    });
    const told = new Set();
    cy.edges().forEach((edge) => {
      const at = edge.renderedMidpoint(), text = edge.data("text"), wide = width(text, NOTE) / 2 + 2;
      // What is told of the parents of a child is told once.
      const once = edge.data("kinship") === undefined || edge.data("kinship") === null ? edge.id() : edge.data("child");
      const box = { x1: at.x - wide, x2: at.x + wide, y1: at.y - NOTE / 2 - 2, y2: at.y + NOTE / 2 + 2 };
      if (!element("labels").checked || !seen(at) || told.has(once) || meets(box)) return;
      taken.push(box); texts.set(edge.id(), text); told.add(once);
    });
    cy.batch(() => {
      cy.elements().forEach((one) => { const text = texts.get(one.id()) || ""; if (one.data("label") !== text) one.data("label", text); });
      cy.nodes().style("font-size", NAME / cy.zoom()); cy.edges().style("font-size", NOTE / cy.zoom());
    });
    const hint = element("hint");
    if (hint) hint.textContent = shown < visible.length ? `${shown} of ${visible.length} names have room: zoom in for more, point at a model for all of it.` : "";
  }
  cy.on("zoom pan resize", soon);

  // In a large tree, those with a family below them are named however far away it is seen from.
  const lone = cy.nodes().filter((node) => node.connectedEdges().empty()), related = cy.elements().difference(lone);
  if (nodes.length > 60) related.roots().forEach((node) => { if (node.successors("node").length >= 8) node.data("head", true); });

  // The tree shows generations already; several families are told apart first.
  const several = new Set(data.nodes.map((node) => node.family)).size > 1;
  const fields = ["score", ...(several ? ["family", "generation"] : ["generation", "family"]), "licence"].filter((field) => new Set(data.nodes.map((node) => node[field]).filter((value) => value !== null && value !== undefined)).size > 1);
  element("colour").closest("label").hidden = !fields.length;
  fields.forEach((field) => element("colour").add(new Option(field, field)));
  const text = (tag, content, parent) => { const item = document.createElement(tag); item.textContent = content; if (parent) parent.append(item); return item; };
  const short = (value) => typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(4) : String(value);

  /** A line of the legend: a drawing, and what it means. */
  function sign(drawing, wide, look, meaning, legend) {
    const line = text("div", "", legend);
    line.className = "sign"; line.innerHTML = `<svg width="${wide}" height="14" aria-hidden="true">${drawing}</svg>`;
    Object.entries(look).forEach(([name, value]) => line.firstChild.firstChild.setAttribute(name, value));
    line.append(meaning);
  }

  /** Colour the models by what is told of them, and say how. */
  function colourBy(field, legend) {
    const values = data.nodes.map((node) => node[field]).filter((value) => value !== null && value !== undefined);
    text("b", field, legend);
    if (values.every((value) => typeof value === "number")) {
      // From the 10th percentile, so that one bad model does not leave all others alike.
      const sorted = [...values].sort((one, two) => one - two);
      const low = field === "score" ? sorted[Math.floor(sorted.length / 10)] : sorted[0], high = sorted[sorted.length - 1];
      cy.nodes().forEach((node) => {
        const value = node.data(field);
        if (value === null || value === undefined) { node.data("colour", NONE); return; }
        const share = high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 1;
        node.data("colour", SCALE[Math.round(share * (SCALE.length - 1))]);
      });
      const bar = text("span", "", legend); bar.className = "bar"; bar.style.background = `linear-gradient(to right, ${SCALE.join(",")})`;
      const ends = text("span", "", legend); ends.className = "ends"; text("span", short(low), ends); text("span", short(high), ends);
    } else {
      const count = (kind) => values.filter((value) => value === kind).length;
      const kinds = [...new Set(values)].sort((one, two) => count(two) - count(one) || (one < two ? -1 : 1));
      // Of many kinds, those of one model alone share the last colour.
      const own = kinds.length > SET.length ? kinds.slice(0, SET.length - 1).filter((kind) => count(kind) > 1) : kinds;
      const colourOf = (value) => own.includes(value) ? SET[own.indexOf(value)] : SET[SET.length - 1];
      cy.nodes().forEach((node) => { const value = node.data(field); node.data("colour", value === null || value === undefined ? NONE : colourOf(value)); });
      const entry = (colour, name) => { const line = text("div", "", legend), dot = text("span", "", line); dot.className = "dot"; dot.style.background = colour; line.append(name); };
      own.forEach((kind) => entry(colourOf(kind), String(kind)));
      if (own.length < kinds.length) entry(SET[SET.length - 1], `${kinds.length - own.length} others`);
    }
    if (data.nodes.some((node) => node[field] === null || node[field] === undefined)) {
      const rest = text("div", "", legend), dot = text("span", "", rest); dot.className = "dot"; dot.style.background = NONE; rest.append("not known");
    }
  }

  function paint() {
    const field = element("colour").value, legend = element("legend");
    legend.replaceChildren();
    if (field) colourBy(field, legend);
    text("b", "descent", legend);
    for (const [kind, { colour, dash, width }] of Object.entries(data.kinds)) {
      sign('<line x1="0" y1="7" x2="32" y2="7"></line>', 32, { stroke: colour, "stroke-width": 1.5 * width, "stroke-dasharray": dash.map((length) => 1.5 * length).join(" ") }, kind === "unknown" ? "kind not known" : kind, legend);
    }
    text("b", "models", legend);
    const ring = { fill: "none", stroke: css("soft", "#444"), "stroke-width": 1.5 };
    const is = (shape) => data.nodes.some((node) => node.shape === shape);
    sign('<circle cx="7" cy="7" r="5"></circle>', 14, ring, "model", legend);
    if (is("hexagon")) sign('<polygon points="7,1 12,4 12,10 7,13 2,10 2,4"></polygon>', 14, ring, "base", legend);
    if (is("rectangle")) sign('<rect x="2" y="2" width="10" height="10"></rect>', 14, ring, "child of a partner that the search added", legend);
    if (data.nodes.some((node) => !node.given && !node.latent)) sign('<circle cx="7" cy="7" r="5"></circle>', 14, { ...ring, "stroke-dasharray": "2 2" }, "only named as a parent", legend);
    if (is("diamond")) sign('<polygon points="7,1 13,7 7,13 1,7"></polygon>', 14, { ...ring, "stroke-dasharray": "2 2" }, "must have existed", legend);
    if (data.nodes.some((node) => node.best)) sign('<circle cx="7" cy="7" r="5"></circle>', 14, { ...ring, stroke: "#d55e00", "stroke-width": 3 }, "best score", legend);
  }

  function arrange() {
    const direction = element("direction").value, down = direction === "TB";
    cy.nodes().data("below", down);
    related.layout({ name: "dagre", rankDir: direction, nodeSep: down ? 110 : 6, rankSep: down ? 90 : 190, edgeSep: 12, animate: false, fit: false }).run();
    // A large family is long and thin: its layers are drawn apart until it has the shape of the window.
    const kin = related.nodes(), box = kin.boundingBox({ includeLabels: false }), shape = (cy.width() - room().right) / cy.height();
    const lacking = down ? box.w / box.h / shape : box.h / box.w * shape;
    const stretch = Math.min(8, Math.max(1, lacking)), widen = Math.min(3, Math.max(1, 1 / lacking));
    if (kin.nonempty()) kin.positions((node) => { const { x, y } = node.position(); return down ? { x: x * widen, y: y * stretch } : { x: x * stretch, y: y * widen }; });
    // Those without relatives stand below, in rows as wide as the rest.
    const under = kin.nonempty() ? kin.boundingBox({ includeLabels: false }) : { x1: 0, y2: 0, w: 0 };
    const step = down ? { x: 150, y: 70 } : { x: 220, y: 45 }, columns = Math.max(1, Math.floor(under.w / step.x), Math.ceil(Math.sqrt(lone.length / 4)));
    lone.positions((node) => { const place = lone.indexOf(node); return { x: under.x1 + (place % columns) * step.x, y: under.y2 + 90 + Math.floor(place / columns) * step.y }; });
    whole();
  }
  /** Pixels that names take beyond the models at the edge of the tree. */
  function room() {
    const kin = cy.nodes();
    if (element("direction").value === "TB") return { right: 0, below: NAME + 8 };
    const end = Math.max(...kin.map((node) => node.position("x")));
    const names = kin.filter((node) => node.position("x") > end - 1).map((node) => width(node.data("name"), NAME));
    return { right: Math.min(0.3 * cy.width(), Math.max(...names) + 12), below: 0 };
  }
  function whole() {
    const box = cy.elements().boundingBox({ includeLabels: false }), { right, below } = room(), pad = 30;
    const wide = cy.width() - 2 * pad - right, high = cy.height() - 2 * pad - below;
    const zoom = Math.max(cy.minZoom(), Math.min(1.5, wide / box.w, high / box.h));
    cy.viewport({ zoom, pan: { x: pad + (wide - zoom * box.w) / 2 - zoom * box.x1, y: pad + (high - zoom * box.h) / 2 - zoom * box.y1 } });
  }
  // Seen from afar, models and lines are drawn larger, as far as there is room between them.
  function resize() {
    const scale = Math.min(8, Math.max(1, 0.35 / cy.zoom()));
    cy.batch(() => {
      cy.nodes().style({ width: 26 * scale, height: 26 * scale });
      Object.entries(data.kinds).forEach(([kind, { width }]) => cy.edges(`[kind = "${kind}"]`).style("width", 1.4 * width * scale));
    });
    soon();
  }
  cy.on("zoom", resize);

  function show(target) {
    const node = target.data(), card = element("card");
    card.replaceChildren();
    text("h2", node.id, card);
    const list = text("dl", "", card);
    const row = (name, value) => { if (value !== null && value !== undefined && value !== "") { text("dt", name, list); text("dd", short(value), list); } };
    row("score", node.score === null || node.score === undefined ? null : node.stderr ? `${short(node.score)} ± ${short(node.stderr)}` : node.score);
    ["generation", "family", "role", "licence", "kinship"].forEach((name) => row(name === "kinship" ? "parents' kinship" : name, node[name]));
    if (node.independence !== null && node.independence !== undefined) row("nearest", `${node.nearest}; p-value of having been trained apart: ${node.independence.toPrecision(2)}`);
    row("descendants", target.successors("node").length || null);
    row("tags", (node.tags || []).join(", "));
    if (!node.given) row("note", node.latent ? node.note || "must have existed; not among the models given" : "only named as a parent");
    target.incomers("edge").forEach((edge) => {
      const facts = edge.data();
      row("from", `${facts.parent}: ${facts.text}` + (facts.confidence !== undefined ? `, confidence ${short(facts.confidence)}` : "") + ` (${facts.sources.join(", ")})`);
      if (facts.evidence) text("pre", JSON.stringify(facts.evidence, null, 1), card);
    });
    const told = data.findings.filter((finding) => finding.id === node.id);
    if (told.length) { const items = text("ul", "", card); told.forEach((finding) => { text("li", finding.text, items).className = "finding"; }); }
    if (node.recipe) text("pre", node.recipe, card);
    card.style.display = "block";
  }

  let pinned = null;
  const highlight = (target) => {
    cy.elements().removeClass("dim near");
    if (!target) return;
    const family = target.union(target.predecessors()).union(target.successors());
    cy.elements().difference(family).addClass("dim");
    target.addClass("near"); target.connectedEdges().addClass("near");
  };
  cy.on("mouseover", "node", (event) => { if (!pinned) { show(event.target); highlight(event.target); } });
  cy.on("mouseout", "node", () => { if (!pinned) { element("card").style.display = "none"; highlight(null); } });
  cy.on("tap", (event) => {
    pinned = event.target === cy || event.target.isEdge() ? null : event.target;
    if (pinned) { show(pinned); highlight(pinned); } else { element("card").style.display = "none"; highlight(null); }
  });
  element("search").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    cy.elements().removeClass("dim near");
    if (!wanted) { element("found").textContent = ""; return; }
    const found = cy.nodes().filter((node) => node.id().toLowerCase().includes(wanted));
    cy.elements().difference(found).addClass("dim"); found.addClass("near");
    element("found").textContent = `${found.length} found`;
    if (found.length) cy.animate({ fit: { eles: found, padding: 120 }, duration: 250 });
  });
  element("colour").addEventListener("change", paint);
  element("labels").addEventListener("change", soon);
  element("direction").addEventListener("change", arrange);
  element("fit").addEventListener("click", whole);
  element("png").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = cy.png({ full: true, scale: 2, bg: css("paper", "#ffffff"), maxWidth: 8000, maxHeight: 8000 }); link.download = "family-tree.png"; link.click();
  });
  if (edges.length > MOST_LABELLED) { element("labels").checked = false; cy.edges().addClass("plain"); }
  element("direction").value = data.nodes.length > 24 || data.nodes.some((node) => node.name.length > 20) ? "LR" : "TB";
  paint(); arrange(); resize(); label();
  window.familyTree = cy;
})();
