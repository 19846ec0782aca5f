"""Children outside the span: their kinship is what the files have, and their weights are what recipes make."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from kinship import kinship_matrix
from kinship.checkpoints.dtypes import BFLOAT16, FLOAT32
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig, NonFiniteWeights, OutputExists, OutputNotWritable, ReferenceNotFound
from kinship.measures import gram
from merging.execution.streaming import peak_memory
from merging.merge import write_merge
from merging.offspring.basis import Basis, Child, cost_of_children
from merging.offspring.span import Genome, child_seed, genome_identity, open_span
from merging.offspring.weights import materialise
from merging.output import writer
from merging.recipe.schema import parse_recipe

MakeModel = Callable[..., Path]
Tensors = dict[str, torch.Tensor]

OUTSIDE: dict[str, dict[str, Any]] = {
    "ties": {"weight": 1.0, "density": 0.5},
    "dare_ties": {"weight": 1.0, "density": 0.5},
    "dare_linear": {"weight": 0.7, "density": 0.6},
    "della": {"weight": 1.0, "density": 0.6},
    "breadcrumbs": {"weight": 0.8, "density": 0.7},
    "sce": {"select_topk": 0.5},
}


def recipe_of(method: str, parents: list[str], base: str | None = "base", **parameters: Any) -> dict[str, Any]:
    models = [{"model": parent} for parent in parents]
    return {"merge_method": method, "models": models, "base_model": base, "parameters": parameters}


def scaled(factor: float) -> dict[str, Any]:
    return {"lambda": factor}


class Litter:
    """Founders on disk, their basis, and who was bred from them, by id."""

    def __init__(self, founders: list[Path], folder: Path, **options: Any) -> None:
        self.models = [open_checkpoint(path, id=path.name) for path in founders]
        table = open_span(self.models, with_products=True).table
        assert table is not None
        self.basis = Basis.open(self.models, table, folder, **options)
        self.genomes: dict[str, Genome] = {id: self.basis.span.founder(id) for id in self.basis.span.ids}

    def breed(self, id: str, method: str, parents: list[str], base: str | None = "base", **parameters: Any) -> Child:
        content = parse_recipe(recipe_of(method, parents, base, **parameters))
        child = self.basis.merge_or_add(id, content, self.genomes, seed=child_seed(0, id))
        self.basis, self.genomes[id] = child.basis, child.genome
        return child

    def weights(self, id: str) -> Tensors:
        return dict(materialise(self.genomes[id], self.basis.span.names, self.basis.models))


def founders(make_model: MakeModel, **options: Any) -> list[Path]:
    base = make_model("base", **options)
    return [base, *(make_model(f"m{seed}", seed=seed, base=base, size=0.4, **options) for seed in (1, 2, 3))]


@pytest.fixture
def litter(make_model: MakeModel, tmp_path: Path) -> Iterator[Litter]:
    litter = Litter(founders(make_model), tmp_path / "children")
    yield litter
    litter.basis.close()


def generations(litter: Litter) -> list[str]:
    """Four generations in and out of the span; returns all ids but the base's."""
    litter.breed("arc", "slerp", ["m1", "m2"], "m1", t=[0.2, 0.8])
    litter.breed("ties", "ties", ["arc", "m3"], weight=1.0, density=0.4)
    litter.breed("mean", "linear", ["ties", "arc"], None, weight=1.0)
    litter.breed("dare", "dare_ties", ["ties", "mean"], weight=[0.3, 0.9], density=0.6)
    litter.breed("sum", "task_arithmetic", ["dare", "m2"], weight=0.6)
    litter.breed("sce", "sce", ["sum", "ties"], select_topk=0.7)
    return ["m1", "m2", "m3", "arc", "ties", "mean", "dare", "sum", "sce"]


def test_kinship_is_what_is_measured_on_written_weights(litter: Litter, tmp_path: Path) -> None:
    ids = generations(litter)
    assert litter.basis.span.ids == ("base", "m1", "m2", "m3", "ties", "dare", "sce")
    files = []
    for id in ids:
        files.append(tmp_path / f"{id}.safetensors")
        save_file(litter.weights(id), files[-1])
    for metric in ("pcc", "cosine", "euclidean"):
        predicted = litter.basis.span.kinship({id: litter.genomes[id] for id in ids}, metric)
        measured = kinship_matrix(files, tmp_path / "base", metric)
        np.testing.assert_allclose(predicted.values, measured.values, rtol=1e-5, atol=1e-5)
        assert predicted.values[np.triu_indices(len(ids), 1)].std() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_row_is_that_of_the_bytes_as_stored(make_model: MakeModel, tmp_path: Path, dtype: torch.dtype) -> None:
    """Against float64 sums over the stored files; in half precision rounding is a good part of the task vectors."""
    litter = Litter(founders(make_model, dtype=dtype), tmp_path)
    litter.breed("child", "ties", ["m1", "m2"], weight=1.0, density=0.5)
    table = litter.basis.table
    stored = [model.path if model.path.is_file() else model.path / "model.safetensors" for model in litter.basis.models]
    weights = [load_file(path) for path in stored]
    assert weights[-1]["model.norm.weight"].dtype == dtype
    for index, name in enumerate(table.names):
        base, *others = (tensors[name].double().flatten() for tensors in weights)
        rows = torch.stack([base, *(other - base for other in others)])
        norms = rows.norm(dim=1)
        error = (torch.from_numpy(table.grams[index]) - rows @ rows.T).abs() / torch.outer(norms, norms)
        assert float(error.max()) < 3e-7
        np.testing.assert_allclose(table.sums[index], rows.sum(dim=1), atol=3e-7 * float(rows.abs().sum()))


