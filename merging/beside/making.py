"""What a recipe wants beside its merge: which weights the merge then has, and the files that go with them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kinship.checkpoints.architecture import architecture_of
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.folder_files import text_config
from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.references import short_names
from kinship.errors import InvalidConfig, UnsupportedCheckpoint, about
from merging.beside.attached import representations
from merging.beside.files import NOTHING, Beside, HeadFacts, held_experts, write_experts, write_heads
from merging.beside.smile import Expert, expert_of
from merging.beside.surgery import Head, fit_head, mended, representation_gap
from merging.data_driven.models import load_causal_lm
from merging.data_driven.prepare import models_of, streams_of
from merging.extraction.layout import Target, layout_of
from merging.planning.graph import Leaf, MergeNode
from merging.planning.plan import MergePlan, TensorPlan
from merging.recipe.data import DataSettings, SurgerySettings
from merging.recipe.schema import Recipe

Told = Callable[[str], None]


def with_base_layers(plan: MergePlan) -> MergePlan:
    """``plan`` with the base's linear layers, to which experts add, where its method makes experts; else as it is.

    Raises `UnsupportedCheckpoint` for a model of no known architecture, or without linear layers of their own.
    """
    if not plan.recipe.method.beside:
        return plan
    base = plan.models[0]
    _values(plan)
    targets = _linear_layers(plan, base)
    kept = {name for target in targets for name in (target.tensors[0], _bias_of(target))}
    tensors = [
        TensorPlan(tensor.name, tensor.dtype, Leaf(base, tensor.name))
        if tensor.name in kept and isinstance(tensor.node, MergeNode)
        else tensor
        for tensor in plan.tensors
    ]
    return replace(plan, tensors=tuple(tensors))


def beside_sizes(plan: MergePlan) -> tuple[int, int]:
    """Bytes of what `make_beside` will write, at most, and of what it holds in memory meanwhile, by headers alone.

    Experts have the rank that is asked for, or their layer's own, which is less; a head the width of the model. Raises
    as `with_base_layers`.
    """
    recipe = plan.recipe
    assert isinstance(recipe, Recipe)
    written = held = 0
    models = len(models_of(plan, recipe))
    if recipe.method.beside:
        values, base = _values(plan), plan.models[0]
        largest = 0
        for target in _linear_layers(plan, base):
            rows, columns = base.tensors[target.tensors[0]].shape
            rank = min(values["rank"], rows, columns)
            inputs, outputs = (rows, columns) if target.turned else (columns, rows)
            numbers = rank * (rows + columns) + min(values["gate_rank"], rank) * inputs
            numbers += outputs if _bias_of(target) in base.tensors else 0
            written += 4 * models * numbers
            # All changes of a layer in fp32; one in float64 with its vectors, and the Gram matrix of the smaller side.
            largest = max(largest, 4 * models * rows * columns + 16 * rows * columns + 16 * min(rows, columns) ** 2)
        held = written + largest
    if recipe.surgery is not None:
        width = int(text_config(plan.config).get("hidden_size", 0))
        written += 8 * models * recipe.surgery.rank * width
        held = max(held, 8 * sum(spec.size for spec in plan.specs))  # the merge and one model, live, in fp32
    return written, held


def make_beside(plan: MergePlan, folder: Path, *, seed: int = 0, device: str = "cpu", told: Told) -> str:
    """Put what the recipe wants beside the merge in ``folder``, which is written but for it; returns what a card says.

    seed: of the heads before their first step. Memory: for heads, one model at a time and its representations; for
    experts, all of them. ``told`` is told what is being done. Raises `InvalidConfig`, `UnsupportedCheckpoint`,
    `MismatchedModels`, and `NonFiniteWeights`.
    """
    recipe = plan.recipe
    assert isinstance(recipe, Recipe)
    names = short_names([model.id for model in models_of(plan, recipe)])
    with open_checkpoint(folder) as merge:
        said = []
        if recipe.method.beside:
            told(f"Decomposing the task vectors of {len(names)} models.")
            write_experts(merge.path, merge.digest, names, experts_of(plan), _values(plan)["experts_per_token"])
            said.append(
                "Its experts lie beside these weights (smile.json) and are no part of them: "
                "`kinship score` applies them, transformers alone does not."
            )
        if recipe.surgery is not None:
            told(f"Fitting heads for {len(names)} models.")
            _fit_heads(plan, recipe, recipe.surgery, merge, names, seed, device)
            said.append(
                f"Heads for {', '.join(names)} lie beside these weights (surgery.json): "
                "`kinship score` applies them where its setting `surgery` says to which task."
            )
    return " ".join(said)


def _fit_heads(
    plan: MergePlan,
    recipe: Recipe,
    settings: SurgerySettings,
    merge: Checkpoint,
    names: list[str],
    seed: int,
    device: str,
) -> None:
    models, streams = models_of(plan, recipe), streams_of(recipe, plan.tokenizer, recipe.data or DataSettings())
    merged = load_causal_lm(merge, by_name=False)
    heads: dict[str, Head] = {}
    facts: dict[str, HeadFacts] = {}
    for name, model, stream in zip(names, models, streams, strict=True):
        with about(f"The head for {name}"):
            own = representations(load_causal_lm(model, by_name=False), stream, device=device)
            found = representations(merged, stream, device=device)
            heads[name] = fit_head(found, own, rank=settings.rank, steps=settings.steps, rate=settings.rate, seed=seed)
            gaps = representation_gap(found, own), representation_gap(mended(found, heads[name]), own)
        facts[name] = HeadFacts(model=model.id, tokens=len(found), gap=gaps[0], mended=gaps[1])
    write_heads(merge.path, merge.digest, settings.rank, heads, facts)


def experts_beside(plan: MergePlan) -> Beside:
    """The experts that belong beside the merge of ``plan``, in memory; `NOTHING` where its method makes none.

    Memory and errors: those of `make_beside`.
    """
    if not plan.recipe.method.beside:
        return NOTHING
    return held_experts(experts_of(plan), _values(plan)["experts_per_token"])


def experts_of(plan: MergePlan) -> dict[str, list[Expert]]:
    """By linear layer the models' experts, of those that some model changed. Raises as `make_beside`."""
    recipe = plan.recipe
    assert isinstance(recipe, Recipe)
    base, models = plan.models[0], models_of(plan, recipe)
    values = _values(plan)
    layers: dict[str, list[Expert]] = {}
    for target in _linear_layers(plan, base):
        name, bias = target.tensors[0], _bias_of(target)
        changes = [_change(base, model, name) for model in models]
        shifts = [_change(base, model, bias) if bias in base.tensors else None for model in models]
        if not any(change.any() for change in [*changes, *(shift for shift in shifts if shift is not None)]):
            continue
        with about(f"Layer {target.module}"):
            layers[target.module] = [
                expert_of(change.T if target.turned else change, values["rank"], values["gate_rank"], shift)
                for change, shift in zip(changes, shifts, strict=True)
            ]
    return layers


