// Family trees: recovery from weights becomes a job.
import { $, $$, post, trouble } from "./app.js";

$("#recover").addEventListener("click", async () => {
  const models = $$("#models-form [name=model]:checked").map((box) => box.value), base = $("#base").value.trim();
  try {
    const job = await post("/api/v1/trees", { models, ...(base ? { base } : {}), recover: true });
    location.assign(`/jobs/${job.id}`);
  } catch (error) { trouble(error.message); }
});
