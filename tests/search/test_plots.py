from pathlib import Path

import pytest
from matplotlib.collections import LineCollection

from kinship.pictures.family import family_figure
from search.history.lineage import lineage_of
from tests.search.runs import Scene, failing
from tests.search.trees import individual


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_family_tree_is_drawn_with_every_name_and_score(scene: Scene, tmp_path: Path, suffix: str) -> None:
    scene.run("run", evaluator=scene.evaluator(failing("1-2")))
    graph = lineage_of(scene.export("run"))
    figure = family_figure(graph, "A title")
    axes = figure.axes[0]
    texts = [text.get_text() for text in axes.texts]
    for node, facts in graph.nodes.items():
        assert {node} | ({f"{facts['score']:.3f}"} if facts["score"] is not None else set()) <= set(texts)
    assert "A title" in texts
    drawn = [len(lines.get_segments()) for lines in axes.collections if isinstance(lines, LineCollection)]
    assert sum(drawn) >= graph.number_of_edges()
    figure.savefig(tmp_path / f"tree.{suffix}")
    start = (tmp_path / f"tree.{suffix}").read_bytes()[:400]
    assert start.startswith(b"\x89PNG") if suffix == "png" else b"<svg" in start


def test_a_tree_without_scores_is_drawn(tmp_path: Path) -> None:
    individuals = [individual("a", 0, score=None), individual("b", 0, score=None)]
    figure = family_figure(lineage_of({"base": "base", "individuals": individuals}))
    figure.savefig(tmp_path / "tree.png")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"a", "b"} <= set(texts)
    assert not any("score" in text for text in texts)
