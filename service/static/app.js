// What every page needs: elements, requests, tables, buttons that act through the API.

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

/** An element; children that are strings become text, never markup. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Tells a screen reader. */
export const say = (text) => { $("#said").textContent = text; };

export const known = (value) => value !== null && value !== undefined;
export const asScore = (value) => known(value) ? value.toFixed(4) : "";
export const signed = (value) => known(value) ? `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}` : "";
export const decimals = (value, count = 3) => known(value) ? value.toFixed(count) : "";
export function duration(seconds) {
  if (!known(seconds)) return "";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} d`;
}

/** JSON of this server; an error is thrown in the words of its answer. */
export async function json(address, options = {}) {
  const response = await fetch(address, { headers: { Accept: "application/json", ...options.headers }, ...options })
    .catch(() => { throw new Error("The server does not answer."); });
  const text = await response.text();
  let content = null;
  try { content = text ? JSON.parse(text) : null; } catch { /* no JSON: told below */ }
  if (!response.ok) throw new Error(content && content.message ? `${content.message} ${content.hint || ""}`.trim() : `The server answered ${response.status}.`);
  return content;
}

export const post = (address, content) =>
  json(address, { method: "POST", headers: { "Content-Type": "application/json", Accept: "application/json" }, body: JSON.stringify(content ?? {}) });

const loading = new Map();
/** A script of this server, once; what a page may do without at first is loaded when it is wanted. */
export function script(address) {
  if (!loading.has(address)) {
    loading.set(address, new Promise((resolve, reject) => {
      const made = element("script", { src: address });
      made.addEventListener("load", resolve);
      made.addEventListener("error", () => { loading.delete(address); reject(new Error(`${address} did not load.`)); });
      document.head.append(made);
    }));
  }
  return loading.get(address);
}
/** Where a vendored file is; its address names its content, so that it is kept for good. */
export const vendored = (name) => $(`link[data-vendor="${name}"]`).href;

/** The data that the page came with. */
export const embedded = (id) => JSON.parse(document.getElementById(id).textContent);

/** A table of strings, numbers and links ({text, href}); columns: {name, number}. */
export function table(columns, rows, caption) {
  const cell = (value, column) => {
    const made = element("td", { class: column.number ? "number" : column.wrap ? "wrap" : null });
    made.append(value && typeof value === "object" ? element("a", { href: value.href }, value.text) : known(value) ? String(value) : "");
    return made;
  };
  const head = element("thead", {}, element("tr", {}, ...columns.map((column) => element("th", { scope: "col", class: column.number ? "number" : null }, column.name))));
  const body = element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((value, index) => cell(value, columns[index])))));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, element("table", {}, head, body));
}

/** The address says what is shown: values that are empty are left out. */
export function remember(values) {
  const address = new URL(location.href);
  for (const [name, value] of Object.entries(values)) {
    address.searchParams.delete(name);
    for (const one of Array.isArray(value) ? value : [value]) if (one) address.searchParams.append(name, one);
  }
  history.replaceState(null, "", address);
}

export function trouble(text, place = $("#main")) {
  const old = $(".notice.trouble", place);
  if (old) old.remove();
  const close = element("button", { class: "secondary outline", type: "button" }, "Close");
  const made = element("div", { class: "notice trouble", role: "alert" }, element("p", {}, text), close);
  close.addEventListener("click", () => made.remove());
  place.prepend(made);
}

/** What was wrong is over. */
export const calm = (place = $("#main")) => $(".notice.trouble", place)?.remove();

/** Sorting by a click on a head, for tables that the server has written. */
function sortable(made) {
  $$("thead th", made).forEach((head, column) => {
    if ($("button", head) || !head.textContent.trim()) return;
    const button = element("button", { class: "sort", type: "button" }, head.textContent.trim());
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      $$("thead th", made).forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const order = (one, other) => one === "" ? 1 : other === "" ? -1 : (rising ? 1 : -1) * one.localeCompare(other, undefined, { numeric: true });
      const byNumber = (one, other) => one === "" ? 1 : other === "" ? -1 : (rising ? 1 : -1) * (Number(one) - Number(other));
      const rows = [...made.tBodies[0].rows], numeric = rows.every((row) => key(row) === "" || !Number.isNaN(Number(key(row))));
      rows.sort((one, other) => (numeric ? byNumber : order)(key(one), key(other))).forEach((row) => made.tBodies[0].append(row));
    });
  });
}

/** A button with data-post acts through the API; data-confirm asks first, data-then says where to go. */
async function act(button) {
  if (button.dataset.confirm && !window.confirm(button.dataset.confirm)) return;
  button.setAttribute("aria-busy", "true"); button.disabled = true;
  try {
    const address = button.dataset.post, method = button.dataset.method || "POST";
    const told = await json(address, { method, headers: { "Content-Type": "application/json", Accept: "application/json" }, body: method === "DELETE" ? undefined : button.dataset.body || "{}" });
    say(`${button.textContent.trim()}: done.`);
    if (button.dataset.then) location.assign(button.dataset.then.replace("{id}", told?.id)); // of the job that does it
    else document.dispatchEvent(new CustomEvent("acted", { detail: button }));
  } catch (error) {
    trouble(error.message);
  } finally {
    button.removeAttribute("aria-busy"); button.disabled = false;
  }
}

function prepare(root) {
  $$("table.sortable", root).forEach(sortable);
  $$("[data-ago]", root).forEach((made) => {
    const seconds = (Date.now() - Date.parse(made.dateTime)) / 1000;
    made.title = new Date(made.dateTime).toLocaleString();
    made.textContent = seconds < 10 ? "now" : `${duration(seconds)} ago`;
  });
}

// A form is sent once, however often its button is pressed; who comes back to it can send it again.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if ((event.submitter?.formMethod || form.method) !== "post" || event.defaultPrevented) return;
  if (form.dataset.sent) { event.preventDefault(); return; }
  form.dataset.sent = "yes";
  if (event.submitter) event.submitter.setAttribute("aria-busy", "true");
});
window.addEventListener("pageshow", () => $$("form[data-sent]").forEach((form) => {
  delete form.dataset.sent;
  $$("[aria-busy]", form).forEach((button) => button.removeAttribute("aria-busy"));
}));

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-post]");
  if (button) { event.preventDefault(); act(button); return; }
  const opener = event.target.closest("[data-open]");
  if (opener) { document.getElementById(opener.dataset.open).showModal(); return; }
  const closer = event.target.closest("[data-close]");
  if (closer) closer.closest("dialog").close();
});
document.addEventListener("htmx:after:swap", () => prepare(document));
// What somebody has ticked is not drawn anew below their hand.
document.addEventListener("htmx:before:request", (event) => { if (event.target.id === "live" && $("input:checked", event.target)) event.preventDefault(); });
prepare(document);
