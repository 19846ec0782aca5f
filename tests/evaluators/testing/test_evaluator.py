"""The checks for evaluators over every evaluator, and over evaluators that are wrong on purpose."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluators.base import Candidate, Task, failing
from evaluators.make import make_evaluator
from evaluators.testing import evaluator as conformance
from evaluators.testing.evaluator import CHECKS, Subject, check_evaluator
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import EvaluationFailed
from tests.evaluators.conftest import Tiny, as_candidate, make_settings, write_llama

ROOT = Path(__file__).parents[2]
JUDGE = {"function": "tests.evaluators.judges:Surprise"}


def settings_of(kind: str, tiny: Tiny, text: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Settings of an evaluator, and changes of them of which each must change every digest."""
    lm_eval = {"tasks": ["tiny_choice", "tiny_likelihood", "tiny_generate"], "task_path": str(tiny.tasks)}
    perplexity = {"perplexity": [{"file": str(text), "documents": "lines"}]}
    functions = {"functions": [JUDGE]}
    precise = {"dtype": "bfloat16"}
    match kind:
        case "harness":
            return lm_eval, [precise, {"batch_size": 4}, {"seed": 1}, {"system_instruction": "b"}]
        case "likelihoods":
            given = {"tasks": [{"task": "tiny_likelihood", "metric": "perplexity"}], "task_path": str(tiny.tasks)}
            return given, [{"metric": "acc", "tasks": ["tiny_likelihood"]}]
        case "perplexity":
            return perplexity, [precise, {"perplexity": [{"file": str(text), "documents": "lines", "per": "token"}]}]
        case "function":
            return functions, [precise, {"functions": [JUDGE | {"options": {"letter": "b"}}]}]
        case _:
            return lm_eval | perplexity | functions, [precise]


def subject(kind: str, tiny: Tiny, folder: Path) -> Subject:
    text = folder / "story.txt"
    text.write_text("\n".join("".join(random.Random(i).choices("abcdefgh =", k=30)) for i in range(24)))
    checkpoint = open_checkpoint(tiny.model)
    others = [open_checkpoint(write_llama(folder / str(seed), seed)) for seed in (1, 2)]
    given, variants = settings_of(kind, tiny, text)

    def maker(**changes: Any) -> Callable[[], Any]:
        return partial(make_evaluator, make_settings(**given | changes), checkpoint, ROOT)

    return Subject(
        maker(),
        [as_candidate(one) for one in (checkpoint, *others)],
        variants=[maker(**changes) for changes in variants],
        documents=8,
    )


