// The page of a run: what is new comes as increments, at most twice a second, whatever the search does.
import { $, calm, decimals, duration, element, embedded, json, known, asScore, post, remember, say, signed, table, trouble } from "./app.js";
import { chart, heatmap, ink, pairs } from "./charts.js";
import { Family } from "./family.js";
import { Population } from "./population.js";

const { run, tasks: begun, after, live: first } = embedded("page-data");
const here = `/runs/${encodeURIComponent(run)}`, api = `/api/v1/runs/${encodeURIComponent(run)}`;
const PAUSE = 500; // ms between two requests, while events come
const MOST_DOTS = 2000; // candidates drawn one by one: the latest
const MOST_EVENTS = 300;
const ACTIVE = ["running", "queued", "pausing"];
const people = []; // every individual, in the order proposed
const places = new Map(); // id -> where it stands there
let tasks = begun, settled = 0, live = first, gain = null, front = [], related = null;

const address = (id) => `${here}/individuals/${encodeURIComponent(id)}`;
const population = new Population($("#people"), tasks, address);
const family = new Family($("#family"), address);

// Charts

function curve() {
  const best = [], dots = { x: [], y: [], text: [], error: [] };
  let count = 0, leader = null;
  for (const one of people) {
    if (one.role === "base" || (one.generation > 0 && ++count && false)) continue;
    if (known(one.value) && one.complete && !one.twin && (!leader || one.value > leader.value)) {
      leader = one;
      best.push([count, one]);
    }
    if (one.generation > 0 && known(one.value)) { dots.x.push(count); dots.y.push(one.value); dots.text.push(one.id); }
  }
  return { best, dots, count, leader };
}

function drawCurve() {
  const show = () => {
    const { best, dots, count, leader } = curve();
    if (!leader) return { empty: "No score yet." };
    const steps = [...best, [count, leader]], x = steps.map(([place]) => place), y = steps.map(([, one]) => one.value);
    const error = steps.map(([, one]) => one.stderr || 0), from = Math.max(0, dots.x.length - MOST_DOTS);
    const band = { mode: "lines", line: { width: 0, shape: "hv" }, hoverinfo: "skip", showlegend: false };
    return {
      traces: [
        { x, y: y.map((value, index) => value - error[index]), ...band },
        { x, y: y.map((value, index) => value + error[index]), ...band, fill: "tonexty", fillcolor: `${ink("blue")}33` },
        { x: dots.x.slice(from), y: dots.y.slice(from), text: dots.text.slice(from), name: "candidates", mode: "markers", marker: { color: ink("faint"), size: 5 }, hovertemplate: "%{text}: %{y:.4f}<extra></extra>" },
        { x, y, text: steps.map(([, one]) => one.id), name: "best so far", mode: "lines+markers", line: { shape: "hv", color: ink("blue"), width: 2.5 }, marker: { size: 6 }, hovertemplate: "%{text}: %{y:.4f} after %{x}<extra></extra>" },
      ],
      layout: { xaxis: { title: { text: "offspring evaluated" }, rangemode: "tozero" }, yaxis: { title: { text: "score" } } },
    };
  };
  const listed = () => ({
    columns: [{ name: "after evaluations", number: true }, { name: "best" }, { name: "score", number: true }, { name: "± s.e.", number: true }],
    rows: curve().best.map(([count, one]) => [count, { text: one.id, href: address(one.id) }, asScore(one.value), asScore(one.stderr)]),
  });
  chart($("#curve"), show, listed, (point) => point.text && address(point.text));
}

