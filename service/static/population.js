// The table of a run's individuals: Tabulator, which keeps only the rows that are seen in the document.
import { $, decimals, known, asScore, remember, script, signed, vendored } from "./app.js";

const SCORES = ["value", "held_out", "gain"];

export class Population {
  constructor(place, tasks, address) {
    Object.assign(this, { place, tasks, address, rows: new Map(), wanted: null, shown: 0 });
  }

  async _make() {
    await script(vendored("tabulator.min.js"));
    const number = (title, field, format, more = {}) => ({ title, field, hozAlign: "right", headerHozAlign: "right", sorter: "number", sorterParams: { alignEmptyValues: "bottom" }, formatter: (cell) => format(cell.getValue(), cell.getData()), ...more });
    const score = (title, field, error) => number(title, field, (value, one) => !known(value) ? "" : `${one.complete === 0 && field === "value" ? "≈ " : ""}${asScore(value)}${known(one[error]) ? ` ± ${asScore(one[error])}` : ""}`, { minWidth: 120 });
    const order = (new URL(location.href).searchParams.get("sort") || "-value").match(/^(-?)(.+)$/);
    const columns = [
      { title: "id", field: "id", frozen: innerWidth > 700, minWidth: 90, sorter: "alphanum", formatter: (cell) => this._link(cell.getValue()) },
      score("search", "value", "stderr"), score("held-out", "held_out", "held_out_stderr"),
      number("generation", "generation", String, { minWidth: 80 }),
      { title: "parents", field: "parents", minWidth: 130, sorter: (one, other) => one.join() < other.join() ? -1 : 1, formatter: (cell) => text(cell.getValue().join(" × ")) },
      number("gain", "gain", signed, { minWidth: 80 }), number("kinship of parents", "kinship", (value) => decimals(value), { minWidth: 110 }),
      { title: "role", field: "role", minWidth: 90, formatter: (cell) => { const one = cell.getData(); return text(one.error ? `✕ failed: ${one.error}` : one.twin ? `${one.role}, weights of ${one.twin}` : one.role, one.error ? "bad" : ""); } },
    ];
    this._column = (task, index) => number(task, `task${index}`, asScore, { minWidth: 80 });
    columns.push(...this.tasks.map(this._column));
    this.table = new window.Tabulator(this.place, {
      data: [...this.rows.values()], index: "id", columns, maxHeight: "32rem", minHeight: "6rem", layout: "fitDataFill", placeholder: "Nobody.",
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

  /** changed: who is new or differs; best: the id of the best, whose row is bold. */
  update(changed, best) {
    const flat = changed.map((one) => ({ ...one, ...Object.fromEntries(one.tasks.map((value, index) => [`task${index}`, value])) }));
    flat.forEach((one) => this.rows.set(one.id, one));
    this.pending = [...(this.pending || []), ...flat];
    this.working = (this.working || Promise.resolve()).then(async () => {
      if (!this.table) { this.pending = []; this.best = best; await this._make(); return; }
      const now = this.pending;
      this.pending = [];
      if (!now.length) return;
      const back = this._place(new Set(now.map((one) => one.id)));
      this.table.blockRedraw(); // drawn once, in the new order
      const led = this.best;
      this.best = best;
      await this.table.updateOrAddData(now);
      this.table.setSort(this.table.getSorters().map(({ field, dir }) => ({ column: field, dir })));
      this.table.restoreRedraw();
      if (led !== best) for (const row of [led, best].map((id) => id && this.table.getRow(id))) if (row) row.reformat();
      await back();
    });
    return this.working;
  }

  /** Where somebody reads: what is returned scrolls there again, to the same rows, wherever these have got to. */
  _place(changed) {
    const holder = $(".tabulator-tableholder", this.place), top = holder.scrollTop, left = holder.scrollLeft;
    const edge = () => holder.getBoundingClientRect().top, above = (row) => row.getElement().getBoundingClientRect().top - edge();
    const seen = top > 0 ? this.table.getRows("visible").filter((row) => above(row) + row.getElement().offsetHeight > 0) : [];
    const anchor = seen.find((row) => !changed.has(row.getIndex())), offset = anchor ? above(anchor) : 0;
    const focused = holder.contains(document.activeElement) ? document.activeElement.textContent : null;
    return async () => {
      if (anchor && this.table.getRows("active").includes(anchor)) {
        await this.table.scrollToRow(anchor, "top", true);
        holder.scrollTop += above(anchor) - offset;
      } else holder.scrollTop = top;
      holder.scrollLeft = left;
      const link = focused && [...holder.querySelectorAll("a")].find((one) => one.textContent === focused);
      if (link) link.focus({ preventScroll: true });
    };
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
