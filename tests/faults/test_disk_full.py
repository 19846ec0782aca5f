"""The disk is full at every write of a command, one after the other: a typed error, and nothing half-written counts."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evaluators.base import Task
from evaluators.cache import ScoreCache
from kinship.cache import recall, remember
from kinship.errors import KinshipError, KinshipWarning
from kinship.measures.matrix import KinshipMatrix
from kinship.output import output_file
from kinship.sketches.index import SketchIndex
from kinship.sketches.sketch import Key, Sketch
from merging.merge import write_merge
from merging.output.verify import verify_folder
from merging.recipe.schema import parse_recipe
from service.answers.runs import list_runs
from tests.conftest import MakeModel
from tests.faults.full_disk import full_disk
from tests.search.runs import make_scene

UNLIMITED = 1_000_000
SHARES = [pytest.param(3, id="few"), pytest.param(None, id="all", marks=pytest.mark.soak)]
Command = Callable[[Path], object]


def fill(place: Path, command: Command, check: Command, share: int | None, *, silent: bool = False) -> int:
    """Run ``command`` in folders of its own with room for 0, 1, 2 ... writes (of ``share`` of these counts alone), each
    time checking what is there, then again with room. Returns how many writes it makes.

    It raises an error, or warns, that names the place; ``silent``: nobody need be told.
    """
    with full_disk(place, UNLIMITED) as disk:
        command(place / "calm")
    check(place / "calm")
    lasts = range(disk.count) if share is None else range(0, disk.count, max(1, disk.count // share))
    for last in lasts:
        folder = place / f"room-for-{last}"
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with full_disk(place, last):
                try:
                    command(folder)
                except KinshipError as error:
                    said = f"{error.message} {error.hint}"
                else:
                    said = " ".join(str(one.message) for one in told if issubclass(one.category, KinshipWarning))
                    assert said or silent, f"nobody was told after {last} writes"
        assert str(folder) in said or silent, said
        left = [file.name for file in place.rglob(".*.partial")]
        assert left == [], f"left after {last} writes"
        check(folder)
        command(folder)
        check(folder)
    return disk.count


@pytest.mark.parametrize("share", SHARES)
def test_a_search(make_model: MakeModel, tmp_path: Path, share: int | None) -> None:
    scene, runs = make_scene(make_model, tmp_path), tmp_path / "runs"
    runs.mkdir()
    ties = {"method": "ties", "parameters": {"density": 0.9, "weight": 0.5}}
    config = scene.config(merge=ties, stop={"generations": 1})

    def command(folder: Path) -> None:
        scene.run(str(folder), config, cache=ScoreCache(folder / "scores.sqlite"))

    def check(folder: Path) -> None:
        found = list_runs(str(folder)).runs if folder.exists() else []
        for run in found:
            if run.stopped:
                assert scene.text(str(folder)) == scene.text(str(runs / "calm"))

    assert fill(runs, command, check, share) > 40
    assert list_runs(str(runs / "calm")).runs[0].stopped


@pytest.mark.parametrize("share", SHARES)
def test_a_merge(make_model: MakeModel, tmp_path: Path, share: int | None) -> None:
    models = [make_model(name, seed) for seed, name in enumerate("ab")]
    parts = [{"model": str(model), "parameters": {"weight": 1.0}} for model in models]
    recipe = parse_recipe({"merge_method": "linear", "models": parts})
    outputs = tmp_path / "outputs"
    outputs.mkdir()

    def check(folder: Path) -> None:
        if (folder / "merged").exists():
            assert all(one.ok is not False for one in verify_folder(folder / "merged"))

    fill(outputs, lambda folder: write_merge(recipe, folder / "merged"), check, share)
    assert (outputs / "calm" / "merged").exists()


@pytest.mark.parametrize("share", SHARES)
def test_files_of_a_matrix(tmp_path: Path, share: int | None) -> None:
    values = np.array([[1.0, 0.5], [0.5, 1.0]])
    matrix = KinshipMatrix("pcc", "base", ("a", "b"), values)
    names = ("m.json", "m.csv", "m.npz")

    def command(folder: Path) -> None:
        for name in names:
            with output_file(folder / name, force=True) as partial:
                matrix.save(partial, Path(name).suffix)

    def check(folder: Path) -> None:
        for name in names:
            if (folder / name).exists():
                assert (folder / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()

    fill(tmp_path, command, check, share)
    assert all((tmp_path / "calm" / name).exists() for name in names)


@pytest.mark.parametrize("share", SHARES)
def test_a_score_cache(tmp_path: Path, share: int | None) -> None:
    task = Task("one", "acc", "one/1", {"search": range(5)})
    results = {index: index / 7 for index in range(40)}

    def check(folder: Path) -> None:
        if (folder / "scores.sqlite").exists():
            assert ScoreCache(folder / "scores.sqlite").load("a", task) in ({}, results)

    fill(tmp_path, lambda folder: ScoreCache(folder / "scores.sqlite").store("a", task, results), check, share)
    assert ScoreCache(tmp_path / "calm" / "scores.sqlite").load("a", task) == results


@pytest.mark.parametrize("share", SHARES)
def test_what_is_remembered(tmp_path: Path, share: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(folder: Path) -> None:
        monkeypatch.setenv("KINSHIP_CACHE", str(folder))
        remember("a", "key", b"value")

    def check(folder: Path) -> None:
        assert recall("a", "key") in (None, ("", b"value"))

    fill(tmp_path, command, check, share)
    assert recall("a", "key") == ("", b"value")


@pytest.mark.parametrize("share", SHARES)
def test_an_index(tmp_path: Path, share: int | None) -> None:
    keys = tuple(Key(f"layers.{index}.weight", 4096) for index in range(6))
    sketch = Sketch(keys, np.ones((6, 32), dtype=np.float32), np.ones(6))

    def command(folder: Path) -> None:
        SketchIndex(folder / "index.sqlite").add("a", sketch, state="now", force=True)

    def check(folder: Path) -> None:
        if (folder / "index.sqlite").exists():
            index = SketchIndex(folder / "index.sqlite")
            assert index.recall("a", "now") is None or index.ids == ["a"]

    fill(tmp_path, command, check, share)
    assert SketchIndex(tmp_path / "calm" / "index.sqlite").ids == ["a"]
