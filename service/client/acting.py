"""What a client asks to be done: each a job, happening once though the connection may fail on the way."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from service.answers.jobs import Job
from service.answers.merge import Merged
from service.answers.served import Artefact
from service.client.connection import require
from service.client.errors import ServiceError
from service.client.looking import Looking

BEST = "best-offspring"


class Client(Looking):
    """Ask a server. Use as a context manager, or `close` it.

    Its methods raise `ServiceError`: what the server refuses, or that there is none (`NoService`). ``address`` is that
    which `kinship serve` prints; anything else raises `InvalidConfig`.
    """

    def start_run(self, name: str, config: Mapping[str, Any]) -> Job:
        """Start a search."""
        return self.post(Job, "runs", body={"name": name, "config": config})

    def plan_run(self, config: Mapping[str, Any], *, timed: bool = False) -> Job:
        """Plan one: a job whose result is a `SearchPlan`."""
        return self.post(Job, "plans", body={"config": config, "timed": timed})

    def pause_run(self, run: str) -> Job:
        """Have it keep what it has, and stop."""
        return self.post(Job, "runs", run, "pause")

    def cancel_run(self, run: str) -> Job:
        """The same, for good: though it can always be gone on with."""
        return self.post(Job, "runs", run, "cancel")

    def resume_run(self, run: str) -> Job:
        """Go on with it."""
        return self.post(Job, "runs", run, "resume")

    def extend_run(self, run: str, stop: Mapping[str, Any]) -> Job:
        """Go on with it until something else says stop."""
        return self.post(Job, "runs", run, "extend", body={"stop": stop})

    def delete_run(self, run: str) -> None:
        """Remove it."""
        require(self._ask("DELETE", self.path("runs", run)))

    def cancel(self, job: Job | int) -> Job:
        """End a job."""
        return self.post(Job, "jobs", job if isinstance(job, int) else job.id, "cancel")

    def measure_matrix(self, models: Sequence[str], base: str, **options: Any) -> Job:
        """A kinship matrix: a job whose result is a `Matrix`."""
        return self.post(Job, "kinship", "matrices", body={"models": list(models), "base": base, **options})

    def advise(self, models: Sequence[str], base: str, **options: Any) -> Job:
        """Which pairs to merge: a job whose result is an `Advice`."""
        return self.post(Job, "kinship", "advice", body={"models": list(models), "base": base, **options})

    def merge(self, name: str, recipe: Mapping[str, Any], **options: Any) -> Job:
        """A merge: a job whose result is a `Merged`."""
        return self.post(Job, "merges", body={"name": name, "recipe": recipe, **options})

    def make_model(self, run: str, individual: str) -> Job:
        """An individual of a run as a model folder: a job whose result is a `Merged`."""
        return self.post(Job, "runs", run, "individuals", individual, "model")

    def save_model(self, run: str, to: str | Path) -> Path:
        """The best offspring of a run, its model folder as one tar at ``to``; merged first where it is not there."""
        if any(file.path.startswith(f"{BEST}/") for file in self._files(run)):
            return self.save_folder(run, BEST, to)
        best = self.export(run).best_offspring
        if best is None:
            raise ServiceError(404, f"The run {run} has no offspring.", hint="Wait until one has a score.")
        job = self.wait(self.make_model(run, best))
        if job.state != "done":
            raise ServiceError(409, f"Job {job.id} is {job.state}: {job.error}", hint=job.hint or "Read its log.")
        return self.save_folder(job, Path(self.result(Merged, job).out).name, to)

    def _files(self, run: str) -> Sequence[Artefact]:
        try:
            return self.artefacts(run).files
        except ServiceError as error:
            if error.status != 404:
                raise
            self.run(run)  # it may be in the database alone
            return []

    def score(self, models: Sequence[str], evaluate: Mapping[str, Any]) -> Job:
        """Scores: a job whose result is `Scores`."""
        return self.post(Job, "scores", body={"models": list(models), "evaluate": evaluate})

    def trace(self, models: Sequence[str], kind: str = "recorded", **options: Any) -> Job:
        """Descent: a job whose result is a `FamilyTree`, a `RecoveredHeritage` or a `Dendrogram`."""
        return self.post(Job, "trees", body={"models": list(models), "kind": kind, **options})

    def compare_methods(self, name: str, plan: Mapping[str, Any], *, extend: bool = False) -> Job:
        """Compare merge methods: a job whose result is a `MethodComparison`.

        ``extend``: in the folder of an earlier comparison, whose arms count where they are alike.
        """
        return self.post(Job, "comparisons", body={"name": name, "plan": plan, "extend": extend})

    def pause_comparison(self, comparison: str) -> Job:
        """Have it keep what it has, and stop."""
        return self.post(Job, "comparisons", comparison, "pause")

    def cancel_comparison(self, comparison: str) -> Job:
        """The same, for good: though it can always be gone on with."""
        return self.post(Job, "comparisons", comparison, "cancel")

    def resume_comparison(self, comparison: str) -> Job:
        """Go on with it."""
        return self.post(Job, "comparisons", comparison, "resume")

    def delete_comparison(self, comparison: str) -> None:
        """Remove it."""
        require(self._ask("DELETE", self.path("comparisons", comparison)))
