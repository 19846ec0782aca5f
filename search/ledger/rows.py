"""Rows of a ledger, from what is known of an individual."""

from typing import Any

from evaluators.scores.splits import Split
from search.ledger import tables
from search.ledger.records import Failed, Summary

# What a record has in a row of its own.
OWN = ("id", "generation", "role", "recipe", "identity", "batch", "kinship", "twin")


def told(failed: Failed) -> dict[str, Any]:
    """What a line of the diary says of a failure."""
    return {"split": failed.stage, "kind": failed.kind, "attempts": failed.attempts, "error": failed.message}


def failure_row(run: int, id: str, failed: Failed) -> tables.Failure:
    """Why individual ``id`` of the run with the key ``run`` has no score."""
    columns = vars(failed) | {name: getattr(failed, name).replace("\0", "\ufffd") for name in ("message", "traceback")}
    return tables.Failure(run=run, individual=id, **columns)  # Postgres keeps no NUL in a text


def score_row(run: int, id: str, split: Split, score: Summary) -> tables.Score:
    """The score of individual ``id`` of the run with the key ``run``, without its documents."""
    columns = {"value": score.value, "stderr": score.stderr, "complete": score.complete, "facts": dict(score.facts)}
    return tables.Score(run=run, individual=id, split=split, **columns)
