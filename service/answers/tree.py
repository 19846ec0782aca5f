"""Descent: of a run's individuals, and of models as recorded in their files or recovered from their weights."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import JsonValue

from kinship.errors import InvalidConfig
from service.answers.base import Answer, Part, named

if TYPE_CHECKING:
    from kinship.heritage.pedigree import Heritage
    from kinship.trees.graph import Tree

Stages = Callable[[str, int, int, str], None]


class TreeNode(Part):
    """A model of a family tree."""

    id: str
    """Its reference as given, or its name in the run."""
    given: bool
    """False for a parent that is only named."""
    licence: str | None = None
    """As its card has it."""
    tags: list[str] | None = None
    """Of its card."""
    recipe: str | None = None
    """It was merged by, as its folder has it."""
    generation: int
    """One more than the latest parent's."""
    role: str | None = None
    """``base``; of a run's individual also ``founder``, or why it was proposed."""
    score: float | None = None
    """Of a run's individual, on the search split."""
    kinship: float | None = None
    """Of the parents of a run's individual: the mean over the pairs."""
    latent: bool | None = None
    """True for an ancestor that must have existed."""
    family: str | None = None
    """Models of different families are unrelated."""
    nearest: str | None = None
    """The model whose weights are the likest, where these were read."""
    independence: float | None = None
    """The p-value of the two having been trained apart: small for relatives."""
    note: str | None = None
    """Why a latent ancestor must have existed."""


class TreeEdge(Part):
    """That one model was made from another."""

    parent: str
    """Id of the one it was made from."""
    child: str
    """Id of the one that was made."""
    kind: str
    """One of `kinship.trees.graph.KINDS`."""
    sources: list[str]
    """Where it is told: ``ledger``, ``weights``, or names of files."""
    kinship: float | None = None
    """Of the parents of a run's individual."""
    confidence: float | None = None
    """Probability that the edge is right, where it was recovered."""
    evidence: dict[str, JsonValue] | None = None
    """Of a recovered edge."""


class Finding(Part):
    """Something to look at in a family."""

    kind: str
    """``licence``, ``contamination``, ``missing``, ``no_model`` or ``unrecorded``."""
    id: str
    """The model."""
    because: list[str]
    """The models that it comes from."""
    text: str
    """In words."""


class _Graph(Answer):
    nodes: list[TreeNode]
    """Models."""
    edges: list[TreeEdge]
    """From parents to children."""

    def tree(self) -> "Tree":
        """The same as the graph that pictures and files are made of."""
        import networkx as nx

        tree: Tree = nx.DiGraph()
        for node in self.nodes:
            facts = node.content()
            tree.add_node(facts.pop("id"), **facts)
        for edge in self.edges:
            facts = edge.content()
            tree.add_edge(facts.pop("parent"), facts.pop("child"), **facts)
        return tree


class RunLineage(_Graph):
    """The lineage that a run recorded."""

    schema_: Literal["kinship.lineage-graph/2"] = named("kinship.lineage-graph/2")


class FamilyTree(_Graph):
    """The descent of models as their files tell it, alone or with what their weights tell."""

    schema_: Literal["kinship.family/2"] = named("kinship.family/2")
    findings: list[Finding]
    """What is wrong in the family."""

    @classmethod
    def of(cls, tree: "Tree") -> Self:
        """The answer that tells of ``tree``."""
        return cls.model_validate(_plain(tree) | {"findings": _findings(tree)})


class HeritageNode(Part):
    """A model."""

    id: str
    """Its reference, as given."""
    family: int
    """A number: models of different families are unrelated."""
    nearest: str | None = None
    """The model whose weights are the likest: of its family, or of all where it is alone; null where not asked for."""
    independence: float | None = None
    """The p-value of the two having been trained apart: small for relatives."""


class HeritageEdge(Part):
    """That one model was made from another."""

    parent: str
    """Id of the one it was made from; a ``duplicate`` has no direction."""
    child: str
    """Id of the one that was made."""
    kind: str
    """As in `kinship.heritage.pedigree.KINDS`; a ``merge`` has an edge from each parent."""
    confidence: float
    """Probability that the edge is right."""
    evidence: dict[str, JsonValue]
    """Depends on the kind: see docs/formats.md."""


