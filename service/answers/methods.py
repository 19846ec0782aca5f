"""The merge methods, as their specs tell."""

from typing import TYPE_CHECKING, Literal

from kinship.errors import InvalidConfig
from service.answers.base import Answer, Part, named

if TYPE_CHECKING:
    from merging.catalogue import Entry


class MethodParameter(Part):
    """A parameter of a merge method."""

    name: str
    """As recipes write it."""
    kind: str
    """``number``, ``integer`` or ``boolean``."""
    default: bool | int | float | None
    """Null where it is required."""
    required: bool
    """Whether a recipe must give it."""
    per_model: bool
    """Whether each model may have a value of its own."""
    low: float | None
    """The least it may be; null: no bound."""
    high: float | None
    """The most it may be; null: no bound."""
    help: str
    """What it means."""


class Method(Part):
    """A merge method."""

    name: str
    """As recipes write it."""
    summary: str
    """What it does, in a line."""
    taxon: str
    """Its group."""
    survey: str
    """Its class in the survey arXiv 2408.07666."""
    review: str
    """Its class in the survey arXiv 2503.08998."""
    formula: str
    """What it computes; empty where none is told."""
    min_models: int
    """How many it merges, at least."""
    max_models: int | None
    """And at most; null: any number."""
    base: str
    """``no``, ``optional``, ``needed``, or ``merged``: it is one of the models."""
    in_span: str
    """Whether its result is a weighted sum: ``yes``, ``no``, or ``depends`` on a parameter."""
    random: bool
    """Whether it draws at random."""
    data: str | None
    """What it needs to see, as a recipe's ``data`` gives it; null: nothing."""
    parameters: list[MethodParameter]
    """In the order of its spec."""
    reference: str
    """Where it was published."""
    module: str
    """Where it is defined."""


class Methods(Answer):
    """The merge methods, all or the one asked for."""

    schema_: Literal["kinship.methods/3"] = named("kinship.methods/3")
    methods: list[Method]
    """By group, then by name."""


def list_methods(name: str | None = None) -> Methods:
    """All methods, those of plugins included, or the one called ``name``; raises `InvalidConfig` where it is none."""
    return Methods(methods=[Method.model_validate(entry.to_dict()) for entry in entries(name)])


def entries(name: str | None = None) -> "list[Entry]":
    """The same as the catalogue has them."""
    from kinship.validation import nearest
    from merging.catalogue import catalogue

    found = catalogue()
    if name is None:
        return found
    chosen = [entry for entry in found if entry.name == name]
    if not chosen:
        hint = nearest(name, [entry.name for entry in found])
        raise InvalidConfig(f"There is no merge method {name!r}.", hint=f"{hint} `kinship methods` lists them all.")
    return chosen
