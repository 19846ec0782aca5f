"""Data that the tests make themselves, and where the shared golden data lies, if it does."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from filelock import FileLock
from safetensors.torch import save_file

if TYPE_CHECKING:
    from service.demo.family import Family
    from tests.search.postgres import Server

# A shell's background jobs begin with Ctrl-C ignored, and so would the programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["KINSHIP_CACHE"] = "off"  # but where a test is about it

MakeModel = Callable[..., Path]


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait for programs that they have started."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests that must follow one another begin first, so that no worker is left alone with them at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


SHAPES = {
    "model.embed_tokens.weight": (11, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.mlp.up_proj.weight": (80, 70),
    "model.layers.1.self_attn.q_proj.weight": (8, 8),
    "model.layers.1.mlp.up_proj.weight": (80, 70),
    "model.norm.weight": (8,),
}


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Write a folder of random weights: a base, or (given ``base``) the base plus a small random task vector."""

    def make(
        name: str,
        seed: int = 0,
        base: Path | None = None,
        dtype: torch.dtype = torch.float32,
        shapes: dict[str, tuple[int, ...]] | None = None,
        size: float = 0.02,
    ) -> Path:
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for key, shape in (shapes or SHAPES).items():
            noise = torch.randn(shape, generator=generator)
            tensors[key] = noise if base is None else _load(base)[key].float() + size * noise
        folder = tmp_path / name
        folder.mkdir()
        save_file({key: tensor.to(dtype) for key, tensor in tensors.items()}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "dtype": "float32"}))
        return folder

    return make


def _load(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Family"]:
    """The small trained family, to be read only: trained once per run of the tests, for all workers of xdist."""
    from service.demo.family import TINY, make_family

    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # which the workers have in common
    with FileLock(place / "family.lock"):
        family = make_family(place / "family", TINY)
    made = _state(family.folder)
    yield family
    assert _state(family.folder) == made, "a test has written into the family that all share"


def _state(folder: Path) -> dict[Path, tuple[int, int]]:
    return {
        file: (file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.rglob("*")) if file.is_file()
    }


@pytest.fixture(scope="session")
def postgres() -> Iterator["Server"]:
    """A server for the tests that need one: they are in the xdist group "postgres", so that one does for all."""
    from tests.search.postgres import serving

    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden data; skips where it is not at hand."""
    place = Path(os.environ.get("MODEL_KINSHIP_SHARED", Path(__file__).parents[2] / "shared"))
    if not place.is_dir():
        pytest.skip(f"no shared data at {place}; set MODEL_KINSHIP_SHARED to run this")
    return place