function drawGain() {
  const born = () => people.filter((one) => known(one.kinship) && known(one.gain));
  const show = () => {
    const all = born().slice(-MOST_DOTS);
    if (all.length < 2) return { empty: "Not enough offspring with a score yet." };
    const x = all.map((one) => one.kinship), low = Math.min(...x), high = Math.max(...x);
    const dots = { x, y: all.map((one) => one.gain), text: all.map((one) => one.id), mode: "markers", name: "offspring", marker: { color: ink("blue"), size: 6, opacity: 0.7 }, hovertemplate: "%{text}: kinship %{x:.3f}, gain %{y:.4f}<extra></extra>" };
    const line = gain && known(gain.slope) ? [{ x: [low, high], y: [low, high].map((value) => gain.intercept + gain.slope * value), mode: "lines", name: "least squares", line: { color: ink("orange"), dash: "dash" }, hoverinfo: "skip" }] : [];
    return { traces: [dots, ...line], layout: { xaxis: { title: { text: "kinship of the parents" } }, yaxis: { title: { text: "gain" } } } };
  };
  const p = gain && known(gain.p) ? (gain.p < 0.001 ? "p < 0.001" : `p = ${gain.p.toFixed(3)}`) : "";
  $("#gain figcaption").textContent = gain && known(gain.r)
    ? `Gain: score less the mean of the parents' scores. Pearson r = ${gain.r.toFixed(2)}${known(gain.low) ? ` (95 % interval ${gain.low.toFixed(2)} to ${gain.high.toFixed(2)})` : ""}, ${p} (two-sided), n = ${gain.n}; offspring of one run are not independent, so take p as a guide.`
    : "Gain: score less the mean of the parents' scores. The correlation needs three offspring that differ.";
  const listed = () => ({
    columns: [{ name: "offspring" }, { name: "parents" }, { name: "kinship of parents", number: true }, { name: "gain", number: true }],
    rows: born().map((one) => [{ text: one.id, href: address(one.id) }, one.parents.join(" × "), decimals(one.kinship, 4), signed(one.gain)]),
  });
  chart($("#gain"), show, listed, (point) => point.text && address(point.text));
}

function drawFront() {
  if (tasks.length < 2) return;
  const members = () => front.map((id) => people[places.get(id)]).filter(Boolean);
  const show = () => {
    if (!members().length) return { empty: related ? "No fully scored individual yet." : "Being computed." };
    if (tasks.length === 2) {
      const others = people.filter((one) => one.complete && !front.includes(one.id)).slice(-MOST_DOTS), sorted = members().sort((one, other) => one.tasks[0] - other.tasks[0]);
      const trace = (all, name, colour, mode) => ({ x: all.map((one) => one.tasks[0]), y: all.map((one) => one.tasks[1]), text: all.map((one) => one.id), name, mode, line: { color: colour, shape: "vh" }, marker: { color: colour, size: 7 } });
      return { traces: [trace(others, "others", ink("faint"), "markers"), trace(sorted, "front", ink("orange"), "lines+markers")], layout: { xaxis: { title: { text: tasks[0] } }, yaxis: { title: { text: tasks[1] } } } };
    }
    const best = members().sort((one, other) => other.value - one.value).slice(0, 30);
    const traces = best.map((one, index) => ({ x: tasks, y: one.tasks, name: one.id, showlegend: index < 4, mode: index < 4 ? "lines+markers" : "lines", line: { color: index < 4 ? ink(["blue", "orange", "green", "pink"][index]) : ink("faint"), width: index < 4 ? 2 : 1, dash: ["solid", "dash", "dot", "dashdot"][index] || "solid" } }));
    return { traces: traces.reverse(), layout: { yaxis: { title: { text: "score" } }, legend: { orientation: "h", y: 1.14, traceorder: "reversed" } } };
  };
  const listed = () => ({
    columns: [{ name: "id" }, { name: "score", number: true }, ...tasks.map((name) => ({ name, number: true }))],
    rows: members().sort((one, other) => other.value - one.value).map((one) => [{ text: one.id, href: address(one.id) }, asScore(one.value), ...one.tasks.map(asScore)]),
  });
  chart($("#front"), show, listed);
}

