"""How kinds of models and of descent look in pictures: by shape and dash as well as by colour, so also in print.

Colours are those of Okabe and Ito, which can be told apart with every kind of colour vision.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinship.trees.graph import Tree

Dash = str | tuple[float, tuple[float, ...]]


@dataclass(frozen=True)
class Stroke:
    """A line of matplotlib's ``colour`` and ``dash``, ``width`` points wide."""

    colour: str
    dash: Dash = "-"
    width: float = 1.0


@dataclass(frozen=True)
class Mark:
    """The sign of a model: matplotlib's marker ``shape``, ``fill``, and the ``dash`` of its ring."""

    shape: str = "o"
    fill: Any = "white"
    dash: str = "-"
    ring: str = "0.25"


STROKES: Mapping[str, Stroke] = {
    "finetune": Stroke("#666666", "-", 0.8),
    "merge": Stroke("#0072b2", "-", 1.6),
    "lora": Stroke("#009e73", (0, (5, 1.5, 1, 1.5)), 1.3),
    "quantized": Stroke("#d55e00", (0, (4, 2)), 1.3),
    "resized": Stroke("#cc79a7", (0, (8, 2)), 1.3),
    "cast": Stroke("#e69f00", (0, (1, 1.2)), 1.6),
    "duplicate": Stroke("#56b4e9", (0, (2.5, 1)), 1.6),
    "unknown": Stroke("#999999", (0, (1, 3)), 1.2),
}
"""Of each of `kinship.trees.graph.KINDS`."""

_ADDED = ("exploration", "random")


def mark_of(facts: Mapping[str, Any], fill: Any = "white") -> Mark:
    """The sign of a model of which a family tree knows these ``facts``."""
    if facts.get("latent"):
        return Mark("D", fill, "--")
    shape = "h" if facts.get("role") == "base" else "s" if facts.get("role") in _ADDED else "o"
    return Mark(shape, fill, "-" if facts.get("given", True) else "--")


def model_signs(tree: "Tree") -> Iterator[tuple[Mark, str]]:
    """The signs of models that there are in ``tree``, with what they mean."""
    everyone = [facts for _, facts in tree.nodes(data=True)]
    yield Mark(), "model"
    if any(facts.get("role") == "base" for facts in everyone):
        yield Mark("h"), "base"
    if any(facts.get("role") in _ADDED for facts in everyone):
        yield Mark("s"), "child of a partner that the search added"
    if any(not facts.get("given", True) and not facts.get("latent") for facts in everyone):
        yield Mark(dash="--"), "only named as a parent"
    if any(facts.get("latent") for facts in everyone):
        yield Mark("D", dash="--"), "ancestor that must have existed"


def descent_signs(tree: "Tree") -> Iterator[tuple[Stroke, str]]:
    """The kinds of descent that there are in ``tree``, with their lines."""
    present = {facts["kind"] for *_, facts in tree.edges(data=True)}
    for kind, stroke in STROKES.items():
        if kind in present:
            yield stroke, "kind of descent unknown" if kind == "unknown" else kind
