"""The matrix in a terminal: whole, a triangle, or pairs; never with a figure cut or missing."""

import re
from itertools import combinations

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from kinship.measures.matrix import KinshipMatrix
from service.commands.kinship_table import MOST_PAIRS, groups_table, matrix_table


def random_matrix(count: int, length: int = 5, metric: str = "pcc") -> KinshipMatrix:
    values = np.random.default_rng(count).uniform(-0.3, 0.99, (count, count))
    values = (values + values.T) / 2
    np.fill_diagonal(values, 1.0)
    ids = tuple(f"{index:03}".rjust(length, "x") for index in range(count))
    return KinshipMatrix(metric, "org/base", ids, values)


def text_of(matrix: KinshipMatrix, width: int) -> tuple[str, list[str]]:
    table, legend = matrix_table(matrix, width)
    return drawn(table, width), legend


def drawn(table: Table, width: int) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


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


@pytest.mark.parametrize("width", [80, 300])
@pytest.mark.parametrize("length", [5, 60])
@pytest.mark.parametrize("count", [2, 4, 6])
def test_kinship_by_group_is_whole_and_names_what_it_is(count: int, length: int, width: int) -> None:
    groups = {f"layer {n}": random_matrix(count, length, metric) for n, metric in enumerate(("pcc", "pcc"))}
    table, legend = groups_table(groups, "layer", width)
    text = drawn(table, width)
    assert max(map(len, text.splitlines())) <= width
    assert "Kinship to base (pcc) by layer" in " ".join(text.split())
    values = [[matrix[pair] for pair in combinations(matrix.ids, 2)] for matrix in groups.values()]
    if count == 6:
        values = [[np.mean(row), min(row), max(row)] for row in values]
    shown = [float(figure) for figure in re.findall(r"-?\d\.\d{4}", text)]
    np.testing.assert_allclose(shown, np.concatenate(values), atol=6e-5)
    ids = groups["layer 0"].ids
    named = all(f"{one} + {other}" in text for one, other in combinations(ids, 2))
    assert count == 6 or named or legend == [f"{number}  {id}" for number, id in enumerate(ids, 1)]


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
