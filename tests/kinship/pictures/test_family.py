"""Family trees as pictures, whatever is known of them: nothing overlaps, and nothing is told by colour alone."""

import io
import random
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection

from kinship.pictures.canvas import plain_texts
from kinship.pictures.family import family_figure
from kinship.pictures.layout import layered_layout
from kinship.pictures.marks import STROKES, descent_signs, mark_of, model_signs
from kinship.pictures.sheet import text_width
from kinship.trees.graph import KINDS, add_descent, add_member, outline, placed


def family(count: int, merged: float, seed: int = 0) -> "nx.DiGraph[str]":
    """A family of names as long as the Hub's; of the later ones about so many are ``merged``."""
    chance = random.Random(seed)
    found: nx.DiGraph[str] = nx.DiGraph()
    ids = ["foundation-research/Foundation-Model-7B-v0.1"]
    add_member(found, ids[0], given=True)
    for number in range(1, count):
        id = f"organisation-name/Model-Name-7B-Instruct-v0.{number}-merge-of-the-month"
        parents = chance.sample(ids[1:], 3) if number > 4 and chance.random() < merged else [chance.choice(ids[:5])]
        for parent in parents:
            kind = "merge" if len(parents) > 1 else chance.choice(["finetune", "lora", "quantized"])
            add_descent(found, parent, id, kind, "weights", confidence=chance.random())
        add_member(found, id, given=chance.random() > 0.1, score=chance.random())
        ids.append(id)
    return placed(found)


@pytest.mark.parametrize(
    ("count", "merged"), [(6, 0.3), (27, 0.4), (27, 0.0), (100, 0.05), pytest.param(300, 0.5, marks=pytest.mark.soak)]
)
def test_no_text_lies_on_another_nor_on_a_line(count: int, merged: float) -> None:
    tree = family(count, merged)
    figure = family_figure(tree, "A family")
    (axes, *_) = figure.axes
    with plain_texts():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        signs = [text for text in axes.texts if not text.get_text().isdigit() or text.get_ha() != "center"]
        boxes = np.array([text.get_window_extent(renderer).extents for text in signs])
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    deep = (np.minimum(high, boxes[None, :, 2:]) - np.maximum(low, boxes[None, :, :2])).min(axis=2)
    np.fill_diagonal(deep, -1)
    assert deep.max() < 1  # pixels
    wide, tall = canvas.get_width_height()
    assert (boxes >= 0).all()
    assert (boxes[:, [2, 3]] <= [wide, tall]).all()
    segments = [
        part for lines in axes.collections if isinstance(lines, LineCollection) for part in lines.get_segments()
    ]
    assert len(segments) >= tree.number_of_nodes() - 1
    for points in segments:
        for start, end in pairwise(axes.transData.transform(points)):
            points = start + np.linspace(0, 1, 50)[:, None] * (end - start)
            inside = (points[:, None] > boxes[None, :, :2] + 1) & (points[:, None] < boxes[None, :, 2:] - 1)
            assert not inside.all(axis=2).any()
    assert figure.get_figwidth() < 10
    names = "".join(text.get_text() for text in signs)
    assert all(f"0.{number}-" in names.replace("\n", "") for number in range(1, count))


def test_what_numbers_and_signs_are_is_said() -> None:
    tree: nx.DiGraph[str] = nx.DiGraph()
    add_member(tree, "base", given=True, role="base", generation=0, score=0.1)
    for founder in "ab":
        add_member(tree, founder, given=True, role="founder", generation=0, score=0.2)
        add_descent(tree, "base", founder, "finetune", "ledger")
    for child, role in (("1-1", "greedy"), ("1-2", "exploration")):
        add_member(tree, child, given=True, role=role, generation=1, score=0.3, kinship=0.25)
        for parent in "ab":
            add_descent(tree, parent, child, "merge", "ledger", kinship=0.25)
    texts = [text.get_text() for text in family_figure(tree).axes[0].texts]
    assert {"base", "founders", "generation 1"} <= set(texts)
    assert {"above a model: kinship of the parents", "last line below a model: score"} <= set(texts)
    assert "child of a partner that the search added" in texts
    assert texts.count("0.25") == 2  # once a child, not once a parent
    layout = layered_layout(tree)
    assert [layout.nodes[id][1] for id in ("base", "a", "b", "1-1")] == [0, 1, 1, 2]  # the base alone


def test_confidence_and_kinship_are_told_apart_where_both_are_known() -> None:
    tree: nx.DiGraph[str] = nx.DiGraph()
    add_descent(tree, "a", "b", "finetune", "weights", confidence=0.75)
    add_descent(tree, "b", "c", "merge", "ledger", kinship=0.5)
    texts = {text.get_text() for text in family_figure(placed(tree)).axes[0].texts}
    assert {"confidence 0.75", "kinship 0.50"} <= texts


def test_kinds_differ_without_colour() -> None:
    assert set(STROKES) == set(KINDS)
    assert len({(stroke.dash, stroke.width) for stroke in STROKES.values()}) == len(STROKES)
    facts = [{}, {"role": "base"}, {"role": "random"}, {"given": False}, {"latent": True, "given": False}]
    assert len({(mark_of(each).shape, mark_of(each).dash) for each in facts}) == len(facts)


def test_the_legend_has_what_is_drawn_and_no_more() -> None:
    tree = family(27, 0.4)
    kinds = {facts["kind"] for *_, facts in tree.edges(data=True)}
    assert {text for _, text in descent_signs(tree)} == kinds
    assert [text for _, text in model_signs(tree)] == ["model", "only named as a parent"]


@pytest.mark.parametrize("format", ["png", "svg"])
def test_a_model_alone_is_drawn(format: str) -> None:
    tree: nx.DiGraph[str] = nx.DiGraph()
    add_member(tree, "org/a $x_1$ 模型", given=True)
    file = io.BytesIO()
    with plain_texts():
        family_figure(placed(tree)).savefig(file, format=format)
    assert file.tell() > 1000


def test_rows_keep_the_order_of_the_outline() -> None:
    tree = family(60, 0.0)
    texts = {text.get_text(): text.get_position() for text in family_figure(tree).axes[0].texts}
    places = [texts[id.rpartition("/")[2][:48]] for id, *_ in outline(tree) if id.rpartition("/")[2][:48] in texts]
    assert len(places) > 50
    assert places == sorted(places, key=lambda place: place[1])


def test_widths_are_those_that_are_drawn() -> None:
    from matplotlib.figure import Figure

    figure = Figure(dpi=720)
    with plain_texts():
        text = figure.text(0, 0.5, "Model-Name-7B-Instruct", size=7)
        drawn = text.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width / 720
    assert text_width("Model-Name-7B-Instruct") == pytest.approx(drawn, rel=0.03)
