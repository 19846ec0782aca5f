"""Scores of models that somebody has already: a CSV, what `kinship score --json` printed, or a run."""

import csv
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinship.checkpoints.references import short_names
from kinship.errors import InvalidConfig, ReferenceNotFound

if TYPE_CHECKING:
    from search.history.gains import Merge

MODEL, SCORE = ("model", "name", "id"), ("score", "value", "mean", "average")
DELIMITERS = ",;\t"


@dataclass(frozen=True)
class GivenScores:
    """Scores by what the models were called there, higher is better; from a run, the merges that it has recorded."""

    source: str
    scores: dict[str, float]
    merges: "list[Merge]" = field(default_factory=list)
    is_run: bool = False

    def of(self, models: Sequence[str]) -> dict[str, float]:
        """The score of each model: of the same reference, or by its last name where that is one model's here and there.

        Raises `InvalidConfig` for a model that has none here, or that several could be.
        """
        names = [_last(model) for model in models]
        return {model: self._of(model, alone=names.count(_last(model)) == 1) for model in models}

    def _of(self, model: str, *, alone: bool) -> float:
        if model in self.scores:
            return self.scores[model]
        alike = [name for name in self.scores if _last(name) == _last(model)]
        values = {self.scores[name] for name in alike}
        if alone and len(values) == 1:
            return values.pop()
        if alike:
            raise InvalidConfig(
                f"{self.source} has scores of {', '.join(alike)}: is {model} one of them?",
                hint="Name models there as on the command line.",
            )
        known = ", ".join(list(self.scores)[:10]) or "nobody"
        raise InvalidConfig(
            f"{self.source} has no score of {model}; it has: {known}.", hint="Score it, or leave it out."
        )


def read_scores(source: str, metric: str = "pcc") -> GivenScores:
    """Scores from ``source``: the folder of a run or its URL#NAME, else a file. metric: of the merges' kinship.

    Raises `ReferenceNotFound`, `LedgerError`, and `InvalidConfig` for what has no scores of models.
    """
    if "://" in source or os.path.isdir(source):
        return _of_run(source, metric)
    try:
        text = Path(source).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ReferenceNotFound(
            f"There is no {source}.", hint="Give a CSV, scores as JSON, or a run's folder."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{source} cannot be read: {error}.", hint="Give a CSV in UTF-8.") from None
    scores = _of_json(text, source) if text.lstrip()[:1] in {"{", "["} else _of_table(text, source)
    if not scores:
        raise InvalidConfig(f"{source} has no scores.", hint="Give a row for each model.")
    return GivenScores(source, scores)


def _of_run(source: str, metric: str) -> GivenScores:
    from search.history.gains import recorded_merges
    from service.answers.runs import open_run

    with open_run(source) as ledger:
        facts = ledger.facts()
        if facts is None:
            raise InvalidConfig(f"{source} holds no run yet.", hint="Start it with `kinship evolve`.")
        scores = {record.id: record.fitness for record in ledger.records() if record.fitness is not None}
        by_place = {place: scores[id] for id, place in facts.config.references.items() if id in scores}
        told = str(ledger.location) if "://" in source else source  # without a password
        return GivenScores(told, scores | by_place, recorded_merges(ledger, facts, metric), is_run=True)


def _of_json(text: str, source: str) -> dict[str, float]:
    from pydantic import ValidationError

    from service.answers.score import Scores

    content: Any = None
    try:
        content = json.loads(text)
        answer = Scores.model_validate(content)
    except (ValueError, ValidationError):
        schema = content.get("schema") if isinstance(content, dict) else None
        raise InvalidConfig(
            f"{source} is no output of `kinship score --json`" + (f", but {schema}." if schema else "."),
            hint="Give that, a CSV with the columns model and score, or the folder of a run.",
        ) from None
    found = {}
    for one in answer.models:
        split = one.splits.get("search")
        if split is not None and split.value is None:
            raise InvalidConfig(
                f"{source}: the tasks of {one.model} have unlike metrics, so that they have no mean.",
                hint="Give one number a model, as a CSV with the columns model and score.",
            )
        if split is not None and split.value is not None:
            found[one.model] = split.value
    return found


def _of_table(text: str, source: str) -> dict[str, float]:
    lines = text.splitlines()
    if not lines:
        return {}
    delimiter = max(DELIMITERS, key=lines[0].count)
    rows = csv.DictReader(lines, delimiter=delimiter)
    columns = [name.strip() for name in rows.fieldnames or []]
    rows.fieldnames = columns
    model = next((name for name in columns if name.lower() in MODEL), None)
    score = next((name for name in columns if name.lower() in SCORE), None)
    if model is None or score is None:
        raise InvalidConfig(
            f"{source} needs the columns model and score, and has: {', '.join(columns)}.",
            hint="Name them in the first line.",
        )
    found: dict[str, float] = {}
    for number, row in enumerate(rows, 2):
        if None in row:  # where DictReader puts cells without a column
            raise InvalidConfig(
                f"{source}, line {number}: expected {len(columns)} cells, found {len(columns) + len(row[None])}.",
                hint="Write 0.5 with a point, or separate cells by semicolons.",
            )
        if _is_detail(row):
            continue
        name = (row[model] or "").strip().removeprefix("'")
        try:
            value = float(row[score] or "")
        except ValueError:
            value = math.nan
        if not name or not math.isfinite(value):
            raise InvalidConfig(
                f"{source}, line {number}: expected a model and a number, found {name!r} and {row[score]!r}.",
                hint="Leave out models without a score.",
            )
        if name in found:
            raise InvalidConfig(f"{source}, line {number}: {name} is there twice.", hint="Give it one score.")
        found[name] = value
    return found


def _is_detail(row: dict[str, str | None]) -> bool:
    """Of the CSV of `kinship score`: a single task's, or held out."""
    return row.get("split") == "held_out" or row.get("task") not in {None, "mean of tasks"}


def _last(name: str) -> str:
    return short_names([name])[0]
