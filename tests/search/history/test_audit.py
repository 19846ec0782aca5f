"""What `kinship runs verify` finds, in sound ledgers and in ones that were tampered with."""

import sqlite3
import zlib
from pathlib import Path

import numpy as np
import pytest

from kinship.errors import LedgerError
from search.history.audit import verify_ledger
from search.ledger.ledger import Ledger
from search.ledger.location import LEDGER_NAME
from tests.search.runs import MANY, Scene, failing, put_small_run


def verdicts(folder: Path) -> dict[str, bool | None]:
    with Ledger.of_run(folder, damaged=True) as ledger:
        return {check.name: check.ok for check in verify_ledger(ledger)}


SOUND = dict.fromkeys(["database", "facts", "genomes", "descent", "scores", "replay"], True)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"strategy": {"name": "topk", "variant": "complementary"}, "race": {"enabled": True, "minimum": 6}},
        {"strategy": {"name": "optuna", "batch": 2}, "stop": {"evaluations": 5}},
        {"strategy": {"name": "soup", "scale_steps": 3}, "aggregate": {"kind": "normalised"}},
        {"merge": {"method": "ties", "parameters": {"density": 0.9, "weight": 0.5}}},
    ],
    ids=["topk", "race", "optuna", "soup", "ties"],
)
def test_sound_runs_pass(scene: Scene, changes: dict[str, object]) -> None:
    config = scene.config(**({"stop": {"generations": 2}} | changes))
    scene.run("run", config, scene.evaluator(failing("1-2"), tasks=MANY))
    assert verdicts(scene.folder / "run") == SOUND


TAMPERED = {
    "a score": ("UPDATE score SET value = value + 1e-6 WHERE individual = '1-1' AND split = 'search'", {"scores"}),
    "a document": ("DELETE FROM block WHERE individual = '2-1'", {"scores"}),
    "a parent": ("UPDATE parent SET parent = '2-1' WHERE child = '1-1' AND position = 0", {"descent", "replay"}),
    "nobody": ("UPDATE parent SET parent = 'none' WHERE child = '1-1'", {"database", "descent", "replay"}),
    "a recipe": ("UPDATE individual SET recipe = '{}' WHERE id = '1-1'", {"replay"}),
    "a double": ("UPDATE individual SET twin = 'near' WHERE id = '1-1'", {"descent", "scores"}),
    "an identity": ("UPDATE individual SET identity = 'x' WHERE id = '1-1'", {"genomes"}),
    "no genome": ("DELETE FROM genome WHERE individual = '2-1'", {"genomes"}),
    "half a genome": ("UPDATE genome SET tensors = tensors * 2 WHERE individual = '2-1'", {"genomes"}),
    "rubbish": ("UPDATE genome SET coefficients = x'0102' WHERE individual = '2-1'", {"genomes"}),
    "digests": ("UPDATE run SET digests = '{}'", {"facts", "genomes"}),
    "tasks": ("UPDATE run SET tasks = '{}'", {"scores"}),
    "a table": ("UPDATE run SET gram = x'00'", {"facts"}),
    "JSON": ("UPDATE individual SET recipe = 'rubbish' WHERE id = '1-1'", {"facts"}),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_tampered_with_is_found(tmp_path: Path, what: str) -> None:
    path = put_small_run(tmp_path)
    with Ledger(path) as ledger:
        assert all(check.ok for check in verify_ledger(ledger))
    statement, wrong = TAMPERED[what]
    with sqlite3.connect(path) as connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()
    assert {name for name, ok in verdicts(tmp_path).items() if not ok} == wrong | {"database"}
    with pytest.raises(LedgerError, match="differ from what was written"):
        Ledger(path)


def test_genomes_that_are_not_finite(tmp_path: Path) -> None:
    content = zlib.compress(np.full(3 * 4, np.nan).tobytes())
    with sqlite3.connect(put_small_run(tmp_path)) as connection:
        connection.execute("UPDATE genome SET coefficients = ? WHERE individual = '2-1'", (content,))
    connection.close()
    assert verdicts(tmp_path)["genomes"] is False


def test_an_empty_ledger_has_nothing_to_verify(tmp_path: Path) -> None:
    with Ledger(tmp_path / LEDGER_NAME) as ledger, pytest.raises(LedgerError, match="no run yet"):
        verify_ledger(ledger)
