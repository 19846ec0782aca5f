"""Prepared batches against lm-eval's own loop, bit for bit, and against plain sums of log-probabilities."""

import random
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM

from evaluators.harness import Harness
from evaluators.lm_eval import likelihoods, model
from evaluators.lm_eval.likelihoods import Kept, prepare, score
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import EvaluationFailed
from tests.evaluators.conftest import DOCUMENTS, Tiny, as_candidate, make_harness

ALL = list(range(DOCUMENTS))
VOCABULARY = 13


@pytest.fixture
def lm(tiny: Tiny) -> Any:
    harness = make_harness(tiny, tasks=["tiny_choice"])
    harness.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_choice": [0]})
    return harness._lm


def random_requests(seed: int, longest: int) -> list[tuple[Any, list[int], list[int]]]:
    """Contexts of any length, choices of one token that share a row, continuations that do not, repeats."""
    rng = random.Random(seed)
    requests = []
    for _ in range(15):
        context = rng.choices(range(VOCABULARY), k=rng.randint(1, longest))
        continuation = rng.choices(range(VOCABULARY), k=rng.randint(1, 20))
        requests += [(None, context, [token]) for token in rng.sample(range(VOCABULARY), rng.randint(0, 4))]
        requests += [(None, context, continuation)] * rng.randint(1, 2)
        requests += [(None, context, [*continuation[:-1], token]) for token in rng.sample(range(VOCABULARY), 2)]
    # lm-eval reads wrong logits where two that split the same tokens differently share a row: none of these here.
    first = {tuple(context + continuation[:-1]): len(continuation) for _, context, continuation in requests}
    requests = [one for one in requests if first[*one[1], *one[2][:-1]] == len(one[2])]
    rng.shuffle(requests)
    return requests


@pytest.mark.parametrize("longest", [5, 30, 100])  # the model takes 64 tokens
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_likelihoods_are_those_of_lm_evals_loop(lm: Any, longest: int, batch_size: int) -> None:
    lm.batch_size_per_gpu = batch_size
    for seed in range(5):
        requests = random_requests(seed, longest)
        theirs = HFLM._loglikelihood_tokens(lm, requests, disable_tqdm=True)
        assert lm._loglikelihood_tokens(requests) == theirs
        assert len({greedy for _, greedy in theirs}) == 2


def test_of_equally_likely_tokens_greedy_is_lm_evals(lm: Any) -> None:
    torch.nn.init.zeros_(lm.model.lm_head.weight)
    with torch.no_grad():
        lm.model.lm_head.weight[5:] = lm.model.lm_head.weight[5:].clone().fill_(0.1)
    requests = [(None, [1, 5], [token]) for token in range(VOCABULARY)] + [(None, [2], [5, 5]), (None, [2, 2], [5, 9])]
    ours = lm._loglikelihood_tokens(requests)
    assert ours == HFLM._loglikelihood_tokens(lm, requests, disable_tqdm=True)
    assert 0 < sum(greedy for _, greedy in ours) < len(requests)


@pytest.mark.parametrize("size", [1, 40, 1 << 30])  # a place at a time, several, all
@pytest.mark.parametrize("tied", [False, True])
def test_slices_of_a_batch_change_no_bit(lm: Any, monkeypatch: pytest.MonkeyPatch, size: int, tied: bool) -> None:
    if tied:  # all tokens are equally likely: of which a greedy generation takes the first
        torch.nn.init.zeros_(lm.model.lm_head.weight)
    requests = [*random_requests(0, 30), *random_requests(1, 5), (None, [3], [0, 0])]
    monkeypatch.setitem(likelihoods.SLICE, "cpu", size)
    theirs = HFLM._loglikelihood_tokens(lm, requests, disable_tqdm=True)
    assert lm._loglikelihood_tokens(requests) == theirs
    assert len({greedy for _, greedy in theirs}) == 2


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_likelihoods_are_sums_of_log_probabilities(dtype: torch.dtype | None) -> None:
    table = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 3  # of the next token
    log_p = table.double().log_softmax(-1)
    pairs = [(context, continuation) for _, context, continuation in random_requests(7, 9)]
    found = score(prepare(pairs, 4, 20), lambda ids: table[ids], torch.device("cpu"), dtype)
    for (context, continuation), (likelihood, greedy) in zip(pairs, found, strict=True):
        before = [*context, *continuation][len(context) - 1 : -1]
        expected = sum(float(log_p[one, other]) for one, other in zip(before, continuation, strict=True))
        assert likelihood == pytest.approx(expected, rel=1e-12 if dtype else 1e-5)
        assert greedy == all(int(table[one].argmax()) == other for one, other in zip(before, continuation, strict=True))


