"""What a run tells of while it works. docs/formats.md lists the events."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from search.ledger.records import Failed, Record, ranked

Observer = Callable[[str, Mapping[str, Any]], None]
"""Told of events as (name, facts); a result is told only once it is durable."""


def silent(name: str, facts: Mapping[str, Any]) -> None:
    """The observer that does nothing."""


def standing(records: Sequence[Record]) -> dict[str, Any]:
    """Of ``started``: how far earlier sessions came."""
    leader = next(iter(ranked(records)), None)
    best = leader and {"individual": leader.id, "value": leader.fitness, "stderr": leader.scores["search"].stderr}
    return {"scored": sum(record.done for record in records), "best": best}


def failure(id: str, failed: Failed) -> dict[str, Any]:
    """Of ``failed``: who, where, and how often it was tried."""
    facts = {"individual": id, "split": failed.stage, "kind": failed.kind, "attempts": failed.attempts}
    return facts | {"error": failed.message}
