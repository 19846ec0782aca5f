"""The metric of the smol families' tasks without lm-eval around it: one row a pair, and only its last logits."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from evaluators.base import Candidate, Documents
from evaluators.harness import Harness
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.checkpoint import Checkpoint
from merging.offspring.weights import stream_of

BATCH = 64
Key = tuple[str, int]


class Words(NamedTuple):
    """The tokens of a beginning, and of the two words that may follow."""

    text: list[int]
    good: int
    bad: int


class Direct:
    """An `Evaluator` of the first ``search`` and ``held_out`` (None: all) documents of a task, which is the harness's
    own.

    Ends the program where it finds a document of the base right that lm-eval does not, or the other way.
    """

    def __init__(
        self, settings: EvaluateSettings, base: Checkpoint, folder: Path, search: int, held_out: int | None
    ) -> None:
        harness = Harness(settings, base)
        self._live = harness._live
        self.conditions = harness.conditions | {"forward": "last token"}
        self.tasks = [
            replace(task, documents={"search": task.documents["search"][:search],
                                     "held_out": task.documents["held_out"][:held_out]})
            for task in harness.tasks
        ]  # fmt: skip
        self._words = {
            (task.name, index): self._read(json.loads(line))
            for task in self.tasks
            for index, line in enumerate((folder / f"{task.name.removeprefix('smol_')}.jsonl").read_text().splitlines())
        }
        self._require_equal(harness, base)

    def run(self, candidate: Candidate, documents: Documents) -> dict[str, dict[int, float]]:
        """See `Evaluator.run`."""
        self._live.hold(candidate)
        keys = [(name, index) for name, indices in documents.items() for index in indices]
        keys.sort(key=lambda key: (len(self._words[key].text), key))
        found: dict[str, dict[int, float]] = {name: {} for name in documents}
        for first in range(0, len(keys), BATCH):
            batch = keys[first : first + BATCH]
            for (name, index), right in zip(batch, self._right([self._words[key] for key in batch]), strict=True):
                found[name][index] = float(right)
        return {name: {index: found[name][index] for index in indices} for name, indices in documents.items()}

    @torch.inference_mode()
    def _right(self, batch: Sequence[Words]) -> list[bool]:
        """Whether each good word is likelier than its bad one. Padding is on the right, where nobody looks."""
        lengths = torch.tensor([len(words.text) for words in batch])
        ids = torch.zeros(len(batch), int(lengths.max()), dtype=torch.long)
        for row, words in enumerate(batch):
            ids[row, : len(words.text)] = torch.tensor(words.text)
        model: Any = self._live.model
        states = model.model(input_ids=ids).last_hidden_state[torch.arange(len(batch)), lengths - 1]
        logits = model.lm_head(states)
        good, bad = (torch.tensor(column)[:, None] for column in list(zip(*batch, strict=True))[1:])
        return (logits.gather(1, good) > logits.gather(1, bad))[:, 0].tolist()  # type: ignore[no-any-return]

    def _read(self, document: Mapping[str, str]) -> Words:
        text, good, bad = (self._live.tokenizer(part, add_special_tokens=False)["input_ids"]
                           for part in (document["text"], f" {document['good']}", f" {document['bad']}"))  # fmt: skip
        if len(good) != 1 or len(bad) != 1:
            raise SystemExit(f"{document} has words of more than one token")
        return Words(text, good[0], bad[0])

    def _require_equal(self, harness: Harness, base: Checkpoint) -> None:
        candidate = Candidate(base.id, base.digest, lambda: stream_of(base))
        documents = {task.name: task.documents["search"][:16] for task in self.tasks}
        if harness.run(candidate, documents) != self.run(candidate, documents):
            raise SystemExit("the direct evaluator differs from lm-eval on the base")
