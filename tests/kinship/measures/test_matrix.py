import csv
import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from kinship.errors import InvalidConfig, MalformedCheckpoint
from kinship.measures.matrix import KinshipMatrix

NAN = math.nan
VALUES = np.array([[1.0, 0.1 + 0.2, -1 / 3, NAN], [0.3, 1.0, 0.5, NAN], [-1 / 3, 0.5, 1.0, NAN], [NAN] * 4])
VALUES[1, 0] = VALUES[0, 1]
IDS = ("org/math", 'a "quoted", name', "zwölf", "twin")


@pytest.fixture
def matrix() -> KinshipMatrix:
    return KinshipMatrix("pcc", "org/base", IDS, VALUES, 7, {"embed": "5 rows in a, 4 in b"})


def test_a_pair_by_path_and_one_that_is_not_there(matrix: KinshipMatrix) -> None:
    assert matrix[Path("org/math"), IDS[1]] == matrix.mean([Path("org/math"), IDS[1]]) == VALUES[0, 1]
    for ask in (lambda: matrix["org/maths", IDS[1]], lambda: matrix.mean(["org/maths"])):
        with pytest.raises(InvalidConfig, match="no model 'org/maths'") as found:
            ask()
        assert "'org/math'" in found.value.hint


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_saved_matrix_is_read_back_exactly(matrix: KinshipMatrix, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"matrix{suffix}"
    matrix.save(path)
    again = KinshipMatrix.load(path)
    np.testing.assert_array_equal(again.values, matrix.values)
    assert again.to_dict() == matrix.to_dict()
    assert again.ids == matrix.ids


def test_csv_holds_every_value_in_full(matrix: KinshipMatrix, tmp_path: Path) -> None:
    matrix.save(tmp_path / "matrix.csv")
    with open(tmp_path / "matrix.csv", newline="", encoding="utf-8") as file:
        (corner, *columns), *rows = csv.reader(file)
    assert corner == "pcc"
    assert tuple(columns) == tuple(row[0] for row in rows) == IDS
    got = np.array([[float(cell) if cell else NAN for cell in row[1:]] for row in rows])
    np.testing.assert_array_equal(got, VALUES)


def test_json_is_strict_with_null_for_no_value(matrix: KinshipMatrix) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    fields = json.loads(matrix.to_json(), parse_constant=refuse)
    assert fields["schema"] == "kinship.matrix/1"
    assert fields["values"][3] == [None] * 4
    assert fields["values"][0][1] == 0.1 + 0.2
    assert fields["mean"] is None
    assert fields["left_out"] == {"embed": "5 rows in a, 4 in b"}


def test_the_format_may_be_named_apart_from_the_path(matrix: KinshipMatrix, tmp_path: Path) -> None:
    matrix.save(tmp_path / "written.partial", ".npz")
    (tmp_path / "written.partial").rename(tmp_path / "written.npz")
    assert KinshipMatrix.load(tmp_path / "written.npz").ids == IDS
    with pytest.raises(InvalidConfig, match=r"\.partial"):
        matrix.save(tmp_path / "written.partial")


@pytest.mark.parametrize("suffix", [".json", ".npz"])
@pytest.mark.parametrize(
    "content",
    [
        '{"schema": "kinship.matrix/2"}',
        '{"schema": "kinship.matrix/1"}',
        "{}",
        "[]",
        "not JSON",
        '{"schema": ',
        "PK\3\4",
    ],
)
def test_loading_another_file_is_malformed(tmp_path: Path, content: str, suffix: str) -> None:
    path = tmp_path / f"other{suffix}"
    path.write_text(content)
    with pytest.raises(MalformedCheckpoint, match="other"):
        KinshipMatrix.load(path)


def test_loading_another_npz_is_malformed(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", values=VALUES)
    with pytest.raises(MalformedCheckpoint, match="other"):
        KinshipMatrix.load(tmp_path / "other.npz")


def test_mean_is_that_of_the_paper() -> None:
    """2 / (n (n-1)) * sum of the similarities of all pairs."""
    rng = np.random.default_rng(1)
    values = rng.uniform(-1, 1, (6, 6))
    values = (values + values.T) / 2
    matrix = KinshipMatrix("cosine", "base", tuple("abcdef"), values)
    for size in range(2, 7):
        for chosen in combinations(range(6), size):
            total = sum(values[i, j] for i in chosen for j in chosen if i < j)
            assert matrix.mean([matrix.ids[i] for i in chosen]) == pytest.approx(2 / (size * (size - 1)) * total)
    assert matrix.mean() == pytest.approx(values[np.triu_indices(6, 1)].mean())


def test_mean_of_fewer_than_two_models_is_no_number(matrix: KinshipMatrix) -> None:
    assert math.isnan(matrix.mean(["org/math"]))
    assert math.isnan(matrix.mean([]))
    assert math.isnan(matrix.mean(["org/math", "twin"]))


def test_pairs_are_found_by_id(matrix: KinshipMatrix) -> None:
    assert matrix["org/math", "zwölf"] == matrix["zwölf", "org/math"] == -1 / 3


def test_models_without_direction_are_listed(matrix: KinshipMatrix) -> None:
    assert matrix.without_direction() == ("twin",)


def test_duplicate_ids_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="'b'"):
        KinshipMatrix("pcc", "base", ("a", "b", "b"), np.eye(3))


def test_values_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="3 ids"):
        KinshipMatrix("pcc", "base", ("a", "b", "c"), np.eye(2))