function drawRelated() {
  const metric = related ? related.metric : "kinship";
  const none = { empty: related ? "Not enough individuals yet." : "Being computed." };
  chart($("#heat"), () => !related || related.ids.length < 2 ? none : heatmap(related.ids, related.values, metric), () => ({
    columns: [{ name: "one" }, { name: "other" }, { name: metric, number: true }],
    rows: related ? pairs(related.ids, related.values).map(([one, other, value]) => [one, other, decimals(value, 4)]) : [],
  }));
  const top = related ? related.top : [];
  chart($("#top"), () => !top.length ? none : {
    traces: [{ x: top.map(([generation]) => generation), y: top.map(([, mean]) => mean), mode: "lines+markers", line: { color: ink("blue") }, hovertemplate: "generation %{x}: %{y:.4f}<extra></extra>" }],
    layout: { xaxis: { title: { text: "generation (0: founders)" }, rangemode: "tozero" }, yaxis: { title: { text: `${metric}, top ${related.k}` } } },
  }, () => ({
    columns: [{ name: "generation", number: true }, { name: "mean kinship", number: true }, { name: "who", wrap: true }],
    rows: top.map(([generation, mean, who]) => [generation, decimals(mean, 4), who.join(", ")]),
  }));
}

// What is new

let asked = 0, relating = false;
async function relate() {
  const count = people.filter((one) => one.value !== null).length;
  if (relating || count === asked || document.hidden) return;
  relating = true;
  try { related = await json(`${here}/related`); front = related.front; asked = count; drawRelated(); drawFront(); } catch (error) { trouble(error.message); }
  setTimeout(() => { relating = false; if (ACTIVE.includes(live.state)) relate(); }, 10000);
}

function figures() {
  const set = (id, text) => { const place = document.getElementById(id); if (place.textContent !== text) place.textContent = text; };
  const state = $("#state .state");
  if (state.textContent !== live.state) {
    state.className = `state ${live.state}`; state.textContent = live.state; say(`The run is ${live.state}.`);
  }
  document.querySelectorAll("[data-when]").forEach((made) => { made.hidden = !made.dataset.when.split(" ").includes(live.state); });
  set("best", known(live.value) ? `${asScore(live.value)}${live.stderr ? ` ± ${asScore(live.stderr)}` : ""}` : "");
  set("leader", live.best || ""); set("evaluations", live.budget ? `${live.offspring} of ${live.budget}` : String(live.offspring));
  set("generation", String(live.generation)); set("failed", String(live.failed)); set("hours", duration(3600 * live.hours)); set("left", live.left || "–");
  set("error", live.error || ""); $("#error").hidden = !live.error;
  const ended = $("#stopped");
  if (live.stopped && ended.hidden) document.body.dispatchEvent(new CustomEvent("ended"));
  ended.hidden = !live.stopped; set("stopped", live.stopped ? `Ended: ${live.stopped}.` : "");
  if (live.budget) { const bar = $("#progress"); bar.hidden = false; bar.max = live.budget; bar.value = live.offspring; }
}

async function refresh(from = settled) {
  const found = await json(`${here}/live?first=${from}`);
  if (!tasks.length && found.tasks.length) { // it has begun
    tasks = found.tasks; $("#front").hidden = tasks.length < 2; population.name(tasks);
  }
  const changed = [];
  found.rows.forEach((values, index) => {
    const one = Object.fromEntries(found.columns.map((name, column) => [name, values[column]])), place = found.first + index;
    const old = people[place];
    if (old && JSON.stringify(old) === JSON.stringify(one)) return;
    people[place] = one; places.set(one.id, place); changed.push(one);
  });
  const failures = live.failed, state = live.state;
  live = found; settled = found.settled; gain = found.gain;
  figures();
  if (live.failed !== failures) document.body.dispatchEvent(new CustomEvent("broken"));
  if (ACTIVE.includes(state) && !ACTIVE.includes(live.state)) document.body.dispatchEvent(new CustomEvent("over"));
  if (ACTIVE.includes(state) && live.state === "finished" && from > 0) await refresh(0); // with the held-out scores
  if (!listening && live.strategy) listen(); // of a run that has not begun there is no stream
  if (!changed.length) return;
  population.update(changed, live.best);
  family.update(people, live.best, live.strategy === "topk");
  drawCurve(); drawGain();
  relate();
}

