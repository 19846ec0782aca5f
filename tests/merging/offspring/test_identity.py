import numpy as np
import pytest

from merging.offspring.span import Genome, Span, genome_identity

SPAN = Span(("base", "one", "two"), ("a", "b"))
DIGESTS = {"base": "d0", "one": "d1", "two": "d2"}
TABLE = [[0.0, 0.25, 0.75], [0.0, 0.5, 0.5]]


def identity(table: list[list[float]], span: Span = SPAN, **digests: str) -> str:
    return genome_identity(Genome(np.array(table)), span, DIGESTS | digests)


def test_equal_coefficients_on_equal_founders_are_one_identity() -> None:
    assert identity(TABLE) == identity([list(row) for row in TABLE])
    assert len(identity(TABLE)) == 64


def test_identity_follows_content_and_not_names() -> None:
    renamed = Span(("start", "eins", "zwei"), SPAN.names)
    digests = {"start": "d0", "eins": "d1", "zwei": "d2"}
    assert genome_identity(Genome(np.array(TABLE)), renamed, digests) == identity(TABLE)


def test_unused_founders_do_not_count() -> None:
    assert identity(TABLE, base="another") == identity(TABLE)
    larger = Span(("base", "unused", "one", "two"), SPAN.names)
    table = [[row[0], 0.0, *row[1:]] for row in TABLE]
    assert identity(table, larger, unused="d9") == identity(TABLE)


@pytest.mark.parametrize("founder", ["one", "two"])
def test_a_used_founder_with_other_weights_counts(founder: str) -> None:
    assert identity(TABLE, **{founder: "changed"}) != identity(TABLE)


@pytest.mark.parametrize(("row", "column"), [(0, 1), (0, 2), (1, 1), (1, 2), (1, 0)])
def test_every_coefficient_counts(row: int, column: int) -> None:
    changed = [list(values) for values in TABLE]
    changed[row][column] = float(np.nextafter(changed[row][column], 2.0))
    assert identity(changed) != identity(TABLE)


def test_coefficients_belong_to_their_founders() -> None:
    assert identity([[0.0, 1.0, 0.0]] * 2) != identity([[0.0, 0.0, 1.0]] * 2)
    assert identity(TABLE, one="d2", two="d1") != identity(TABLE)


def test_coefficients_belong_to_their_tensors() -> None:
    assert identity(TABLE[::-1]) != identity(TABLE)
    assert identity(TABLE, Span(SPAN.ids, ("a", "c"))) != identity(TABLE)


def test_zero_has_no_sign() -> None:
    assert identity([[0.0, 1.0, -0.0], [0.0, 0.5, 0.5]]) == identity([[0.0, 1.0, 0.0], [0.0, 0.5, 0.5]])
