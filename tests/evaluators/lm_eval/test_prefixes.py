"""Continuations that share their context in one row, against each asked alone."""

import random
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from evaluators.harness import Harness
from evaluators.lm_eval.likelihoods import PADDING, Pair, prepare, score
from evaluators.lm_eval.prefixes import branched, longest_shared, mask, positions, require_branching, shared_rows
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import UnsupportedCheckpoint
from tests.evaluators.conftest import DOCUMENTS, Tiny, as_candidate, make_harness

VOCABULARY = 29
SMALL = {
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 12, "head_dim": 8},
    "gpt2": {},
    "gpt_neox": {},
}  # fmt: skip


def tiny_model(kind: str, **more: Any) -> Any:
    torch.manual_seed(3)
    config = AutoConfig.for_model(
        kind, vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, bos_token_id=0, eos_token_id=0, pad_token_id=0, **more,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def choices(seed: int) -> list[Pair]:
    """Questions with answers of several lengths, answers that differ in the last token alone, and twice the same."""
    rng = random.Random(seed)
    pairs: list[Pair] = []
    for _ in range(8):
        context = rng.choices(range(VOCABULARY), k=rng.randint(1, 14))
        answers = [rng.choices(range(VOCABULARY), k=rng.randint(1, 6)) for _ in range(rng.randint(1, 5))]
        answers += [[*answers[0][:-1], rng.randrange(VOCABULARY)], answers[-1]]
        pairs += [(context, answer) for answer in answers]
    rng.shuffle(pairs)
    return pairs


def answers(model: Any, pairs: list[Pair], batch_size: int, *, share: bool) -> list[tuple[float, bool]]:
    def logits(ids: torch.Tensor, *branches: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = branched(model, ids, *branches) if branches else model(ids).logits
        return found

    together = shared_rows(pairs, longest_shared(model.config, 64)) if share else ()
    return score(prepare(pairs, batch_size, 64, together), logits, torch.device("cpu"))


@pytest.mark.parametrize("kind", SMALL)
def test_likelihoods_are_those_of_answers_asked_alone(kind: str) -> None:
    model = tiny_model(kind, **SMALL[kind])
    require_branching(model, kind)
    for seed in range(3):
        pairs = choices(seed)
        for batch_size in (1, 3, 64):
            shared, alone = (answers(model, pairs, batch_size, share=share) for share in (True, False))
            assert [one for one, _ in shared] == pytest.approx([one for one, _ in alone], abs=1e-4)
            assert [greedy for _, greedy in shared] == [greedy for _, greedy in alone]


@pytest.mark.parametrize("kind", ["mamba", "bloom"])
def test_architectures_that_cannot_are_refused_by_name(kind: str) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=f"The architecture of a-{kind} cannot") as refusal:
        require_branching(tiny_model(kind), f"a-{kind}")
    assert refusal.value.hint == "Leave out evaluate.share_prefixes."


def test_one_that_passes_over_the_mask_is_refused() -> None:
    model = tiny_model("llama")
    forward = model.forward

    def deaf(*given: Any, attention_mask: Any = None, **more: Any) -> Any:
        return forward(*given, **more)

    model.forward = deaf
    with pytest.raises(UnsupportedCheckpoint, match="log-likelihoods differ by"):
        require_branching(model, "deaf")


def test_what_a_token_sees_and_where_it_stands() -> None:
    branches = torch.tensor([[0, 0, 1, 1, 2, PADDING]])
    sees = mask(branches, torch.float32)[0, 0] == 0
    assert sees.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]
    assert positions(branches).tolist() == [[0, 1, 2, 3, 2, 0]]


def test_contexts_are_shared_where_it_spares_tokens_and_fits() -> None:
    question: list[Pair] = [([1] * 10, [2, 3, 4]), ([1] * 10, [5, 6])]
    (row,) = shared_rows(question, 20)
    assert row.tokens == [1] * 10 + [2, 3, 5]
    assert row.branches == [0] * 10 + [1, 1, 2]
    assert row.asked == [(0, [9, 10, 11]), (1, [9, 12])]
    assert shared_rows(question, 12) == []  # it does not fit
    assert shared_rows([([1], [2] * 9), ([1], [3] * 9)], 64) == []  # a single token is not worth it
    assert shared_rows([question[0]], 64) == []
    (row,) = shared_rows([*question, ([1] * 10, [5, 7])], 20)
    assert row.asked[1:] == [(1, [9, 12]), (2, [9, 12])]  # differ in the last token alone


def test_an_evaluation_with_it_has_a_digest_of_its_own_and_the_same_results(tiny: Tiny) -> None:
    plain, shared = (make_harness(tiny, tasks=["tiny_choice"], share_prefixes=share) for share in (False, True))
    documents = {"tiny_choice": list(range(DOCUMENTS))}
    candidate = as_candidate(open_checkpoint(tiny.model))
    assert shared.run(candidate, documents) == plain.run(candidate, documents)
    assert [task.digest for task in shared.tasks] != [task.digest for task in plain.tasks]
    assert isinstance(shared, Harness)
    assert (shared.conditions["share_prefixes"], plain.conditions.get("share_prefixes")) == ("yes", None)


def test_it_is_of_models_in_memory() -> None:
    with pytest.raises(ValueError, match="share_prefixes is of models in memory"):
        EvaluateSettings.model_validate({"tasks": ["a"], "share_prefixes": True, "written": {"backend": "vllm"}})
