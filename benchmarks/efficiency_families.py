"""The families on which search strategies are measured, and how their models are scored."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from efficiency_direct import Direct, require_equal

from evaluators.base import Candidate, Evaluator
from evaluators.harness import Harness
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.output import output_folder
from service.demo.family import DEMO, FamilySettings, make_family

MASTERED = {"demo_reverse"}  # as in `kinship demo`: nothing is left to gain


@dataclass(frozen=True)
class Pair:
    """A base and a seed; the seed draws the split of the documents and whatever a strategy draws."""

    kind: str
    base: int
    seed: int


# Demo families 0, 1 and 8 and stories 3, 4 and 5 served for development. Of the others these had been trained when the
# measurements began: the first eight, two of them with two splits of the documents, then seven more.
FIRST, MORE = (2, 3, 4, 5, 7, 10, 11, 31), (6, 9, 12, 13, 14, 15, 16)
DEMO_PAIRS = [Pair("demo", base, seed) for seed, bases in ((0, FIRST + MORE), (1, (2, 3))) for base in bases]
STORY_PAIRS = [Pair("stories", base, 0) for base in (0, 1, 2, 6, 7, 8, 9, 10, 11, 12)]


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


def demo_setting(work: Path, pair: Pair, limit: int, evaluator: str, family_settings: FamilySettings = DEMO) -> Setting:
    """The demo's family of that seed, trained where it is missing."""
    family = make_family(work / f"demo-{pair.base}", replace(family_settings, seed=pair.base))
    tasks = [name for name in family.task_names if name not in MASTERED]
    settings = EvaluateSettings(tasks=tasks, task_path=str(family.tasks), batch_size=256, split_seed=pair.seed)

    def make(base: Checkpoint) -> Evaluator:
        if evaluator == "harness":
            return Trimmed(Harness(settings, base), limit, 2 * limit)
        direct = Direct.of_answers(family.base, family.tasks, tasks, pair.seed)
        harness = Harness(settings, base)
        for path in (family.base, family.founders[pair.base % len(family.founders)]):
            require_equal(harness, direct, path, limit)
        return Trimmed(direct, limit, 2 * limit)

    return Setting({"base": family.base} | {path.name: path for path in family.founders}, make)


def story_setting(source: Path, work: Path, pair: Pair, limit: int, evaluator: str) -> Setting:
    """Fine-tunes of the story model on sentence pairs of BLiMP, one or two phenomena each; see `grow_stories`."""
    folder = work / f"stories-{pair.base}"
    names = sorted(path.stem for path in (source / "eval-data").glob("blimp_*.jsonl"))
    if not folder.exists():
        with output_folder(folder) as partial:
            grow_stories(source, names, partial, pair.base)
    tasks = [f"grown_{name}" for name in names]
    settings = EvaluateSettings(tasks=tasks, task_path=str(folder / "tasks"), batch_size=256, split_seed=pair.seed)
    models = {"base": source / "models" / "stories260K"}
    models |= {path.name: path for path in sorted(folder.iterdir()) if path.name != "tasks"}

    def make(base: Checkpoint) -> Evaluator:
        if evaluator == "harness":
            return Trimmed(Harness(settings, base), limit, 2 * limit)
        direct = Direct.of_sentences(models["base"], folder / "tasks", tasks, pair.seed)
        harness = Harness(settings, base)
        for path in (models["base"], models[f"specialist-{pair.base % 6}"]):
            require_equal(harness, direct, path, limit)
        return Trimmed(direct, limit, 2 * limit)

    return Setting(models, make)


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
