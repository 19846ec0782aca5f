"""Models that change while a command reads them: matrix, merge, score, heritage, workers."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluators.base import Candidate, Documents
from evaluators.cache import ScoreCache
from evaluators.cached import CachedEvaluator
from kinship import compare, recover
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InputsChanged
from kinship.measures.options import ComparisonOptions
from merging.merge import write_merge
from merging.recipe.schema import parse_recipe
from search.running.coordinator import Search
from search.running.workers import Setup, Work
from tests.conftest import MakeModel
from tests.search.runs import Scene, WeightEvaluator

Family = tuple[Path, list[Path]]


@pytest.fixture
def family(make_model: MakeModel) -> Family:
    base = make_model("base")
    return base, [make_model(f"m{seed}", seed, base) for seed in (1, 2)]


def rewrite(file: Path) -> None:
    before = file.stat()
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def after_reading(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Have ``change`` happen after the first piece was read."""
    read_into, once = Checkpoint.read_into, [change]

    def read(self: Checkpoint, name: str, start: int, view: memoryview) -> None:
        read_into(self, name, start, view)
        if once:
            once.pop()()

    monkeypatch.setattr(Checkpoint, "read_into", read)


def test_kinship_and_heritage_are_not_told_of_files_that_changed(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, models = family
    file = models[1] / "model.safetensors"
    after_reading(monkeypatch, lambda: rewrite(file))
    with pytest.raises(InputsChanged, match=str(file)):
        compare(models, base)
    after_reading(monkeypatch, lambda: rewrite(file))
    with pytest.raises(InputsChanged, match=str(file)):
        recover(models, base)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_merge_of_files_that_changed_is_not_written(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _, models = family
    recipe = parse_recipe({"merge_method": "linear", "models": [{"model": str(path)} for path in models],
                           "parameters": {"weight": 1.0}})  # fmt: skip
    file = models[0] / name
    change = (lambda: rewrite(file)) if name.endswith("s") else (lambda: file.write_text("{}") and None)
    after_reading(monkeypatch, change)
    with pytest.raises(InputsChanged, match=str(file)):
        write_merge(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_digest_of_a_file_that_changed_is_none(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    base, _ = family
    after_reading(monkeypatch, lambda: rewrite(base / "model.safetensors"))
    with open_checkpoint(base) as model, pytest.raises(InputsChanged):
        _ = model.digest


def test_a_score_of_weights_that_changed_is_not_remembered(scene: Scene) -> None:
    cache, file = ScoreCache(scene.folder / "scores.sqlite"), scene.base / "model.safetensors"
    evaluator = scene.evaluator(lambda id, number: rewrite(file))
    with open_checkpoint(scene.base) as model:
        tensors = lambda: ((name, model.tensor(name)) for name in model.tensors)  # noqa: E731
        candidate = Candidate("base", model.digest, tensors, model.require_unchanged)
        with pytest.raises(InputsChanged, match=str(file)):
            CachedEvaluator(evaluator, cache).score(candidate, "search")
    assert cache.entries() == []


def test_a_mapped_pickle_that_was_cut_short_is_an_error(family: Family) -> None:
    base, (model, _) = family
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    with open_checkpoint(model, allow_pickle=True) as opened:
        os.truncate(model / "pytorch_model.bin", 100)
        with pytest.raises(InputsChanged, match="has 100"):
            opened.stored("model.layers.0.mlp.up_proj.weight")
    with pytest.raises(Exception, match="pytorch_model"):
        compare([model], base, options=ComparisonOptions(allow_pickle=True))


def test_a_worker_that_finds_other_files_or_tasks_says_so(scene: Scene) -> None:
    config = scene.config()
    with Search(config, scene.folder / "run", evaluator=scene.evaluator()) as search:
        search.run()
        models, genome, span = search.models, search.genome("near"), search.span
        work = lambda tasks: Work.of("near", "", genome, span, {"fake": [0]}, models, len(models), tasks)  # noqa: E731
        handle = Setup(config, None, scene.factory())()
        assert set(handle(work({"fake": "fake/2"}))) == {"fake"}
        assert "not the one that the search was started with" in str(handle(work({"fake": "another"})))
        rewrite(scene.founders["near"] / "model.safetensors")
        late = Setup(config, None, scene.factory())()
        assert "not those that the search was started with" in str(late(work({"fake": "fake/2"})))
        assert "changed while it was in use" in str(handle(work({"fake": "fake/2"})))


def test_what_only_a_worker_sees_ends_the_run(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: WeightEvaluator, candidate: Candidate, documents: Documents) -> dict[str, dict[int, float]]:
        raise InputsChanged("Elsewhere a file changed.")

    cache = ScoreCache(scene.folder / "scores.sqlite")
    monkeypatch.setattr(WeightEvaluator, "run", gone)
    with pytest.raises(InputsChanged, match="Elsewhere"):
        scene.run("run", cache=cache)
    assert cache.entries() == []
    assert all(not record.scores and record.error is None for record in scene.records("run"))