def test_a_pair_that_shares_its_row_has_what_it_has_alone(lm: Any) -> None:
    # lm-eval, asked for both at once, gives the second the probability of 6 after 5, not of 8 after 7.
    both = [(None, [5], [6, 7, 9]), (None, [5, 6, 7], [8])]
    alone = [HFLM._loglikelihood_tokens(lm, [one], disable_tqdm=True)[0] for one in both]
    assert lm._loglikelihood_tokens(both) == alone


@pytest.mark.parametrize("request_", [([], [1]), ([1], []), ([1], [2] * 65)])
def test_what_lm_eval_refuses_is_refused_in_words(lm: Any, request_: tuple[list[int], list[int]]) -> None:
    with pytest.raises(AssertionError):
        HFLM._loglikelihood_tokens(lm, [(None, *request_)], disable_tqdm=True)
    with pytest.raises(EvaluationFailed, match=r"has no tokens|has 65 tokens; the model's context has 64"):
        lm._loglikelihood_tokens([(None, *request_)])


def test_nothing_asked_is_nothing_answered(lm: Any) -> None:
    assert lm._loglikelihood_tokens([]) == []


def test_batches_are_made_once_for_all_candidates(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a race asks: block after block, and the same blocks of the next candidate.
    harness, made = make_harness(tiny, tasks=["tiny_choice", "tiny_likelihood"]), list[int]()
    candidates = [as_candidate(open_checkpoint(tiny.model), factor) for factor in (1.0, -0.7, 0.4)]
    blocks = [{"tiny_choice": ALL[:6], "tiny_likelihood": ALL[:3]}, {"tiny_choice": ALL[6:]}]
    fresh = [[run_anew(tiny, candidate, block) for block in blocks] for candidate in candidates]
    monkeypatch.setattr(model, "prepare", lambda pairs, *sizes: made.append(len(pairs)) or prepare(pairs, *sizes))  # type: ignore[func-returns-value]
    assert [[harness.run(candidate, block) for block in blocks] for candidate in candidates] == fresh
    assert made == [6 * 3 + 3, 18 * 3]


def run_anew(tiny: Tiny, candidate: Any, block: dict[str, list[int]]) -> Any:
    harness: Harness = make_harness(tiny, tasks=["tiny_choice", "tiny_likelihood"])
    return harness.run(candidate, block)


def test_kept_batches_are_bounded() -> None:
    small, large = prepare([([1], [2])], 1, 9), prepare([([1] * 90, [2])], 1, 99)
    parts = [*vars(small.batches[0]).values(), small.spans[0][1]]
    assert small.nbytes == sum(part.nbytes for part in parts if part is not None)
    kept = Kept(limit=2 * small.nbytes)
    kept.put("large", large)
    for name in ("one", "two"):
        kept.put(name, small)
    assert [name for name in ("large", "one", "two") if kept.get(name)] == ["one", "two"]
    kept.get("one")
    kept.put("three", small)  # "two" has not been used for longest
    assert [name for name in ("one", "two", "three") if kept.get(name)] == ["one", "three"]
    kept.clear()
    assert kept.get("one") is None
    assert likelihoods.KEPT_BYTES == 200_000_000  # docs/evaluators.md says so
