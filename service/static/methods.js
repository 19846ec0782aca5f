// A comparison of merge methods: its figures, each with its table, and how far it is while it goes on.
import { $, $$, embedded, asScore, json, known } from "./app.js";
import { chart } from "./charts.js";

const shown = (value) => typeof value === "number" && !Number.isInteger(value) ? asScore(value) : known(value) ? `${value}` : "";

function rows({ traces }) {
  return traces.flatMap((trace) => trace.z
    ? trace.z.flatMap((line, row) => line.map((value, column) => [trace.y[row], trace.x[column], asScore(value)]))
    : trace.x.map((x, place) => [trace.text ? `${trace.name}: ${(trace.hovertext ?? trace.text)[place]}` : trace.name, shown(x), shown(trace.y[place])]));
}

const { charts, address, state: first } = embedded("page-data");
for (const [name, figure] of Object.entries(charts)) {
  const title = (axis, other) => figure.layout[axis]?.title?.text ?? other;
  chart($(`#${name}`), () => figure, () => ({
    columns: [{ name: "what" }, { name: title("xaxis", "cell"), number: name !== "cells" }, { name: title("yaxis", "score"), number: true }],
    rows: rows(figure),
  }));
}

const GOING = ["queued", "running", "pausing"];
let state = first;
const buttons = () => $$("[data-when]").forEach((made) => { made.hidden = !made.dataset.when.split(" ").includes(state); });
async function look() {
  const told = await json(address);
  if (told.state !== state && !GOING.includes(told.state)) { location.reload(); return; } // with its result
  state = told.state;
  const made = $("#state .state"), bar = $("#progress");
  made.className = `state ${state}`; made.textContent = state; buttons();
  $("#going").hidden = !GOING.includes(state);
  $("#arms").textContent = told.total ? `${told.arms} of ${told.total}` : `${told.arms}`;
  bar.hidden = !told.total;
  if (told.total) { bar.max = told.total; bar.value = told.arms; }
}
async function follow() {
  try { await look(); } catch { /* the server is away: asked again */ }
  setTimeout(follow, GOING.includes(state) ? 1000 : 5000);
}
buttons();
setTimeout(follow, 1000);
document.addEventListener("acted", () => look().catch(() => {}));
