"""`kinship tree`: a run's lineage, recorded or recovered descent of models, or their dendrogram."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kinship.errors import InvalidConfig
from kinship.output import output_file, require_writable
from search.ledger.location import holds_run
from service.console import byte_progress, console, notes, print_json, stage_progress
from service.pages.figures import PICTURES, require_suffix, save_figure
from service.pages.tree import FORMATS, save_tree

if TYPE_CHECKING:
    from kinship.heritage.pedigree import Heritage
    from kinship.trees.graph import Tree

Joining = Literal["upgma", "nj"]


def run(
    what: list[str],
    base: str | None,
    out: list[Path],
    options: dict[str, Any],
    *,
    recorded: bool = False,
    recover: bool = False,
    index: Path | None = None,
    joining: Joining = "upgma",
    as_json: bool,
    force: bool,
) -> None:
    """Tell the descent of ``what``: see the command's help. ``options``: of `kinship_matrix`, for a dendrogram.

    ``recorded`` and ``recover`` together give one tree of both. Of the options, ``recover`` heeds ``allow_pickle``.
    """
    if index is not None and not recover:
        raise InvalidConfig("--index is for --recover.", hint="kinship tree MODEL MODEL... --recover --index FILE")
    is_run = len(what) == 1 and holds_run(Path(what[0]))
    if not (is_run or recorded or recover):
        _dendrogram(what, base, out, options, joining, as_json=as_json, force=force)
        return
    _require(out, FORMATS, force=force)
    heritage: Heritage | None = None
    trees: list[Tree] = []
    if is_run:
        trees.append(_lineage(Path(what[0])))
    if recorded:
        from kinship.trees.recorded import recorded_tree

        trees.append(recorded_tree(what))
    if recover:
        heritage = _recovered(what, base, index, allow_pickle=options["allow_pickle"], quiet=as_json)
        from kinship.heritage.pedigree import recovered_tree

        trees.append(recovered_tree(heritage))
    _tell(trees, heritage, what, out, is_run=is_run, as_json=as_json, force=force)


def _tell(
    trees: "list[Tree]",
    heritage: "Heritage | None",
    what: list[str],
    out: list[Path],
    *,
    is_run: bool,
    as_json: bool,
    force: bool,
) -> None:
    from kinship.trees.formats import to_lines
    from kinship.trees.graph import as_dict, placed, united
    from kinship.trees.licences import findings

    tree = trees[0] if len(trees) == 1 else placed(united(trees))
    found = [] if is_run else findings(tree)
    if heritage is not None and len(trees) == 1:
        content = heritage.to_dict()
    else:
        schema = "kinship.lineage-graph/1" if is_run else "kinship.family/1"
        content = {"schema": schema, **as_dict(tree)}
        content |= {} if is_run else {"findings": [finding.to_dict() for finding in found]}
    title = f"Family tree of {what[0]}" if is_run else f"Family tree of {len(what)} models"
    for path in out:
        save_tree(tree, path, title, content, found, force=force)
    if as_json:
        print_json(content)
    else:
        for line in to_lines(tree):
            console().print(line, soft_wrap=True, markup=False)
        for finding in found:
            notes().print(f"Note: {finding.text}.", soft_wrap=True, markup=False)
        if heritage is not None:
            from service.commands.recover import print_edges

            print_edges(heritage)
    for path in out:
        notes().print(f"Wrote {path}", soft_wrap=True, markup=False)


def _lineage(folder: Path) -> "Tree":
    from search.history.lineage import lineage_of
    from service.pages.view import RunView

    return lineage_of(RunView.open(folder).export)


def _recovered(
    models: list[str], base: str | None, index: Path | None, *, allow_pickle: bool, quiet: bool
) -> "Heritage":
    from kinship.heritage import recover

    with stage_progress(quiet=quiet) as progress:
        return recover(models, base, progress, allow_pickle=allow_pickle, index=index)


def _require(out: list[Path], formats: tuple[str, ...], *, force: bool) -> None:
    for path in out:
        require_suffix(path, formats)
        require_writable(path, force=force)


def _dendrogram(
    models: list[str],
    base: str | None,
    out: list[Path],
    options: dict[str, Any],
    joining: Joining,
    *,
    as_json: bool,
    force: bool,
) -> None:
    if base is None or len(models) < 2:
        raise InvalidConfig(
            f"{models[0]!r} is not the folder of a run, and a dendrogram needs --base and at least two models.",
            hint="kinship tree RUN; kinship tree MODEL MODEL... --base BASE; or --recorded or --recover.",
        )
    _require(out, (*PICTURES, ".nwk"), force=force)
    if joining == "nj" and any(path.suffix in PICTURES for path in out):
        raise InvalidConfig(
            "A neighbour-joining tree has no root and is not drawn here.",
            hint="Write it with --out TREE.nwk and open it in a tree viewer, or use --joining upgma.",
        )
    from kinship.measures.comparison import ComparisonOptions, kinship_matrix
    from kinship.trees.dendrogram import cluster, distances, neighbour_joining, newick

    chosen = ComparisonOptions(vocab=options["vocab"], allow_pickle=options["allow_pickle"])
    with byte_progress("Reading weights", quiet=as_json) as progress:
        matrix = kinship_matrix(models, base, options["metric"], chosen, progress)
    linkage = cluster(matrix)
    text = newick(linkage, matrix.ids) if joining == "upgma" else neighbour_joining(distances(matrix), matrix.ids)
    for path in out:
        if path.suffix == ".nwk":
            with output_file(path, force=force) as partial:
                partial.write_text(text, encoding="utf-8")
        else:
            from kinship.pictures.plots import dendrogram_figure

            save_figure(dendrogram_figure(matrix), path, force=force)
    if as_json:
        content = {
            "ids": list(matrix.ids),
            "metric": matrix.metric,
            "linkage": linkage.tolist(),
            "newick": text.strip(),
        }
        print_json({"schema": "kinship.dendrogram/1", **content})
    elif joining == "nj":
        console().print(text.strip(), soft_wrap=True, markup=False)
    else:
        groups = [[id] for id in matrix.ids]
        for left, right, height, _ in linkage.tolist():
            groups.append(groups[int(left)] + groups[int(right)])
            sides = [f"{{{', '.join(groups[int(side)])}}}" for side in (left, right)]
            console().print(f"{height:8.4f}  {' + '.join(sides)}", markup=False)
    for path in out:
        notes().print(f"Wrote {path}", soft_wrap=True, markup=False)
