"""The families on which search strategies are measured, and how their models are scored."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from evaluators.base import Candidate, Evaluator, Task
from evaluators.harness import Harness
from evaluators.settings import EvaluateSettings
from evaluators.splits import split_documents
from kinship.checkpoint import Checkpoint
from kinship.output import output_folder
from service.demo.family import DEMO, make_family

MASTERED = {"demo_reverse"}  # as in `kinship demo`: nothing is left to gain


@dataclass(frozen=True)
class Pair:
    """A base and a seed; the seed draws the split of the documents and whatever a strategy draws."""

    kind: str
    base: int
    seed: int


# Families 0 and 1 served for development. These are the others that had been trained when the measurement began.
DEMO_PAIRS = [
    Pair("demo", base, seed) for seed, bases in ((0, (2, 3, 4, 5, 7, 10, 11, 31)), (1, (2, 3))) for base in bases
]
STORY_PAIRS = [Pair("stories", base, 0) for base in range(4)]


@dataclass(frozen=True)
class Setting:
    """Models by id, base first, and how to make their evaluator from an open base."""

    models: Mapping[str, Path]
    evaluator: Callable[[Checkpoint], Evaluator]


class Trimmed:
    """Another evaluator, of which the search sees ``search`` documents of a task and the report ``held_out``."""

    def __init__(self, inner: Evaluator, search: int, held_out: int) -> None:
        self._inner = inner
        self.conditions = inner.conditions
        self.tasks = [
            replace(task, documents={"search": task.documents["search"][:search],
                                     "held_out": task.documents["held_out"][:held_out]})
            for task in inner.tasks
        ]  # fmt: skip

    def run(self, candidate: Candidate, documents: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        return self._inner.run(candidate, documents)


def demo_setting(work: Path, pair: Pair, limit: int, evaluator: str) -> Setting:
    """The demo's family of that seed, trained where it is missing."""
    family = make_family(work / f"demo-{pair.base}", replace(DEMO, seed=pair.base))
    tasks = [name for name in family.task_names if name not in MASTERED]
    settings = EvaluateSettings(tasks=tasks, task_path=str(family.tasks), batch_size=256, split_seed=pair.seed)

    def make(base: Checkpoint) -> Evaluator:
        if evaluator == "harness":
            return Trimmed(Harness(settings, base), limit, 2 * limit)
        direct = Direct(family.base, family.tasks, tasks, pair.seed)
        harness = Harness(settings, base)
        for path in (family.base, family.founders[pair.base % len(family.founders)]):
            _require_equal(harness, direct, path, limit)
        return Trimmed(direct, limit, 2 * limit)

    return Setting({"base": family.base} | {path.name: path for path in family.founders}, make)