def _values(plan: MergePlan) -> dict[str, Any]:
    """The parameters of the method; raises `InvalidConfig` where they differ between tensors."""
    found = [tensor.node.values for tensor in plan.tensors if isinstance(tensor.node, MergeNode)]
    if any(values != found[0] for values in found):
        raise InvalidConfig(
            f"The parameters of {plan.recipe.method.name} differ between tensors.",
            hint="They are of the model as a whole: give numbers, neither gradients nor filters.",
        )
    return dict(found[0])


def _linear_layers(plan: MergePlan, base: Checkpoint) -> list[Target]:
    """The linear layers of the live model whose weight is a tensor of its own."""
    if architecture_of(base) is None:
        raise UnsupportedCheckpoint(
            f"transformers knows no architecture of {base.id}, so its linear layers cannot be told.",
            hint="Choose a method that merges tensors alone, as task_arithmetic or ties.",
        )
    targets = layout_of(base, [tensor.name for tensor in plan.tensors]).targets
    found = [target for target in targets if not target.stacked and target.parameter is None]
    if not found:
        raise UnsupportedCheckpoint(
            f"{base.id} has no linear layers that experts could add to.", hint="Choose another method."
        )
    return found


def _bias_of(target: Target) -> str:
    return target.tensors[0].removesuffix("weight") + "bias"


def _change(base: Checkpoint, model: Checkpoint, name: str) -> torch.Tensor:
    return model.tensor(name).float() - base.tensor(name).float()
