"""Fault suite (a): whatever decides a score, changed alone, leaves no result in the score cache that would answer."""

import gzip
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evaluators.make import make_evaluator
from kinship.checkpoints.opening import open_checkpoint
from tests.evaluators.conftest import Tiny, make_settings, select, write_tasks

UTILS = "from rules import prompt as rule\ndef prompt(document): return rule(document)\n"
RULES = (
    "from deep.down import MARK\n"
    "def prompt(document):\n    import later\n    return later.first(document['prompt']) + MARK\n"
)
JUDGE = (
    "import json\nfrom pathlib import Path\nfrom marks import WORTH\n"
    "class Judge:\n"
    "    def documents(self): return json.loads((Path(__file__).parent / 'asked.json').read_text())\n"
    "    def score(self, model, tokenizer, documents): return [float(len(d)) * WORTH for d in documents]\n"
    "made = Judge\n"
)


@dataclass(frozen=True)
class Place:
    """A model, lm-eval tasks with code and data of their own, a text and a judge; `digests` of all of them."""

    model: Path
    tasks: Path
    root: Path

    def digests(self, **changes: Any) -> dict[str, str]:
        settings: dict[str, Any] = {
            "tasks": ["tiny_choice"],
            "task_path": str(self.tasks),
            "allow_task_code": True,
            "perplexity": [{"file": "text.txt", "documents": "lines"}],
            "functions": [{"function": "judging:made"}],
        }
        with open_checkpoint(self.model) as template:
            made = make_evaluator(make_settings(**settings | changes), template, self.root)
            return {task.name: task.digest for task in made.tasks}


@pytest.fixture(scope="module")
def place(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("place")
    tasks = write_tasks(root / "tasks", select(tiny, "tiny_choice"))
    text = (tasks / "tiny_choice.yaml").read_text().replace("'{{prompt}}'", "!function utils.prompt")
    (tasks / "tiny_choice.yaml").write_text(text.replace("tiny_choice.jsonl", "tiny_choice.jsonl.gz"))
    rows = (tasks / "tiny_choice.jsonl").read_bytes()
    (tasks / "tiny_choice.jsonl.gz").write_bytes(gzip.compress(rows, mtime=0))
    (tasks / "utils.py").write_text(f"import sys\nsys.path.insert(0, {str(tasks)!r})\n{UTILS}")
    (tasks / "rules.py").write_text(RULES)
    (tasks / "later.py").write_text("def first(text): return text\n")
    (tasks / "deep").mkdir()
    (tasks / "deep/__init__.py").touch()
    (tasks / "deep/down.py").write_text("from .bottom import MARK\n")
    (tasks / "deep/bottom.py").write_text("MARK = '='\n")
    (root / "text.txt").write_text("".join(f"{one}{two}c\n" for one in "abcd" for two in "bcdefgh"))
    (root / "judging.py").write_text(JUDGE)
    (root / "marks.py").write_text("WORTH = 1.0\n")
    (root / "asked.json").write_text(json.dumps(["a" * count for count in range(1, 13)]))
    return Place(shutil.copytree(tiny.model, root / "model"), tasks, root)


Change = Callable[[Path], None]


def setting(key: str, value: Any) -> Change:
    """Set a key of a JSON file."""
    return lambda file: _write(file, json.dumps(json.loads(file.read_text()) | {key: value}).encode())


def saying(text: str) -> Change:
    return lambda file: _write(file, text.encode())


def instead(old: str, new: str) -> Change:
    """Another text in place of one; where it is as long, the file keeps size and date."""
    return lambda file: _write(file, file.read_bytes().replace(old.encode(), new.encode(), 1))


def packed(old: str, new: str) -> Change:
    return lambda file: _write(
        file, gzip.compress(gzip.decompress(file.read_bytes()).replace(old.encode(), new.encode(), 1), mtime=0)
    )


def _write(file: Path, content: bytes) -> None:
    before = file.stat() if file.exists() else None
    file.write_bytes(content)
    if before is not None:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


TOKENIZER = {
    "bos_token": "</s>",
    "eos_token": "<s>",
    "pad_token": "</s>",
    "unk_token": "<pad>",
    "add_bos_token": True,
    "add_eos_token": True,
    "padding_side": "left",
    "truncation_side": "left",
    "model_max_length": 16,
    "clean_up_tokenization_spaces": True,
    "split_special_tokens": True,
    "additional_special_tokens": ["a"],
    "chat_template": "{{ messages[0]['content'] }}!",
}
EACH_KIND = {"bos_token", "add_bos_token", "padding_side", "model_max_length", "chat_template"}
EVERYTHING, TASK, TEXT, FUNCTION = {"tiny_choice", "text", "made"}, {"tiny_choice"}, {"text"}, {"made"}
ENTRIES: list[Any] = [
    *(
        pytest.param(
            "model/tokenizer_config.json",
            setting(key, value),
            EVERYTHING,
            id=key,
            marks=() if key in EACH_KIND else pytest.mark.soak,
        )
        for key, value in TOKENIZER.items()
    ),
    ("model/chat_template.jinja", saying("{{ messages[0]['content'] }}"), EVERYTHING),
    ("model/tokenizer.json", instead('"a"', '"e"'), EVERYTHING),
    ("model/config.json", setting("rms_norm_eps", 1e-3), EVERYTHING),
    ("model/generation_config.json", setting("repetition_penalty", 1.5), EVERYTHING),
    ("model/generation_config.json", setting("max_new_tokens", 3), EVERYTHING),
    ("tasks/tiny_choice.yaml", instead("target_delimiter: ''", "target_delimiter: ' '"), TASK),
    ("tasks/utils.py", instead("rule(document)", "rule(document) "), TASK),
    ("tasks/rules.py", instead("+ MARK", "* 1    "), TASK),
    ("tasks/later.py", instead("return text", "return 'xt'"), TASK),
    ("tasks/deep/__init__.py", saying("import sys\n"), TASK),
    ("tasks/deep/bottom.py", instead("'='", "'a'"), TASK),
    ("tasks/tiny_choice.jsonl.gz", packed('"label": 0', '"label": 2'), TASK),
    ("text.txt", instead("abc", "abf"), TEXT),
    ("judging.py", instead("* WORTH", "+ WORTH"), FUNCTION),
    ("marks.py", instead("1.0", "2.0"), FUNCTION),
    ("asked.json", instead('"a"', '"b"'), FUNCTION),
    ("model/config.json", setting("_name_or_path", "elsewhere"), set()),
    ("model/tokenizer_config.json", setting("name_or_path", "elsewhere"), set()),
    ("model/generation_config.json", setting("transformers_version", "4.0.0"), set()),
]


@pytest.fixture(scope="module")
def before(place: Place) -> dict[str, str]:
    return place.digests()


@pytest.mark.parametrize(("name", "change", "touched"), ENTRIES)
def test_what_decides_a_score_decides_its_key(
    place: Place, before: dict[str, str], name: str, change: Change, touched: set[str]
) -> None:
    file = place.root / name
    saved = file.read_bytes() if file.exists() else None
    try:
        change(file)
        now = place.digests()
    finally:
        file.unlink() if saved is None else file.write_bytes(saved)
    assert {task for task in before if now[task] != before[task]} == touched