class Direct:
    """The demo tasks' metric, whether every token of the answer is the likeliest one, without lm-eval around it.

    A third of the harness's time for models as small as these, and the same results: checked on every family before
    it is used.
    """

    conditions: Mapping[str, str] = {}

    def __init__(self, base: Path, tasks: Path, names: Sequence[str], seed: int) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._model = AutoModelForCausalLM.from_pretrained(base).eval()
        self._parameters = dict(self._model.named_parameters())
        tokenizer = AutoTokenizer.from_pretrained(base)
        self._items: dict[tuple[str, int], tuple[list[int], int]] = {}
        self._batches: dict[str, list[tuple[list[tuple[str, int]], torch.Tensor, torch.Tensor]]] = {}
        self.tasks = []
        for name in names:
            lines = (tasks / f"{name.removeprefix('demo_')}.jsonl").read_text().splitlines()
            documents = [json.loads(line) for line in lines]
            self.tasks.append(Task(name, "acc", f"direct {name}", split_documents(documents, seed=seed)))
            for index, document in enumerate(documents):
                whole = tokenizer(document["prompt"] + document["answer"])["input_ids"]
                self._items[name, index] = whole, len(tokenizer(document["prompt"])["input_ids"])

    @torch.inference_mode()
    def run(self, candidate: Candidate, documents: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        for name, tensor in candidate.tensors():
            if name in self._parameters:
                self._parameters[name].copy_(tensor)
        results: dict[str, dict[int, float]] = {name: {} for name in documents}
        key = str({name: list(ids) for name, ids in documents.items()})
        if key not in self._batches:
            self._batches[key] = self._batched([(name, index) for name, ids in documents.items() for index in ids])
        for keys, ids, asked in self._batches[key]:
            likeliest = self._model(input_ids=ids[:, :-1]).logits.argmax(-1)
            right = ((likeliest == ids[:, 1:]) | ~asked[:, 1:]).all(dim=1).tolist()
            for (name, index), value in zip(keys, right, strict=True):
                results[name][index] = float(value)
        return results

    def _batched(self, keys: Sequence[tuple[str, int]]) -> Any:
        ordered = sorted(keys, key=lambda key: len(self._items[key][0]))
        batches = []
        for start in range(0, len(ordered), 256):
            part = ordered[start : start + 256]
            ids = torch.zeros(len(part), max(len(self._items[key][0]) for key in part), dtype=torch.long)
            asked = torch.zeros_like(ids, dtype=torch.bool)
            for row, key in enumerate(part):
                whole, prompt = self._items[key]
                ids[row, : len(whole)] = torch.tensor(whole)
                asked[row, prompt : len(whole)] = True
            batches.append((part, ids, asked))
        return batches


def _require_equal(harness: Harness, direct: Direct, path: Path, limit: int) -> None:
    from safetensors.torch import load_file

    tensors = load_file(path / "model.safetensors")
    candidate = Candidate(path.name, path.name, lambda: iter(tensors.items()))
    for theirs, ours in zip(harness.tasks, direct.tasks, strict=True):
        if dict(theirs.documents) != dict(ours.documents):
            raise SystemExit(f"{theirs.name} is split differently by the direct evaluator")
    documents = {task.name: task.documents["search"][:limit] for task in direct.tasks}
    if harness.run(candidate, documents) != direct.run(candidate, documents):
        raise SystemExit(f"the direct evaluator differs from lm-eval on {path}")


def story_setting(source: Path, work: Path, pair: Pair, limit: int) -> Setting:
    """Fine-tunes of the story model on sentence pairs of BLiMP, one or two phenomena each; see `grow_stories`."""
    folder = work / f"stories-{pair.base}"
    names = sorted(path.stem for path in (source / "eval-data").glob("blimp_*.jsonl"))
    if not folder.exists():
        with output_folder(folder) as partial:
            grow_stories(source, names, partial, pair.base)
    settings = EvaluateSettings(
        tasks=[f"grown_{name}" for name in names], task_path=str(folder / "tasks"), batch_size=256, split_seed=pair.seed
    )
    models = {"base": source / "models" / "stories260K"}
    models |= {path.name: path for path in sorted(folder.iterdir()) if path.name != "tasks"}
    return Setting(models, lambda base: Trimmed(Harness(settings, base), limit, 2 * limit))


def grow_stories(source: Path, names: Sequence[str], folder: Path, seed: int) -> None:
    """Six specialists: each trained for 60 steps on the good sentences of two phenomena, from documents that are in
    no task. The phenomena are dealt out by ``seed``.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = source / "models" / "stories260K"
    tokenizer = AutoTokenizer.from_pretrained(base)
    draw = random.Random(seed)
    training: dict[str, list[str]] = {}
    (folder / "tasks").mkdir()
    for name in names:
        documents = [json.loads(line) for line in (source / "eval-data" / f"{name}.jsonl").read_text().splitlines()]
        draw.shuffle(documents)
        training[name] = [document["sentence_good"] for document in documents[:400]]
        kept = "".join(json.dumps(document) + "\n" for document in documents[400:])
        (folder / "tasks" / f"{name}.jsonl").write_text(kept)
        (folder / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(_blimp(name)))
    dealt = draw.sample(names, len(names))
    for number in range(6):
        skills = [dealt[number], dealt[(number + 1 + number // 3) % len(dealt)]]
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
        for _ in range(60):
            texts = [draw.choice(training[draw.choice(skills)]) for _ in range(16)]
            rows = [tokenizer(text)["input_ids"] for text in texts]
            length = max(map(len, rows))
            ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
            labels = torch.tensor([row + [-100] * (length - len(row)) for row in rows])
            optimizer.zero_grad()
            model(input_ids=ids, labels=labels).loss.backward()
            optimizer.step()
        model.save_pretrained(folder / f"specialist-{number}")
        tokenizer.save_pretrained(folder / f"specialist-{number}")


def _blimp(name: str) -> dict[str, Any]:
    return {
        "task": f"grown_{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "",
        "doc_to_target": 0,
        "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
