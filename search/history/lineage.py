"""The descent that a run recorded, as a family tree."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinship.trees.graph import Tree

SOURCE = "ledger"


def shown(export: Mapping[str, Any], most: int) -> list[str]:
    """Ids of the individuals worth showing, in the order proposed: everyone, or of a larger run about ``most``.

    These are base and founders, then the best so far of each generation from the last one back, each with its
    ancestors, then the best others.
    """
    people = {individual["id"]: individual for individual in export["individuals"]}
    if len(people) <= most:
        return list(people)
    chosen = {id for id, individual in people.items() if individual["generation"] == 0}
    queue = list(export["best_so_far"])
    while queue and len(chosen) < most:
        id = queue.pop()
        if id not in chosen:
            chosen.add(id)
            queue += reversed(people[id]["parents"])
    scored = [id for id, individual in people.items() if "search" in individual["scores"] and id not in chosen]
    scored.sort(key=lambda id: (-people[id]["scores"]["search"]["value"], id))
    chosen.update(scored[: max(0, most - len(chosen))])
    return [id for id in people if id in chosen]


def lineage_of(export: Mapping[str, Any], most: int | None = None) -> "Tree":
    """The lineage in a run's export: nodes carry generation, role, score and the kinship of their parents.

    The base, whose fine-tunes the founders are by the run's own word, is one of them. ``most``: of a larger run only
    what is `shown`; an edge then needs both its ends.
    """
    import networkx as nx

    from kinship.trees.graph import add_descent

    tree: Tree = nx.DiGraph()
    wanted = set(shown(export, most or len(export["individuals"])))
    for individual in export["individuals"]:
        if individual["id"] not in wanted:
            continue
        tree.add_node(
            individual["id"],
            given=True,
            generation=individual["generation"],
            role=individual["role"],
            score=individual["scores"].get("search", {}).get("value"),
            kinship=individual["kinship_of_parents"],
        )
        if individual["role"] == "founder" and export["base"] in tree:
            add_descent(tree, export["base"], individual["id"], "finetune", SOURCE)
        for parent in individual["parents"]:
            if parent in tree:
                kinship = individual["kinship_of_parents"]
                add_descent(tree, parent, individual["id"], "merge", SOURCE, kinship=kinship)
    return tree
