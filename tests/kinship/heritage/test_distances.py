"""Distances of all pairs in one pass, against float64 and against what is equal."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import NonFiniteWeights
from kinship.heritage.distances import pairwise_gaps

Tensors = dict[str, torch.Tensor]


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def states(request: pytest.FixtureRequest) -> list[Tensors]:
    """Five models, the last a copy of the second, and the third very near it."""
    draw = torch.Generator().manual_seed(0)
    sizes = {"a": (130, 173), "b": (7,), "c": (64, 64)}
    found = [{name: torch.randn(size, generator=draw) for name, size in sizes.items()} for _ in range(3)]
    found[2] = {name: tensor + 1e-3 * torch.randn(tensor.shape, generator=draw) for name, tensor in found[1].items()}
    found += [{name: tensor.clone() for name, tensor in found[place].items()} for place in (0, 1)]
    found[3]["c"] = found[2]["c"].clone()
    return [{name: tensor.to(request.param) for name, tensor in state.items()} for state in found]


def saved(folder: Path, states: Sequence[Tensors]) -> list[Checkpoint]:
    for number, state in enumerate(states):
        save_file(state, folder / f"{number}.safetensors")
    return [open_checkpoint(folder / f"{number}.safetensors") for number in range(len(states))]


def test_distances_are_those_of_float64(states: list[Tensors], tmp_path: Path) -> None:
    squares, gaps = pairwise_gaps(saved(tmp_path, states), ["a", "b", "c"])
    for index, name in enumerate("abc"):
        flat = torch.stack([state[name].double().flatten() for state in states]).numpy()
        true = np.square(flat[:, None] - flat[None]).sum(2)
        np.testing.assert_allclose(gaps[index], true, rtol=2e-6)  # of the distance itself, however near the two are
        np.testing.assert_allclose(squares[index], np.square(flat).sum(1), rtol=2e-6)
        assert ((gaps[index] == 0) == (true == 0)).all()


def test_threads_change_nothing(states: list[Tensors], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = saved(tmp_path, states)
    found = []
    for threads in ("1", "5"):
        monkeypatch.setenv("KINSHIP_THREADS", threads)
        found.append(pairwise_gaps(models, ["a", "c"]))
    assert all(np.array_equal(one, other) for one, other in zip(*found, strict=True))


def test_damaged_weights_are_named(states: list[Tensors], tmp_path: Path) -> None:
    states[3]["c"][5, 5] = float("inf")
    with pytest.raises(NonFiniteWeights, match=r"'c' of .*3\.safetensors"):
        pairwise_gaps(saved(tmp_path, states), ["a", "c"])
