"""Where a model came from is not part of what decides its scores."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evaluators.conditions import DTYPES, PROVENANCE, without
from tests.evaluators.conftest import Tiny, make_harness


def digest(tiny: Tiny, folder: Path, name: str, **changes: Any) -> str:
    shutil.copytree(tiny.model, folder)
    config = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps(config))
    return make_harness(tiny, folder, tasks=["tiny_choice"]).tasks[0].digest


@pytest.mark.parametrize(
    ("name", "changes", "same"),
    [
        ("config.json", dict.fromkeys(PROVENANCE, "another"), True),
        ("config.json", {"dtype": "bfloat16"}, True),
        ("config.json", {"rms_norm_eps": 1e-3}, False),
        ("generation_config.json", {"transformers_version": "4.0.0"}, True),
        ("generation_config.json", {"repetition_penalty": 1.5}, False),
    ],
)
def test_digests_tell_models_apart_by_what_decides(
    tiny: Tiny, tmp_path: Path, name: str, changes: dict[str, Any], same: bool
) -> None:
    plain = digest(tiny, tmp_path / "plain", "config.json")
    assert (digest(tiny, tmp_path / "changed", name, **changes) == plain) is same


def test_configs_within_configs_count() -> None:
    config = {"dtype": "float16", "text_config": {"torch_dtype": "float16", "hidden_size": 8, "rope": [1, 2]}}
    assert without(config, DTYPES) == {"text_config": {"hidden_size": 8, "rope": [1, 2]}}
    assert without(config, PROVENANCE) == config
