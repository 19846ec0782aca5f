"""Workers on a Ray cluster of two nodes, all on this machine. It is started once for all tests here."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from evaluators.testing.pool import CHECKS, SURVIVAL_CHECKS, Check, endure
from evaluators.testing.scripted import CountedSetup, Scripted, is_alive
from evaluators.workers import Failure, Setup, WorkerPool, WorkerSettings, make_pool
from kinship.errors import InvalidConfig, WorkersFailed

pytestmark = pytest.mark.xdist_group("ray")

NODE: dict[str, Any] = {"num_cpus": 4, "object_store_memory": 80_000_000, "include_dashboard": False}
# Workers run beside other tests, which would starve them if they were as nice as Ray makes them.
HEAD = NODE | {"_system_config": {"worker_niceness": 0, "prestart_worker_first_driver": False}}


class TwoNodes:
    """The cluster; pools with the same settings and setup are shared, since starting actors takes seconds."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster: Any = Cluster()
        self.add_node(HEAD)
        self.second = self.add_node(NODE)
        self.address: str = self.cluster.address
        self.pools: dict[Any, WorkerPool] = {}

    def add_node(self, settings: dict[str, Any]) -> Any:
        """Ray gives up after 30 seconds and leaves processes behind; on a busy machine it is worth another try."""
        before = psutil.Process().children(recursive=True)
        for attempt in range(3):
            try:
                return self.cluster.add_node(**settings)
            except Exception as error:
                if "timed out during startup" not in str(error) or attempt == 2:
                    raise
                for process in set(psutil.Process().children(recursive=True)) - set(before):
                    process.kill()

    def new(self, setup: Setup, **settings: Any) -> WorkerPool:
        return make_pool(WorkerSettings(kind="ray", address=self.address, **({"count": 2} | settings)), setup)

    def make(self, setup: Setup, **settings: Any) -> AbstractContextManager[WorkerPool]:
        if not isinstance(
            setup, Scripted | CountedSetup
        ):  # none gets as far as working: one actor tells as much as two
            return self.new(setup, **({"count": 1} | settings))
        if isinstance(setup, CountedSetup) or settings.get("hang_seconds") is None:
            return self.new(setup, **settings)
        key = (setup, *sorted(settings.items()))
        if key not in self.pools:
            self.pools[key] = self.new(setup, **settings)
        return nullcontext(self.pools[key])

    def close_pools(self) -> None:
        while self.pools:
            self.pools.popitem()[1].close()

    def close(self) -> None:
        import ray

        self.close_pools()
        ray.shutdown()
        self.cluster.shutdown()


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[TwoNodes]:
    pytest.importorskip("ray", reason="needs the extra: ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    nodes = TwoNodes()
    yield nodes
    nodes.close()


def test_a_cluster_is_joined_by_its_address_and_left_again(
    two_nodes: TwoNodes, capfd: pytest.CaptureFixture[str]
) -> None:
    import ray

    names = ["RAY_RAYLET_PID", "OMP_NUM_THREADS", "KINSHIP_THREADS"]
    with two_nodes.new(Scripted(), attempts=1, threads=4) as pool:
        capfd.readouterr()
        seen: set[tuple[str, ...]] = set()
        while len({node for node, *_ in seen}) < 2:  # four CPUs each: one on each node
            seen |= {tuple(outcome) for _, outcome in pool.run([("environment", names)] * 20)}
        assert {values[1:] for values in seen} == {("4", "4")}
        [(_, failure)] = pool.run([("exit", 3)])
        assert isinstance(failure, Failure)
        assert "died" in failure.traceback
        time.sleep(1)  # for Ray to say what it has to
    assert not ray.is_initialized()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("check", [*CHECKS, *SURVIVAL_CHECKS], ids=lambda check: check.__name__)
def test_conformance(check: Check, two_nodes: TwoNodes, tmp_path: Path) -> None:
    check(two_nodes.make, tmp_path)


def test_more_than_the_cluster_has_is_refused(two_nodes: TwoNodes) -> None:
    with pytest.raises(WorkersFailed, match="need 9 CPUs in all; the Ray cluster has 8"):
        two_nodes.new(Scripted(), count=9)
    with pytest.raises(WorkersFailed, match="need 1 GPUs in all; the Ray cluster has 0"):
        two_nodes.new(Scripted(), count=None, gpus=1)


PARENT = """
import json, sys
from evaluators.workers import WorkerSettings, make_pool
from evaluators.testing.scripted import Scripted

with make_pool(WorkerSettings(kind="ray", count=1, address=sys.argv[1]), Scripted()) as pool:
    [(_, number)] = pool.run([("number", None)])
    print(json.dumps(number), flush=True)
    list(pool.run([("sleep", 3600)]))
"""


def test_workers_end_with_their_parent(two_nodes: TwoNodes) -> None:
    two_nodes.close_pools()
    parent = subprocess.Popen([sys.executable, "-c", PARENT, two_nodes.address], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    number = json.loads(parent.stdout.readline())
    assert is_alive(number)
    parent.kill()
    parent.wait()
    end = time.monotonic() + 60
    while is_alive(number):
        assert time.monotonic() < end, "the worker lives on"
        time.sleep(0.1)


@pytest.mark.soak
def test_workers_killed_very_often(two_nodes: TwoNodes, tmp_path: Path) -> None:
    two_nodes.close_pools()
    assert endure(two_nodes.new, tmp_path, payloads=200, seconds=5.0) >= 5


def test_a_node_is_lost(two_nodes: TwoNodes, tmp_path: Path) -> None:
    """The last test here: afterwards the cluster has one node."""
    two_nodes.close_pools()
    first, second = tmp_path / "first", tmp_path / "second"

    def lose() -> None:
        while not (first.exists() and second.exists()):
            time.sleep(0.05)
        two_nodes.cluster.remove_node(two_nodes.second, allow_graceful=False)
        for path in (first, second):  # one ended with its node
            if is_alive(int(path.read_text())):
                os.kill(int(path.read_text()), signal.SIGKILL)

    with two_nodes.new(Scripted(), threads=4) as pool:
        loser = threading.Thread(target=lose)
        loser.start()
        assert dict(pool.run([("wait_for_end", str(first)), ("wait_for_end", str(second)), ("square", 3)])) == {
            0: "well",
            1: "well",
            2: 9,
        }
        loser.join()


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidConfig, match="need Ray") as caught:
        make_pool(WorkerSettings(kind="ray"), Scripted())
    assert "model-kinship[ray]" in caught.value.hint
