"""A search as it is seen while it goes on: events for machines, a bar for people."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from search.running.events import Observer
from search.strategies.recipes import BASE
from service.answers.events import event_of
from service.console import print_json, progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def observed(*, as_json: bool) -> Iterator[Observer]:
    """Yield an observer that shows events: JSON lines, or a bar a generation with lines for what was found."""
    if as_json:
        yield lambda name, facts: print_json(event_of(name, facts), indent=None)
        return
    with progress_bar() as bar:
        yield SearchProgress(bar)


class SearchProgress:
    """An `Observer` that draws generation, candidate i of N, best score with its error, failures, device, time left."""

    def __init__(self, bar: "Progress") -> None:
        self._bar = bar
        self._now = bar.add_task("Opening models", total=None, amount="")
        self._whole = bar.add_task("Whole search", total=None, amount="", visible=False)
        self._best: tuple[float, float, str] | None = None
        self._done = self._of = self._failed = 0
        self._place = ""

    def __call__(self, name: str, facts: Mapping[str, Any]) -> None:
        """See `Observer`."""
        handle = getattr(self, f"_on_{name}", None)
        if handle is not None:
            handle(facts)
        self._bar.update(self._now, amount=self._status())

    def _on_started(self, facts: Mapping[str, Any]) -> None:
        count = f"{facts['count']} {facts['workers']} workers, " if facts["workers"] != "inline" else ""
        self._place = f"{count}{facts['device']}"
        if facts["best"]:
            self._best = (facts["best"]["value"], facts["best"]["stderr"] or 0.0, facts["best"]["individual"])
        if facts["evaluations"]:
            total = facts["evaluations"] + facts["baselines"]
            self._bar.update(self._whole, total=total, completed=facts["scored"], visible=True)
        self._begin("Base and founders", facts["baselines"])

    def _on_phase(self, facts: Mapping[str, Any]) -> None:
        if facts["phase"] == "reading":
            self._begin("Reading weights", 0)
        elif facts["phase"] == "writing":
            self._begin("Writing results", 0)
        elif facts.get("split") == "held_out":
            self._begin("Held-out documents", len(facts["individuals"]))

    def _on_generation(self, facts: Mapping[str, Any]) -> None:
        if "partners" in facts:
            self._say(f"  {facts['partners']} partners of {facts['best']} to choose from ({facts['pool']})")
        self._begin(f"Generation {facts['generation']}", facts["offspring"])

    def _on_scored(self, facts: Mapping[str, Any]) -> None:
        id, value, error = facts["individual"], facts["value"], facts["stderr"] or 0.0
        about: list[tuple[str, str]] = []
        if not facts["complete"]:
            about.append((f"  estimated from {facts['documents']} documents", "dim"))
        if facts.get("twin"):
            about.append((f"  weights of {facts['twin']}", "dim"))
        if (
            facts["split"] == "search"
            and facts["complete"]
            and id != BASE
            and (not self._best or value > self._best[0])
        ):
            self._best = (value, error, id)
            about.append(("  best so far", "bold"))
        held_out = "" if facts["split"] == "search" else "  held-out"
        self._say(f"  {id:<20} {value:7.4f} ± {error:.4f}{held_out}", *about)
        self._advance()

    def _on_failed(self, facts: Mapping[str, Any]) -> None:
        self._failed += 1
        self._say(f"  {facts['individual']:<20} ", ("failed", "red"), f": {facts['error']}")
        self._advance()

    def _on_stopped(self, facts: Mapping[str, Any]) -> None:
        self._say(f"  Stopped because {facts['reason']}.")

    def _say(self, *parts: str | tuple[str, str]) -> None:
        from service.terminal import styled

        self._bar.console.print(styled(*parts))

    def _begin(self, what: str, of: int) -> None:
        self._done, self._of = 0, of
        self._bar.reset(self._now, total=of or None, description=what)

    def _advance(self) -> None:
        self._done += 1
        self._bar.advance(self._now)
        self._bar.advance(self._whole)

    def _status(self) -> str:
        parts = [f"{min(self._done + 1, self._of)} of {self._of}"] if self._of else []
        if self._best:
            value, error, id = self._best
            parts.append(f"best {id} {value:.4f} ± {error:.4f}")
        if self._failed:
            parts.append(f"{self._failed} failed")
        return ", ".join([*parts, self._place] if self._place else parts)
