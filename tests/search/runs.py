"""Runs of the search without a language model: founders of random weights, scores that are a function of weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from evaluators.base import Candidate, Task
from evaluators.cache import ScoreCache
from kinship.errors import EvaluationFailed
from search.config import RunConfig, parse_config
from search.history.export import export_run, to_json
from search.ledger.checksums import note_all
from search.ledger.ledger import Ledger
from search.ledger.location import LEDGER_NAME
from search.ledger.records import Record
from search.running.coordinator import Search
from tests.conftest import MakeModel

Before = Callable[[str, int], None]

SEARCH, HELD_OUT = range(8), range(8, 13)

LINEAR = {"method": "linear", "parameters": {"scale": 1.2}}
SLERP = {"method": "slerp", "parameters": {"t": [{"filter": "mlp", "value": [0.2, 0.4]}, {"value": 0.3}]}}
VARIANTS = ["vanilla", "kinship", "random"]


class Interrupted(BaseException):
    """Stands for whatever ends a process."""


@dataclass
class WeightEvaluator:
    """The nearer to ``optimum`` the weights are, seen along one random direction a document, the higher the score.

    Averages of models are better than their parents on average (the score is concave), so that a search goes on for
    some generations; with ``sign`` -1 they are worse. ``contrary`` turns the held-out scores round. ``before`` is
    called with (id, number of the call) and may raise.
    """

    optimum: torch.Tensor
    before: Before = lambda id, number: None
    contrary: bool = False
    sign: float = 1.0
    calls: list[tuple[str, list[int]]] = field(default_factory=list)
    tasks: Sequence[Task] = (Task("fake", "closeness", "fake/1", {"search": SEARCH, "held_out": HELD_OUT}),)
    conditions: Mapping[str, str] = field(default_factory=lambda: {"device": "cpu"})

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(12)
        last = max(document for task in self.tasks for ids in task.documents.values() for document in ids)
        self.directions = torch.randn(last + 1, len(self.optimum), generator=generator, dtype=torch.float64)

    def run(self, candidate: Candidate, documents: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        self.before(candidate.id, len(self.calls))
        self.calls.append((candidate.id, list(documents["fake"])))
        offset = torch.cat([tensor.flatten().double() for _, tensor in candidate.tensors()]) - self.optimum
        results = {}
        for document in documents["fake"]:
            sign = -self.sign if self.contrary and document in self.tasks[0].documents["held_out"] else self.sign
            results[document] = -sign * float(self.directions[document] @ offset) ** 2
        return {"fake": results}


MANY: Sequence[Task] = (Task("fake", "closeness", "fake/2", {"search": range(60), "held_out": range(60, 80)}),)


@dataclass(frozen=True)
class EvaluatorFactory:
    """Makes a `WeightEvaluator` with many documents wherever it is called; it can be pickled."""

    optimum: tuple[float, ...]
    fail: str = ""

    def __call__(self) -> WeightEvaluator:
        before = failing(self.fail) if self.fail else lambda id, number: None
        return WeightEvaluator(torch.tensor(self.optimum, dtype=torch.float64), before, tasks=MANY)


@dataclass(frozen=True)
class Scene:
    """A base and founders on disk; `config` and `search` make runs of them below ``folder``."""

    folder: Path
    base: Path
    founders: dict[str, Path]

    def config(self, **changes: Any) -> RunConfig:
        """A run of three generations; ``changes`` by section, as in a run file."""
        content = {
            "base": str(self.base),
            "founders": {name: str(path) for name, path in self.founders.items()},
            "evaluate": {"tasks": ["fake"]},
            "stop": {"generations": 3},
        }
        changed = content | changes
        return parse_config(changed | {"strategy": {"name": "topk", **changed.get("strategy", {})}})

    def optimum(self) -> torch.Tensor:
        """The mean of the founders, so that the best models are merges."""
        return torch.stack([flat(path) for path in self.founders.values()]).mean(dim=0)

    def evaluator(self, before: Before = lambda id, number: None, **options: Any) -> WeightEvaluator:
        return WeightEvaluator(self.optimum(), before, **options)

    def factory(self, fail: str = "") -> EvaluatorFactory:
        return EvaluatorFactory(tuple(self.optimum().tolist()), fail)

    def run(
        self,
        name: str,
        config: RunConfig | None = None,
        evaluator: WeightEvaluator | None = None,
        cache: ScoreCache | None = None,
        observer: Callable[[str, Mapping[str, Any]], None] = lambda name, facts: None,
    ) -> str:
        """Run, or resume, the search in the folder ``name``; returns why it stopped."""
        with Search(
            config or self.config(),
            self.folder / name,
            evaluator=evaluator or self.evaluator(),
            cache=cache,
            observer=observer,
        ) as search:
            return search.run()

    def export(self, name: str) -> dict[str, Any]:
        ledger = Ledger(self.folder / name / LEDGER_NAME)
        try:
            return export_run(ledger)
        finally:
            ledger.close()

    def text(self, name: str) -> str:
        return to_json(self.export(name))

    def records(self, name: str) -> list[Record]:
        ledger = Ledger(self.folder / name / LEDGER_NAME)
        try:
            return ledger.records()
        finally:
            ledger.close()


SHAPES = {
    "model.embed_tokens.weight": (7, 4),
    "model.layers.0.self_attn.q_proj.weight": (4, 4),
    "model.layers.0.mlp.up_proj.weight": (9, 4),
    "model.layers.1.self_attn.q_proj.weight": (4, 4),
    "model.layers.1.mlp.up_proj.weight": (9, 4),
    "model.norm.weight": (4,),
}


def make_scene(make_model: MakeModel, folder: Path) -> Scene:
    """Three founders: "far" and "near" from the base, "kin" from "near"."""
    base = make_model("the-base", seed=0, shapes=SHAPES)
    near = make_model("near", seed=1, base=base, shapes=SHAPES, size=0.2)
    kin = make_model("kin", seed=2, base=near, shapes=SHAPES, size=0.1)
    far = make_model("far", seed=3, base=base, shapes=SHAPES, size=0.2)
    return Scene(folder, base, {"near": near, "kin": kin, "far": far})


@cache
def _small_ledger() -> bytes:
    with TemporaryDirectory() as made:
        folder = Path(made)
        random = torch.Generator().manual_seed(5)
        shapes = [(6, 4), (4, 4), (4,)]
        base = {f"layers.{i}.weight": torch.randn(shape, generator=random) for i, shape in enumerate(shapes)}
        for name in ("the-base", "near", "kin", "far"):
            size = 0.0 if name == "the-base" else 0.2
            (folder / name).mkdir()
            tensors = {key: part + size * torch.randn(part.shape, generator=random) for key, part in base.items()}
            save_file(tensors, folder / name / "model.safetensors")
            (folder / name / "config.json").write_text('{"model_type": "llama", "dtype": "float32"}')
        scene = Scene(folder, folder / "the-base", {name: folder / name for name in ("near", "kin", "far")})
        ties = {"method": "ties", "parameters": {"density": 0.9, "weight": 0.5}}
        scene.run("run", scene.config(merge=ties, stop={"generations": 2}), scene.evaluator(failing("1-2")))
        return (folder / "run" / LEDGER_NAME).read_bytes()


def put_small_run(folder: Path) -> Path:
    """The ledger, in ``folder``, of a finished run: three founders, two generations outside the span, a failure."""
    path = folder / LEDGER_NAME
    path.write_bytes(_small_ledger())
    return path


def rewrite(path: Path, statement: str, *values: object) -> None:
    """Change a ledger as if that had been written: its checksums follow."""
    with Ledger(path, damaged=True) as ledger, ledger.engine.begin() as connection:
        assert connection.exec_driver_sql(statement, values).rowcount > 0
        note_all(connection)


def flat(folder: Path) -> torch.Tensor:
    """All weights of a folder end to end, tensors by name."""
    tensors = load_file(folder / "model.safetensors")
    return torch.cat([tensors[name].flatten().double() for name in sorted(tensors)])


def failing(*ids: str) -> Before:
    """For `WeightEvaluator.before`: these candidates cannot be scored."""

    def before(id: str, number: int) -> None:
        if id in ids:
            raise EvaluationFailed(f"{id} gives NaN.")

    return before


def interrupting(at: int) -> Before:
    """For `WeightEvaluator.before`: the process ends in evaluation number ``at``, counted from 0."""

    def before(id: str, number: int) -> None:
        if number == at:
            raise Interrupted

    return before


def descents(records: list[Record]) -> list[tuple[str, tuple[str, ...], str]]:
    """Id, parents and role of each."""
    return [(record.id, record.parents, record.role) for record in records]
