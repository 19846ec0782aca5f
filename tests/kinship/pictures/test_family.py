"""Family trees as pictures, whatever is known of them."""

from pathlib import Path

import networkx as nx
import pytest

from kinship.pictures.family import EDGES, family_figure
from kinship.pictures.layout import layered_layout
from kinship.trees.graph import KINDS, add_descent, add_member, placed


@pytest.fixture
def tree() -> "nx.DiGraph[str]":
    found: nx.DiGraph[str] = nx.DiGraph()
    add_descent(found, "org/base", "org/a", "finetune", "weights", confidence=0.75)
    add_descent(found, "org/a", "org/c", "merge", "weights")
    add_descent(found, "org/base", "org/c", "merge", "weights", confidence=0.5)
    add_member(found, "org/c", given=True)
    return placed(found)


def test_every_kind_can_be_drawn() -> None:
    assert set(EDGES) == set(KINDS)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_names_kinds_and_routes(tree: "nx.DiGraph[str]", tmp_path: Path, suffix: str) -> None:
    figure = family_figure(tree, "A title")
    (axes,) = figure.axes  # no scores, no scale
    texts = [text.get_text() for text in axes.texts]
    assert {"base", "a", "c", "finetune 0.75", "merge 0.50"} <= set(texts)
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["merge", "finetune"]
    drawn = {tuple(map(tuple, line.get_xydata())) for line in axes.lines}
    assert drawn == {tuple(route) for route in layered_layout(tree).edges.values()}
    figure.savefig(tmp_path / f"tree.{suffix}")
    assert (tmp_path / f"tree.{suffix}").stat().st_size > 1000


def test_scores_have_a_scale(tree: "nx.DiGraph[str]") -> None:
    add_member(tree, "org/a", score=0.5)
    assert len(family_figure(tree).axes) == 2


def test_large_families_run_from_left_to_right() -> None:
    tree: nx.DiGraph[str] = nx.DiGraph()
    for child in range(40):
        add_descent(tree, "root", f"child{child}", "finetune", "weights", confidence=0.9)
        add_descent(tree, f"child{child}", f"grandchild{child}", "lora", "weights")
    for stranger in range(3):
        add_member(tree, f"stranger{stranger}", given=True)
    figure = family_figure(placed(tree))
    (axes,) = figure.axes
    places = {text.get_text(): text.xy for text in axes.texts}  # type: ignore[attr-defined]
    assert set(places) == {node for node in tree if "stranger" not in node}
    assert [places[name][0] for name in ("root", "child7", "grandchild7")] == [0, 1, 2]
    assert len({places[f"child{child}"][1] for child in range(40)}) == 40  # each on a line of its own
    assert figure.get_figheight() / 41 > 0.15  # inches a line, for names of 6 points (0.083 inches)
    assert figure.get_figwidth() < 10
    assert "No relatives here: stranger0, stranger1, stranger2" in figure.get_supxlabel()
