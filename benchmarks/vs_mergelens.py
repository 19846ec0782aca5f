"""Four 127M models: this program against mergelens, whole processes by turns in one run; and what its signals say.

Prepare an environment for it, apart from ours, and name its interpreter:

    python3 -m venv FOLDER
    FOLDER/bin/pip install mergelens==2.0.3 torch==2.13.0
    python benchmarks/vs_mergelens.py --python FOLDER/bin/python

Models are made here by a seed, in fp32. Four cases: Euclidean distances of all tensors, six pairs; cosines of all task
vectors, six pairs (mergelens: `diagnose` of a recipe a pair); one pair, its cheapest signal; one pair, all its default
signals (one round), which have no like here and stand beside our matrix by tensor. Prints medians of wall, CPU and peak
memory, their ratios, and how far both are from float64.

    python benchmarks/vs_mergelens.py --python FOLDER/bin/python --signals [DEMO]

prints instead its signals for pairs whose relation is known and, given the folder of a finished `kinship demo`, their
rank correlations with the merge gain of the fifteen pairs of founders merged there.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import CannotRunError, Cost, in_turn, make_models, print_costs, run
from safetensors import safe_open
from safetensors.torch import save_file

from search.history.rank_correlation import rank_correlation

DISK = 4e9
PAIRS = list(combinations(range(4), 2))
Array = np.ndarray[Any, np.dtype[np.float64]]
Values = dict[str, dict[tuple[int, int], float]]  # by tensor, by pair


@dataclass(frozen=True)
class Truth:
    """One tensor of all models in float64: cosines of task vectors and of weights, distances (4, 4), norms (4,)."""

    kinship: Array
    cosine: Array
    distance: Array
    norms: Array


def reference(files: list[Path]) -> dict[str, Truth]:
    """The truth about every tensor of the base and the four models in ``files``."""
    found = {}
    with ExitStack() as stack:
        opened = [stack.enter_context(safe_open(file, "pt")) for file in files]
        for name in opened[0].keys():  # noqa: SIM118 (not a dict)
            rows = np.stack([file.get_tensor(name).flatten().double().numpy() for file in opened])
            deltas = rows[1:] - rows[0]
            weights, gram = rows[1:] @ rows[1:].T, deltas @ deltas.T
            squares, norms = np.diag(gram), np.sqrt(np.diag(weights))
            found[name] = Truth(
                gram / np.sqrt(np.outer(squares, squares)),
                weights / np.outer(norms, norms),
                np.sqrt(squares[:, None] + squares - 2 * gram),
                norms,
            )
    return found


@dataclass(frozen=True)
class MergeLens:
    """mergelens as its users run it: the commands of its console script, with results as JSON."""

    python: str
    work: Path

    def call(self, *arguments: str) -> tuple[dict[str, Any], Cost]:
        out = self.work / "mergelens.json"
        command = [self.python, "-m", "mergelens.cli", *arguments, "--json", str(out)]
        _, cost = run(command, {"HF_HUB_OFFLINE": "1"})
        return json.loads(out.read_text()), cost

    def compare(self, models: list[Path], base: Path | None = None, metric: str | None = None) -> tuple[Any, Cost]:
        options = ["--base", str(base)] if base else []
        options += ["--metric", metric, "--no-strategy"] if metric else []
        return self.call("compare", *map(str, models), *options)

    def diagnose(self, models: list[Path], base: Path) -> tuple[Any, Cost]:
        recipe: dict[str, Any] = {"merge_method": "task_arithmetic", "base_model": str(base)}
        recipe |= {"models": [{"model": str(model), "parameters": {"weight": 0.5}} for model in models]}
        path = self.work / "recipe.yml"
        path.write_text(json.dumps(recipe))  # JSON is YAML
        return self.call("diagnose", str(path))

    def distances(self, models: list[Path]) -> tuple[Values, Cost]:
        """Six pairs in three calls, for a call compares the first model with all others."""
        found: Values = {}
        costs = []
        for first in range(3):
            result, cost = self.compare(models[first:], metric="l2_distance")
            costs.append(cost)
            for row in result["tensor_metrics"]:
                pair = first, models.index(Path(row["candidate_model"]))
                found.setdefault(row["tensor_name"], {})[pair] = row["l2_distance"]
        return found, in_turn(costs)

    def kinships(self, models: list[Path], base: Path) -> tuple[Values, Cost]:
        """Cosines of task vectors from `diagnose`, whose score for two models is (1 - cosine) / 2."""
        found: Values = {}
        costs = []
        for one, other in PAIRS:
            result, cost = self.diagnose([models[one], models[other]], base)
            costs.append(cost)
            for row in result["interference_scores"]:
                found.setdefault(row["tensor_name"], {})[one, other] = 1 - 2 * row["score"]
        return found, in_turn(costs)


def matrix(models: list[Path], base: Path, *options: str) -> tuple[dict[str, Any], Cost]:
    """Our command."""
    command = [sys.executable, "-m", "service.cli", "matrix", *map(str, models), "--base", str(base), "--json"]
    text, cost = run([*command, *options])
    return json.loads(text), cost


def by_turns(rounds: int, ours: Callable[[], tuple[Any, Cost]], theirs: Callable[[], tuple[Any, Cost]]) -> Any:
    """Both in turns; prints the costs and returns the last result of each."""
    turns = []
    for _ in range(rounds):
        (our, our_cost), (their, their_cost) = ours(), theirs()
        turns.append((our_cost, their_cost))
    print_costs(turns, "mergelens")
    return our, their


@contextmanager
def case(title: str) -> Iterator[None]:
    """A case of its own: what cannot run is said, and the next goes on."""
    print(title, flush=True)
    try:
        yield
    except CannotRunError as error:
        print(f"  NOT MEASURED: {error}", flush=True)


def print_errors(errors: list[tuple[float, float]], kind: str) -> None:
    ours, theirs = np.abs(np.array(errors)).max(axis=0)
    print(f"  largest {kind} error against float64: ours {ours:.1e}, mergelens {theirs:.1e}", flush=True)


def measure(lens: MergeLens, rounds: int) -> None:
    base, *models = make_models(lens.work)
    truth = reference([path / "model.safetensors" for path in [base, *models]])

    with case("Euclidean distance of every tensor, six pairs"):
        options = ("--metric", "euclidean", "--by", "tensor")
        ours, theirs = by_turns(rounds, lambda: matrix(models, base, *options), lambda: lens.distances(models))
        errors = []
        for name, known in truth.items():
            for i, j in PAIRS:
                distance, mean_norm = known.distance[i, j], (known.norms[i] + known.norms[j]) / 2
                errors.append(
                    (ours["groups"][name][i][j] / distance - 1, theirs[name][i, j] * mean_norm / distance - 1)
                )
        print_errors(errors, "relative")

    with case("Cosine of every tensor's task vectors, six pairs"):
        options = ("--metric", "cosine", "--by", "tensor")
        ours, theirs = by_turns(rounds, lambda: matrix(models, base, *options), lambda: lens.kinships(models, base))
        cosines = {(name, pair): tensor.kinship[pair] for name, tensor in truth.items() for pair in PAIRS}
        print_errors(
            [(ours["groups"][n][i][j] - c, theirs[n][i, j] - c) for (n, (i, j)), c in cosines.items()], "absolute"
        )

    with case("One pair, cosine: ours of task vectors and whole models, its of weights, tensor by tensor"):
        ours, theirs = by_turns(
            rounds,
            lambda: matrix(models[:2], base, "--metric", "cosine", "--by", "tensor"),
            lambda: lens.compare(models[:2], metric="cosine_similarity"),
        )
        rows = {row["tensor_name"]: row["cosine_similarity"] for row in theirs["tensor_metrics"]}
        pairs = [(ours["groups"][n][0][1] - t.kinship[0, 1], rows[n] - t.cosine[0, 1]) for n, t in truth.items()]
        print_errors(pairs, "absolute")

    with case("One pair, all its default signals; ours: matrix by tensor (one round, for it takes minutes)"):
        _, theirs = by_turns(
            1, lambda: matrix(models[:2], base, "--by", "tensor"), lambda: lens.compare(models[:2], base)
        )
        for signal in theirs["metric_availability"]:
            print(
                f"  {signal['metric']:32} {signal['status']:26} {signal['parameter_coverage'] or 0:6.1%} of parameters"
            )


def weighted(rows: list[dict[str, Any]], signal: str) -> float:
    """Mean over tensors that have the signal, by parameters as mergelens' own index weighs them."""
    known = np.array([(row[signal], row["parameter_count"]) for row in rows if row[signal] is not None])
    return float(np.average(known[:, 0], weights=known[:, 1])) if len(known) else float("nan")


