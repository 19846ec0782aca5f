"""Runs of somebody else: in folders that may be read and not written."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from search.ledger.location import LEDGER_NAME
from tests.permissions import as_anybody
from tests.search.runs import Scene

ROOT = Path(__file__).parents[2]


def asked(*words: str) -> subprocess.CompletedProcess[str]:
    given = os.environ | {"PYTHONPATH": str(ROOT), "KINSHIP_CACHE": "off"}
    command = [sys.executable, "-m", "service.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, env=given, check=False, preexec_fn=as_anybody)


def close(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.fixture
def run(scene: Scene) -> Path:
    scene.run("run")
    return scene.folder / "run"


def test_a_run_in_a_read_only_folder_can_be_looked_at(run: Path) -> None:
    close(run)
    shown = asked("runs", "show", str(run), "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)
    listed = asked("runs", "list", str(run.parent))
    assert (listed.returncode, listed.stderr) == (0, "")


def test_so_can_one_that_was_killed_with_changes_in_its_wal(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with closing(sqlite3.connect(run / LEDGER_NAME)) as database:
        database.execute("PRAGMA wal_autocheckpoint=0")
        database.execute("PRAGMA user_version=7")  # waits in the -wal file
        database.commit()
        shutil.copytree(run, copy)
    assert (copy / f"{LEDGER_NAME}-wal").stat().st_size
    close(copy)
    shown = asked("runs", "show", str(copy), "--json")
    assert shown.returncode == 0, shown.stderr
