"""What a task's digest covers: all that decides a result, and nothing else."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.evaluators.conftest import Tiny, few_shot, make_harness, select, write_documents, write_tasks


def digest(tiny: Tiny, tasks: Path, name: str = "tiny_choice", **options: Any) -> str:
    return make_harness(tiny, folder=tasks, tasks=[name], **options).tasks[0].digest


def test_the_digest_does_not_depend_on_where_things_lie(tiny: Tiny, tmp_path: Path) -> None:
    here, there = (write_tasks(tmp_path / name / "t", select(tiny, "tiny_choice")) for name in ("here", "there"))
    moved = shutil.copytree(tiny.model, tmp_path / "moved")
    assert digest(tiny, here) == digest(tiny, there, model=moved) == digest(tiny, tiny.tasks)


def test_the_digest_changes_with_what_decides_a_result(tiny: Tiny, tmp_path: Path) -> None:
    def variant(name: str, documents: Any = None, **changes: Any) -> Path:
        return write_tasks(tmp_path / name, documents or select(tiny, "tiny_choice"), tiny_choice=changes)

    changed = select(tiny, "tiny_choice")
    changed["tiny_choice"][3] = changed["tiny_choice"][3] | {"label": (changed["tiny_choice"][3]["label"] + 1) % 3}
    other_config = shutil.copytree(tiny.model, tmp_path / "model")
    config = json.loads((other_config / "config.json").read_text())
    (other_config / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    digests = [
        digest(tiny, tiny.tasks),
        digest(tiny, variant("document", changed)),
        digest(tiny, variant("prompt", doc_to_text="{{prompt}} ")),
        digest(tiny, variant("delimiter", target_delimiter=" ")),
        digest(tiny, tiny.tasks, model=other_config),
        digest(tiny, tiny.tasks, batch_size=6),
        digest(tiny, tiny.tasks, metric="acc_norm"),
        digest(tiny, tiny.tasks, system_instruction="be brief"),
        digest(tiny, tiny.tasks, seed=1),
        digest(tiny, tiny.tasks, dtype="bfloat16"),
        digest(tiny, few_shot(tiny, tmp_path / "shots")),
        digest(tiny, tmp_path / "shots", num_fewshot=1),
        digest(tiny, tmp_path / "shots", seed=2),
    ]
    assert len(set(digests)) == len(digests)


def test_the_digest_changes_with_a_few_shot_example(tiny: Tiny, tmp_path: Path) -> None:
    here, there = few_shot(tiny, tmp_path / "here"), few_shot(tiny, tmp_path / "there")
    assert digest(tiny, here) == digest(tiny, there)
    write_documents(there / "shots.jsonl", [{"prompt": f"{i}=", "choices": ["a", "b"], "label": 1} for i in range(16)])
    assert digest(tiny, here) != digest(tiny, there)


def test_the_digest_changes_with_the_code_of_a_prompt(tiny: Tiny, tmp_path: Path) -> None:
    digests = []
    for name, code in {
        "one": "document['prompt']",
        "same": "document['prompt']",
        "other": "'=' + document['prompt']",
    }.items():
        folder = write_tasks(tmp_path / name, select(tiny, "tiny_choice"))
        (folder / "utils.py").write_text(f"def prompt(document):\n    return {code}\n")
        text = (folder / "tiny_choice.yaml").read_text().replace("'{{prompt}}'", "!function utils.prompt")
        assert "!function" in text
        (folder / "tiny_choice.yaml").write_text(text)
        digests.append(digest(tiny, folder, allow_task_code=True))
    assert digests[0] == digests[1] != digests[2]
