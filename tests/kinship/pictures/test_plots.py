import io
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kinship.measures.matrix import KinshipMatrix
from kinship.pictures.plots import colour_range, dendrogram_figure, heatmap
from kinship.trees.dendrogram import leaf_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = ("runs/reader", "runs/writer", "runs/adder", "runs/twin")


def matrix_of(count: int, metric: str = "pcc", missing: bool = False) -> KinshipMatrix:
    vectors = np.random.default_rng(0).normal(size=(count, 30))
    values = np.atleast_2d(np.corrcoef(vectors))
    if metric == "euclidean":
        values = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    if missing:
        values[-1, :] = values[:, -1] = np.nan
    ids = NAMES[:count] if count <= len(NAMES) else tuple(f"m{index}" for index in range(count))
    return KinshipMatrix(metric, "hub/base", ids, values)


def saved(figure: "Figure", format: str) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=format)
    return file.getvalue()


MATRICES = [
    pytest.param(matrix_of(4), id="four"),
    pytest.param(matrix_of(4, "euclidean"), id="distances"),
    pytest.param(matrix_of(4, missing=True), id="one without direction"),
    pytest.param(matrix_of(2), id="two"),
]


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("draw", [heatmap, dendrogram_figure])
def test_pictures_are_saved_with_every_name(draw: object, matrix: KinshipMatrix) -> None:
    import matplotlib as mpl

    assert callable(draw)
    figure = draw(matrix)
    assert saved(figure, "png").startswith(b"\x89PNG\r\n")
    with mpl.rc_context({"svg.fonttype": "none"}):
        text = saved(figure, "svg").decode()
    assert "</svg>" in text
    for id in matrix.ids:
        assert f">{id.removeprefix('runs/')}</text>" in text
    assert matrix.spec.label in text


def test_heatmap_shows_the_values_in_the_order_of_the_tree() -> None:
    matrix = matrix_of(4)
    main = heatmap(matrix).axes[1]
    order = leaf_order(matrix)
    assert [label.get_text() for label in main.get_yticklabels()] == [
        NAMES[index].removeprefix("runs/") for index in order
    ]
    values = matrix.values[np.ix_(order, order)]
    np.testing.assert_array_equal(main.images[0].get_array(), values)
    assert [text.get_text() for text in main.texts] == [f"{value:.2f}" for value in values.ravel()]


def test_cells_without_a_value_stay_empty() -> None:
    assert len(heatmap(matrix_of(4, missing=True)).axes[1].texts) == 9


def test_one_model_has_a_heatmap() -> None:
    assert saved(heatmap(matrix_of(1)), "png").startswith(b"\x89PNG")


def test_many_models_are_drawn_without_numbers() -> None:
    assert len(heatmap(matrix_of(31)).axes[1].texts) == 0


def test_colours_span_the_values_off_the_diagonal() -> None:
    positive = KinshipMatrix("pcc", "base", ("a", "b"), np.array([[1.0, 0.4], [0.4, 1.0]]))
    negative = KinshipMatrix("pcc", "base", ("a", "b"), np.array([[1.0, -0.4], [-0.4, 1.0]]))
    far = KinshipMatrix("euclidean", "base", ("a", "b"), np.array([[0.0, 7.0], [7.0, 0.0]]))
    assert colour_range(positive) == (0.0, 1.0)
    assert colour_range(negative) == (-0.4, 1.0)
    assert colour_range(far) == (0.0, 7.0)
