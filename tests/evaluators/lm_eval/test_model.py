"""Batches that fit, sampling that repeats."""

import random
from typing import Any

import pytest
import torch

from evaluators.harness import Harness
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import EvaluationFailed
from tests.evaluators.conftest import DOCUMENTS, Tiny, as_candidate, make_harness

ALL = list(range(DOCUMENTS))
NAMES = ["tiny_choice", "tiny_generate", "tiny_likelihood"]


def limit_memory(harness: Harness, monkeypatch: pytest.MonkeyPatch, rows: int) -> list[int]:
    """More than ``rows`` in one forward pass do not fit; returns the sizes tried, as they come."""
    forward, sizes = harness._live.model.forward, list[int]()

    def limited(input_ids: Any = None, **options: Any) -> Any:
        sizes.append(len(input_ids))
        if len(input_ids) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(input_ids=input_ids, **options)

    monkeypatch.setattr(harness._live.model, "forward", limited)
    return sizes


@pytest.mark.parametrize("task", NAMES)
def test_batches_are_halved_until_they_fit(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    harness = make_harness(tiny, tasks=[task], batch_size="auto")
    sizes = limit_memory(harness, monkeypatch, 3)
    candidate = as_candidate(open_checkpoint(tiny.model))
    assert harness.run(candidate, {task: ALL})[task] == tiny.truth[task]
    assert max(sizes) > 3
    assert harness._lm.batch_size_per_gpu == 2
    sizes.clear()
    harness.run(candidate, {task: ALL})
    assert max(sizes) == 2  # found once


def test_a_model_too_large_for_one_document_fails(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = make_harness(tiny, tasks=["tiny_choice"])
    harness.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_choice": [0]})
    limit_memory(harness, monkeypatch, 0)
    with pytest.raises(EvaluationFailed, match="out of memory") as raised:
        harness.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_choice": ALL})
    assert isinstance(raised.value.__cause__, torch.OutOfMemoryError)


def test_other_errors_are_no_lack_of_memory(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = make_harness(tiny, tasks=["tiny_choice"])
    candidate = as_candidate(open_checkpoint(tiny.model))
    harness.run(candidate, {"tiny_choice": [0]})

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(harness._live.model, "forward", broken)
    with pytest.raises(EvaluationFailed, match=r"lm-eval raised RuntimeError: CUDA error.*line \d+"):
        harness.run(candidate, {"tiny_choice": ALL})
    assert harness._lm.batch_size_per_gpu == 5


def test_sampled_generations_depend_on_document_and_seed_alone(tiny: Tiny) -> None:
    options: dict[str, Any] = {"tasks": ["tiny_generate"], "gen_kwargs": {"do_sample": True, "temperature": 2.0}}
    candidate = as_candidate(open_checkpoint(tiny.model))

    def answers(documents: list[int], seed: int, noise: int) -> dict[int, str]:
        torch.manual_seed(noise)
        random.seed(noise)
        harness = make_harness(tiny, seed=seed, **options)
        harness.run(candidate, {"tiny_generate": documents})
        requests = harness._suite._tasks["tiny_generate"].requests(harness._lm, documents)
        return {request.doc_id: request.resps[0] for request in requests}

    every = answers(ALL, 1, 1)
    assert len(set(every.values())) > 5
    assert answers([17, 3], 1, 2) == {i: every[i] for i in (3, 17)}
    assert answers(ALL, 2, 1) != every


def test_sampling_leaves_the_state_of_random_numbers_alone(tiny: Tiny) -> None:
    harness = make_harness(tiny, tasks=["tiny_generate"], gen_kwargs={"do_sample": True, "temperature": 2.0})
    state = torch.random.get_rng_state()
    harness.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_generate": [0, 1]})
    assert torch.equal(torch.random.get_rng_state(), state)


def test_repeats_are_sampled_apart(tiny: Tiny) -> None:
    harness = make_harness(tiny, tasks=["tiny_generate"], gen_kwargs={"do_sample": True, "temperature": 2.0})
    prepared = harness._suite._tasks["tiny_generate"]
    prepared._task.set_config(key="repeats", value=4)
    harness.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_generate": ALL})
    requests = prepared.requests(harness._lm, ALL)
    assert all(len(request.resps) == 4 for request in requests)
    assert any(len(set(request.resps)) > 1 for request in requests)


def test_likelihoods_of_16_bit_weights_are_taken_in_32(tiny: Tiny) -> None:
    harness = make_harness(tiny, tasks=["tiny_likelihood"], dtype="bfloat16", metric="perplexity")
    values = harness.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_likelihood": ALL})["tiny_likelihood"]
    assert any(value != float(torch.tensor(value).bfloat16()) for value in values.values())
