"""A task of a demo's family for lm-eval: its documents, and the YAML file that names them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml


def write_task(
    folder: Path,
    name: str,
    documents: Iterable[Mapping[str, Any]],
    asked: Mapping[str, Any],
    *,
    prefix: str,
    version: int,
) -> None:
    """Write ``name``.jsonl and ``name``.yaml into ``folder``: the task ``prefix`` + ``name``, scored by accuracy.

    asked: the keys of lm-eval's that say what is asked of a document, and what is right.
    """
    lines = "".join(json.dumps(document) + "\n" for document in documents)
    (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    task = {
        "task": f"{prefix}{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
        "test_split": "test",
        **asked,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": version},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
