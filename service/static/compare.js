// Runs side by side: one curve each.
import { $, embedded, asScore } from "./app.js";
import { chart, DASHES, ink, LINES } from "./charts.js";

const curves = embedded("page-data");
const plain = (text) => text.replace(/[<>&]/g, "");
chart($("#curves"), () => ({
  traces: curves.map(({ name, steps }, place) => ({ x: steps.map(([count]) => count), y: steps.map(([, , value]) => value), text: steps.map(([, id]) => id), name: plain(name), mode: "lines+markers", line: { shape: "hv", width: 2.5, color: ink(LINES[place % LINES.length]), dash: DASHES[(place + Math.floor(place / LINES.length)) % DASHES.length] }, hovertemplate: "%{text}: %{y:.4f} after %{x}<extra></extra>" })),
  layout: { xaxis: { title: { text: "offspring evaluated" }, rangemode: "tozero" }, yaxis: { title: { text: "best score so far" } } },
}), () => ({
  columns: [{ name: "run" }, { name: "after evaluations", number: true }, { name: "best" }, { name: "score", number: true }, { name: "± s.e.", number: true }],
  rows: curves.flatMap(({ run, name, steps }) => steps.slice(0, -1).map(([count, id, value, stderr]) => [name, count, { text: id, href: `/runs/${encodeURIComponent(run)}/individuals/${encodeURIComponent(id)}` }, asScore(value), asScore(stderr)])),
}));