let waiting = false, again = false, lost = false;
/** As often as it is called, one request at a time, no more than two a second, and most of the time none. */
async function soon() {
  if (waiting) { again = true; return; }
  waiting = true;
  const started = performance.now();
  try { await refresh(); if (lost) { calm(); lost = false; } } catch (error) { lost = true; trouble(error.message); }
  setTimeout(() => { waiting = false; if (again) { again = false; soon(); } }, Math.max(PAUSE, Math.min(4 * (performance.now() - started), 20 * PAUSE)));
}

// Events

const told = {
  scored: (facts) => `${facts.individual} scored ${asScore(facts.value)}${facts.stderr ? ` ± ${asScore(facts.stderr)}` : ""} (${String(facts.split || "search").replace("_", "-")})${facts.complete === false ? ", an estimate" : ""}`,
  failed: (facts) => `${facts.individual} failed: ${facts.error || ""}`,
  added: (facts) => facts.individuals ? `${[].concat(facts.individuals).length} individuals proposed` : "individuals proposed",
  generation: (facts) => `generation ${facts.generation}: ${facts.offspring ?? ""} offspring`.replace(":  offspring", ""),
  ended: (facts) => `ended: ${facts.reason || ""}`,
};
function note(event) {
  const { time, name, facts } = JSON.parse(event.data);
  heard = event.lastEventId || heard;
  const frame = $("#events-frame"), list = $("#events"), top = frame.scrollTop;
  const words = told[name] ? told[name](facts) : `${name} ${Object.entries(facts).filter(([, value]) => typeof value !== "object").map(([key, value]) => `${key} ${value}`).join(", ")}`;
  list.prepend(element("li", name === "failed" ? { class: "bad" } : {}, element("time", { datetime: time }, new Date(time).toLocaleTimeString()), words));
  if (top > 0) frame.scrollTop = top + list.firstElementChild.offsetHeight; // who reads further down stays there
  while (list.children.length > MOST_EVENTS) list.lastElementChild.remove();
  if (facts.split === "held_out") settled = 0; // of those who were settled long ago
  soon();
}
let listening = false, heard = after;
function listen() {
  listening = true;
  const source = new EventSource(`${api}/stream?after=${heard}`);
  for (const name of ["started", "added", "scored", "failed", "generation", "pruned", "paused", "extended", "ended", "stopped", "finished"]) source.addEventListener(name, note);
  source.addEventListener("message", note);
  // A server that is away for long, or a ledger that was moved: asked for again.
  source.addEventListener("error", () => { if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000); });
  window.addEventListener("pagehide", () => source.close(), { once: true });
}

$("#extend-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = [...new FormData(event.target)].filter(([, value]) => value !== "").map(([name, value]) => [name, Number(value)]);
  try { await post(event.target.dataset.address, { stop: Object.fromEntries(given) }); $("#extend").close(); soon(); } catch (error) { $("#extend-error").textContent = error.message; }
});

// The address says what is looked for and in which order.
const asks = new URL(location.href).searchParams;
$("#find").value = asks.get("find") || ""; $("#only").value = asks.get("only") || "";
const filter = () => { population.filter($("#find").value, $("#only").value); remember({ find: $("#find").value, only: $("#only").value }); };
$("#find").addEventListener("input", filter); $("#only").addEventListener("change", filter);
population.filter($("#find").value, $("#only").value);

document.addEventListener("acted", () => { soon(); setTimeout(soon, 1500); });
figures(); drawCurve(); drawGain(); drawFront(); drawRelated();
await soon();
// States change without an event where a process dies.
setInterval(() => { if (!document.hidden) soon(); }, 5000);
