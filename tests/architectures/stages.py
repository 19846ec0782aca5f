"""What every architecture goes through: each stage returns, or raises what is wrong."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from evaluators.base import Candidate
from evaluators.make import make_evaluator
from evaluators.settings import EvaluateSettings
from kinship import kinship_matrix
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import KinshipError
from kinship.heritage.recovery import recover
from merging.output.verify import verify_folder
from search.config import parse_config
from service.answers.checks import check_run
from service.answers.dry_run import plan_search
from service.answers.score import score_models
from service.pages.run_folder import run_evolution
from tests.architectures.family import MODELS, Family

Stage = Callable[[Family], None]
YES = "yes"
EVALUATE = {"perplexity": [{"file": "text.txt", "documents": "lines"}], "text_only": True}


def outcome(stage: Stage, family: Family) -> str:
    """``yes`` where all is right, or the sentence of a refusal, which has to come before weights are read."""
    refusal = None
    with _reads_of_weights() as reads:
        try:
            stage(family)
        except KinshipError as error:
            refusal = error
    if refusal is None:
        return YES
    assert not reads, f"refused after reading weights: {refusal}"
    assert refusal.hint, refusal
    return re.sub(rf"^({family.folder}/)?\w+ is", "It is", refusal.message)


def matrix(family: Family) -> None:
    """Kinship is that of the task vectors of what transformers loads, in float64."""
    loaded = {name: [t.double() for t in family.loaded[name].values() if t.is_floating_point()] for name in MODELS}
    vectors = [
        torch.cat([(mine - base).flatten() for mine, base in zip(loaded[name], loaded["base"], strict=True)]).numpy()
        for name in "ab"
    ]
    one, other = vectors
    wanted = {
        "pcc": np.corrcoef(one, other)[0, 1],
        "cosine": one @ other / np.linalg.norm(one) / np.linalg.norm(other),
        "euclidean": np.linalg.norm(one - other),
    }
    models = [str(family.path(name)) for name in "ab"]
    for metric, value in wanted.items():
        found = kinship_matrix(models, str(family.path("base")), metric).values[0, 1]
        assert found == pytest.approx(value, rel=1e-5, abs=1e-7), metric


def merge(family: Family) -> None:
    """A merge is written."""
    assert family.merged.is_dir()


def reload(family: Family) -> None:
    """Transformers loads the merge, and it is what it should be."""
    family.require_mean(family.merged)


def verify(family: Family) -> None:
    """The merge and what it was made of are called sound, by what transformers says of the architecture."""
    for folder in (*map(family.path, MODELS), family.merged):
        checks = verify_folder(folder)
        assert [check for check in checks if check.ok is False] == [], folder.name
        assert any(check.name == "parameters" and check.ok for check in checks)


def tree(family: Family) -> None:
    """Both are told to be fine-tunes of the base, named where no rows of tokens left alone tell it."""
    base = None if family.has_tokens else family.path("base")
    found = recover([family.path(name) for name in ("a", "base", "b")], base)
    edges = {(Path(edge.parent).name, Path(edge.child).name) for edge in found.edges}
    assert edges == {("base", "a"), ("base", "b")}, (found.edges, found.latent)


def score(family: Family) -> None:
    """The merge's score is that of the model that `from_pretrained` makes of its folder, by the same evaluator."""
    settings = EvaluateSettings.model_validate(EVALUATE)
    (found,) = score_models([str(family.merged)], settings, family.folder).models
    with open_checkpoint(family.merged) as model:
        evaluator: Any = make_evaluator(settings, model, family.folder)
        evaluator._lm._model = family.kind.from_pretrained(family.merged, dtype=torch.float32).eval()
        evaluator._live.hold = lambda candidate: None
        for split, scores in found.splits.items():
            documents = {task.name: task.documents[split] for task in evaluator.tasks}
            values = evaluator.run(Candidate("loaded", "", lambda: iter(())), documents)["text"].values()
            assert scores.tasks["text"].value == pytest.approx(np.mean(list(values)), abs=1e-6)


def evolve(family: Family) -> None:
    """One generation: founders score as alone, the run is sound, its best offspring is what it should be."""
    config = parse_config(
        {
            "base": "base",
            "founders": ["a", "b"],
            "merge": {"method": "linear"},
            "evaluate": EVALUATE,
            "strategy": {"name": "pairs"},
            "stop": {"generations": 1},
        }
    )
    run = family.path("run")
    if not family.row.text:
        with pytest.raises(KinshipError):  # a dry run refuses, too
            plan_search(config, family.folder, run)
    view = run_evolution(config, run, root=family.folder, cache=None, observer=lambda name, facts: None)
    people = {person["id"]: person for person in view.export["individuals"]}
    assert all(person["error"] is None for person in people.values())
    alone = score_models([str(family.path("a"))], EvaluateSettings.model_validate(EVALUATE), family.folder)
    assert people["a"]["scores"]["search"]["value"] == pytest.approx(alone.models[0].splits["search"].value, abs=1e-6)
    assert check_run(str(run)).ok
    assert [check for check in verify_folder(run / "best-offspring") if check.ok is False] == []
    family.require_mean(run / "best-offspring")


WEIGHTS: dict[str, Stage] = {"matrix": matrix, "merge": merge, "reload": reload, "verify": verify, "tree": tree}
TEXTS: dict[str, Stage] = {"score": score, "evolve": evolve}
STAGES = WEIGHTS | TEXTS


@contextmanager
def _reads_of_weights() -> Iterator[list[int]]:
    """Yield the positions of files that weights were read from within the block."""
    reads: list[int] = []
    read = os.preadv

    def counted(descriptor: int, buffers: Any, position: int, *flags: int) -> int:
        reads.append(position)
        return read(descriptor, buffers, position, *flags)

    with patch.object(os, "preadv", counted):
        yield reads
