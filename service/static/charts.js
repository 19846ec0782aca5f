// Charts by Plotly, each in a figure with its table, drawn once it is seen and again where it changed.
import { $, element, known, script, table, vendored } from "./app.js";

const MOST_LISTED = 1000; // rows of the table below a chart
const CONFIG = { displaylogo: false, responsive: true, toImageButtonOptions: { format: "svg" }, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
// Cividis: equally legible with every kind of colour vision.
export const SCALE = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
export const COLOURS = SCALE.map((colour, index) => [index / (SCALE.length - 1), colour]);
export const LINES = ["blue", "orange", "green", "pink", "soft"];
export const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];

export const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function layout(own) {
  const axis = { gridcolor: ink("line"), zerolinecolor: ink("line"), linecolor: ink("faint"), automargin: true };
  const axes = ["xaxis", "yaxis", ...Object.keys(own).filter((name) => /^[xy]axis\d+$/.test(name))]; // of panels, too
  return {
    margin: { l: 56, r: 12, t: own.annotations?.length ? 28 : 8, b: 44 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
    font: { family: "system-ui, sans-serif", size: 12, color: ink("ink") }, legend: { orientation: "h", y: 1.14, x: 0 }, uirevision: "kept",
    hoverlabel: { bgcolor: ink("card"), bordercolor: ink("line"), font: { color: ink("ink") } },
    ...own, ...Object.fromEntries(axes.map((name) => [name, { ...axis, ...own[name] }])),
  };
}

const drawn = new Map(); // figure -> what it shows, and whether that is on the screen yet
const seen = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
  const state = drawn.get(target);
  state.visible = isIntersecting;
  if (isIntersecting && state.stale) paint(target, state);
}), { rootMargin: "200px" });

async function paint(figure, state) {
  state.stale = false;
  const { traces, layout: own = {}, empty } = state.show();
  const place = $(".chart", figure);
  if (empty) { place.classList.add("bare"); place.replaceChildren(element("p", { class: "empty" }, empty)); return; }
  if (own.height) place.style.height = `${own.height}px`; // of its rows or panels; else what the page gives
  await script(vendored("plotly-cartesian.min.js"));
  if (place.classList.contains("bare")) { place.classList.remove("bare"); place.replaceChildren(); }
  await window.Plotly.react(place, traces, layout(own), CONFIG);
  if (state.link && !state.linked) {
    place.on("plotly_click", (event) => { const address = state.link(event.points[0]); if (address) location.assign(address); });
    state.linked = true;
  }
}

function list(figure, state) {
  const place = $("details", figure);
  if (!place || !place.open) return;
  const { columns, rows } = state.listed(), more = rows.length - MOST_LISTED;
  const made = table(columns, rows.slice(0, MOST_LISTED), $("h2, h3", figure).textContent);
  const scrolled = $(".scroll", place);
  const top = scrolled ? scrolled.scrollTop : 0;
  place.replaceChildren($("summary", place), made, ...(more > 0 ? [element("p", { class: "soft" }, `${more} further rows are in the export.`)] : []));
  made.scrollTop = top;
}

/** Have a figure show something: show() gives {traces, layout} or {empty}, listed() gives {columns, rows} of its table. */
export function chart(figure, show, listed, link) {
  if (!figure) return;
  let state = drawn.get(figure);
  if (!state) {
    state = { visible: false };
    drawn.set(figure, state);
    $("details", figure)?.addEventListener("toggle", () => list(figure, state));
    seen.observe(figure);
  }
  Object.assign(state, { show, listed, link, stale: true });
  if (state.visible) paint(figure, state);
  list(figure, state);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((state, figure) => {
  state.stale = true;
  if (state.visible) paint(figure, state);
}));

/** A heatmap of kinship: ids (n), values (n, n). */
export function heatmap(ids, values, metric, names = ids) {
  const flat = values.flatMap((row, index) => row.filter((value, other) => other !== index && known(value)));
  const low = Math.min(...flat), high = Math.max(...flat);
  return {
    traces: [{
      type: "heatmap", x: names, y: names, z: values, colorscale: COLOURS, reversescale: metric === "euclidean", zmin: low, zmax: high > low ? high : low + 1e-9,
      colorbar: { title: { text: metric }, thickness: 12 }, hovertemplate: "%{y} and %{x}: %{z:.4f}<extra></extra>",
      ...(ids.length <= 12 ? { texttemplate: "%{z:.2f}" } : {}),
    }],
    layout: { xaxis: { type: "category", tickangle: -45 }, yaxis: { type: "category", autorange: "reversed" } },
  };
}

export function pairs(ids, values) {
  const rows = [];
  ids.forEach((one, index) => ids.slice(index + 1).forEach((other, further) => rows.push([one, other, values[index][index + 1 + further]])));
  return rows.sort((one, other) => (one[2] ?? Infinity) - (other[2] ?? Infinity));
}