@pytest.mark.parametrize("method", OUTSIDE)
def test_a_child_of_founders_is_what_the_recipe_makes(
    make_model: MakeModel, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very bytes that `kinship merge` writes for the same seed."""
    paths = founders(make_model, dtype=torch.bfloat16)
    litter = Litter(paths, tmp_path / "children")
    content = recipe_of(method, ["m1", "m2"], **OUTSIDE[method])
    child = litter.basis.add("child", parse_recipe(content), litter.genomes, seed=7)
    monkeypatch.chdir(tmp_path)
    folder = write_merge(parse_recipe(content), tmp_path / "merged", seed=7)
    written, stored = load_file(folder / "model.safetensors"), load_file(tmp_path / "children" / "child.safetensors")
    assert written.keys() == stored.keys()
    for name, tensor in written.items():
        assert tensor.dtype == stored[name].dtype
        assert torch.equal(tensor, stored[name]), name
    assert child.digest == open_checkpoint(folder).digest == child.basis.models[-1].digest


def test_parents_are_taken_unrounded(litter: Litter, tmp_path: Path) -> None:
    """TIES of a SLERP child and a founder, against the same recipe nested, which knows nothing of a basis."""
    arc = recipe_of("slerp", ["m1", "m2"], "m1", t=0.3)
    litter.breed("arc", "slerp", ["m1", "m2"], "m1", t=0.3)
    litter.breed("ties", "ties", ["arc", "m3"], weight=1.0, density=0.5)
    nested = recipe_of("ties", ["m3"], weight=1.0, density=0.5)
    nested["models"].insert(0, {"model": arc})
    text = yaml.safe_dump(nested).replace("model: m", f"model: {tmp_path}/m").replace(": base", f": {tmp_path}/base")
    text = text.replace("base_model: m1", f"base_model: {tmp_path}/m1")
    folder = write_merge(parse_recipe(yaml.safe_load(text)), tmp_path / "nested")
    for name, tensor in load_file(folder / "model.safetensors").items():
        # Where coefficients differ in their last bits, single elements may fall on the other side of a threshold.
        apart = (tensor - litter.weights("ties")[name]).abs() > 1e-6
        assert int(apart.sum()) <= 1, name


def test_grandchildren_descend_from_the_stored_weights(litter: Litter) -> None:
    """A mean of a stored child and a founder, from coefficients alone, against float64."""
    stored = litter.breed("ties", "ties", ["m1", "m2"], weight=1.0, density=0.5)
    mean = litter.breed("mean", "linear", ["ties", "m3"], None, weight=1.0)
    assert stored.digest is not None
    assert mean.digest is None
    assert mean.basis is stored.basis
    one, other = litter.weights("ties"), litter.weights("m3")
    for name, tensor in litter.weights("mean").items():
        torch.testing.assert_close(tensor.double(), (one[name].double() + other[name]) / 2, rtol=0, atol=1e-6)


def test_genomes_from_before_mean_the_same(litter: Litter) -> None:
    before = litter.breed("early", "linear", ["m1", "m2"], None, weight=1.0).genome
    digests = {model.id: model.digest for model in litter.basis.models}
    identity = genome_identity(before, litter.basis.span, digests)
    weights = litter.weights("early")
    child = litter.breed("ties", "ties", ["m1", "m2"], weight=1.0, density=0.5)
    assert child.digest is not None
    wider = before.padded(5)
    assert wider.coefficients.shape == (len(litter.basis.span.names), 5)
    again = Genome.from_bytes(before.to_bytes(), len(litter.basis.span.names))
    assert genome_identity(again, litter.basis.span, digests) == identity
    assert genome_identity(wider, litter.basis.span, digests | {"ties": child.digest}) == identity
    assert all(torch.equal(litter.weights("early")[name], tensor) for name, tensor in weights.items())
    assert litter.basis.span.recipe_of(before) == litter.basis.span.recipe_of(wider)
    with pytest.raises(ValueError, match="negative"):
        wider.padded(4)


def test_near_twins_keep_the_digits_of_their_distance(make_model: MakeModel, tmp_path: Path) -> None:
    """From inner products alone a distance of 1e-4 of the task vectors would have no digit left."""
    litter = Litter(founders(make_model), tmp_path)
    litter.breed("one", "ties", ["m1", "m2"], weight=1.0, density=0.5)
    litter.breed("twin", "ties", ["m1", "m2"], weight=1.0, density=0.5)
    litter.breed("close", "ties", ["m1", "m2"], weight=1.0, density=0.5, **scaled(1.0001))
    distances = litter.basis.span.kinship({id: litter.genomes[id] for id in ("one", "twin", "close")}, "euclidean")
    assert distances["one", "twin"] == 0.0
    one, close = litter.weights("one"), litter.weights("close")
    want = sum(float((one[name].double() - close[name].double()).square().sum()) for name in one) ** 0.5
    assert distances["one", "close"] == pytest.approx(want, rel=1e-5)


def test_a_child_that_is_the_base_again_has_no_direction(litter: Litter) -> None:
    litter.breed("same", "ties", ["m1", "m2"], weight=1.0, density=0.5, **scaled(0.0))
    kinship = litter.basis.span.kinship({id: litter.genomes[id] for id in ("same", "m1")})
    assert kinship.without_direction() == ("same",)


def test_random_children_follow_run_and_id(litter: Litter, tmp_path: Path) -> None:
    recipe = parse_recipe(recipe_of("dare_ties", ["m1", "m2"], weight=1.0, density=0.5))
    found = []
    for seed, id in [(0, "1-1"), (0, "1-1"), (0, "1-2"), (1, "1-1")]:
        child = litter.basis.add(id, recipe, litter.genomes, seed=child_seed(seed, id), force=True)
        found.append(child.digest)
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_threads_do_not_show(make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {"layers.0.w": (1500, 1400), "layers.1.w": (1500, 1400), "norm": (7,), "none": (0, 3)}
    paths = founders(make_model, dtype=torch.bfloat16, shapes=shapes)
    found = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("KINSHIP_THREADS", threads)
        litter = Litter(paths, tmp_path / threads)
        litter.breed("ties", "ties", ["m1", "m2"], weight=1.0, density=0.5)
        litter.breed("dare", "dare_linear", ["ties", "m3"], weight=1.0, density=0.5)
        table = litter.basis.table
        files = [(tmp_path / threads / f"{id}.safetensors").read_bytes() for id in ("ties", "dare")]
        found.append((*files, table.grams.tobytes(), table.sums.tobytes()))
    assert found[0] == found[1] == found[2]


def test_an_opened_basis_goes_on_as_if_it_had_never_been_closed(litter: Litter) -> None:
    litter.breed("ties", "ties", ["m1", "m2"], weight=1.0, density=0.5)
    again = Basis.open(litter.models, litter.basis.table, litter.basis.folder)
    recipe = parse_recipe(recipe_of("sce", ["ties", "m3"]))
    one = litter.basis.add("sce", recipe, litter.genomes)
    other = again.add("sce", recipe, litter.genomes, force=True)
    assert one.digest == other.digest
    np.testing.assert_array_equal(one.basis.table.grams, other.basis.table.grams)


def test_a_lost_child_is_named(litter: Litter) -> None:
    litter.breed("ties", "ties", ["m1", "m2"], weight=1.0, density=0.5)
    (litter.basis.folder / "ties.safetensors").unlink()
    litter.basis = Basis.open(litter.models, litter.basis.table, litter.basis.folder)
    with pytest.raises(ReferenceNotFound, match=r"ties.*ties\.safetensors"):
        litter.weights("ties")


def test_nothing_is_overwritten_unasked(litter: Litter) -> None:
    litter.basis.folder.mkdir()
    (litter.basis.folder / "ties.safetensors").write_text("mine")
    with pytest.raises(OutputExists):
        litter.breed("ties", "ties", ["m1", "m2"], weight=1.0, density=0.5)
    assert (litter.basis.folder / "ties.safetensors").read_text() == "mine"


def test_a_disk_without_room_is_told_beforehand(litter: Litter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "free_space", lambda output: 1000)
    with pytest.raises(OutputNotWritable, match="1000 bytes free"):
        litter.breed("ties", "ties", ["m1", "m2"], weight=1.0, density=0.5)
    assert not litter.basis.folder.exists()


def test_weights_too_large_for_kinship_are_refused_and_leave_nothing(litter: Litter) -> None:
    with pytest.raises(NonFiniteWeights, match=r"squared norm of tensor 'model\.embed_tokens\.weight'"):
        litter.breed("huge", "ties", ["m1", "m2"], weight=1.0, density=0.5, **scaled(1e25))
    assert list(litter.basis.folder.iterdir()) == []


def test_ids_are_unique(litter: Litter) -> None:
    with pytest.raises(ValueError, match="'m1' already"):
        litter.breed("m1", "ties", ["m1", "m2"], weight=1.0, density=0.5)


def test_missing_parameters_are_told_before_anything_is_written(litter: Litter) -> None:
    with pytest.raises(InvalidConfig, match="weight"):
        litter.breed("ties", "ties", ["m1", "m2"], density=0.5)
    assert not litter.basis.folder.exists()


@pytest.mark.parametrize(("dtype", "name"), [(FLOAT32, "float32"), (BFLOAT16, "bfloat16")])
def test_the_dtype_of_children_may_be_chosen(make_model: MakeModel, tmp_path: Path, dtype: Any, name: str) -> None:
    litter = Litter(founders(make_model, dtype=torch.bfloat16), tmp_path / "children", dtype=dtype)
    litter.breed("one", "ties", ["m1", "m2"], weight=1.0, density=0.5)
    child = litter.breed("two", "ties", ["one", "m3"], weight=1.0, density=0.5)
    assert {entry.dtype.name for entry in child.basis.models[-1].tensors.values()} == {name}
    files = [tmp_path / "children" / f"{id}.safetensors" for id in ("one", "two")]
    predicted = litter.basis.span.kinship({id: litter.genomes[id] for id in ("one", "two")})
    measured = kinship_matrix(files, tmp_path / "base")
    np.testing.assert_allclose(predicted.values, measured.values, atol=1e-6)


def test_integer_buffers_are_kept_and_do_not_count(make_model: MakeModel, tmp_path: Path) -> None:
    paths = founders(make_model)
    for path in paths:
        save_file(load_file(path / "model.safetensors") | {"ids": torch.arange(50)}, path / "model.safetensors")
    litter = Litter(paths, tmp_path / "children")
    litter.breed("ties", "ties", ["m1", "m2"], weight=1.0, density=0.5)
    assert torch.equal(litter.weights("ties")["ids"], torch.arange(50))
    index = litter.basis.span.names.index("ids")
    assert not litter.basis.table.grams[index].any()


def test_cost_counts_what_is_stored_and_read(litter: Litter) -> None:
    recipe = parse_recipe(recipe_of("ties", ["m1", "m2"], weight=1.0, density=0.5))
    one, three = (cost_of_children(litter.basis, recipe, children) for children in (1, 3))
    assert not litter.basis.folder.exists()
    litter.breed("ties", "ties", ["m1", "m2"], weight=1.0, density=0.5)
    size = (litter.basis.folder / "ties.safetensors").stat().st_size
    assert one.bytes_stored == size
    weights = sum(entry.nbytes for entry in litter.models[0].tensors.values())
    assert one.bytes_read == (3 + 4) * weights  # base and parents for the merge, all four members for their kinship
    assert three.bytes_stored == 3 * size
    assert three.bytes_read == 3 * one.bytes_read + (1 + 2) * size
    assert one.peak_memory == peak_memory(litter.basis.plan(recipe, litter.genomes)) + gram.peak_memory(4)
    assert one.seconds > 0
    within = parse_recipe(recipe_of("linear", ["m1", "m2"], None, weight=1.0))
    assert cost_of_children(litter.basis, within, 5).bytes_stored == 0


# Killed


PROGRAM = """
import os, signal, sys
from pathlib import Path
from tests.merging.offspring.test_basis import Litter
folder, share = Path(sys.argv[1]), float(sys.argv[2])
litter = Litter([folder / name for name in ("base", "m1", "m2", "m3")], folder / "children")

def progress(done, total):
    if done >= share * total:
        os.kill(os.getpid(), signal.SIGKILL)

from merging.recipe.schema import parse_recipe
from tests.merging.offspring.test_basis import recipe_of
recipe = parse_recipe(recipe_of("ties", ["m1", "m2"], weight=1.0, density=0.5))
litter.basis.add("1-1", recipe, litter.genomes, progress=progress)
"""


@pytest.mark.parametrize(
    "share", [pytest.param(0.0, marks=pytest.mark.soak), 0.5, pytest.param(1.0, marks=pytest.mark.soak)]
)
def test_killed_in_the_middle_leaves_nothing_under_the_final_name(litter: Litter, tmp_path: Path, share: float) -> None:
    process = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path), str(share)], env=os.environ, check=False)
    assert process.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "children").iterdir()
    assert left.name.endswith(".partial")
    with ExitStack() as stack:
        child = litter.breed("1-1", "ties", ["m1", "m2"], weight=1.0, density=0.5)
        stack.callback(child.basis.close)
    assert [item.name for item in (tmp_path / "children").iterdir()] == ["1-1.safetensors"]
    assert child.digest == open_checkpoint(tmp_path / "children" / "1-1.safetensors").digest
