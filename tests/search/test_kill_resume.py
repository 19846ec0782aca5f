"""A run killed at any moment and resumed ends as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from service.commands.evolve import run as evolve

if TYPE_CHECKING:
    from service.demo.family import Family

pytestmark = pytest.mark.xdist_group("kill")


class Scene:
    """A run file, and the calm run that all others must equal."""

    def __init__(self, family: "Family", folder: Path) -> None:
        self.folder = folder
        self.run_file = folder / "run.yml"
        self.run_file.write_text(
            yaml.safe_dump(
                {
                    "base": str(family.base),
                    "founders": [str(founder) for founder in family.founders],
                    "merge": {"method": "linear", "parameters": {"scale": 1.3}},
                    # One document a pass, so that scoring takes long enough to be hit.
                    "evaluate": {"tasks": list(family.task_names), "task_path": str(family.tasks), "batch_size": 1},
                    "stop": {"generations": 4},
                }
            )
        )
        started = time.monotonic()
        self.start("calm").communicate()
        self.duration = time.monotonic() - started
        self.export = (folder / "calm" / "export.json").read_bytes()

    def start(self, name: str, *options: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "service.cli", "evolve", str(self.run_file), "--out", str(self.folder / name)]
        cache = str(self.folder / f"{name}.cache")
        return subprocess.Popen(
            [*command, "--cache", cache, "--json", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONHASHSEED": str(random.randrange(1000))},
        )

    def resume(self, name: str) -> bytes:
        evolve(
            self.run_file,
            self.folder / name,
            resume=True,
            dry_run=False,
            cache=self.folder / f"{name}.cache",
            as_json=True,
            force=False,
        )
        return (self.folder / name / "export.json").read_bytes()


@pytest.fixture(scope="module")
def scene(family: "Family", tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(family, tmp_path_factory.mktemp("kill"))


def kill_on(process: "subprocess.Popen[str]", phase: str, occurrence: int) -> list[dict[str, Any]]:
    """SIGKILL when ``phase`` is announced for the nth time; returns every event seen until then."""
    events: list[dict[str, Any]] = []
    assert process.stdout is not None
    for line in process.stdout:
        events.append(json.loads(line))
        if sum(event.get("phase") == phase for event in events) == occurrence:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    return events


def kill_after(process: "subprocess.Popen[str]", seconds: float) -> list[dict[str, Any]]:
    """SIGKILL after so many seconds; returns every event printed until then."""
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    out, _ = process.communicate()
    return [json.loads(line) for line in out.splitlines() if line.endswith("}")]


def acknowledged_scores_are_kept(folder: Path, events: list[dict[str, Any]]) -> None:
    from search.ledger import LEDGER_NAME, Ledger

    told = {(event["individual"], event["split"]): event["value"] for event in events if event["event"] == "scored"}
    if told:
        ledger = Ledger(folder / LEDGER_NAME)
        kept = {(r.id, split): score.value for r in ledger.records() for split, score in r.scores.items()}
        ledger.close()
        assert told.items() <= kept.items()


@pytest.mark.parametrize(("phase", "occurrence"), [("merging", 2), ("scoring", 9), ("writing", 1)])
def test_killed_in_each_phase(scene: Scene, phase: str, occurrence: int) -> None:
    name = f"{phase}-{occurrence}"
    events = kill_on(scene.start(name), phase, occurrence)
    assert not (scene.folder / name / "export.json").exists()
    acknowledged_scores_are_kept(scene.folder / name, events)
    assert scene.resume(name) == scene.export


@pytest.mark.parametrize("index", range(2))
def test_killed_at_random_moments(scene: Scene, index: int) -> None:
    killed_and_resumed(scene, f"random-{index}", (index + random.random()) / 2)


@pytest.mark.soak
@pytest.mark.parametrize("index", range(20))
def test_killed_at_many_random_moments(scene: Scene, index: int) -> None:
    killed_and_resumed(scene, f"soak-{index}", (index + random.random()) / 20)


def killed_and_resumed(scene: Scene, name: str, share: float) -> None:
    events = kill_after(scene.start(name), share * scene.duration)
    phases = [event["phase"] for event in events if event["event"] == "phase"]
    print(f"killed at {100 * share:.0f} % of the calm run, phase: {phases[-1] if phases else 'starting'}")
    acknowledged_scores_are_kept(scene.folder / name, events)
    assert scene.resume(name) == scene.export
