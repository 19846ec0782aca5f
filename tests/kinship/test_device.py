"""The accelerator's code, run on torch's CPU; and on CUDA where there is one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kinship.checkpoints.opening import open_checkpoint
from kinship.device import choose_device, full_precision
from kinship.errors import InvalidConfig
from kinship.measures.alignment import align
from kinship.measures.gram import gram_table
from kinship.measures.moments import DeviceMoments, task_vector_moments
from tests.conftest import MakeModel

DEVICES = ["cpu:0", *(["cuda"] if torch.cuda.is_available() else [])]
SHAPES = {"a.weight": (300, 70), "b.weight": (9,), "c.weight": (64, 64)}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", [np.float32, np.uint16])
@pytest.mark.parametrize("count", [1, 4095, 4096, 10_000])
def test_moments_are_those_of_the_cpu(device: str, kind: type, count: int) -> None:
    numbers = np.random.default_rng(0).normal(size=(4, count)).astype(np.float32)
    moments = DeviceMoments(4 * count, device)
    rows = (moments.buffer.view(np.uint16) if kind is np.uint16 else moments.buffer)[: 4 * count].reshape(4, count)
    rows[:] = (numbers.view(np.uint32) >> 16) if kind is np.uint16 else numbers
    want, want_sums = np.zeros((4, 4)), np.zeros(4)
    task_vector_moments(rows, want, want_sums)
    gram, sums = moments(rows)
    np.testing.assert_allclose(np.tril(gram), want, rtol=1e-6, atol=1e-6 * want.max())
    np.testing.assert_allclose(sums, want_sums, rtol=1e-6, atol=1e-6 * count)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtypes", [[torch.float32], [torch.bfloat16], [torch.float16, torch.float32]], ids=str)
def test_table_is_that_of_the_cpu(make_model: MakeModel, device: str, dtypes: list[torch.dtype]) -> None:
    base = make_model("base", shapes=SHAPES, dtype=dtypes[0])
    folders = [make_model(f"m{seed}", seed, base, dtypes[seed % len(dtypes)], SHAPES) for seed in (1, 2, 3)]
    opened = [open_checkpoint(folder) for folder in [base, *folders]]
    alignment = align(opened[0], opened[1:])
    want = gram_table(opened[0], opened[1:], alignment)
    got = gram_table(opened[0], opened[1:], alignment, device=device)
    norms = np.sqrt(np.diagonal(want.grams, axis1=1, axis2=2))
    np.testing.assert_array_less(np.abs(got.grams - want.grams), 3e-7 * norms[:, :, None] * norms[:, None, :])
    np.testing.assert_allclose(got.sums, want.sums, rtol=1e-5, atol=1e-4)


def test_tf32_is_off_while_the_pass_lasts_and_as_before_after_it() -> None:
    settings = torch.backends.cuda.matmul
    for before in (True, False):
        settings.allow_tf32 = before
        with full_precision("cuda"):
            assert not settings.allow_tf32
        assert settings.allow_tf32 is before


def test_device_is_chosen_by_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == "cpu"
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(InvalidConfig, match="no CUDA device"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == "cuda"
    with pytest.raises(InvalidConfig, match="'tpu'"):
        choose_device("tpu")


def test_nothing_meets_a_tensor_of_another_device() -> None:
    """On a device that torch only pretends to have; in a process of its own, whose torch is told of it for good."""
    program = [sys.executable, "-m", "tests.kinship.elsewhere"]
    ended = subprocess.run(program, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["together"] == "FakeTensorDeviceMismatchError"  # what would not be seen on the CPU is seen there
    assert found["moments"] == "elsewhere elsewhere"
    assert found["likelihoods"] == 3
    assert len(found["kernels"]) > 5
    assert set(found["kernels"].values()) == {"elsewhere"}
