"""A search by the service, its server and its job killed at random moments: it ends with the calm run's export.

The mechanism is tested job by job in tests/service/jobs; here are the long counts, with real searches.
"""

import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service.client import Client, ServiceError
from service.jobs import liveness

if TYPE_CHECKING:
    from service.demo.family import Family

pytestmark = pytest.mark.soak

KILLS = {"server": 20, "job": 20, "both": 10}


@dataclass
class Killable:
    """`kinship serve` as users start it, at one port through all its lives."""

    folder: Path
    port: int = 0
    process: "subprocess.Popen[str] | None" = None

    def start(self) -> None:
        command = [sys.executable, "-m", "service.cli", "serve", str(self.folder), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r":(\d+)$", line.strip())
        assert found, line
        self.port = int(found[1])

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def config_of(family: "Family") -> dict[str, Any]:
    return {
        "base": "family/base",
        "founders": [f"family/{founder.name}" for founder in family.founders[:3]],
        "evaluate": {"tasks": list(family.task_names[:2]), "task_path": "family/tasks", "limit": 16},
        "stop": {"evaluations": 10},
    }


@pytest.fixture
def service(family: "Family", tmp_path: Path) -> Iterator[Killable]:
    shutil.copytree(family.folder, tmp_path / "family")
    found = Killable(tmp_path)
    yield found
    found.kill()


@pytest.mark.parametrize("killed", list(KILLS))
def test_killed_again_and_again_it_ends_as_the_calm_run(service: Killable, family: "Family", killed: str) -> None:
    service.start()
    with Client(service.address) as client:
        calm = client.wait(client.start_run("calm", config_of(family)))
        assert calm.state == "done", client.log(calm.id).text
        job = client.start_run("killed", config_of(family))
    heard: list[int] = []
    listener = threading.Thread(target=_listen, args=(service.address, "killed", heard), daemon=True)
    listener.start()
    for _ in range(KILLS[killed]):
        time.sleep(random.uniform(0.0, 12.0))
        if killed != "job":
            service.kill()
        if killed != "server":
            liveness.send(service.folder / "jobs" / str(job.id), signal.SIGKILL)
        if killed != "job":
            service.start()
    with Client(service.address) as client:
        ended = client.wait(job)
        assert ended.state == "done", client.log(job.id).text
        assert client.run("killed").state == "finished"
        last = client.export("killed")
        assert last.canonical() == client.export("calm").canonical()
        assert not [other for other in client.jobs().jobs if other.state not in {"done"}]
    listener.join(60)
    assert heard == sorted(set(heard))


def _listen(address: str, run: str, heard: list[int]) -> None:
    """Every event of the run until its end, through every death of the server."""
    with Client(address) as client:
        while True:
            try:
                heard += [event.id for event in client.events(run, heard[-1] if heard else 0, until="ended")]
                return
            except ServiceError:  # it has no ledger yet
                time.sleep(0.5)
