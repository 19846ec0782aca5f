"""Relatives found from sketches alone, against distances taken of the weights."""

import sqlite3
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kinship.errors import InvalidConfig, MalformedCheckpoint, ReferenceNotFound
from kinship.sketches.index import SketchIndex
from kinship.sketches.sketch import Key, Sketch, fold_chunk

SHAPES = {f"layers.{layer}.{part}": 2048 for layer in range(10) for part in ("attn", "mlp")}
Weights = Mapping[str, np.ndarray]


def network(seed: int, parent: Weights | None = None, step: float = 0.02) -> Weights:
    draw = np.random.default_rng(seed)
    noise = {name: draw.standard_normal(count).astype(np.float32) for name, count in SHAPES.items()}
    return noise if parent is None else {name: parent[name] + np.float32(step) * noise[name] for name in SHAPES}


def sketched(weights: Weights) -> Sketch:
    parts = {Key(name, len(numbers)): fold_chunk(numbers, 0, name) for name, numbers in weights.items()}
    sums = np.stack([part.sums for part in parts.values()]).astype(np.float32)
    return Sketch(tuple(parts), sums, np.array([part.square for part in parts.values()]))


def gap(one: Weights, two: Weights) -> float:
    return float(np.sqrt(sum(np.sum((one[name].astype(np.float64) - two[name]) ** 2) for name in one)))


@pytest.fixture
def models() -> dict[str, Weights]:
    """Three families: a root, its children and grandchildren each."""
    found: dict[str, Weights] = {}
    for family in "ABC":
        found[family] = network(ord(family))
        for child in range(3):
            found[f"{family}{child}"] = network(10 * ord(family) + child, found[family])
            found[f"{family}{child}x"] = network(1000 * ord(family) + child, found[f"{family}{child}"], 0.005)
    return found


@pytest.fixture
def index(models: dict[str, Weights], tmp_path: Path) -> SketchIndex:
    found = SketchIndex(tmp_path / "new" / "index.sqlite")
    for id, weights in models.items():
        found.add(id, sketched(weights))
    return found


def test_relatives_are_told_from_strangers(index: SketchIndex, models: dict[str, Weights]) -> None:
    for id, weights in models.items():
        found = index.query(sketched(weights))
        assert len(found) == len(models)
        assert {relative.id for relative in found if relative.related} == {
            other for other in models if other[0] == id[0]
        }
        assert found[0].id == id
        assert found[0].distance == 0.0


def test_distances_are_those_of_the_weights(index: SketchIndex, models: dict[str, Weights]) -> None:
    asked = models["B1x"]
    norm = np.sqrt(sum(np.sum(numbers.astype(np.float64) ** 2) for numbers in asked.values()))
    found = {relative.id: relative for relative in index.query(sketched(asked))}
    for id in ("B", "B1", "B2", "B2x"):
        assert found[id].distance == pytest.approx(gap(asked, models[id]) / norm, rel=0.2)
        assert found[id].correlation == pytest.approx(1.0, abs=0.1)
        assert found[id].shared == 1.0
    assert index.query(sketched(asked))[1].id == "B1"  # its parent is the nearest but itself


def test_models_of_other_layouts(index: SketchIndex, models: dict[str, Weights]) -> None:
    resized = dict(models["C0"]) | {"layers.0.attn": np.ones(4096, dtype=np.float32)}
    (nearest, *_) = index.query(sketched(resized))
    assert (nearest.id, nearest.related) == ("C0", True)
    assert nearest.shared == pytest.approx(19 * 2048 / (19 * 2048 + 4096))
    assert index.query(sketched({"elsewhere": models["C0"]["layers.0.attn"]})) == []


def test_what_is_kept_is_found_again_by_another(index: SketchIndex, models: dict[str, Weights], tmp_path: Path) -> None:
    asked = sketched(models["A"])
    again = SketchIndex(tmp_path / "new" / "index.sqlite")
    assert again.query(asked) == index.query(asked)
    assert again.ids == sorted(models)
    again.remove("A0")
    assert "A0" not in {relative.id for relative in again.query(asked)}
    with pytest.raises(ReferenceNotFound, match="'A0'"):
        again.remove("A0")


def test_nothing_is_replaced_unasked(index: SketchIndex, models: dict[str, Weights]) -> None:
    index.add("A", sketched(models["A"]))  # the same
    with pytest.raises(InvalidConfig, match="another model called 'A'"):
        index.add("A", sketched(models["B"]))
    index.add("A", sketched(models["B"]), force=True)
    assert [relative.distance for relative in index.query(sketched(models["B"]))[:2]] == [0.0, 0.0]


def test_several_writers(models: dict[str, Weights], tmp_path: Path) -> None:
    path = tmp_path / "shared.sqlite"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda id: SketchIndex(path).add(id, sketched(models[id])), models))
    assert SketchIndex(path).ids == sorted(models)


def test_an_index_that_another_is_just_making(tmp_path: Path) -> None:
    (tmp_path / "new.sqlite").touch()
    index = SketchIndex(tmp_path / "new.sqlite")
    index.add("a", sketched(network(0)))
    assert index.ids == ["a"]


def test_files_that_are_no_index(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.sqlite") as database:
        database.execute("CREATE TABLE other (id TEXT)")
    with pytest.raises(MalformedCheckpoint, match=r"other\.sqlite is no index"):
        SketchIndex(tmp_path / "other.sqlite")
    (tmp_path / "notes.txt").write_text("hello, hello, hello")
    with pytest.raises(MalformedCheckpoint, match=r"notes\.txt is no index"):
        SketchIndex(tmp_path / "notes.txt")
    with pytest.raises(ReferenceNotFound, match="no index"):
        SketchIndex(tmp_path / "none").query(sketched(network(0)))
    assert not (tmp_path / "none").exists()


def test_another_version(index: SketchIndex, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "new" / "index.sqlite") as database:
        database.execute("UPDATE about SET version = 0")
    with pytest.raises(InvalidConfig, match="version 0"):
        SketchIndex(tmp_path / "new" / "index.sqlite")


def test_a_sketch_is_recalled_for_the_very_state_it_was_made_of(index: SketchIndex, models: dict[str, Weights]) -> None:
    asked = sketched(models["A"])
    assert index.recall("A", "now") is None  # of what state it is was not said
    index.add("A", asked, state="now")
    found = index.recall("A", "now")
    assert found is not None
    assert found.keys == asked.keys
    np.testing.assert_array_equal(found.sums, asked.sums)
    np.testing.assert_array_equal(found.squares, asked.squares)
    assert [index.recall("A", "later"), index.recall("A", None), index.recall("B", "now")] == [None] * 3
    index.add("A", asked)
    assert index.recall("A", "now") is None
    index.add("A", asked, state="now")
    index.remove("A")
    assert index.recall("A", "now") is None


def test_an_index_of_before_states_were_kept(index: SketchIndex, models: dict[str, Weights], tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "new" / "index.sqlite") as database:
        database.execute("DROP TABLE states")
    again = SketchIndex(tmp_path / "new" / "index.sqlite")
    assert again.recall("A", "now") is None
    again.add("A", sketched(models["A"]), state="now")
    assert again.recall("A", "now") is not None
    assert again.ids == sorted(models)
