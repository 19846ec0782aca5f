"""Processes that merge: equal bytes whatever the threads and hash seeds, and nothing by halves when they are killed."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from merging.output.verify import verify_folder
from tests.forked import Forked

pytestmark = pytest.mark.xdist_group("kill")

METHODS = {
    "slerp": {"t": 0.3},
    "task_arithmetic": {"weight": 0.6},
    "ties": {"weight": 0.6, "density": 0.4},
    "dare_ties": {"weight": 0.6, "density": 0.4},
}


class Scene:
    """Models of 16 MB each and recipes for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        generator = torch.Generator().manual_seed(0)
        for name in ("base", "one", "two"):
            (folder / name).mkdir()
            tensors = {f"layers.{i}.w": torch.randn(800, 1000, generator=generator).bfloat16() for i in range(10)}
            save_file(tensors, folder / name / "model.safetensors")
        for method, parameters in METHODS.items():
            models = [{"model": str(folder / name)} for name in ("one", "two")]
            base = str(folder / ("one" if method == "slerp" else "base"))
            content = {"merge_method": method, "models": models, "base_model": base, "parameters": parameters}
            (folder / f"{method}.yml").write_text(yaml.safe_dump(content))

    def words(self, method: str, out: str) -> list[str]:
        return ["merge", str(self.folder / f"{method}.yml"), str(self.folder / out)]

    def start(self, out: str) -> Forked:
        return Forked(*self.words("task_arithmetic", out))

    def finish(self, process: Forked) -> None:
        assert process.wait() == 0, process.said

    def leftovers(self) -> list[str]:
        return [item.name for item in self.folder.iterdir() if item.name.startswith(".")]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("merges"))


SEVERAL = """
import json, sys
from service.cli import main

for sys.argv in json.loads(sys.argv[1]):
    try:
        main()
    except SystemExit as end:
        assert not end.code, sys.argv
"""


def test_equal_bytes_from_any_process(scene: Scene) -> None:
    ways = [("1", "1"), ("2", "7"), ("5", "0")]
    for threads, seed in ways:
        turns = random.sample(list(METHODS), len(METHODS))  # what one leaves behind must not reach the next
        calls = [["kinship", *scene.words(method, f"{method}-{threads}")] for method in turns]
        environment = os.environ | {"KINSHIP_THREADS": threads, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", SEVERAL, json.dumps(calls)], env=environment, check=True)
    for method in METHODS:
        first, *others = (scene.folder / f"{method}-{threads}" for threads, _ in ways)
        for other in others:
            for file in ("model.safetensors", "lineage.json"):
                assert (other / file).read_bytes() == (first / file).read_bytes(), (method, file)


def killed(scene: Scene, name: str, share: float, duration: float) -> None:
    """Killed after its ``share`` of the time a merge takes: no folder, or a whole one; and the next merge cleans up."""
    process = scene.start(name)
    time.sleep(share * duration)
    process.send_signal(signal.SIGKILL)
    process.wait()
    out = scene.folder / name
    print(f"killed at {100 * share:.0f} %: {'complete' if out.exists() else 'absent'}, left {scene.leftovers()}")
    if not out.exists():
        scene.finish(scene.start(name))
    checks = {check.name: check.ok for check in verify_folder(out)}
    assert checks["checksums"] is True
    assert checks["headers"] is True
    assert scene.leftovers() == []


@pytest.fixture(scope="module")
def duration(scene: Scene) -> float:
    process = scene.start("calm")
    started = time.monotonic()
    scene.finish(process)
    return time.monotonic() - started


@pytest.mark.parametrize("index", range(3))
def test_killed_while_it_works(scene: Scene, duration: float, index: int) -> None:
    killed(scene, f"killed-{index}", (index + random.random()) / 3, duration)


@pytest.mark.soak
@pytest.mark.parametrize("index", range(50))
def test_killed_at_many_moments(scene: Scene, duration: float, index: int) -> None:
    killed(scene, f"soak-{index}", (index + random.random()) / 50, duration)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_a_disk_that_fills_up(scene: Scene, method: str) -> None:
    """A limit on the size of files stops a write as a full disk does."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))

    command = [sys.executable, "-m", "service.cli", *scene.words(method, "full")]
    ended = subprocess.run(command, preexec_fn=limit, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert "Writing" in ended.stderr
    assert "failed" in ended.stderr
    assert not (scene.folder / "full").exists()
    assert scene.leftovers() == []