@pytest.fixture(scope="module", params=["harness", "likelihoods", "perplexity", "function", "combined"])
def every(request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return subject(request.param, tiny, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: str(check.__name__))
def test_every_evaluator_conforms(every: Subject, check: Callable[[Subject], None]) -> None:
    check(every)


# Evaluators that are wrong in one way, and the check that says so


class Sums:
    """The sum of the weights times the document's number: conforms."""

    digest = "sums/1"
    search: Sequence[int] = range(6)
    held_out: Sequence[int] = range(6, 10)
    conditions: Mapping[str, str] = {"device": "cpu"}

    @property
    def tasks(self) -> list[Task]:
        return [Task("sums", "sum", self.digest, {"search": self.search, "held_out": self.held_out})]

    def run(self, candidate: Candidate, documents: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        with failing(candidate.id, "the sum"):
            total = float(sum(tensor.double().sum() for _, tensor in candidate.tensors()))
            if total != total:
                raise EvaluationFailed("NaN")
            return {name: {i: self.value(candidate, total, i, ids) for i in ids} for name, ids in documents.items()}

    def value(self, candidate: Candidate, total: float, document: int, others: Sequence[int]) -> float:
        return total * (document + 1)


class Overlapping(Sums):
    held_out = range(5, 10)


class Whole(Sums):
    """All documents are searched on: conforms."""

    @property
    def tasks(self) -> list[Task]:
        return [Task("sums", "sum", self.digest, {"search": self.search})]


class Unsearched(Sums):
    @property
    def tasks(self) -> list[Task]:
        return [Task("sums", "sum", self.digest, {"held_out": self.held_out})]


class Drifting(Sums):
    calls = 0

    def value(self, candidate: Candidate, total: float, document: int, others: Sequence[int]) -> float:
        self.calls += 1
        return total + self.calls


class Deaf(Sums):
    """Answers for the weights that it saw first."""

    seen: float | None = None

    def value(self, candidate: Candidate, total: float, document: int, others: Sequence[int]) -> float:
        self.seen = total if self.seen is None else self.seen
        return self.seen * (document + 1)


class Relative(Sums):
    def value(self, candidate: Candidate, total: float, document: int, others: Sequence[int]) -> float:
        return total * (document + 1) / len(others)


class Ordered(Sums):
    def value(self, candidate: Candidate, total: float, document: int, others: Sequence[int]) -> float:
        return total * (1 + list(others).index(document))


class Generous(Sums):
    def run(self, candidate: Candidate, documents: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        return super().run(candidate, {name: [*ids, 99] for name, ids in documents.items()})


class Lenient(Sums):
    """NaN is 0."""

    def run(self, candidate: Candidate, documents: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        kept = Candidate(
            candidate.id,
            candidate.identity,
            lambda: ((name, tensor.nan_to_num()) for name, tensor in candidate.tensors()),
        )
        return super().run(kept, documents)


class Crashing(Sums):
    def run(self, candidate: Candidate, documents: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        list(candidate.tensors())
        return super().run(candidate, documents)


class Numbered(Sums):
    made = 0

    def __init__(self) -> None:
        type(self).made += 1
        self.digest = f"sums/{self.made}"


class Random(Sums):
    def value(self, candidate: Candidate, total: float, document: int, others: Sequence[int]) -> float:
        return total + torch.initial_seed() % 1000


class Infinite(Sums):
    def value(self, candidate: Candidate, total: float, document: int, others: Sequence[int]) -> float:
        return float("inf")


def weights(*values: float) -> list[Candidate]:
    return [Candidate(f"{value}", f"{value}", partial(_tensors, value)) for value in values]


def _tensors(value: float) -> Any:
    return iter([("weight", torch.full((3,), value))])


@pytest.mark.parametrize("good", [Sums, Whole])
def test_a_good_evaluator_passes(good: type[Sums]) -> None:
    check_evaluator(Subject(good, weights(1.0, 2.0), [partial(_with_digest, good, "sums/2")]))


def _with_digest(kind: type[Sums], digest: str) -> Sums:
    evaluator = kind()
    evaluator.digest = digest
    return evaluator


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        (Overlapping, conformance.splits_are_disjoint),
        (Unsearched, conformance.splits_are_disjoint),
        (Drifting, conformance.the_same_candidate_has_the_same_results),
        (Deaf, conformance.another_candidate_has_other_results),
        (Relative, conformance.documents_do_not_depend_on_each_other),
        (Ordered, conformance.documents_do_not_depend_on_each_other),
        (Generous, conformance.results_are_finite_numbers_of_what_was_asked),
        (Infinite, conformance.results_are_finite_numbers_of_what_was_asked),
        (Lenient, conformance.unusable_weights_fail),
        (Crashing, conformance.what_goes_wrong_is_the_candidates_failure),
        (Numbered, conformance.digests_are_stable_and_tell_settings_apart),
        (Random, conformance.global_state_does_not_matter),
    ],
)
def test_a_wrong_evaluator_is_found_out(wrong: type[Sums], check: Callable[[Subject], None]) -> None:
    with pytest.raises((AssertionError, RuntimeError, pytest.fail.Exception)):
        check(Subject(wrong, weights(1.0, 2.0)))


def test_settings_without_a_digest_of_their_own_are_found_out() -> None:
    good = Subject(Sums, weights(1.0, 2.0))
    with pytest.raises(AssertionError):
        conformance.digests_are_stable_and_tell_settings_apart(replace(good, variants=[Sums]))
