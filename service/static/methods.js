// Figures of a comparison of merge methods, each with its table.
import { $, embedded, asScore, known } from "./app.js";
import { chart } from "./charts.js";

const shown = (value) => typeof value === "number" && !Number.isInteger(value) ? asScore(value) : known(value) ? `${value}` : "";

function rows({ traces }) {
  return traces.flatMap((trace) => trace.z
    ? trace.z.flatMap((line, row) => line.map((value, column) => [trace.y[row], trace.x[column], asScore(value)]))
    : trace.x.map((x, place) => [trace.text ? `${trace.name}: ${(trace.hovertext ?? trace.text)[place]}` : trace.name, shown(x), shown(trace.y[place])]));
}

for (const [name, figure] of Object.entries(embedded("page-data"))) {
  const title = (axis, other) => figure.layout[axis]?.title?.text ?? other;
  chart($(`#${name}`), () => figure, () => ({
    columns: [{ name: "what" }, { name: title("xaxis", "cell"), number: name !== "cells" }, { name: title("yaxis", "score"), number: true }],
    rows: rows(figure),
  }));
}
