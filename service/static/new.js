// A form of settings, of a run or of scores: what is wrong is said at the field, while people write.
import { $, $$, json } from "./app.js";

const form = $("form[data-check]");
const ONE_OF = { founder: "founders", model: "models" }; // what is ticked one by one
const touched = new Set();

async function check() {
  const { errors } = await json(form.dataset.check, { method: "POST", headers: { "Content-Type": "application/x-www-form-urlencoded", Accept: "application/json" }, body: new URLSearchParams(new FormData(form)) });
  for (const place of $$(".error, .error-of-section", form)) {
    const path = place.id.slice(2), words = errors[path] || "", field = document.getElementById(`f-${path}`);
    if (/needed/.test(words) && ![...touched].some((name) => name === path || name.startsWith(`${path}.`))) continue; // nobody was there yet
    if (place.textContent !== words) place.textContent = words;
    const section = place.closest("details");
    if (words && section) section.open = true;
    if (field) { if (words) field.setAttribute("aria-invalid", "true"); else field.removeAttribute("aria-invalid"); }
  }
  const general = errors[""] && touched.size ? errors[""] : "";
  $("#e-run").textContent = general;
}

let timer = null;
form.addEventListener("input", (event) => {
  if (event.target.name === "find") return;
  touched.add(ONE_OF[event.target.name] || event.target.name);
  clearTimeout(timer);
  timer = setTimeout(() => check().catch(() => {}), 350); // told again when it is planned or started
});

// A task that was found joins the list, which is YAML: one a line.
$("#found").addEventListener("click", (event) => {
  const button = event.target.closest("[data-task]");
  if (!button) return;
  const list = document.getElementById("f-evaluate.tasks"), text = list.value.trim();
  const flow = text.startsWith("[") && text.endsWith("]"), line = button.dataset.task;
  list.value = !text ? `- ${line}` : flow ? `${text.slice(0, -1).trim().replace(/,$/, "")}${text.length > 2 ? ", " : ""}${line}]` : text.startsWith("-") ? `${text}\n- ${line}` : `- ${text}\n- ${line}`;
  list.rows = Math.max(2, list.value.split("\n").length);
  list.dispatchEvent(new Event("input", { bubbles: true }));
  button.disabled = true;
});
