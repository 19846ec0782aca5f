// The family tree page: draws what is in #data with Cytoscape.js.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const element = (id) => document.getElementById(id);
  // Cividis, and the colours of Okabe and Ito: both can be told apart with every kind of colour vision.
  const SCALE = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
  const SET = ["#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2", "#bbbbbb"];
  const NONE = "#e8e8e8";
  // The page's colours, light or dark; a file of its own is always light.
  const css = (name, otherwise) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim() || otherwise;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const KIND_STYLE = {
    merge: ["#0072b2", "solid"], finetune: ["#808080", "solid"], lora: ["#009e73", "solid"], cast: ["#999999", "dotted"],
    quantized: ["#d55e00", "dashed"], resized: ["#cc79a7", "dashed"], duplicate: ["#999999", "dotted"], unknown: ["#999999", "dashed"],
  };
  const nodes = data.nodes.map((node) => ({ data: { ...node, colour: NONE } }));
  const edges = data.edges.map((edge) => ({
    data: { ...edge, source: edge.parent, target: edge.child, label: edge.text, ink: (KIND_STYLE[edge.kind] || KIND_STYLE.unknown)[0], dash: (KIND_STYLE[edge.kind] || KIND_STYLE.unknown)[1], head: edge.kind === "duplicate" ? "none" : "triangle" },
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
        "background-color": "data(colour)", "border-width": 1.5, "border-color": soft, width: 26, height: 26, label: "data(name)",
        "font-size": 12, "min-zoomed-font-size": 6, "text-wrap": "wrap", "text-max-width": 170, color: ink,
        "text-background-color": paper, "text-background-opacity": 0.8, "text-background-padding": 2 } },
      { selector: "node[?below]", style: { "text-valign": "bottom", "text-margin-y": 4 } },
      { selector: "node[!below]", style: { "text-valign": "center", "text-halign": "right", "text-margin-x": 5 } },
      { selector: "node[!given]", style: { "border-style": "dashed", "border-width": 2 } },
      { selector: "node[?latent]", style: { shape: "diamond", "border-style": "dashed", "border-width": 2 } },
      { selector: "node[?head]", style: { "font-weight": "bold", "min-zoomed-font-size": 0, "z-index": 2 } },
      { selector: "node[?head][!below]", style: { "text-halign": "left", "text-margin-x": -5 } },
      { selector: "node[?head][?below]", style: { "text-valign": "top", "text-margin-y": -4 } },
      { selector: "node[?best]", style: { "border-color": "#d55e00", "border-width": 4 } },
      { selector: "edge", style: {
        width: 1.5, opacity: nodes.length > 150 ? 0.6 : 1, "line-color": "data(ink)", "line-style": "data(dash)", "target-arrow-color": "data(ink)", "target-arrow-shape": "data(head)", "arrow-scale": 0.9, "curve-style": "bezier",
        label: "data(label)", "font-size": 10, "min-zoomed-font-size": 7, color: soft, "text-background-color": paper, "text-background-opacity": 0.9, "text-background-padding": 1 } },
      { selector: ".plain", style: { label: "" } },
      { selector: ".dim", style: { opacity: 0.15 } },
      { selector: ".near", style: { "border-color": ink, "border-width": 3.5 } },
    ];
  }
  dark.addEventListener("change", () => { cy.style(style()); resize(); });

  // In a large tree, those with a family below them are named however far away it is seen from.
  const lone = cy.nodes().filter((node) => node.connectedEdges().empty()), related = cy.elements().difference(lone);
  if (nodes.length > 60) related.roots().forEach((node) => { if (node.successors("node").length >= 8) node.data("head", true); });

  // The tree shows generations already; several families are told apart first.
  const several = new Set(data.nodes.map((node) => node.family)).size > 1;
  const fields = ["score", ...(several ? ["family", "generation"] : ["generation", "family"]), "licence"].filter((field) => data.nodes.some((node) => node[field] !== null && node[field] !== undefined));
  fields.forEach((field) => element("colour").add(new Option(field, field)));
  const text = (tag, content, parent) => { const item = document.createElement(tag); item.textContent = content; if (parent) parent.append(item); return item; };
  const short = (value) => typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(4) : String(value);

  function paint() {
    const field = element("colour").value, legend = element("legend");
    legend.replaceChildren();
    if (!field) return;
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
    const drawn = Object.keys(KIND_STYLE).filter((kind) => data.edges.some((edge) => edge.kind === kind));
    if (drawn.length > 1) text("b", "descent", legend);
    if (drawn.length > 1) drawn.forEach((kind) => {
      const line = text("div", "", legend), dash = text("span", "", line); dash.className = "dash"; dash.style.borderTop = `2px ${KIND_STYLE[kind][1]} ${KIND_STYLE[kind][0]}`; line.append(kind);
    });
    if (data.nodes.some((node) => !node.given)) text("div", "dashed: only named, or must have existed", legend);
    if (data.nodes.some((node) => node.best)) text("div", "orange ring: best score", legend);
  }

  function arrange() {
    const direction = element("direction").value, down = direction === "TB";
    cy.nodes().data("below", down);
    related.layout({ name: "dagre", rankDir: direction, nodeSep: down ? 110 : 14, rankSep: down ? 90 : 190, edgeSep: 12, animate: false, fit: false }).run();
    // A large family is long and thin: its layers are drawn apart until it has the shape of the window.
    const kin = related.nodes(), box = kin.boundingBox({ includeLabels: false }), shape = cy.width() / cy.height();
    const lacking = down ? box.w / box.h / shape : box.h / box.w * shape;
    const stretch = Math.min(8, Math.max(1, lacking));
    if (kin.nonempty()) kin.positions((node) => { const { x, y } = node.position(); return down ? { x, y: y * stretch } : { x: x * stretch, y }; });
    // Those without relatives stand below, in rows as wide as the rest.
    const under = kin.nonempty() ? kin.boundingBox({ includeLabels: false }) : { x1: 0, y2: 0, w: 0 };
    const step = down ? { x: 150, y: 70 } : { x: 220, y: 45 }, columns = Math.max(1, Math.floor(under.w / step.x), Math.ceil(Math.sqrt(lone.length / 4)));
    lone.positions((node) => { const place = lone.indexOf(node); return { x: under.x1 + (place % columns) * step.x, y: under.y2 + 90 + Math.floor(place / columns) * step.y }; });
    whole();
  }
  function whole() {
    cy.fit(undefined, 40);
    if (cy.zoom() > 1.5) { cy.zoom(1.5); cy.center(); }
  }
  // Seen from afar, models and lines are drawn larger.
  function resize() {
    const scale = Math.min(8, Math.max(1, 0.35 / cy.zoom()));
    cy.batch(() => {
      cy.nodes().style({ width: 26 * scale, height: 26 * scale }); cy.edges().style({ width: 1.5 * scale });
      cy.nodes("[?head]").style({ "font-size": Math.max(12, 11 / cy.zoom()), "text-max-width": 170 * Math.max(1, 0.9 / cy.zoom()) });
    });
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
    if (!node.given) row("note", node.latent ? `must have existed; not among the models given${node.note ? `: ${node.note}` : ""}` : "only named as a parent");
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
  element("labels").addEventListener("change", (event) => cy.edges().toggleClass("plain", !event.target.checked));
  element("direction").addEventListener("change", arrange);
  element("fit").addEventListener("click", whole);
  element("png").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = cy.png({ full: true, scale: 2, bg: css("paper", "#ffffff"), maxWidth: 8000, maxHeight: 8000 }); link.download = "family-tree.png"; link.click();
  });
  element("direction").value = data.nodes.length > 24 ? "LR" : "TB";
  paint(); arrange();
  window.familyTree = cy;
})();
