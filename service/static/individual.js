// The page of an individual: how much of each founder is in each layer.
import { $, embedded } from "./app.js";
import { chart, ink } from "./charts.js";

const { models, layers, values, whole } = embedded("page-data");
const names = ["blue", "orange", "green", "pink", "soft", "busy", "warn", "good"], dashes = ["solid", "dash", "dot", "dashdot", "longdash"];
const used = models.map((name, index) => index).filter((index) => values.some((row) => Math.abs(row[index]) > 1e-9));
const flat = used.every((index) => values.every((row) => Math.abs(row[index] - whole[index]) < 1e-9));

chart($("#coefficients"), () => flat ? {
  traces: [{ type: "bar", x: used.map((index) => models[index]), y: used.map((index) => whole[index]), marker: { color: ink("blue") }, hovertemplate: "%{x}: %{y:.4f}<extra></extra>" }],
  layout: { yaxis: { title: { text: "coefficient, all layers" } }, xaxis: { type: "category" } },
} : {
  traces: used.map((index, place) => ({ x: layers, y: values.map((row) => row[index]), name: models[index], mode: "lines+markers", line: { color: ink(names[place % names.length]), dash: dashes[Math.floor(place / names.length) % dashes.length] }, hovertemplate: `${models[index].replace(/[<>&%{}]/g, "")}, %{x}: %{y:.4f}<extra></extra>` })),
  layout: { xaxis: { type: "category", title: { text: "layer" } }, yaxis: { title: { text: "coefficient" } } },
}, () => ({
  columns: [{ name: "layer" }, ...models.map((name) => ({ name, number: true }))],
  rows: [["whole model", ...whole.map((value) => value.toFixed(4))], ...layers.map((layer, place) => [layer, ...values[place].map((value) => value.toFixed(4))])],
}));
