// The kinship explorer: heatmap, a pair by layer, dendrogram.
import { $, decimals, embedded, remember } from "./app.js";
import { chart, heatmap, ink, pairs } from "./charts.js";

if ($("#page-data")) {
  const { ids, metric, values, layers, linkage } = embedded("page-data");
  const names = short(ids);
  chart($("#heat"), () => heatmap(ids, values, metric, names), () => ({
    columns: [{ name: "one" }, { name: "other" }, { name: metric, number: true }],
    rows: pairs(ids, values).map(([one, other, value]) => [one, other, decimals(value, 4)]),
  }));

  // A pair by layer: the two least related at first, or those that the address names.
  const asked = new URL(location.href).searchParams.get("pair"), [first] = pairs(ids, values);
  const [start, end] = asked && asked.split("~").every((id) => ids.includes(id)) ? asked.split("~") : first || [ids[0], ids[0]];
  const one = $("#one"), other = $("#other");
  for (const [select, id] of [[one, start], [other, end]]) {
    ids.forEach((each, index) => select.add(new Option(names[index], each)));
    select.value = id;
    select.addEventListener("change", () => { remember({ pair: `${one.value}~${other.value}` }); profile(); });
  }
  const labels = Object.keys(layers);
  const along = () => labels.map((label) => layers[label][ids.indexOf(one.value)][ids.indexOf(other.value)]);
  const profile = () => chart($("#profile"), () => ({
    traces: [{ x: labels, y: along(), mode: "lines+markers", line: { color: ink("blue") }, hovertemplate: "%{x}: %{y:.4f}<extra></extra>" }],
    layout: { xaxis: { type: "category" }, yaxis: { title: { text: metric } } },
  }), () => ({ columns: [{ name: "layer" }, { name: metric, number: true }], rows: labels.map((label, index) => [label, decimals(along()[index], 4)]) }));
  profile();

  if (linkage) chart($("#dendrogram"), () => tree(linkage, names), () => ({
    columns: [{ name: "joined" }, { name: "height", number: true }, { name: "models", number: true }],
    rows: linkage.map(([left, right, height, count]) => [`${called(left)} and ${called(right)}`, height.toFixed(4), count]),
  }));
  function called(cluster) { return cluster < ids.length ? names[cluster] : `join ${cluster - ids.length + 1}`; }
}

/** Last parts of the references, where they tell the models apart. */
function short(ids) {
  const last = ids.map((id) => id.split("/").at(-1));
  return ids.map((id, index) => (last.indexOf(last[index]) === last.lastIndexOf(last[index]) ? last[index] : id));
}

/** SciPy's linkage as lines: leaves at the left, joins to the right. */
function tree(linkage, names) {
  const order = [], walk = (cluster) => { if (cluster < names.length) { order.push(cluster); return; } const [left, right] = linkage[cluster - names.length]; walk(left); walk(right); };
  walk(names.length + linkage.length - 1);
  const at = new Map(order.map((leaf, index) => [leaf, { y: index, x: 0 }]));
  const x = [], y = [];
  linkage.forEach(([left, right, height], index) => {
    const a = at.get(left), b = at.get(right);
    x.push(a.x, height, height, b.x, null); y.push(a.y, a.y, b.y, b.y, null);
    at.set(names.length + index, { x: height, y: (a.y + b.y) / 2 });
  });
  return {
    traces: [{ x, y, mode: "lines", line: { color: ink("blue"), width: 2 }, hoverinfo: "skip" }],
    layout: { xaxis: { title: { text: "distance" }, range: [0, 1.04 * Math.max(...linkage.map((join) => join[2]), 0.01)] }, yaxis: { tickvals: order.map((leaf, index) => index), ticktext: order.map((leaf) => names[leaf]), showgrid: false, zeroline: false } },
  };
}
