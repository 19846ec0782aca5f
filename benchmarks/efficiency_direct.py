"""Tiny models scored without lm-eval around them: a fraction of its time, and the same results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import torch

from evaluators.base import Candidate, Task
from evaluators.harness import Harness
from evaluators.scores.splits import split_documents

Key = tuple[str, int]
Metric = Literal["exact", "preferred"]

BATCH = 64  # larger ones lose more to padding and caches than they win


class Text(NamedTuple):
    """Tokens, of which those from ``asked`` on are the answer."""

    tokens: list[int]
    asked: int


class _Batch(NamedTuple):
    owners: list[tuple[Key, int]]
    tokens: torch.Tensor  # (texts, length), padded with zeros
    asked: torch.Tensor  # (texts, length), bool


class Direct:
    """Texts of documents under one model whose weights are replaced candidate by candidate.

    metric: "exact", whether each token of a document's only text's answer is the likeliest one; "preferred", whether
    the first of a document's texts has the highest log-likelihood. Both as lm-eval reckons them; compare with
    `require_equal` before use.
    """

    conditions: Mapping[str, str] = {}

    def __init__(self, base: Path, tasks: Sequence[Task], texts: Mapping[Key, Sequence[Text]], metric: Metric) -> None:
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        self._parameters = dict(self._model.named_parameters())
        self.tasks = list(tasks)
        self._texts = texts
        self._metric = metric
        self._batches: dict[str, list[_Batch]] = {}

    @classmethod
    def of_answers(cls, base: Path, tasks: Path, names: Sequence[str], seed: int) -> Self:
        """The demo's tasks: prompts and answers."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(base)

        def texts(document: Mapping[str, str]) -> list[Text]:
            whole = tokenizer(document["prompt"] + document["answer"])["input_ids"]
            return [Text(whole, len(tokenizer(document["prompt"])["input_ids"]))]

        return cls(base, *_read(tasks, {name: name.removeprefix("demo_") for name in names}, seed, texts), "exact")

    @classmethod
    def of_sentences(cls, base: Path, tasks: Path, names: Sequence[str], seed: int) -> Self:
        """BLiMP's pairs of sentences, of which the first is good (Warstadt et al., arXiv 1912.00582)."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(base)
        start = tokenizer.bos_token_id

        def texts(document: Mapping[str, str]) -> list[Text]:
            sentences = (document["sentence_good"], document["sentence_bad"])
            coded = tokenizer([f" {sentence}" for sentence in sentences], add_special_tokens=False)["input_ids"]
            return [Text([start, *tokens], 1) for tokens in coded]

        files = {name: name.removeprefix("grown_") for name in names}
        return cls(base, *_read(tasks, files, seed, texts), "preferred")

    @torch.inference_mode()
    def run(self, candidate: Candidate, documents: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        """See `Evaluator.run`."""
        for name, tensor in candidate.tensors():
            if name in self._parameters:
                self._parameters[name].copy_(tensor)
        found: dict[Key, dict[int, float]] = {(name, index): {} for name, ids in documents.items() for index in ids}
        for batch in self._batched(documents):
            logits = self._model(input_ids=batch.tokens[:, :-1]).logits
            for (key, number), value in zip(batch.owners, self._measured(logits, batch).tolist(), strict=True):
                found[key][number] = value
        results: dict[str, dict[int, float]] = {name: {} for name in documents}
        for (name, index), values in found.items():
            best = max(values, key=lambda number: (values[number], -number))
            results[name][index] = values[0] if self._metric == "exact" else float(best == 0)
        return results

    def _measured(self, logits: torch.Tensor, batch: _Batch) -> torch.Tensor:
        """(texts,): 1 where the answer is the likeliest, else 0; or the answer's log-likelihood."""
        target, asked = batch.tokens[:, 1:], batch.asked[:, 1:]
        if self._metric == "exact":
            return ((logits.argmax(-1) == target) | ~asked).all(dim=1).float()
        likelihoods = logits.log_softmax(-1).gather(-1, target[..., None])[..., 0]
        return (likelihoods * asked).sum(dim=1)

    def _batched(self, documents: Mapping[str, Sequence[int]]) -> list[_Batch]:
        known = str({name: list(ids) for name, ids in documents.items()})
        if known not in self._batches:
            keys = [(name, index) for name, ids in documents.items() for index in ids]
            owners = [(key, number) for key in keys for number in range(len(self._texts[key]))]
            owners.sort(key=lambda owner: len(self._text(owner).tokens))
            parts = [owners[start : start + BATCH] for start in range(0, len(owners), BATCH)]
            self._batches[known] = [self._padded(part) for part in parts]
        return self._batches[known]

    def _padded(self, owners: list[tuple[Key, int]]) -> _Batch:
        length = max(len(self._text(owner).tokens) for owner in owners)
        tokens = torch.zeros(len(owners), length, dtype=torch.long)
        asked = torch.zeros_like(tokens, dtype=torch.bool)
        for row, owner in enumerate(owners):
            text = self._text(owner)
            tokens[row, : len(text.tokens)] = torch.tensor(text.tokens)
            asked[row, text.asked : len(text.tokens)] = True
        return _Batch(owners, tokens, asked)

    def _text(self, owner: tuple[Key, int]) -> Text:
        key, number = owner
        return self._texts[key][number]


def require_equal(harness: Harness, direct: Direct, path: Path, limit: int) -> None:
    """Ends the program where ``direct`` scores any of ``limit`` search documents of a task unlike lm-eval."""
    from safetensors.torch import load_file

    tensors = load_file(path / "model.safetensors")
    candidate = Candidate(path.name, path.name, lambda: iter(tensors.items()))
    for theirs, ours in zip(harness.tasks, direct.tasks, strict=True):
        if dict(theirs.documents) != dict(ours.documents):
            raise SystemExit(f"{theirs.name} is split differently by the direct evaluator")
    documents = {task.name: task.documents["search"][:limit] for task in direct.tasks}
    if harness.run(candidate, documents) != direct.run(candidate, documents):
        raise SystemExit(f"the direct evaluator differs from lm-eval on {path}")


def _read(folder: Path, files: Mapping[str, str], seed: int, texts: Any) -> tuple[list[Task], dict[Key, list[Text]]]:
    """Tasks, split as the harness splits them, and the texts of their documents."""
    tasks: list[Task] = []
    found: dict[Key, list[Text]] = {}
    for name, file in files.items():
        documents = [json.loads(line) for line in (folder / f"{file}.jsonl").read_text().splitlines()]
        tasks.append(Task(name, "acc", f"direct {name}", split_documents(documents, seed=seed)))
        found |= {(name, index): texts(document) for index, document in enumerate(documents)}
    return tasks, found
