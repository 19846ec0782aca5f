"""Roles in a family: what models may still be, by what has been found of others."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kinship.checkpoints.opening import open_checkpoint
from kinship.heritage import recover
from kinship.heritage.family import Family, Relation
from kinship.heritage.recovery import reconstruct
from kinship.heritage.sampling import Sample
from kinship.heritage.stages import Stages
from tests.kinship.heritage.families import family_of


@pytest.fixture
def values() -> np.ndarray:
    """Six models, of which 4 is 1 again."""
    found = np.random.default_rng(0).normal(size=(6, 16, 40)).astype(np.float32)
    found[4] = found[1]
    return found


def test_roles_follow_from_what_was_found(values: np.ndarray) -> None:
    samples = [Sample("w", tuple(range(6)), values)]
    found = [
        Relation(2, "cast", 0.99, {0: {}}),
        Relation(3, "quantized", 0.99, {}),
        Relation(5, "merge", 0.9, {1: {}}, others=(0,)),
    ]
    family = family_of(samples, found=found)
    assert family.equals == [[0], [1, 4], [2], [3], [5]]
    assert family.distinct == [0, 1, 2, 3, 5]
    assert family.plain == [0, 1, 5]
    assert family.parents == [0, 1, 2, 5]
    assert family.unmixed == [0, 1, 2]
    assert family.unexplained == [0, 1]
    assert family.certain == [(0, 2), (1, 5), (0, 5)]
    assert family.twins[0] == {2}
    assert family.twins[2] == {0}


def test_the_base_stands_for_its_equals_and_needs_no_explanation(values: np.ndarray) -> None:
    family = family_of([Sample("w", tuple(range(6)), values)], base=4)
    assert family.equals[1] == [4, 1]
    assert family.unexplained == [0, 2, 3, 5]


def test_models_that_share_too_little_are_left_aside_with_a_note(tmp_path: Path) -> None:
    """Related by one tensor, and each has as much that the other has not."""
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(64, 64)).astype(np.float32)
    paths = []
    for name in ("one", "two"):
        own = draw.normal(size=(64, 64)).astype(np.float32)
        paths.append(tmp_path / f"{name}.safetensors")
        save_file({"shared.weight": shared, f"{name}.weight": own}, paths[-1])
    heritage = recover(paths)
    assert {node.family for node in heritage.nodes} == {0}
    assert heritage.edges == ()
    assert all("has 100 % more" in note for note in heritage.notes)
    assert len(heritage.notes) == 2


def test_models_of_which_most_share_no_tensor_are_left_aside(tmp_path: Path) -> None:
    models = []
    for place, names in enumerate(("ab", "bc", "cd", "de", "ef")):
        path = tmp_path / f"{place}.safetensors"
        save_file({name: np.full((64, 64), place, dtype=np.float32) for name in names}, path)
        models.append(open_checkpoint(path))
    family = Family.of(models, None, Stages())
    assert not family.comparable
    notes = [note for finding in reconstruct(family) for note in finding.notes]
    assert [note.split(" ")[1:6] for note in notes] == [["shares", "no", "tensors", "with", "most"]] * 5
