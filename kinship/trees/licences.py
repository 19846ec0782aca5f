"""What is wrong in a family: licences that do not go together, contamination handed down, parents that are missing,
what is no model.

A reading of licence names, no legal advice.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import networkx as nx

if TYPE_CHECKING:
    from kinship.trees.graph import Tree

# Hub names of licences whose works may be passed on under other terms.
# fmt: off
PERMISSIVE = frozenset((
    "apache-2.0", "mit", "mit-0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "isc", "zlib",
    "unlicense", "wtfpl", "cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "artistic-2.0", "ms-pl", "postgresql",
    "ncsa", "bsl-1.0", "afl-3.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "odc-by", "pddl",
))
# fmt: on

# Says nothing: terms that have no name on the Hub, or that nobody looked up.
UNNAMED = frozenset(("other", "unknown"))


@dataclass(frozen=True)
class Finding:
    """Something to look at in model ``id``; ``because`` names the models it comes from."""

    kind: Literal["licence", "contamination", "missing", "no_model", "unrecorded"]
    id: str
    because: tuple[str, ...]
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"because": list(self.because)}


def findings(tree: "Tree") -> list[Finding]:
    """All there is to say against a family, in the order of its nodes."""
    return [*_strangers(tree), *_missing(tree), *_licences(tree), *_contamination(tree)]


def _strangers(tree: "Tree") -> Iterator[Finding]:
    """What was given and is no model, and a family of which nothing is told."""
    for id, why in tree.graph.get("no_models", {}).items():
        yield Finding("no_model", id, (), f"{id} is no model and is left out: {why}")
    if "no_models" in tree.graph and len(tree) and not tree.number_of_edges():
        text = f"nothing is recorded: the files of {', '.join(tree)} name no parent; their weights may tell (--recover)"
        yield Finding("unrecorded", next(iter(tree)), tuple(tree), text)


def _missing(tree: "Tree") -> Iterator[Finding]:
    for id, facts in tree.nodes(data=True):
        children = tuple(tree.successors(id))
        if not facts.get("given", False) and not facts.get("latent", False) and children:
            yield Finding("missing", id, children, f"{id} is named as a parent and is not among the models given")


def _licences(tree: "Tree") -> Iterator[Finding]:
    """A model is bound by the terms of every ancestor that does not let go of them."""
    for id in nx.topological_sort(tree):
        binding: dict[str, list[str]] = {}
        for ancestor in sorted(nx.ancestors(tree, id)):
            licence = tree.nodes[ancestor].get("licence")
            if licence and licence not in PERMISSIVE | UNNAMED:
                binding.setdefault(licence, []).append(ancestor)
        if not binding:
            continue
        own = tree.nodes[id].get("licence")
        holders = tuple(ancestor for ancestors in binding.values() for ancestor in ancestors)
        terms = " and ".join(f"{licence} ({', '.join(ancestors)})" for licence, ancestors in binding.items())
        if len(binding) > 1:
            yield Finding("licence", id, holders, f"{id} descends from models under different terms: {terms}")
        elif own is None or own in UNNAMED:
            if tree.nodes[id].get("given", False):
                yield Finding("licence", id, holders, f"{id} names no licence; its ancestors are under {terms}")
        elif own not in binding:
            yield Finding("licence", id, holders, f"{id} is under {own}; its ancestors are under {terms}")


def _contamination(tree: "Tree") -> Iterator[Finding]:
    """Scores of whoever descends from a model that has seen the test set are worth as little as its own."""
    seen = [id for id, facts in tree.nodes(data=True) if _is_contaminated(facts)]
    for id in nx.topological_sort(tree):
        because = tuple(other for other in seen if other == id or nx.has_path(tree, other, id))
        if because:
            own = because == (id,)
            text = (
                "is said to be contaminated" if own else f"descends from {', '.join(because)}, said to be contaminated"
            )
            yield Finding("contamination", id, because, f"{id} {text}: benchmark scores may flatter it")


def _is_contaminated(facts: dict[str, Any]) -> bool:
    return any("contaminat" in tag.lower() for tag in facts.get("tags") or ())
