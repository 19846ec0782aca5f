"""Any family of models: kinship agrees with float64, or fails by naming what is wrong with whom."""

import json
import tempfile
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from kinship import KinshipMatrix, kinship_matrix
from kinship.errors import MismatchedModels, NonFiniteWeights

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BAD = (float("nan"), float("inf"), float("-inf"))
Tensors = dict[str, torch.Tensor]

shapes = st.lists(st.integers(1, 70), min_size=1, max_size=3).map(tuple)


@dataclass(frozen=True)
class Model:
    """How one model differs: its storage, what it lacks, where it equals the base."""

    dtype: torch.dtype
    shards: int
    lacks: frozenset[int]
    equal: frozenset[int]
    size: float


@dataclass(frozen=True)
class Family:
    """The first of ``models`` is the base. ``bad``: (model, tensor, value) of one weight that is no number."""

    shapes: list[tuple[int, ...]]
    models: list[Model]
    seed: int
    bad: tuple[int, int, float] | None

    def tensors(self) -> list[Tensors]:
        """What each model stores."""
        generator = torch.Generator().manual_seed(self.seed)
        origin = [torch.randn(shape, generator=generator) for shape in self.shapes]
        base_dtype = self.models[0].dtype
        family: list[Tensors] = []
        for number, model in enumerate(self.models):
            stored = {}
            for index, weights in enumerate(origin):
                noise = model.size * torch.randn(weights.shape, generator=generator)
                start = weights.to(base_dtype).float()
                changed = start if number == 0 or index in model.equal else start + noise
                if index not in model.lacks:
                    stored[f"layer.{index}.weight"] = changed.to(model.dtype)
            family.append(stored)
        if self.bad is not None:
            number, index, value = self.bad
            tensor = family[number].get(f"layer.{index}.weight")
            if tensor is not None:
                tensor.view(-1)[self.seed % tensor.numel()] = value
        return family


@st.composite
def families(draw: st.DrawFn) -> Family:
    sizes = draw(st.lists(shapes, min_size=1, max_size=5))
    places = st.integers(0, len(sizes) - 1)
    some = st.frozensets(places, max_size=2)
    model = st.builds(
        Model, st.sampled_from(DTYPES), st.integers(1, 3), some, some, st.sampled_from((0.01, 0.1, 1.0, 30.0))
    )
    models = draw(st.lists(model, min_size=3, max_size=5))
    bad = st.tuples(st.integers(0, len(models) - 1), places, st.sampled_from(BAD))
    return Family(sizes, models, draw(st.integers(0, 2**32)), draw(st.none() | st.none() | bad))


def write(folder: Path, tensors: Tensors, shards: int) -> Path:
    """A folder of ``shards`` files; of one file the file itself, if there is anything to put in it."""
    folder.mkdir()
    files = {f"part-{shard}.safetensors": sorted(tensors)[shard::shards] for shard in range(shards)}
    for file, names in files.items():
        save_file({name: tensors[name].contiguous() for name in names}, folder / file)
    weight_map = {name: file for file, names in files.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": weight_map or {"": "part-0.safetensors"}})
    )
    return folder if shards > 1 or not tensors else folder / "part-0.safetensors"


def check(found: KinshipMatrix, vectors: np.ndarray) -> None:
    """Values agree with those of the task vectors (n, elements) to 1e-6.

    Where centring cancels most of a vector, fp32 products determine its correlation to that many digits fewer.
    """
    norms = np.linalg.norm(vectors, axis=1)
    spread = np.linalg.norm(vectors - vectors.mean(axis=1, keepdims=True), axis=1)
    rows = vectors if found.metric == "cosine" else vectors - vectors.mean(axis=1, keepdims=True)
    lengths = norms if found.metric == "cosine" else spread
    for i, j in [*combinations(range(len(vectors)), 2), *((i, i) for i in range(len(vectors)))]:
        value = found.values[i, j]
        assert found.values[j, i] == value or np.isnan(value)
        if found.metric == "euclidean":
            wanted = np.linalg.norm(vectors[i] - vectors[j])
            assert value == pytest.approx(wanted, rel=1e-6, abs=0.0 if wanted else 1e-6 * norms.max())
            continue
        shares = [lengths[k] ** 2 / norms[k] ** 2 if norms[k] else 0.0 for k in (i, j)]
        if min(shares) < 1e-4:  # constant, or nearly: no number, or one without digits
            assert np.isnan(value) or min(shares) > 1e-6
            continue
        wanted = rows[i] @ rows[j] / lengths[i] / lengths[j]
        assert value == pytest.approx(wanted, abs=1e-6 / min(shares))


@settings(deadline=None, max_examples=60)
@given(families())
def test_kinship_of_any_family(family: Family) -> None:
    stored = family.tensors()
    common = sorted(set.intersection(*(set(tensors) for tensors in stored)))
    with tempfile.TemporaryDirectory() as place:
        paths = [
            write(Path(place) / f"m{number}", tensors, model.shards)
            for number, (model, tensors) in enumerate(zip(family.models, stored, strict=True))
        ]
        base, *models = paths
        for metric in ("pcc", "cosine", "euclidean"):
            if not common:
                with pytest.raises(MismatchedModels, match="no tensor in common"):
                    kinship_matrix(models, base, metric)
                continue
            broken = [
                (name, path)
                for name in common
                for path, tensors in zip(paths, stored, strict=True)
                if not tensors[name].isfinite().all()
            ]
            if broken:
                (name, path), *_ = broken
                with pytest.raises(NonFiniteWeights) as refusal:
                    kinship_matrix(models, base, metric)
                assert f"{name!r} of {path} " in refusal.value.message
                continue
            found = kinship_matrix(models, base, metric)
            assert found.tensors == len(common)
            assert set(found.left_out) == {name for tensors in stored for name in tensors} - set(common)
            origin = np.concatenate([stored[0][name].double().numpy().ravel() for name in common])
            flat = [
                np.concatenate([tensors[name].double().numpy().ravel() for name in common]) for tensors in stored[1:]
            ]
            check(found, np.stack(flat) - origin)
