"""The command line, called in this process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from service.demo.family import Family


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Kinship = Callable[..., Outcome]


@pytest.fixture
def kinship(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Kinship:
    """Run ``kinship ARGS...`` and return exit code and output."""
    from service.cli import main

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr("sys.argv", ["kinship", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def run_file(family: "Family", tmp_path: Path) -> Path:
    """A run over the small family that ends after one generation."""
    path = tmp_path / "run.yml"
    path.write_text(
        yaml.safe_dump(
            {
                "base": str(family.base),
                "founders": [str(founder) for founder in family.founders],
                "merge": {"method": "linear", "parameters": {"scale": 1.2}},
                "evaluate": {
                    "tasks": list(family.task_names),
                    "task_path": str(family.tasks),
                    "batch_size": 256,
                    "limit": 16,
                },
                "strategy": {"name": "topk"},
                "stop": {"generations": 2},
            }
        )
    )
    return path