class Ancestor(Part):
    """A model that must have existed and was not given."""

    family: int
    """Of its children."""
    children: list[str]
    """Their ids."""
    reason: str
    """Why it must have existed."""


class RecoveredHeritage(Answer):
    """The descent of models by their weights alone."""

    schema_: Literal["kinship.heritage/2"] = named("kinship.heritage/2")
    nodes: list[HeritageNode]
    """The models."""
    edges: list[HeritageEdge]
    """From parents to children."""
    latent: list[Ancestor]
    """Ancestors that are not among the models."""
    false_link_rate: float
    """Chance that two unrelated models are linked, by the normal tail."""
    notes: list[str]
    """What to beware of."""

    @classmethod
    def of(cls, heritage: "Heritage") -> Self:
        """The answer that tells of ``heritage``."""
        return cls.model_validate(json.loads(json.dumps(heritage.to_dict())))

    def tree(self) -> "Tree":
        """The same as the graph that pictures and files are made of."""
        from kinship.heritage.pedigree import Edge, Heritage, Latent, Node, recovered_tree

        return recovered_tree(
            Heritage(
                tuple(Node(**vars(node)) for node in self.nodes),
                tuple(Edge(**vars(edge)) for edge in self.edges),
                tuple(Latent(one.family, tuple(one.children), one.reason) for one in self.latent),
                self.false_link_rate,
                tuple(self.notes),
            )
        )


Descent = RunLineage | FamilyTree | RecoveredHeritage


def trace_run(run: str) -> RunLineage:
    """The lineage that a run recorded: its folder, or URL#NAME. Raises `LedgerError` where there is none."""
    from search.history.lineage import lineage_of
    from service.answers.export import export_of

    return RunLineage.model_validate(_plain(lineage_of(export_of(run).content())))


def trace_models(
    models: Sequence[str],
    base: str | None = None,
    *,
    recorded: bool = True,
    recover: bool = False,
    index: Path | None = None,
    allow_pickle: bool = False,
    progress: Stages = lambda stage, done, total, unit: None,
    recovered: Callable[[RecoveredHeritage], None] = lambda heritage: None,
) -> FamilyTree | RecoveredHeritage:
    """The descent of ``models`` as their files tell (``recorded``), as their weights tell (``recover``), or as both.

    ``base``: the root, if known. ``index``: of sketches, to find relatives by. ``recovered`` is told what the weights
    tell, where they are asked. Raises what `recorded_tree` and `kinship.heritage.recover` raise, and `InvalidConfig`
    where neither is asked for.
    """
    from kinship.trees.graph import placed, united
    from kinship.trees.recorded import recorded_tree

    if not (recorded or recover):
        raise InvalidConfig("Nothing says how descent is to be told.", hint="Ask for recorded, recovered, or both.")
    trees = [recorded_tree(models)] if recorded else []
    for tree in trees:
        if base is not None and base in tree:
            tree.nodes[base]["role"] = "base"
    if recover:
        from kinship.heritage import recover as recover_descent

        heritage = RecoveredHeritage.of(recover_descent(models, base, progress, allow_pickle=allow_pickle, index=index))
        recovered(heritage)
        if not recorded:
            return heritage
        trees.append(heritage.tree())
    return FamilyTree.of(trees[0] if len(trees) == 1 else placed(united(trees)))


def findings_of(answer: Descent) -> list[Finding]:
    """What is wrong in a family, whichever way its descent was told; nothing is looked for in the lineage of a run."""
    match answer:
        case RunLineage():
            return []
        case FamilyTree():
            return answer.findings
        case RecoveredHeritage():
            return [Finding.model_validate(finding) for finding in _findings(answer.tree())]


def _findings(tree: "Tree") -> list[dict[str, Any]]:
    from kinship.trees.licences import findings

    return [finding.to_dict() for finding in findings(tree)]


def _plain(tree: "Tree") -> dict[str, Any]:
    from kinship.trees.graph import as_dict

    content: dict[str, Any] = json.loads(json.dumps(as_dict(tree)))
    return content
