"""What a report shows of a run, read from its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from kinship.errors import LedgerError
from kinship.matrix import KinshipMatrix
from merging.recipe import Recipe, parse_recipe
from merging.span import Span
from search.export import export_run
from search.ledger import LEDGER_NAME, Ledger
from search.mating import BASE


@dataclass(frozen=True)
class RunView:
    """A run's canonical export and the kinship of its individuals, computed from their genomes."""

    folder: Path
    export: dict[str, Any]
    kinship: KinshipMatrix

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read a run; raises `LedgerError` where ``folder`` holds none."""
        if not (folder / LEDGER_NAME).is_file():
            raise LedgerError(f"{folder} holds no run.", hint="Give the folder that `kinship evolve --out` made.")
        ledger = Ledger(folder / LEDGER_NAME)
        try:
            export = export_run(ledger)
            facts = ledger.facts()
            records = ledger.records()
        finally:
            ledger.close()
        assert facts is not None  # export_run has refused an empty ledger
        span = Span.over(facts.table)
        genomes = {record.id: record.genome for record in records if record.id != BASE}
        return cls(folder, export, span.kinship(genomes, export["config"]["strategy"]["metric"]))

    @property
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
        """In words: is the best offspring better than the best founder, on documents the search never saw?"""
        best, founder = self.export["best_offspring"], self.export["best_founder"]
        gain = self.export["gain_over_best_founder"].get("held_out")
        if gain is None:
            return "The run has no held-out comparison yet."
        value, error = gain["value"], gain["stderr"] or 0.0
        figures = f"{100 * value:+.2f} points (paired standard error {100 * error:.2f})"
        if value > 2 * error:
            judgement = "better than"
        elif value > error:
            judgement = "probably better than"
        elif value > -error:
            judgement = "not distinguishable from"
        else:
            judgement = "worse than"
        return f"On held-out documents, {best} is {judgement} the best founder, {founder}: {figures}."
