"""What a report shows of a run, read from its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from kinship.measures.matrix import KinshipMatrix
from merging.offspring.span import Span
from merging.recipe.schema import Recipe, parse_recipe
from search.history.export import export_run
from search.history.lineage import shown
from search.ledger.ledger import Ledger
from search.strategies.recipes import BASE

MOST_RELATED = 200


@dataclass(frozen=True)
class RunView:
    """A run's canonical export, and the kinship of its individuals, computed from their genomes.

    Of a large run, kinship is that of `search.history.lineage.shown` individuals.
    """

    folder: Path
    export: dict[str, Any]
    kinship: KinshipMatrix

    @classmethod
    def open(cls, folder: Path, ledger: str | None = None) -> Self:
        """Read a run (``ledger``: see `Ledger.of_run`); raises `LedgerError` where ``folder`` holds none."""
        with Ledger.of_run(folder, ledger) as run:
            export = export_run(run)
            genomes = run.genomes(id for id in shown(export, MOST_RELATED) if id != BASE)
            kinship = Span.over(run.table()).kinship(genomes, export["config"]["strategy"]["metric"])
        return cls(folder, export, kinship)

    @cached_property
    def individuals(self) -> dict[str, dict[str, Any]]:
        """The export's individuals by id."""
        return {individual["id"]: individual for individual in self.export["individuals"]}

    @property
    def best_recipe(self) -> Recipe | None:
        """How to make the best offspring from base and founders in one step."""
        content = self.export["best_offspring_recipe"]
        return None if content is None else parse_recipe(content)

    def score(self, id: str, split: str) -> tuple[float, float] | None:
        """Value and standard error of an individual on a split, where it was scored."""
        entry = self.individuals[id]["scores"].get(split)
        return None if entry is None else (entry["value"], entry["stderr"] or 0.0)

    def verdict(self) -> str:
        """See `verdict`."""
        return verdict(self.export)


def nothing_held_out(export: Mapping[str, Any]) -> bool:
    """Whether the search of a run saw all documents."""
    return bool(export["config"].get("evaluate", {}).get("search_fraction") == 1)


def verdict(export: Mapping[str, Any]) -> str:
    """In words: is the best offspring of a run better than the best founder, on documents the search never saw?

    Where nothing was held out that cannot be told, which is said.
    """
    best, founder = export["best_offspring"], export["best_founder"]
    whole = nothing_held_out(export)
    gain = export["gain_over_best_founder"].get("search" if whole else "held_out")
    if gain is None:
        return "Nothing is held out (search_fraction: 1)." if whole else "The run has no held-out comparison yet."
    value, error = gain["value"], gain["stderr"] or 0.0
    figures = f"{100 * value:+.2f} points (paired standard error {100 * error:.2f})"
    if whole:
        return (
            f"Nothing was held out (search_fraction: 1): {best} is {figures} from the best founder, {founder}, on the "
            "documents it was chosen by, which flatter it."
        )
    if value > 2 * error:
        judgement = "better than"
    elif value > error:
        judgement = "probably better than"
    elif value > -error:
        judgement = "not distinguishable from"
    else:
        judgement = "worse than"
    return f"On held-out documents, {best} is {judgement} the best founder, {founder}: {figures}."
