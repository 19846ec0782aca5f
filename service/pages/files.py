"""Answers to files: pictures, pages and plain formats, as the suffix says."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kinship.checkpoints.references import local_places
from kinship.errors import InvalidConfig
from kinship.output import output_file, require_writable
from kinship.outside import write_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kinship.measures.matrix import KinshipMatrix
    from service.answers.dendrogram import Dendrogram
    from service.answers.matrix import Matrix
    from service.answers.tree import Descent

PICTURES = (".png", ".svg")
FORMATS = {
    "matrix": (".csv", ".json", ".npz", ".html", *PICTURES),
    "groups": (".csv", ".json", ".npz", ".html", *PICTURES),
    "tree": (".html", *PICTURES, ".json", ".graphml", ".mmd"),
    "dendrogram": (*PICTURES, ".nwk"),
}


def require_files(
    paths: Sequence[Path] | None,
    what: Literal["matrix", "groups", "tree", "dendrogram"],
    *,
    force: bool,
    inputs: Sequence[str] = (),
) -> list[Path]:
    """``paths``, which ``what`` can be written to and which are none of the ``inputs``, nor of their files.

    Raises `InvalidConfig` for a suffix that it has no format of, `OutputExists` and `OutputNotWritable`.
    """
    known, paths = FORMATS[what], list(paths or [])
    for path in paths:
        if path.suffix not in known:
            raise InvalidConfig(
                f"{path} has the unknown format {path.suffix!r}.", hint=f"Use one of: {', '.join(known)}."
            )
        require_writable(path, force=force, inputs=local_places(inputs))
    return paths


def save_figure(figure: "Figure", path: Path, *, force: bool = False) -> None:
    """Write a picture; the suffix names the format. SVG keeps its text as text."""
    from kinship.pictures.canvas import save

    with output_file(path, force=force) as partial:
        save(figure, partial, path.suffix[1:])


def save_matrix(answer: "Matrix", path: Path, *, force: bool = False) -> None:
    """Write a matrix, or kinship by group where the answer has that."""
    if answer.by:
        _save_groups(answer, answer.by, path, force=force)
    elif path.suffix in PICTURES:
        from kinship.pictures.plots import heatmap

        save_figure(heatmap(answer.matrix()), path, force=force)
    else:
        with output_file(path, force=force) as partial:
            if path.suffix == ".html":
                from service.pages.report import matrix_page

                partial.write_text(matrix_page(answer.matrix()), encoding="utf-8")
            else:
                answer.matrix().save(partial, path.suffix)


def save_dendrogram(answer: "Dendrogram", matrix: "KinshipMatrix", path: Path, *, force: bool = False) -> None:
    """Write a dendrogram; ``matrix``: what it was made of."""
    if path.suffix in PICTURES:
        from kinship.pictures.plots import dendrogram_figure

        save_figure(dendrogram_figure(matrix), path, force=force)
        return
    with output_file(path, force=force) as partial:
        partial.write_text(answer.newick + "\n", encoding="utf-8")


def save_tree(answer: "Descent", path: Path, title: str, *, force: bool = False) -> None:
    """Write a family tree; ``.json`` holds the answer itself."""
    if path.suffix in PICTURES:
        from kinship.pictures.family import family_figure

        save_figure(family_figure(answer.tree(), title), path, force=force)
        return
    with output_file(path, force=force) as partial:
        partial.write_text(_tree_text(answer, path.suffix, title), encoding="utf-8")


def _tree_text(answer: "Descent", suffix: str, title: str) -> str:
    from kinship.trees.formats import to_graphml, to_mermaid

    match suffix:
        case ".html":
            from service.pages.tree import tree_page

            return tree_page(answer, title)
        case ".graphml":
            return to_graphml(answer.tree())
        case ".mmd":
            return to_mermaid(answer.tree())
        case _:
            return answer.to_json() + "\n"


def _save_groups(answer: "Matrix", by: str, path: Path, *, force: bool) -> None:
    """Kinship within each group, whatever the format; ``.json`` is the answer, and has that of whole models too."""
    groups = answer.by_group()
    if path.suffix in PICTURES:
        from kinship.pictures.profile import profile

        save_figure(profile(groups, by), path, force=force)
        return
    with output_file(path, force=force) as partial:
        match path.suffix:
            case ".json":
                partial.write_text(answer.to_json() + "\n", encoding="utf-8")
            case ".npz":
                import numpy as np

                stacked = np.stack([group.values for group in groups.values()])
                answer.matrix().save(partial, ".npz", groups=stacked, labels=np.array(list(groups)), by=np.array(by))
            case ".html":
                from service.pages.report import groups_page

                partial.write_text(groups_page(answer, by), encoding="utf-8")
            case _:
                _write_rows(groups, by, partial)


def _write_rows(groups: "dict[str, KinshipMatrix]", by: str, path: Path) -> None:
    """CSV with a row for each group and pair."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        write_csv(file, [[by, "one", "other", next(iter(groups.values())).metric]])
        for label, matrix in groups.items():
            pairs = combinations(enumerate(matrix.ids), 2)
            values = matrix.values.tolist()
            write_csv(file, ([label, one, other, values[row][column]] for (row, one), (column, other) in pairs))
