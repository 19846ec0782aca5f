// The table of a run's individuals: Tabulator, which keeps only the rows that are seen in the document.
import { $, decimals, known, points, remember, script, signed, vendored } from "./app.js";

const SCORES = ["value", "held_out", "gain"];

export class Population {
  constructor(place, tasks, address) {
    Object.assign(this, { place, tasks, address, rows: new Map(), wanted: null, shown: 0 });
  }

  async _make() {
    await script(vendored("tabulator.min.js"));
    const number = (title, field, format, more = {}) => ({ title, field, hozAlign: "right", headerHozAlign: "right", sorter: "number", sorterParams: { alignEmptyValues: "bottom" }, formatter: (cell) => format(cell.getValue(), cell.getData()), ...more });
    const score = (title, field, error) => number(title, field, (value, one) => !known(value) ? "" : `${one.complete === 0 && field === "value" ? "≈ " : ""}${points(value)}${known(one[error]) ? ` ± ${points(one[error])}` : ""}`, { minWidth: 120 });
    const order = (new URL(location.href).searchParams.get("sort") || "-value").match(/^(-?)(.+)$/);
    const columns = [
      { title: "id", field: "id", frozen: innerWidth > 700, minWidth: 90, sorter: "alphanum", formatter: (cell) => this._link(cell.getValue()) },
      number("generation", "generation", String, { minWidth: 80 }),
      { title: "role", field: "role", minWidth: 90, formatter: (cell) => { const one = cell.getData(); return text(one.error ? `✕ failed: ${one.error}` : one.twin ? `${one.role}, weights of ${one.twin}` : one.role, one.error ? "bad" : ""); } },
      { title: "parents", field: "parents", minWidth: 130, sorter: (one, other) => one.join() < other.join() ? -1 : 1, formatter: (cell) => text(cell.getValue().join(" × ")) },
      score("search", "value", "stderr"), score("held-out", "held_out", "held_out_stderr"),
      number("gain", "gain", signed, { minWidth: 80 }), number("kinship of parents", "kinship", (value) => decimals(value), { minWidth: 110 }),
    ];
    this._column = (task, index) => number(task, `task${index}`, points, { minWidth: 80 });
    columns.push(...this.tasks.map(this._column));
    this.table = new window.Tabulator(this.place, {
      data: [...this.rows.values()], index: "id", columns, maxHeight: "32rem", minHeight: "6rem", layout: "fitDataFill", placeholder: "Nobody.", columnDefaults: { headerSortTristate: true },
      initialSort: [{ column: columns.some((column) => column.field === order[2]) ? order[2] : "value", dir: order[1] ? "desc" : "asc" }],
      rowFormatter: (row) => row.getElement().classList.toggle("best", row.getData().id === this.best),
    });
    await new Promise((resolve) => this.table.on("tableBuilt", resolve));
    this.table.on("dataSorted", (sorters) => { if (this.built) remember({ sort: sorters.map(({ field, dir }) => `${dir === "desc" ? "-" : ""}${field}`)[0] || "" }); });
    this.table.on("dataFiltered", (filters, rows) => { $("#counted").textContent = rows.length === this.rows.size ? `${this.rows.size} individuals. ≈: an estimate, evaluation was stopped early.` : `${rows.length} of ${this.rows.size} individuals.`; });
    // A grid may hold groups of rows, not a thing to scroll that holds one.
    $(".tabulator-tableholder", this.place).setAttribute("role", "rowgroup");
    $(".tabulator-table", this.place).setAttribute("role", "presentation");
    this._filter();
    this.built = true;
  }

  /** The tasks, where they are known only once the first model has its scores. */
  name(tasks) {
    this.working = (this.working || Promise.resolve()).then(async () => {
      this.tasks = tasks;
      if (this.table) for (const [index, task] of tasks.entries()) await this.table.addColumn(this._column(task, index));
    });
  }

  _link(id) {
    const made = document.createElement("a");
    made.href = this.address(id); made.textContent = id;
    return made;
  }

  update(changed) {
    const flat = changed.map((one) => ({ ...one, ...Object.fromEntries(one.tasks.map((value, index) => [`task${index}`, value])) }));
    flat.forEach((one) => this.rows.set(one.id, one));
    this.pending = [...(this.pending || []), ...flat];
    this.working = (this.working || Promise.resolve()).then(async () => {
      if (!this.table) { this.pending = []; await this._make(); return; }
      const now = this.pending;
      this.pending = [];
      if (!now.length) return;
      const holder = $(".tabulator-tableholder", this.place), top = holder.scrollTop, left = holder.scrollLeft;
      await this.table.updateOrAddData(now);
      this.table.setSort(this.table.getSorters().map(({ field, dir }) => ({ column: field, dir })));
      holder.scrollTop = top; holder.scrollLeft = left; // who reads stays there
    });
    return this.working;
  }

  filter(search, only) {
    this.wanted = { search: search.trim().toLowerCase(), only };
    if (this.table) this._filter();
  }

  _filter() {
    const { search, only } = this.wanted || { search: "", only: "" };
    this.table.setFilter((one) =>
      (!search || `${one.id} ${one.role} ${one.parents.join(" ")}`.toLowerCase().includes(search)) &&
      (!only || (only === "failed" ? Boolean(one.error) : only === "scored" ? known(one.value) : one.role === "founder")));
  }
}

function text(content, name = "") {
  const made = document.createElement("span");
  made.textContent = content;
  if (name) made.className = name;
  return made;
}
