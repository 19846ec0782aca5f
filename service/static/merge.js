// The form of a merge: it becomes a job; what is wrong is said below the recipe, which stays.
import { $, post } from "./app.js";

$("#merge").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = $("#merge button[type=submit]"), name = $("#name").value.trim();
  $("#recipe-error").textContent = ""; $("#recipe").removeAttribute("aria-invalid"); button.disabled = true;
  try {
    const job = await post("/api/v1/merges", { recipe: $("#recipe").value, ...(name ? { name } : {}) });
    location.assign(`/jobs/${job.id}`);
  } catch (error) {
    $("#recipe-error").textContent = error.message; $("#recipe").setAttribute("aria-invalid", "true");
  } finally {
    button.disabled = false;
  }
});
