"""A plan whose method looks at data, made ready: its models are measured on the recipe's documents."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import InvalidConfig, UnsupportedCheckpoint, foreign
from merging.data_driven.adamerging import adamerge
from merging.data_driven.along import grams_along
from merging.data_driven.batches import TextBatches, digest
from merging.data_driven.models import CheckpointWeights, load_causal_lm
from merging.data_driven.run import fisher_statistics, gram_statistics, require_fit, root_mean_squares
from merging.data_driven.statistics import Statistics
from merging.planning.graph import MergeNode
from merging.planning.plan import MergePlan, plan_merge
from merging.recipe.data import DataSettings
from merging.recipe.schema import Recipe, parse_recipe
from merging.registry import Measured, MeasuredOf

Told = Callable[[str], None]
Lookup = Callable[[str], torch.Tensor | None]


@contextmanager
def measured(plan: MergePlan, *, seed: int = 0, told: Told = lambda text: None) -> Iterator[MergePlan]:
    """``plan`` with what its method wants to know of its models; as it is where that is nothing.

    Statistics are measured of each model, or taken from the recipe's ``statistics`` folder, and last as long as the
    block. For AdaMerging, the plan is that of the task arithmetic found. ``seed``: of labels that Fisher's
    draw. ``told`` is told what is being measured. Raises `InvalidConfig`, `ReferenceNotFound`, `UnsupportedCheckpoint`,
    `MismatchedModels`, `NonFiniteWeights`, and `OutputNotWritable`.
    """
    recipe = plan.recipe
    if not isinstance(recipe, Recipe) or not recipe.method.measures:
        yield plan
        return
    settings = recipe.data or DataSettings()
    models = models_of(plan, recipe)
    streams = streams_of(recipe, plan.tokenizer, settings)
    with TemporaryDirectory() as temporary:
        folder = Path(settings.statistics or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if recipe.method.measures == "entropy":
            told(f"Training coefficients on the documents of {len(models)} models.")
            yield _trained(plan, recipe, models, streams, settings.device)
        elif recipe.method.measures == "grams along":
            told(f"Measuring {len(models)} models on their documents, layer by layer.")
            lookups = _along(plan, models, streams, Path(temporary), settings.device)
            yield replace(plan, statistics=_serving(plan, lookups, (), "grams"))
        else:
            statistics = []
            for model, stream in zip(models, streams, strict=True):
                told(f"Measuring {model.id} on its documents.")
                statistics.append(_statistics(recipe.method.measures, model, stream, folder, seed, settings.device))
            sizes: Sequence[float] = ()
            if recipe.method.measures == "fisher":
                sizes = root_mean_squares([CheckpointWeights(model) for model in models], statistics)
            yield replace(
                plan, statistics=_serving(plan, [own.get for own in statistics], sizes, recipe.method.measures)
            )


def models_of(plan: MergePlan, recipe: Recipe) -> list[Checkpoint]:
    """The models merged, in the recipe's order."""
    return [plan.models[recipe.references.index(str(entry.model))] for entry in recipe.parts[0].merged(recipe.method)]


def streams_of(recipe: Recipe, tokenizer: Checkpoint, settings: DataSettings) -> list[TextBatches]:
    """The documents of each of them; raises `UnsupportedCheckpoint` where transformers makes no tokenizer."""
    from transformers import AutoTokenizer

    refused = f"transformers makes no tokenizer of {tokenizer.path}"
    with foreign(UnsupportedCheckpoint, refused, hint="A method that looks at data needs the models' tokenizer."):
        made: Any = AutoTokenizer.from_pretrained(tokenizer.path, local_files_only=True, trust_remote_code=False)
    return [
        TextBatches(
            Path(source.file) if source.file is not None else None,
            made,
            settings.batch,
            settings.max_length,
            source.field,
            settings.documents,
            tuple(source.texts or ()),
        )
        for source in recipe.data_sources
    ]


def _statistics(kind: str, model: Checkpoint, stream: TextBatches, folder: Path, seed: int, device: str) -> Statistics:
    """Measured of one model, or found in ``folder`` under the names of weights and data."""
    drawn = f"-{seed}" if kind == "fisher" else ""
    path = folder / f"{model.digest[:16]}-{digest(stream)[:16]}{drawn}.{kind}.safetensors"
    if kind == "fisher":
        return fisher_statistics(model, stream, path, seed=seed, device=device)
    return gram_statistics(model, stream, path, device=device)


def _serving(plan: MergePlan, lookups: Sequence[Lookup], sizes: Sequence[float], kind: Any) -> MeasuredOf:
    """Gives what was measured for a tensor: zeros for a model that no prediction depends on there."""
    shapes = {spec.name: spec.shape for spec in plan.specs}

    def find(name: str) -> Measured | None:
        found = [lookup(name) for lookup in lookups]
        known = next((each for each in found if each is not None), None)
        if known is None:
            return None
        values = torch.stack([torch.zeros_like(known) if each is None else each for each in found])
        require_fit(name, shapes[name], values, kind)
        return Measured(values, tuple(sizes))

    return find


def _along(
    plan: MergePlan, models: Sequence[Checkpoint], streams: Sequence[TextBatches], folder: Path, device: str
) -> list[Lookup]:
    nodes = {tensor.name: tensor.node for tensor in plan.tensors}
    method = plan.recipe.method

    def merge(name: str, vectors: torch.Tensor, grams: torch.Tensor | None) -> torch.Tensor:
        node = nodes[name]
        assert isinstance(node, MergeNode)
        values = None if grams is None else Measured(grams)
        return method.tensor(vectors, node.values, has_base=False, measured=values)

    live = [load_causal_lm(model) for model in models]
    found = grams_along(live, streams, merge, folder, device=device)

    def lookup(own: Mapping[str, Statistics]) -> Lookup:
        return lambda name: own[name][name] if name in own else None

    return [lookup(own) for own in found]


def _trained(
    plan: MergePlan, recipe: Recipe, models: Sequence[Checkpoint], streams: Sequence[TextBatches], device: str
) -> MergePlan:
    """The plan of the task arithmetic with the weights that AdaMerging finds."""
    values = [tensor.node.values for tensor in plan.tensors if isinstance(tensor.node, MergeNode)]
    if any(each != values[0] for each in values):
        raise InvalidConfig(
            f"The parameters of {recipe.merge_method} differ between tensors.",
            hint="They are of the training as a whole: give numbers, neither gradients nor filters.",
        )
    first = values[0]
    base = plan.models[recipe.references.index(str(recipe.base_model))]
    found = adamerge(
        load_causal_lm(base),
        base,
        models,
        streams,
        by="layer" if first["layerwise"] else "task",
        steps=first["steps"],
        rate=first["rate"],
        start=first["weight"],
        low=first["low"],
        high=first["high"],
        device=device,
    )
    weights = found.settings([tensor.name for tensor in plan.tensors])
    entries = [
        {"model": str(entry.model), "parameters": {"weight": weight}}
        for entry, weight in zip(recipe.parts[0].merged(recipe.method), weights, strict=True)
    ]
    own = {key: value for key, value in recipe.to_dict().items() if key not in ("parameters", "data")}
    trained = parse_recipe(own | {"merge_method": "task_arithmetic", "models": entries})
    return plan_merge(trained, dict(zip(recipe.references, plan.models, strict=True)))
