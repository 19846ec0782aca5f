// The page of a job: its state and the end of its log, as they come.
import { $, $$, embedded, json } from "./app.js";

const { id, state: first, next: begin, over } = embedded("page-data");
const OVER = ["done", "failed", "cancelled", "paused"];
let state = first, next = begin, ended = over;
const buttons = () => $$("[data-when]").forEach((made) => { made.hidden = !made.dataset.when.split(" ").includes(state); });
buttons();

async function look() {
  const job = await json(`/api/v1/jobs/${id}`), part = await json(`/api/v1/jobs/${id}/log?after=${next}`);
  const log = $("#log"), below = log.scrollHeight - log.scrollTop - log.clientHeight < 30;
  if (part.text) { log.append(part.text); next = part.next; if (below) log.scrollTop = log.scrollHeight; }
  ended = part.over;
  if (job.state !== state) {
    state = job.state;
    if (OVER.includes(state)) { location.reload(); return; } // with its result
    const made = $("#state .state");
    made.className = `state ${state}`; made.textContent = state; buttons();
  }
  $("#slot").textContent = job.slot || job.device; $("#starts").textContent = job.starts; $("#stage").textContent = job.progress ? job.progress.stage : "–";
  const bar = $("#progress");
  bar.hidden = !(job.progress && job.progress.total);
  if (!bar.hidden) { bar.max = job.progress.total; bar.value = job.progress.done; }
}
async function follow() {
  try { await look(); } catch { /* the server is away: asked again */ }
  if (!(OVER.includes(state) && ended)) setTimeout(follow, 1000);
}
if (!(OVER.includes(state) && ended)) follow();
document.addEventListener("acted", () => look().catch(() => {}));
