"""What every evaluator has to keep to, as checks: for one's own evaluator, run `check_evaluator` in a test.

>>> from evaluators.testing.evaluator import CHECKS
>>> [check.__name__ for check in CHECKS][:2]
['tasks_are_described', 'splits_are_disjoint']
"""

import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from evaluators.base import Candidate, Documents, Evaluator
from evaluators.scores.score import Results
from kinship.errors import EvaluationFailed


@dataclass(frozen=True)
class Subject:
    """An evaluator under test.

    make: gives a new one with the same settings. candidates: at least two that differ in their results. variants: give
    evaluators of other settings, data or definitions, of which each must have digests of its own. close: how far the
    results of a document may differ (relative, and absolute), as batches of other shapes round otherwise. documents: so
    many of each task are asked for at most.
    """

    make: Callable[[], Evaluator]
    candidates: Sequence[Candidate]
    variants: Sequence[Callable[[], Evaluator]] = ()
    close: float = 1e-5
    documents: int = 12
    evaluator: Evaluator = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "evaluator", self.make())

    def some(self) -> dict[str, list[int]]:
        """Documents of every task, of both splits."""
        half = self.documents // 2
        return {
            task.name: sorted(index for ids in task.documents.values() for index in list(ids)[:half])
            for task in self.evaluator.tasks
        }

    def run(self, candidate: int = 0, documents: Documents | None = None) -> Results:
        """Results of one of the candidates on `some` documents, or on these."""
        return self.evaluator.run(self.candidates[candidate], self.some() if documents is None else documents)

    def same(self, results: Results, expected: Results) -> None:
        """Fail unless both hold the same documents with the same values."""
        assert _keys(results) == _keys(expected)
        for task, values in results.items():
            assert values == pytest.approx(expected[task], rel=self.close, abs=self.close), task


def check_evaluator(subject: Subject) -> None:
    """Run all `CHECKS`; raises AssertionError."""
    for check in CHECKS:
        check(subject)


def tasks_are_described(subject: Subject) -> None:
    """Names are unique; name, metric and digest are there; conditions are texts."""
    tasks = subject.evaluator.tasks
    assert tasks
    assert len({task.name for task in tasks}) == len(tasks)
    assert all(task.name and task.metric and task.digest for task in tasks)
    assert all(isinstance(text, str) for pair in subject.evaluator.conditions.items() for text in pair)


def splits_are_disjoint(subject: Subject) -> None:
    """No document is in both splits or twice in one; each split there is holds some, the one to search on is there;
    indices ascend. Nothing need be held out: with ``search_fraction: 1`` nothing is.
    """
    for task in subject.evaluator.tasks:
        assert "search" in task.documents, task.name
        assert set(task.documents) <= {"search", "held_out"}, task.name
        assert not set(task.documents["search"]) & set(task.documents.get("held_out", ())), task.name
        for ids in task.documents.values():
            assert ids, task.name
            assert list(ids) == sorted(set(ids)), task.name


def results_are_finite_numbers_of_what_was_asked(subject: Subject) -> None:
    """One finite float for each document asked for, and for no other."""
    asked = subject.some()
    results = subject.run()
    assert _keys(results) == {name: sorted(ids) for name, ids in asked.items()}
    assert all(isinstance(value, float) and math.isfinite(value) for one in results.values() for value in one.values())


def the_same_candidate_has_the_same_results(subject: Subject) -> None:
    """Again, after another candidate, and by an evaluator made anew."""
    first = subject.run()
    subject.same(subject.run(), first)
    subject.run(1)
    subject.same(subject.run(), first)
    subject.same(subject.make().run(subject.candidates[0], subject.some()), first)


def another_candidate_has_other_results(subject: Subject) -> None:
    """A score belongs to its weights, even where one follows the other with no new evaluator between."""
    results = [subject.run(index) for index in range(len(subject.candidates))]
    for one, other in combinations(results, 2):
        assert one != other


def documents_do_not_depend_on_each_other(subject: Subject) -> None:
    """Neither on which others are asked for, nor on their order, nor on the other tasks."""
    whole = subject.run()
    asked = subject.some()
    few = {name: ids[::3] for name, ids in asked.items()}
    subject.same(subject.run(documents=few), {name: {i: whole[name][i] for i in ids} for name, ids in few.items()})
    turned = {name: ids[::-1] for name, ids in reversed(asked.items())}
    subject.same(subject.run(documents=turned), whole)
    for name, ids in asked.items():
        subject.same(subject.run(documents={name: ids[:1]}), {name: {ids[0]: whole[name][ids[0]]}})


def unusable_weights_fail(subject: Subject) -> None:
    """NaN for weights raises `EvaluationFailed`, and the next candidate is none the worse for it."""
    whole = subject.run()
    first = subject.candidates[0]
    broken = Candidate(
        "broken", "broken", lambda: ((name, torch.full_like(tensor, math.nan)) for name, tensor in first.tensors())
    )
    for _ in range(2):
        with pytest.raises(EvaluationFailed):
            subject.evaluator.run(broken, subject.some())
    subject.same(subject.run(), whole)


def what_goes_wrong_is_the_candidates_failure(subject: Subject) -> None:
    """Any exception becomes `EvaluationFailed` with its cause; an interrupt passes; the next candidate is scored."""
    whole = subject.run()

    def candidate(error: BaseException) -> Candidate:
        def tensors() -> object:
            raise error

        return Candidate("raising", f"raising {error!r}", tensors)  # type: ignore[arg-type]

    with pytest.raises(EvaluationFailed, match="raising") as raised:
        subject.evaluator.run(candidate(RuntimeError("out of luck")), subject.some())
    assert "out of luck" in str(raised.value)
    assert isinstance(raised.value.__cause__, RuntimeError)
    with pytest.raises(KeyboardInterrupt):
        subject.evaluator.run(candidate(KeyboardInterrupt()), subject.some())
    subject.same(subject.run(), whole)


def digests_are_stable_and_tell_settings_apart(subject: Subject) -> None:
    """Equal for the same settings, different for different ones, and independent of what was run before."""
    tasks = list(subject.evaluator.tasks)
    assert list(subject.make().tasks) == tasks
    subject.run()
    assert list(subject.evaluator.tasks) == tasks
    digests = [{task.digest for task in tasks}]
    digests += [{task.digest for task in variant().tasks} for variant in subject.variants]
    for one, other in combinations(digests, 2):
        assert one.isdisjoint(other)


def global_state_does_not_matter(subject: Subject) -> None:
    """Neither the seeds of random number generators nor the working directory."""
    expected = subject.run()
    here = os.getcwd()
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    try:
        with TemporaryDirectory() as elsewhere:
            os.chdir(elsewhere)
            for seed in (1, 2):
                random.seed(seed)
                np.random.seed(seed)
                torch.manual_seed(seed)
                subject.same(subject.make().run(subject.candidates[0], subject.some()), expected)
            os.chdir(here)
    finally:
        os.chdir(here)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])


def _keys(results: Results) -> dict[str, list[int]]:
    return {task: sorted(values) for task, values in results.items()}


CHECKS: tuple[Callable[[Subject], None], ...] = (
    tasks_are_described,
    splits_are_disjoint,
    results_are_finite_numbers_of_what_was_asked,
    the_same_candidate_has_the_same_results,
    another_candidate_has_other_results,
    documents_do_not_depend_on_each_other,
    unusable_weights_fail,
    what_goes_wrong_is_the_candidates_failure,
    digests_are_stable_and_tell_settings_apart,
    global_state_does_not_matter,
)
