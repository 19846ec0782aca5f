"""Families from samples, against what renumbering units does to correlations; the same families from an index."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.heritage import recover, sampling
from kinship.heritage.grouping import correlations, families, group, sketched_correlations
from kinship.heritage.sampling import Sample, sample
from kinship.heritage.stages import Stages
from kinship.sketches.index import SketchIndex
from kinship.sketches.sketch import sketch

SHAPES = {f"layers.{layer}.{part}.weight": (48, 40) for layer in range(12) for part in ("attn", "mlp")}
State = dict[str, np.ndarray]


def network(seed: int, parent: State | None = None, step: float = 0.1) -> State:
    draw = np.random.default_rng(seed)
    noise = {name: draw.standard_normal(size, dtype=np.float32) for name, size in SHAPES.items()}
    return noise if parent is None else {name: parent[name] + np.float32(step) * noise[name] for name in SHAPES}


def write(folder: Path, states: dict[str, State]) -> list[Path]:
    paths = []
    for name, state in states.items():
        paths.append(folder / f"{name}.safetensors")
        save_file(state, paths[-1])
    return paths


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Two families, one of them with a distant cousin, and a stranger; given in turns."""
    one, other = network(1), network(2)
    states = {"a0": one, "b0": other, "a1": network(3, one), "stranger": network(4), "b1": network(5, other)}
    # So far away that sketches leave it in doubt: of its weights, a fifth is inherited.
    return write(tmp_path, states | {"cousin": network(6, one, 5.0)})


@pytest.fixture(autouse=True)
def states_count_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinship.file_state.YOUNG_SECONDS", 0.0)


FAMILIES = [[0, 2, 5], [1, 4], [3]]


def test_sketches_tell_the_families_that_samples_tell(paths: list[Path], tmp_path: Path) -> None:
    models = [open_checkpoint(path) for path in paths]
    found = group(models, Stages())
    assert (found.families, found.notes) == (FAMILIES, ())
    assert group(models, Stages(), SketchIndex(tmp_path / "index.sqlite")).families == FAMILIES


def test_what_is_remembered_is_not_read(paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, near = SketchIndex(tmp_path / "index.sqlite"), [path for path in paths if path.stem != "cousin"]
    expected = group([open_checkpoint(path) for path in near], Stages(), index)

    def refuse(self: Checkpoint, name: str, start: int, view: memoryview) -> None:
        raise AssertionError(f"{self.id} was read")

    monkeypatch.setattr(Checkpoint, "read_into", refuse)
    again = SketchIndex(tmp_path / "index.sqlite")
    assert group([open_checkpoint(path) for path in near], Stages(), again) == expected


def test_a_changed_model_is_sketched_anew_and_the_index_left_alone(paths: list[Path], tmp_path: Path) -> None:
    index = SketchIndex(tmp_path / "index.sqlite")
    group([open_checkpoint(path) for path in paths], Stages(), index)
    save_file(network(77), paths[2])
    found = group([open_checkpoint(path) for path in paths], Stages(), index)
    groups, notes = found.families, found.notes
    assert [2] in groups
    assert [note for note in notes if "another model called" in note and "sketched anew" in note]
    with open_checkpoint(paths[0]) as first:
        kept = {relative.id: relative for relative in index.query(sketch(first))}
    assert kept[str(paths[2])].related  # the old one, which nobody asked to replace


def test_the_index_is_filled_and_the_heritage_the_same(paths: list[Path], tmp_path: Path) -> None:
    told: list[tuple[str, int, int, str]] = []
    plain = recover(paths)
    found = recover(paths, progress=lambda *words: told.append(words), index=tmp_path / "index.sqlite")
    # Of models that the index remembers no weights are read, which their independence would be told from.
    unasked = tuple(replace(node, nearest=None, independence=None) for node in plain.nodes)
    assert found == replace(plain, nodes=unasked)
    assert all(node.independence is not None for node in plain.nodes)
    assert SketchIndex(tmp_path / "index.sqlite").ids == sorted(map(str, paths))
    stages = list(dict.fromkeys(stage for stage, *_ in told))
    assert stages[:2] == ["Opening models", "Sketching"]
    last = {stage: (done, total) for stage, done, total, _ in told}
    assert all(done == total for done, total in last.values())


def test_estimated_correlations_are_within_their_errors(paths: list[Path]) -> None:
    models = [open_checkpoint(path) for path in paths]
    correlation, error = sketched_correlations([sketch(model) for model in models])
    flat = np.stack([np.concatenate([model.floats(name) for name in SHAPES]) for model in models]).astype(np.float64)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    assert (np.abs(correlation - unit @ unit.T) < 5 * error).all()
    assert error.max() < 0.05


def test_samples_of_many_models_are_bounded(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    models = [open_checkpoint(path) for path in paths]
    assert len(sample(models)) == len(SHAPES)
    monkeypatch.setattr(sampling, "MEMORY", 1)
    fewer = sample(models)
    assert len(fewer) == sampling.FEWEST
    for one in fewer:
        np.testing.assert_array_equal(one.values[1].ravel(), models[1].floats(one.name))


def test_the_variance_is_what_renumbering_gives() -> None:
    random = np.random.default_rng(0)
    # Of low rank, so that elements are anything but independent.
    one, other = (random.normal(size=(12, 2)) @ random.normal(size=(2, 9)) for _ in range(2))
    values = np.stack([one, other]).astype(np.float32)
    _, error = correlations([Sample("w", (0, 1), values)], 2)
    renumbered = []
    for _ in range(4000):
        for moved in (other[:, random.permutation(9)], other[random.permutation(12)]):
            pair = [part - part.mean(0) - part.mean(1, keepdims=True) + part.mean() for part in (one, moved)]
            renumbered.append(float((pair[0] * pair[1]).sum() / np.linalg.norm(pair[0]) / np.linalg.norm(pair[1])))
    by_columns, by_rows = np.std(renumbered[0::2]), np.std(renumbered[1::2])
    assert abs(error[0, 1] - max(by_columns, by_rows)) < 0.05 * error[0, 1]


def test_unrelated_matrices_stay_apart_and_descendants_do_not() -> None:
    random = np.random.default_rng(1)
    base = random.normal(size=(64, 64))
    values = np.stack([base, base + 0.5 * random.normal(size=base.shape), *random.normal(size=(20, 64, 64))])
    correlation, error = correlations([Sample("w", tuple(range(22)), values.astype(np.float32))], 22)
    groups = families(correlation, error)
    assert groups[0] == [0, 1]
    assert all(len(group) == 1 for group in groups[1:])


def test_a_matrix_of_zeros_is_passed_over() -> None:
    correlation, _ = correlations([Sample("w", (0, 1), np.zeros((2, 20, 20), dtype=np.float32))], 2)
    assert correlation[0, 1] == 0


def test_models_that_share_no_matrix_are_not_linked() -> None:
    values = np.random.default_rng(2).normal(size=(1, 20, 20)).astype(np.float32)
    correlation, error = correlations([Sample("a", (0,), values), Sample("b", (1,), values)], 2)
    assert np.isinf(error[0, 1])
    assert families(correlation, error) == [[0], [1]]
