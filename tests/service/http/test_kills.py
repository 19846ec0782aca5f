"""Searches by the service, server and jobs killed at random moments: each ends with the calm run's export.

The mechanism is tested job by job in tests/service/jobs; here are whole searches, and a client that listens meanwhile.
Those that are killed often score by weights alone, since most of a start is the import of transformers.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.answers import RunEvents
from service.answers.jobs import Job
from service.client import Client, ServiceError
from tests.evaluators import judges
from tests.evaluators.conftest import write_llama
from tests.service.jobs.conftest import PATIENCE, wait_for

pytestmark = pytest.mark.soak

FRUITLESS = 3  # kills in a row before the search is let get further: at five a job has failed
CONFIG: dict[str, Any] = {
    "base": "base",
    "founders": ["one", "two", "three"],
    "evaluate": {"functions": [{"function": "judges:Surprise"}]},
    "strategy": {"name": "topk"},
    "stop": {"generations": 3},
}
# Python runs this first in every process of a search, where its folder is in PYTHONPATH.
BY_WEIGHTS = """
    import sys

    if {"service.jobs.launch", "evolve"} & set(sys.orig_argv):
        import time

        import torch

        from evaluators import make
        from evaluators.base import Task

        class Judge:
            tasks = [Task("weights", "closeness", "weights/1", {"search": range(8), "held_out": range(8, 13)})]
            conditions = {"device": "cpu"}

            def run(self, candidate, documents):
                time.sleep(0.3)  # so that there is something to kill
                flat = torch.cat([tensor.flatten().double() for _, tensor in candidate.tensors()])
                found = {number: -float((flat[number::13] ** 2).sum()) for number in documents["weights"]}
                return {"weights": found}

        make.make_evaluator = lambda *given: Judge()
"""


@dataclass
class Killable:
    """`kinship serve` as users start it, at one port through all its lives; and the processes of its jobs."""

    folder: Path
    port: int = 0
    process: "subprocess.Popen[str] | None" = None
    most_at_once: int = 0
    useful: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        command = [sys.executable, "-m", "service.cli", "serve", str(self.folder), "--port", str(self.port)]
        self.process = subprocess.Popen([*command, "--allow-code"], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r":(\d+)$", line.strip())
        assert found, line
        self.port = int(found[1])

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def kill_job(self) -> bool:
        """SIGKILL to the group of the one that runs, if there is one."""
        for pid in self.jobs():
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
                return True
        return False

    def jobs(self) -> list[int]:
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (place / "cmdline").read_bytes().split(b"\0")
                if b"service.jobs.launch" in words and str(self.folder).encode() in b" ".join(words):
                    found.append(int(place.name))
        return found

    def watch(self) -> None:
        while not self.over.wait(0.1):
            self.most_at_once = max(self.most_at_once, len(self.jobs()))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Listener:
    """Hears every event of a run until its end, through every death of the server."""

    address: str
    run: str
    heard: list[int] = field(default_factory=list)

    def listen(self) -> None:
        with Client(self.address) as client:
            while True:
                try:
                    for event in client.events(self.run, self.heard[-1] if self.heard else 0, until="ended"):
                        self.heard.append(event.id)
                    return
                except ServiceError:  # it has no ledger yet
                    time.sleep(0.2)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Killable]:
    for seed, name in enumerate(("base", "one", "two", "three")):
        write_llama(tmp_path / name, seed)
    shutil.copy(judges.__file__, tmp_path / "judges.py")
    (tmp_path / "run.yml").write_text(yaml.safe_dump(CONFIG))
    found = Killable(tmp_path)
    watcher = threading.Thread(target=found.watch)
    watcher.start()
    yield found
    found.over.set()
    watcher.join()
    found.kill()
    found.kill_job()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are found in /proc")
@pytest.mark.parametrize(
    ("killed", "times", "by_weights"),
    [("both", 1, False), ("server", 20, True), ("job", 20, True), ("both", 10, True)],
)
def test_however_often_it_is_killed_it_ends_as_the_calm_run(
    service: Killable, monkeypatch: pytest.MonkeyPatch, killed: str, times: int, by_weights: bool
) -> None:
    if by_weights:
        (service.folder / "hook").mkdir()
        (service.folder / "hook" / "sitecustomize.py").write_text(textwrap.dedent(BY_WEIGHTS))
        monkeypatch.setenv("PYTHONPATH", f"{service.folder / 'hook'}:{Path(__file__).parents[3]}")
    began = time.monotonic()
    calm = [sys.executable, "-m", "service.cli", "evolve", "run.yml", "--out", "calm", "--json"]
    subprocess.run(calm, cwd=service.folder, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    service.start()
    done = runs = 0
    while done < times:
        done += _one_run(service, killed, times - done, f"killed-{runs}", seconds)
        runs += 1
        print(f"{killed}: {done} kills in {runs} runs, {service.useful} of them while results came", flush=True)
    assert service.most_at_once == 1


def _one_run(service: Killable, killed: str, most: int, name: str, seconds: float) -> int:
    """A run that is killed at most so many times, as it is at its end; how often it was."""
    with Client(service.address) as client:
        job = client.start_run(name, CONFIG)
    listener = Listener(service.address, name)
    thread = threading.Thread(target=listener.listen, daemon=True)
    thread.start()
    kills = fruitless = 0
    while kills < most:
        heard = len(listener.heard)
        time.sleep(random.uniform(0.0, seconds))
        if fruitless >= FRUITLESS:
            wait_for(lambda heard=heard: len(listener.heard) > heard or _is_over(service, job))
        if not _runs(service, job):
            break
        if killed != "job":
            service.kill()
        if killed != "server":
            service.kill_job()
        if killed != "job":
            time.sleep(random.uniform(0.0, 1.0))
            service.start()
        kills += 1
        service.useful += len(listener.heard) > heard
        fruitless = 0 if len(listener.heard) > heard else fruitless + 1
    _require_calm(service, job, name, kills if killed != "server" else 0)
    thread.join(PATIENCE)
    with Client(service.address) as client:
        events = client.get(RunEvents, "runs", name, "events", most=500).events
    last = next(event.id for event in events if event.name == "ended")
    assert listener.heard == [event.id for event in events if event.id <= last]
    return kills


def _runs(service: Killable, job: Job) -> bool:
    """Whether its process is there, which between two starts is waited for."""
    with Client(service.address) as client:
        wait_for(lambda: service.jobs() or client.job(job.id).state == "done")
    return bool(service.jobs())


def _is_over(service: Killable, job: Job) -> bool:
    with Client(service.address) as client:
        return client.job(job.id).state in {"done", "failed"}


def _require_calm(service: Killable, job: Job, name: str, most_lost: int) -> None:
    with Client(service.address) as client:
        ended = client.wait(job, PATIENCE)
        assert ended.state == "done", client.log(job.id).text
        assert ended.starts <= 1 + most_lost
        assert client.run(name).state == "finished"
        assert client.export(name).canonical() == client.export("calm").canonical()
        assert {other.state for other in client.jobs().jobs} == {"done"}
