"""Processes that merge: equal bytes whatever the threads and hash seeds, and nothing by halves when they are killed."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from merging.output.verify import verify_folder

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

    def start(
        self, method: str, out: str, limit: Callable[[], None] | None = None, **environment: str
    ) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "service.cli", "merge", str(self.folder / f"{method}.yml"), str(self.folder / out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
            preexec_fn=limit,
        )

    def finish(self, process: "subprocess.Popen[str]", out: str) -> Path:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        return self.folder / out

    def leftovers(self) -> list[str]:
        return [item.name for item in self.folder.iterdir() if item.name.startswith(".")]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("merges"))


@pytest.mark.parametrize("method", METHODS)
def test_equal_bytes_from_any_process(scene: Scene, method: str) -> None:
    folders = []
    for threads, seed in [("1", "1"), ("2", "7"), ("5", "0")]:
        name = f"{method}-{threads}"
        process = scene.start(method, name, KINSHIP_THREADS=threads, PYTHONHASHSEED=seed)
        folders.append(scene.finish(process, name))
    first, *others = folders
    for other in others:
        for file in ("model.safetensors", "lineage.json"):
            assert (other / file).read_bytes() == (first / file).read_bytes()


def killed(scene: Scene, name: str, share: float, duration: float) -> None:
    """Killed after its ``share`` of the time a merge takes: no folder, or a whole one; and the next merge cleans up."""
    process = scene.start("task_arithmetic", name)
    time.sleep(share * duration)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    out = scene.folder / name
    print(f"killed at {100 * share:.0f} %: {'complete' if out.exists() else 'absent'}, left {scene.leftovers()}")
    if not out.exists():
        scene.finish(scene.start("task_arithmetic", name), name)
    checks = {check.name: check.ok for check in verify_folder(out)}
    assert checks["checksums"] is True
    assert checks["headers"] is True
    assert scene.leftovers() == []


@pytest.fixture(scope="module")
def duration(scene: Scene) -> float:
    started = time.monotonic()
    scene.finish(scene.start("task_arithmetic", "calm"), "calm")
    return time.monotonic() - started


@pytest.mark.parametrize("index", range(3))
def test_killed_while_it_works(scene: Scene, duration: float, index: int) -> None:
    killed(scene, f"killed-{index}", 0.6 + 0.4 * (index + random.random()) / 3, duration)


@pytest.mark.soak
@pytest.mark.parametrize("index", range(50))
def test_killed_at_many_moments(scene: Scene, duration: float, index: int) -> None:
    killed(scene, f"soak-{index}", (index + random.random()) / 50, duration)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_a_disk_that_fills_up(scene: Scene, method: str) -> None:
    """A limit on the size of files stops a write as a full disk does."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))

    process = scene.start(method, "full", limit)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "Writing" in errors
    assert "failed" in errors
    assert not (scene.folder / "full").exists()
    assert scene.leftovers() == []
