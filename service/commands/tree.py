"""`kinship tree`."""

from pathlib import Path
from typing import Any

from kinship.errors import InvalidConfig
from kinship.output import require_writable
from search.ledger import LEDGER_NAME
from service.console import byte_progress, console, notes, print_json
from service.figures import PICTURES, require_suffix, save_figure


def run(
    what: list[str],
    base: str | None,
    out: list[Path],
    options: dict[str, Any],
    *,
    recover: bool = False,
    as_json: bool,
    force: bool,
) -> None:
    """Draw the lineage of a run, or the dendrogram of models, compared with these ``options`` of `kinship_matrix`.

    ``recover``: tell who was made from whom instead; of the options only ``allow_pickle`` counts.
    """
    if recover:
        from service.commands.recover import run as run_recover

        if out:
            raise InvalidConfig("--recover draws no pictures yet.", hint="Leave --out away; --json gives the tree.")
        run_recover(what, base, allow_pickle=options["allow_pickle"], as_json=as_json)
        return
    for path in out:
        require_suffix(path, PICTURES)
        require_writable(path, force=force)
    if len(what) == 1 and (Path(what[0]) / LEDGER_NAME).exists():
        _lineage(Path(what[0]), out, as_json=as_json, force=force)
    elif base is None or len(what) < 2:
        raise InvalidConfig(
            f"{what[0]!r} is not the folder of a run, and a dendrogram needs --base and at least two models.",
            hint="kinship tree RUN, or kinship tree MODEL MODEL... --base BASE",
        )
    else:
        _dendrogram(what, base, out, options, as_json=as_json, force=force)
    for path in out:
        notes().print(f"Wrote {path}")


def _lineage(folder: Path, out: list[Path], *, as_json: bool, force: bool) -> None:
    from search.lineage import lineage_of
    from search.plots import lineage_figure
    from service.report.view import RunView

    view = RunView.open(folder)
    graph = lineage_of(view.export)
    for path in out:
        save_figure(lineage_figure(graph), path, force=force)
    if as_json:
        nodes: list[dict[str, Any]] = [{"id": node, **graph.nodes[node]} for node in graph]
        edges = [{"parent": parent, "child": child} for parent, child in graph.edges]
        print_json({"schema": "kinship.lineage-graph/1", "nodes": nodes, "edges": edges})
        return
    for node in graph:
        facts = graph.nodes[node]
        score = "failed" if facts["score"] is None else f"{facts['score']:.4f}"
        parents = " x ".join(graph.predecessors(node))
        born = f" = {parents}  (kinship {facts['kinship']:.3f})" if facts["kinship"] is not None else ""
        console().print(f"{'  ' * facts['generation']}{node}{born}  score {score}")


def _dendrogram(
    models: list[str], base: str, out: list[Path], options: dict[str, Any], *, as_json: bool, force: bool
) -> None:
    from kinship.compute import kinship_matrix
    from kinship.plots import dendrogram_figure
    from kinship.trees import cluster

    with byte_progress("Reading weights", quiet=as_json) as progress:
        matrix = kinship_matrix(models, base, progress=progress, **options)
    linkage = cluster(matrix)
    for path in out:
        save_figure(dendrogram_figure(matrix), path, force=force)
    if as_json:
        content = {"ids": list(matrix.ids), "metric": matrix.metric, "linkage": linkage.tolist()}
        print_json({"schema": "kinship.dendrogram/1", **content})
        return
    groups = [[id] for id in matrix.ids]
    for left, right, height, _ in linkage.tolist():
        groups.append(groups[int(left)] + groups[int(right)])
        console().print(f"{height:8.4f}  {{{', '.join(groups[int(left)])}}} + {{{', '.join(groups[int(right)])}}}")
