"""One family: near copies, merges, then the tree of what is left."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kinship.arrays import Float64
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.tied import has_token_rows
from kinship.heritage.combinations import find_combinations
from kinship.heritage.copies import casts, find_stack, grids_of, identical, quantised
from kinship.heritage.descent import branch
from kinship.heritage.distances import Geometry, comparable, measure
from kinship.heritage.grids import HALF_ULP
from kinship.heritage.merges import Merge, choose_merges
from kinship.heritage.pedigree import Edge, Latent
from kinship.heritage.ranks import change
from kinship.heritage.rounding import rounding
from kinship.heritage.sampling import Stages, sample
from kinship.heritage.signals import NAMES, evenness, inherited, signals, whitened_distances
from kinship.heritage.trimmed import Trimmed, find_trimmed

# Confidence in copies and trimmed merges: set by hand below what simulated families showed (copies: all of 64 right).
COPIED, TRIMMED = 0.99, 0.97


@dataclass
class Findings:
    """Edges, ancestors that are not here, and what to say, of one family."""

    edges: list[Edge]
    latent: list[Latent]
    notes: list[str]


def reconstruct(models: Sequence[Checkpoint], base: int | None, family: int, stages: Stages) -> Findings:
    """The descent within one family of ``models``; ``base``: a root, if known. ``stages`` are told what is done.

    Reads every file once for the distances, samples of it again, and matrices of accepted edges for their rank.
    """
    cut, names, left_out = comparable(models)
    found = Findings([], [], [])
    kept = [place for place in range(len(models)) if place not in left_out]
    _stacks(found, models, kept, left_out, stages)
    ids = [models[place].id for place in kept]
    here = [cut[place] for place in kept]
    base = kept.index(base) if base in kept else None
    if len(here) < 2 or not names:
        return found
    geometry = measure(here, names, stages.reading("Measuring distances", here, names))
    samples = sample(here, stages)
    grids = grids_of(samples, len(here))

    heads = _copies(found, ids, [models[place] for place in kept], geometry, base)
    rounded = casts(samples, heads, geometry, grids)
    integers, orphans = quantised(samples, heads, geometry, grids)
    for copy in rounded + integers:
        found.edges.append(Edge(ids[copy.parent], ids[copy.child], copy.kind, COPIED, copy.evidence))
    for orphan in orphans:
        found.latent.append(
            Latent(family, (ids[orphan],), "its weights lie on an integer lattice; the original is not here")
        )

    copies = {copy.child for copy in rounded + integers} | set(orphans)
    plain = [model for model in heads if model not in copies]
    founders = [model for model in plain if model != base]
    halves = [HALF_ULP[grid] for grid in grids]
    known = [(copy.parent, copy.child) for copy in rounded + integers]
    mixtures = find_combinations(geometry, founders, plain, halves, stages)
    exactness = [rounding(one, samples, grids[one.child]) for one in stages.each("Checking merges", mixtures)]
    merges = choose_merges(mixtures, exactness, geometry, known)
    for merge in merges:
        found.edges += _merge_edges(merge, ids)
    merged = {merge.child for merge in merges}
    rest = [model for model in founders if model not in merged]
    certain = known + [(parent, merge.child) for merge in merges for parent in merge.parents]
    trimmed = _acyclic(find_trimmed(samples, rest, plain, geometry.total, grids), certain)
    for one in trimmed:
        found.edges += _trimmed_edges(one, ids)
        if one.base is None and one.method != "selection":
            found.latent.append(Latent(family, (ids[one.child],), "the base of a trimmed merge is not here"))

    merged |= {one.child for one in trimmed}
    children = [model for model in plain if model not in merged]
    parents = [model for model in heads if model not in orphans and model not in {copy.child for copy in integers}]
    twins: list[set[int]] = [set() for _ in ids]
    for copy in rounded:
        twins[copy.parent].add(copy.child)
        twins[copy.child].add(copy.parent)
    third = [model for model in parents if model not in merged]
    mixed = [(one.child, one.parents) for one in merges] + [(one.child, one.parents) for one in trimmed]
    own, even = whitened_distances(samples, geometry), evenness(samples, len(ids))
    rows = inherited(samples, own, third, twins)
    values, founding = signals(geometry, own, even, rows, third, twins, parents, mixed)
    certain += [(parent, one.child) for one in trimmed for parent in one.parents]
    tree = branch(values, founding, children, parents, certain, base)
    for child, (parent, confidence) in stages.each("Looking at changes", list(tree.items())):
        kind, evidence = _training(geometry, here, parent, child, grids, values[parent, child])
        found.edges.append(Edge(ids[parent], ids[child], kind, round(confidence, 4), evidence))
    roots = tuple(ids[child] for child in children if child not in tree)
    if len(roots) > 1 and base is None:
        found.latent.append(Latent(family, roots, "related, but none was made from another model that is here"))
    elif base is not None and len(roots) > 1:  # their ancestor is known
        others = ", ".join(root for root in roots if root != ids[base])
        found.notes.append(f"No parent is told for {others}; {ids[base]}, the base, is an ancestor.")
    return found


def _stacks(
    found: Findings, models: Sequence[Checkpoint], kept: Sequence[int], left_out: dict[int, str], stages: Stages
) -> None:
    """Models of other depth: edges from those their layers were taken from, or a note."""
    samples = sample(models, stages) if left_out else []
    for place, reason in left_out.items():
        stack = find_stack(samples, place, kept)
        if stack is None:
            found.notes.append(f"{models[place].id} {reason}; it is of this family, and more is not known.")
            continue
        for parent in stack.parents:
            taken = {name: there for name, (owner, there) in stack.origin.items() if owner == parent}
            evidence = {"method": "passthrough", "share": len(taken) / len(stack.origin), "taken": taken}
            found.edges.append(Edge(models[parent].id, models[place].id, "merge", TRIMMED, evidence))


def _copies(
    found: Findings, ids: Sequence[str], models: Sequence[Checkpoint], geometry: Geometry, base: int | None
) -> list[int]:
    """One of each group of identical models, the one with the fewest token rows; edges to the others are added."""
    heads = []
    for group in identical(geometry):
        head = base if base in group else min(group, key=lambda model: (_rows(models[model]), model))
        heads.append(head)
        by_rows: dict[int, int] = {_rows(models[head]): head}
        for other in group:
            if other == head:
                continue
            rows = _rows(models[other])
            if rows in by_rows:
                evidence: dict[str, Any] = {"equal_tensors": len(geometry.names)}
                found.edges.append(Edge(ids[by_rows[rows]], ids[other], "duplicate", 0.999, evidence))
            else:
                by_rows[rows] = other
                evidence = {"token_rows": [_rows(models[head]), rows], "equal_tensors": len(geometry.names)}
                found.edges.append(Edge(ids[head], ids[other], "resized", 0.95, evidence))
    return heads


def _rows(model: Checkpoint) -> int:
    return sum(entry.shape[0] for name, entry in model.tensors.items() if has_token_rows(name) and entry.shape)


def _merge_edges(merge: Merge, ids: Sequence[str]) -> list[Edge]:
    """An edge from each parent; the base of task vectors, which is subtracted, is evidence and no parent."""
    confidence = round(min(COPIED, 1 / (1 + math.exp(-0.3 - merge.margin))), 4)
    base = merge.parameters.get("base") if merge.method == "task_arithmetic" else None
    parameters = {
        key: ids[value]
        if key == "base"
        else {ids[int(place)]: what for place, what in value.items()}
        if key in ("lambda_times_weight", "tensors")
        else {group: {ids[int(place)]: w for place, w in row.items()} for group, row in value.items()}
        if key.startswith("weights_by")
        else value
        for key, value in merge.parameters.items()
    }
    weights = {ids[parent]: round(weight, 6) for parent, weight in zip(merge.parents, merge.weights, strict=True)}
    return [
        Edge(
            ids[parent],
            ids[merge.child],
            "merge",
            confidence,
            {
                "method": merge.method,
                "weight": weights[ids[parent]],
                "weights": weights,
                **parameters,
                "unexplained": merge.unexplained,
                "exact": None if merge.exact is None else round(merge.exact, 4),
            },
        )
        for parent in merge.parents
        if parent != base
    ]


def _trimmed_edges(one: Trimmed, ids: Sequence[str]) -> list[Edge]:
    return [
        Edge(
            ids[parent],
            ids[one.child],
            "merge",
            TRIMMED,
            {
                "method": one.method,
                "factor": round(factor, 4),
                "kept": round(kept, 4),
                "base": None if one.base is None else ids[one.base],
                "left_at_base": round(one.unchanged, 4),
                "told": round(one.told, 4),
            },
        )
        for parent, factor, kept in zip(one.parents, one.factors, one.kept, strict=True)
    ]


def _acyclic(trimmed: Sequence[Trimmed], known: Sequence[tuple[int, int]]) -> list[Trimmed]:
    import networkx as nx

    graph = nx.DiGraph(known)
    kept = []
    for one in sorted(trimmed, key=lambda one: -one.told):
        above = [*one.parents, *([] if one.base is None else [one.base])]
        graph.add_nodes_from([one.child, *above])
        if not any(nx.has_path(graph, one.child, other) for other in above):
            graph.add_edges_from((other, one.child) for other in above)
            kept.append(one)
    return kept


def _training(
    geometry: Geometry, models: Sequence[Checkpoint], parent: int, child: int, grids: Sequence[str], values: Float64
) -> tuple[str, dict[str, Any]]:
    """Kind of an edge, ``finetune`` or ``lora``, and what speaks for the edge."""
    apart = geometry.apart[:, parent, child]
    changed = [name for name, distance in zip(geometry.names, apart, strict=True) if distance > 0]
    frozen = [name for name, distance in zip(geometry.names, apart, strict=True) if distance == 0]
    coarse = (
        max((grids[parent], grids[child]), key=lambda grid: HALF_ULP[grid]) if grids[child] != "float32" else "float32"
    )
    seen = change(models[parent], models[child], changed, frozen, coarse)
    told = dict(zip(NAMES, values.tolist(), strict=True))
    evidence: dict[str, Any] = {
        "relative_change": float(math.sqrt(apart.sum() / max(geometry.squares[:, parent].sum(), 1e-300))),
        "longer_matrices": round(told["longer"] + 0.5, 4),
        "outward": round(float((geometry.squares[:, child] - geometry.squares[:, parent]).sum() / apart.sum()), 4),
        "frozen_share": round(told["frozen"], 4),
        "frozen_tensors": len(frozen),
        "ranks": list(seen.ranks),
    }
    if seen.lora_rank is not None:
        return "lora", evidence | {"rank": seen.lora_rank}
    return "finetune", evidence
