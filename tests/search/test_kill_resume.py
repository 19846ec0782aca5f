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

from service.commands.evolve import evolve
from tests.forked import Forked

if TYPE_CHECKING:
    from service.demo.family import Family

pytestmark = pytest.mark.xdist_group("kill")


class Scene:
    """A run file, and the calm run that all others must equal: three founders, two of the family's skills, a race."""

    def __init__(self, family: "Family", folder: Path) -> None:
        self.folder = folder
        content = {
            "base": str(family.base),
            "founders": [str(founder) for founder in family.founders[:3]],
            "merge": {"method": "linear", "parameters": {"scale": 1.3}},
            # One document a pass, so that scoring takes long enough to be hit.
            "evaluate": {
                "tasks": list(family.task_names)[:2],
                "task_path": str(family.tasks),
                "batch_size": 1,
                "limit": 20,
            },
            "strategy": {"name": "topk"},
            "race": {"enabled": True},
            "stop": {"generations": 3},
        }
        self.run_file, self.crew_file = folder / "run.yml", folder / "crew.yml"
        self.run_file.write_text(yaml.safe_dump(content))
        workers = {"kind": "local", "count": 2, "threads": 1}
        self.crew_file.write_text(yaml.safe_dump(content | {"workers": workers}))
        self.calm()
        self.export = (folder / "calm" / "export.json").read_bytes()

    def calm(self) -> None:
        """A program that is started as users do, and takes so many seconds from its first event on."""
        command = [sys.executable, "-m", "service.cli", *self.words("calm", self.run_file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            process.stdout.readline()
            began = time.monotonic()
            process.stdout.read()
        self.duration = time.monotonic() - began

    def words(self, name: str, file: Path) -> list[str]:
        cache = str(self.folder / f"{name}.cache")
        return ["evolve", str(file), "--out", str(self.folder / name), "--cache", cache, "--json"]

    def start(self, name: str, *, crew: bool = False) -> Forked:
        """A run by itself, or with a ``crew`` of local workers."""
        return Forked(*self.words(name, self.crew_file if crew else self.run_file))

    def resume(self, name: str) -> bytes:
        evolve(
            self.run_file,
            self.folder / name,
            resume=True,
            dry_run=False,
            timed=False,
            cache=self.folder / f"{name}.cache",
            as_json=True,
            force=False,
        )
        return (self.folder / name / "export.json").read_bytes()


@pytest.fixture(scope="module")
def scene(family: "Family", tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(family, tmp_path_factory.mktemp("kill"))


def kill_on(process: Forked, what: str, occurrence: int) -> list[dict[str, Any]]:
    """SIGKILL when an event or phase is told of for the nth time; returns every event seen until then."""
    events: list[dict[str, Any]] = []
    for line in process.stdout:
        events.append(json.loads(line))
        if sum(what in (event["event"], event.get("phase")) for event in events) == occurrence:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    return events


def kill_after(process: Forked, seconds: float) -> list[dict[str, Any]]:
    """SIGKILL after so many seconds; returns every event printed until then."""
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    out = process.communicate()
    return [json.loads(line) for line in out.splitlines() if line.endswith("}")]


def acknowledged_scores_are_kept(folder: Path, events: list[dict[str, Any]]) -> None:
    from search.ledger.ledger import Ledger

    told = {(event["individual"], event["split"]): event["value"] for event in events if event["event"] == "scored"}
    seen = {
        (event["individual"], event["split"]): event["documents"]
        for event in events
        if event["event"] in ("scored", "results") and not event.get("twin")
    }
    if not seen:
        return
    with Ledger.of_run(folder) as ledger:
        kept = {(r.id, split): score.value for r in ledger.records() for split, score in r.scores.items()}
        assert told.items() <= kept.items()
        for (id, split), documents in seen.items():
            assert sum(map(len, ledger.results(id, split).values())) >= documents


SOAKED = [("results", 9), ("scored", 12)]  # killed after results with its workers: see below


@pytest.mark.parametrize(
    ("what", "occurrence"),
    [("merging", 2), ("writing", 1), *(pytest.param(*phase, marks=pytest.mark.soak) for phase in SOAKED)],
)
def test_killed_in_each_phase(scene: Scene, what: str, occurrence: int) -> None:
    name = f"{what}-{occurrence}"
    events = kill_on(scene.start(name), what, occurrence)
    assert not (scene.folder / name / "export.json").exists()
    acknowledged_scores_are_kept(scene.folder / name, events)
    assert scene.resume(name) == scene.export


def test_killed_at_a_random_moment(scene: Scene) -> None:
    killed_and_resumed(scene, "random", random.random())


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


def children(process: int) -> list[int]:
    """The numbers of the processes that this one has started."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def with_workers_killed(scene: Scene, name: str, times: list[int]) -> None:
    """SIGKILL to one of the workers after the nth result, for each n; the run goes on without help."""
    process = scene.start(name, crew=True)
    results = killed = 0
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] in ("results", "scored") and not events[-1].get("twin"):
            results += 1
            if results in times:
                os.kill(random.choice(children(process.pid)), signal.SIGKILL)
                killed += 1
    assert process.wait() == 0, process.said
    assert killed == len(times)
    assert (scene.folder / name / "export.json").read_bytes() == scene.export
    acknowledged_scores_are_kept(scene.folder / name, events)


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers through /proc")


@needs_proc
def test_workers_killed_cost_nothing_but_time(scene: Scene) -> None:
    with_workers_killed(scene, "crew", [2, 11])


@needs_proc
@pytest.mark.soak
@pytest.mark.parametrize("index", range(20))
def test_workers_killed_again_and_again(scene: Scene, index: int) -> None:
    with_workers_killed(scene, f"soak-crew-{index}", sorted(random.sample(range(1, 30), 4)))


@needs_proc
def test_killed_with_its_workers_and_resumed_without(scene: Scene) -> None:
    process = scene.start("both", crew=True)
    for line in process.stdout:
        if json.loads(line)["event"] == "results":
            break
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(workers) == 2
    assert scene.resume("both") == scene.export
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]  # nobody is left behind


def test_ctrl_c_pauses(scene: Scene) -> None:
    process = scene.start("paused")
    for line in process.stdout:
        if json.loads(line)["event"] == "results":
            break
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    from search.ledger.ledger import Ledger

    with Ledger.of_run(scene.folder / "paused") as ledger:
        assert [entry.name for entry in ledger.diary()][-1] == "paused"
    assert scene.resume("paused") == scene.export
