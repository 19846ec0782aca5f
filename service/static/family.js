// A run's family tree as it grows: Cytoscape with dagre.
import { $, element, known, asScore, script, table, vendored } from "./app.js";
import { SCALE, ink } from "./charts.js";

const MOST = 150; // individuals drawn; of a larger run founders, the best and their nearest ancestors
const PAUSE = 3000; // ms between two arrangements of a tree that grows

export class Family {
  constructor(figure, address) {
    Object.assign(this, { figure, address, place: $(".canvas", figure), people: [] });
    $("details", figure).addEventListener("toggle", () => this._list());
    new IntersectionObserver(([entry]) => { this.visible = entry.isIntersecting; if (this.visible && this.stale) this._draw(); }, { rootMargin: "200px" }).observe(figure);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (this.cy) this.cy.style(this._style()); });
  }

  /** partners: whether there are children of an added partner, to be told apart. */
  update(people, best, partners) {
    Object.assign(this, { people, best, partners, stale: true });
    this._list();
    if (!this.visible || this.resting) return;
    this.resting = true;
    this._draw().finally(() => setTimeout(() => { this.resting = false; if (this.stale && this.visible) this.update(this.people, this.best, this.partners); }, PAUSE));
  }

  /** Who is drawn: everybody, or of many at most so many: see `MOST`. */
  _shown() {
    const all = this.people.filter((one) => one.role !== "base");
    if (all.length <= MOST) return all;
    const byId = new Map(all.map((one) => [one.id, one])), chosen = new Set(all.filter((one) => one.generation === 0).map((one) => one.id));
    const ranked = all.filter((each) => known(each.value)).sort((first, other) => other.value - first.value);
    for (const { id: best } of ranked) { // the best, each with its ancestors, the nearest first
      for (const queue = [best]; queue.length && chosen.size < MOST;) {
        const id = queue.shift();
        if (chosen.has(id) || !byId.has(id)) continue;
        chosen.add(id);
        queue.push(...byId.get(id).parents);
      }
      if (chosen.size >= MOST) break;
    }
    return all.filter((one) => chosen.has(one.id));
  }

  _style() {
    return [
      { selector: "node", style: { "background-color": "data(colour)", "border-width": 1.5, "border-color": ink("soft"), width: 22, height: 22, label: "data(id)", "font-size": 11, "min-zoomed-font-size": 6, color: ink("ink"), "text-valign": "bottom", "text-margin-y": 3 } },
      { selector: "node[?square]", style: { shape: "rectangle" } }, { selector: "node[?failed]", style: { shape: "vee", "border-color": ink("bad") } },
      { selector: "node[?best]", style: { "border-color": ink("orange"), "border-width": 4 } },
      { selector: "edge", style: { width: 1.3, "line-color": ink("faint"), "target-arrow-color": ink("faint"), "target-arrow-shape": "triangle", "arrow-scale": 0.8, "curve-style": "bezier" } },
    ];
  }

  async _draw() {
    this.stale = false;
    const shown = this._shown();
    if (!shown.length) return;
    await script(vendored("cytoscape.min.js"));
    await script(vendored("cytoscape-dagre.min.js"));
    if (!this.cy) {
      this.cy = window.cytoscape({ container: this.place, style: this._style(), minZoom: 0.05, maxZoom: 3, userZoomingEnabled: matchMedia("(pointer: fine)").matches });
      this.cy.on("tap", "node", (event) => location.assign(this.address(event.target.id())));
    }
    const scores = shown.map((one) => one.value).filter(known).sort((one, other) => one - other), low = scores[Math.floor(scores.length / 10)], high = scores[scores.length - 1];
    const colour = (value) => !known(value) ? ink("line") : SCALE[Math.round((high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 1) * (SCALE.length - 1))];
    const ids = new Set(shown.map((one) => one.id)), before = this.cy.nodes().length;
    this.cy.batch(() => {
      this.cy.nodes().filter((node) => !ids.has(node.id())).remove();
      for (const one of shown) {
        const data = { id: one.id, colour: colour(one.value), best: one.id === this.best, square: this.partners && ["exploration", "random"].includes(one.role), failed: Boolean(one.error) };
        const node = this.cy.getElementById(one.id);
        if (node.length) node.data(data);
        else this.cy.add({ group: "nodes", data });
      }
      for (const one of shown) for (const parent of one.parents) {
        const id = `${parent}>${one.id}`;
        if (ids.has(parent) && !this.cy.getElementById(id).length) this.cy.add({ group: "edges", data: { id, source: parent, target: one.id } });
      }
    });
    if (this.cy.nodes().length !== before) {
      const arrange = (rankSep) => this.cy.layout({ name: "dagre", rankDir: "TB", nodeSep: 8, edgeSep: 4, nodeDimensionsIncludeLabels: true, rankSep, animate: false, fit: true, padding: 18 }).run();
      arrange(50);
      const box = this.cy.elements().boundingBox(), missing = (box.w * this.place.clientHeight) / this.place.clientWidth / box.h;
      if (missing > 1.2) arrange(50 + (72 * (missing - 1))); // generations as far apart as fills the frame
    }
    $("figcaption", this.figure).textContent = `Founders on top; colour is the score, yellow the best${this.partners ? "; squares are children of an added partner" : ""}. Choose one to see it.${shown.length < this.people.length - 1 ? ` Of ${this.people.length - 1} these are founders, the best and their nearest ancestors, ${shown.length} in all.` : ""}`;
  }

  _list() {
    const place = $("details", this.figure);
    if (!place.open) return;
    const rows = this._shown().filter((one) => one.parents.length).map((one) => [{ text: one.id, href: this.address(one.id) }, one.generation, one.parents.join(" × "), one.role, known(one.kinship) ? one.kinship.toFixed(4) : "", asScore(one.value)]);
    place.replaceChildren($("summary", place), table([{ name: "child" }, { name: "generation", number: true }, { name: "parents" }, { name: "role" }, { name: "kinship of parents", number: true }, { name: "score", number: true }], rows, "Family tree"));
  }
}
