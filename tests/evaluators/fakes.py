"""Evaluators without a language model."""

from collections.abc import Mapping, Sequence

from evaluators.base import Candidate, Task
from evaluators.scores.splits import Split


def fake_task(name: str = "fake", digest: str = "digest", search: Sequence[int] = (0, 1, 2, 3)) -> Task:
    documents: dict[Split, Sequence[int]] = {"search": search, "held_out": (100, 101)}
    return Task(name, "acc", digest, documents)


class CountingEvaluator:
    """Gives each document a value of its own, larger by ``shift``, and remembers what it was asked for."""

    def __init__(self, tasks: Sequence[Task], shift: float = 0.0) -> None:
        self.tasks = tasks
        self.shift = shift
        self.conditions: Mapping[str, str] = {"device": "none"}
        self.calls: list[tuple[str, dict[str, list[int]]]] = []

    def run(self, candidate: Candidate, documents: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        self.calls.append((candidate.id, {name: list(ids) for name, ids in documents.items()}))
        return {name: {i: self.value(candidate, name, i) for i in ids} for name, ids in documents.items()}

    def value(self, candidate: Candidate, task: str, document: int) -> float:
        return len(candidate.id) + document / 7 + len(task) / 3 + self.shift


def fake_candidate(id: str = "model", identity: str = "identity") -> Candidate:
    return Candidate(id, identity, lambda: iter(()))
