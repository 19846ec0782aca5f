"""A run's individuals by pages: filtered, in an order, from a cursor on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kinship.errors import InvalidConfig
from search.ledger.records import Record
from service.answers.served import IndividualPage
from service.http.looking import RunView

Order = Literal["proposed", "best", "worst", "id", "kinship", "-kinship", "generation", "-generation"]
MOST = 1000

# Ties, and those who lack the number, go by id; a failed one comes last in either direction.
_KEYS: Mapping[str, Callable[[Record], tuple[Any, ...]]] = {
    "best": lambda record: _score(record, -1),
    "worst": lambda record: _score(record, 1),
    "id": lambda record: (record.id,),
    "kinship": lambda record: _number(record.kinship, 1),
    "-kinship": lambda record: _number(record.kinship, -1),
    "generation": lambda record: (record.generation,),
    "-generation": lambda record: (-record.generation,),
}


@dataclass(frozen=True)
class Selection:
    """At most so many individuals that the filters let through, in ``order``, behind the cursor ``after``.

    search: part of the id. The cursor is the id of the last one seen, which stays where it is while a run grows, of
    ``proposed`` at least.
    """

    order: Order = "proposed"
    generation: int | None = None
    role: str | None = None
    failed: bool | None = None
    parent: str | None = None
    search: str | None = None
    after: str | None = None
    most: int = 100

    def lets_through(self, record: Record) -> bool:
        """Whether the filters do."""
        return (
            (self.generation is None or record.generation == self.generation)
            and (self.role is None or record.role == self.role)
            and (self.failed is None or (record.error is not None) == self.failed)
            and (self.parent is None or self.parent in record.parents)
            and (self.search is None or self.search in record.id)
        )


def page_of(view: RunView, selection: Selection) -> IndividualPage:
    """The individuals of a selection. Raises `InvalidConfig` for a cursor that is nobody."""
    chosen = [record for record in view.records if selection.lets_through(record)]
    if selection.order != "proposed":
        chosen.sort(key=_KEYS[selection.order])  # a stable sort
    start, after = 0, selection.after
    if after is not None:
        start = next((place for place, record in enumerate(chosen, 1) if record.id == after), 0)
        if not start:
            raise InvalidConfig(f"The cursor {after!r} is nobody here.", hint="Take `next` of the page before.")
    page = chosen[start : start + selection.most]
    more = start + selection.most < len(chosen)
    return IndividualPage(individuals=view.individuals(page), total=len(chosen), next=page[-1].id if more else None)


def _score(record: Record, sign: int) -> tuple[Any, ...]:
    score = record.scores.get("search")
    if score is None:
        return 2, 0.0, record.id
    return 0 if score.complete else 1, sign * score.value, record.id


def _number(value: float | None, sign: int) -> tuple[Any, ...]:
    return (1, 0.0) if value is None else (0, sign * value)
