"""A search that keeps its ledger in Postgres, against the same search in a folder."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kinship.errors import LedgerError
from search.config import RunConfig
from search.history.export import export_run, to_json
from search.ledger.database import runs_in
from search.ledger.ledger import Ledger
from search.ledger.location import LedgerLocation, holds_run
from search.running.coordinator import Search
from tests.search.postgres import Server
from tests.search.runs import Interrupted, Scene, interrupting

pytestmark = pytest.mark.xdist_group("postgres")


def test_a_run_in_postgres_is_the_run_in_a_file(postgres: Server, scene: Scene) -> None:
    url, folder = postgres.new_database(), scene.folder / "there"
    scene.run("here")
    with Search(scene.config(), folder, ledger=url, evaluator=scene.evaluator()) as search:
        search.run()
    assert not (folder / "ledger.sqlite").exists()
    assert holds_run(folder)
    with Ledger.of_run(folder) as ledger:
        assert ledger.location.run == "there"
        assert to_json(export_run(ledger)) == scene.text("here")


def test_interrupted_runs_of_one_database_are_resumed(postgres: Server, scene: Scene) -> None:
    url = postgres.new_database()
    scene.run("calm")
    evaluator = scene.evaluator(interrupting(9))
    with Search(scene.config(), scene.folder / "one", ledger=url, evaluator=evaluator) as search, \
            pytest.raises(Interrupted):  # fmt: skip
        search.run()
    with Search(scene.config(seed=7), scene.folder / "two", ledger=url, evaluator=scene.evaluator()) as search:
        search.run()
    with Search(scene.config(), scene.folder / "one", evaluator=scene.evaluator()) as search:  # the folder knows where
        search.run()
    assert runs_in(LedgerLocation.parse(url, "one")) == ["one", "two"]
    with Ledger(LedgerLocation.parse(url, "one")) as ledger:
        assert to_json(export_run(ledger)) == scene.text("calm")


def test_a_second_coordinator_of_the_same_run_refuses(postgres: Server, scene: Scene) -> None:
    url = postgres.new_database()
    with Search(scene.config(), scene.folder / "one", ledger=f"{url}#mine", evaluator=scene.evaluator()) as search:
        with pytest.raises(LedgerError, match=r"Another process is running .*#mine"):
            Search(scene.config(), scene.folder / "two", ledger=f"{url}#mine", evaluator=scene.evaluator())
        assert not holds_run(scene.folder / "two")
        search.run()
    Search(scene.config(), scene.folder / "two", ledger=f"{url}#mine", evaluator=scene.evaluator()).ledger.close()


SEARCH = """
import sys
from pathlib import Path
from search.config import RunConfig
from search.running.coordinator import Search
from tests.search.runs import WeightEvaluator
import torch

config, folder, url, *optimum = sys.argv[1:]
def observer(name, facts):
    if name == "scored":
        print(facts["individual"], facts["split"], repr(facts["value"]), flush=True)
evaluator = WeightEvaluator(torch.tensor([float(x) for x in optimum], dtype=torch.float64))
with Search(RunConfig.model_validate_json(config), Path(folder), ledger=url, evaluator=evaluator,
            observer=observer) as search:
    search.run()
"""


def killed(scene: Scene, config: RunConfig, url: str, after: int) -> list[list[str]]:
    """SIGKILL to a process that searches, once it has told of so many scores; everything that it told of."""
    optimum = [repr(x) for x in scene.optimum().tolist()]
    command = [sys.executable, "-c", SEARCH, config.model_dump_json(), str(scene.folder / "run"), url, *optimum]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}
    )
    assert process.stdout is not None
    told = []
    for line in process.stdout:
        told.append(line.split())
        if len(told) == after:
            process.send_signal(signal.SIGKILL)
    process.wait()
    return told


@pytest.mark.parametrize(
    ("offspring", "kills"), [(30, [9, 20]), pytest.param(300, [5, 60, 2, 90, 111, 40], marks=pytest.mark.soak)]
)
def test_killed_again_and_again(postgres: Server, scene: Scene, offspring: int, kills: list[int]) -> None:
    config = scene.config(strategy={"name": "random", "batch": 7}, stop={"evaluations": offspring})
    scene.run("calm", config)
    url, told = postgres.new_database(), list[Any]()
    for kill in kills:
        told += killed(scene, config, url, kill + random.randrange(3))
        with Ledger.of_run(scene.folder / "run") as ledger:
            scores = {(r.id, split): score.value for r in ledger.records() for split, score in r.scores.items()}
        assert {(id, split): float(value) for id, split, value in told}.items() <= scores.items()
    assert len({(id, split) for id, split, _ in told}) == len(told)  # nothing is scored twice
    with Search(config, scene.folder / "run", evaluator=scene.evaluator()) as search:
        search.run()
        assert to_json(export_run(search.ledger)) == scene.text("calm")
