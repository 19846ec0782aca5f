"""The matrix in a terminal: whole, a triangle, or pairs; never with a figure cut or missing."""

import re

import numpy as np
import pytest
from rich.console import Console

from kinship.measures.matrix import KinshipMatrix
from service.commands.kinship_table import MOST_PAIRS, matrix_table


def random_matrix(count: int, length: int = 5, metric: str = "pcc") -> KinshipMatrix:
    values = np.random.default_rng(count).uniform(-0.3, 0.99, (count, count))
    values = (values + values.T) / 2
    np.fill_diagonal(values, 1.0)
    ids = tuple(f"{index:03}".rjust(length, "x") for index in range(count))
    return KinshipMatrix(metric, "org/base", ids, values)


def text_of(matrix: KinshipMatrix, width: int) -> tuple[str, list[str]]:
    table, legend = matrix_table(matrix, width)
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get(), legend


@pytest.mark.parametrize("width", [80, 120, 10_000])
@pytest.mark.parametrize("length", [5, 30, 90])
@pytest.mark.parametrize("count", [2, 7, 8, 12, 30, 70])
def test_every_figure_shown_is_whole(count: int, length: int, width: int) -> None:
    matrix = random_matrix(count, length)
    text, legend = text_of(matrix, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    shown = [float(figure) for figure in re.findall(r"-?\d\.\d+", text)]
    lower = matrix.values[np.tril_indices(count)]
    if len(shown) == count * count:
        np.testing.assert_allclose(sorted(shown), sorted(matrix.values.flatten()), atol=6e-5)
    elif len(shown) == len(lower):
        np.testing.assert_allclose(sorted(shown), sorted(lower), atol=6e-3)
        if length > 24:
            assert legend == [f"{number}  {id}" for number, id in enumerate(matrix.ids, 1)]
    else:
        pairs = np.sort(matrix.values[np.tril_indices(count, -1)])[::-1]
        np.testing.assert_allclose(shown, [*pairs[:MOST_PAIRS], *pairs[-MOST_PAIRS:]], atol=6e-5)
        assert f"{len(pairs) - 2 * MOST_PAIRS:,} more" in text
        assert "--out" in legend[0]


def test_the_closest_pair_comes_first_whatever_the_metric() -> None:
    for metric, first in (("pcc", np.argmax), ("euclidean", np.argmin)):
        matrix = random_matrix(70, metric=metric)
        matrix.values[3, 4] = matrix.values[4, 3] = np.nan
        one, other = np.tril_indices(70, -1)
        values = matrix.values[one, other]
        best = first(np.where(np.isnan(values), -9 if metric == "pcc" else 9, values))
        text, _ = text_of(matrix, 100)
        assert text.index(f"{matrix.ids[other[best]]} + {matrix.ids[one[best]]}") < text.index("more")
        assert "nan" not in text


def test_what_is_nearly_nothing_has_no_sign() -> None:
    matrix = random_matrix(8)
    matrix.values[1, 0] = matrix.values[0, 1] = -0.0001
    assert "-0.00" not in text_of(matrix, 100)[0]