def signals(lens: MergeLens, pair: list[Path], base: Path) -> dict[str, float]:
    """Every signal of mergelens for a pair, and our kinship of it."""
    result, _ = lens.compare(pair, base)
    without, _ = lens.compare(pair)
    diagnosis, _ = lens.diagnose(pair, base)
    rows, together = result["tensor_metrics"], result["candidate_set_metrics"]
    return {
        "kinship": matrix(pair, base, "--metric", "cosine")[0]["values"][0][1],
        "index": result["mci"]["score"],
        "index, no base": without["mci"]["score"],
        "interference": diagnosis["overall_interference"],
        "signs differ": weighted(together, "sign_disagreement_rate"),
        "TSV": weighted(together, "tsv_interference"),
        "energy": weighted(rows, "task_vector_energy"),
        "spectral": weighted(without["tensor_metrics"], "spectral_overlap"),
        "rank ratio": weighted(without["tensor_metrics"], "effective_rank_ratio"),
        "cosine": weighted(without["tensor_metrics"], "cosine_similarity"),
        "L2": weighted(without["tensor_metrics"], "l2_distance"),
    }


def known_pairs(folder: Path) -> Iterator[tuple[str, list[Path], Path]]:
    """Label, pair and base, four matrices each: deltas alike, half shared, unrelated, opposed, low-rank, sparse."""
    generator = torch.Generator().manual_seed(0)
    names = [f"model.layers.0.self_attn.{kind}_proj.weight" for kind in "qkvo"]

    def noise(scale: float, *shape: int) -> dict[str, torch.Tensor]:
        return {name: torch.randn(shape or (512, 512), generator=generator) * scale for name in names}

    def save(label: str, weights: dict[str, torch.Tensor]) -> Path:
        path = folder / label
        path.mkdir()
        save_file(weights, path / "model.safetensors")
        (path / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 1}))
        return path

    def moved(by: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
        return {name: (weights[name] + by[name]).to(dtype) for name in names}

    def low_rank() -> dict[str, torch.Tensor]:
        left, right = noise(0.004, 512, 16), noise(0.125, 16, 512)
        return {name: left[name] @ right[name] for name in names}

    weights = {name: tensor.bfloat16().float() for name, tensor in noise(0.02).items()}
    common, one, other = (noise(0.001) for _ in range(3))
    base = save("base", weights)
    deltas = {
        "alike": (common, common),
        "half shared": tuple({name: (common[name] + own[name]) / 2**0.5 for name in names} for own in (one, other)),
        "unrelated": (one, other),
        "opposed": (common, {name: -delta for name, delta in common.items()}),
        "unrelated, rank 16": (low_rank(), low_rank()),
    }
    for label, pair in deltas.items():
        yield label, [save(f"{label} {side}", moved(delta)) for side, delta in enumerate(pair)], base
    small = [moved({name: delta / 40 for name, delta in own.items()}, torch.bfloat16) for own in (one, other)]
    yield "unrelated, bf16", [save(f"bf16 {side}", model) for side, model in enumerate(small)], base


def study(lens: MergeLens, demo: Path | None) -> None:
    for label, pair, base in known_pairs(lens.work):
        found = signals(lens, pair, base)
        print(f"{label:20}" + "   ".join(f"{name} {value:.3f}" for name, value in found.items()), flush=True)
    if not demo:
        return
    run_folder = demo / "run-vanilla"
    individuals = json.loads((run_folder / "export.json").read_text())["individuals"]
    children = [child for child in individuals if child["generation"] == 1]
    family = demo / "family"
    table = [signals(lens, [family / name for name in child["parents"]], family / "base") for child in children]
    gains = [child["merge_gain"] for child in children]
    print(f"Rank correlations over {len(children)} pairs of the demo's founders")
    for name in table[0]:
        values = [row[name] for row in table]
        pairs = [(child["parents"][0], child["parents"][1]) for child in children]
        with_gain = rank_correlation(values, gains, pairs)
        with_kinship = rank_correlation(values, [row["kinship"] for row in table], pairs)
        print(
            f"  {name:16} {min(values):8.3f} to {max(values):8.3f}   with merge gain {with_gain or 'undefined'}   "
            f"with kinship {with_kinship or 'undefined'}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="interpreter that has mergelens")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--signals", nargs="?", type=Path, const=Path(), metavar="DEMO", help="what its signals say")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    lens = MergeLens(options.python, folder)
    try:
        version, _ = run([options.python, "-c", "import mergelens; print(mergelens.__version__)"])
        print(f"mergelens {version.strip()}", flush=True)
        if options.signals is not None:
            study(lens, options.signals if options.signals != Path() else None)
        elif shutil.disk_usage(folder).free < DISK:
            print(f"NOT MEASURED: {DISK / 1e9:.0f} GB of disk needed")
        else:
            measure(lens, options.rounds)
    except CannotRunError as error:
        print(f"NOT MEASURED: {error}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
