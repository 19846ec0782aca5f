"""A mixture of experts, tensor by tensor: which model each tensor of it comes from, and the gates."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.dtypes import BY_NAME
from kinship.checkpoints.tensor_names import layer_of
from kinship.checkpoints.tied import tied_heads
from kinship.errors import MismatchedModels
from merging.kernels.rounding import promoted
from merging.mixture.gates import MadeTensors, gates
from merging.mixture.layouts import Mixture, mixture_of, mlp_part
from merging.mixture.recipe import Expert, MixtureRecipe
from merging.planning.config import with_dtype
from merging.planning.graph import Leaf, Same, WeightedSum
from merging.planning.plan import MergePlan, TensorPlan

# A shared expert that adds nothing, for mixtures that must have one: as many hidden units as hardware likes.
_NO_WIDTH = 8

Tensors = dict[str, Leaf | WeightedSum]


def plan_mixture(recipe: MixtureRecipe, models: Mapping[str, Checkpoint], seed: int = 0) -> MergePlan:
    """The plan of ``recipe`` over ``models`` by reference, whose tensors have the base's names.

    Everything but MLPs is the base's; gates are made when they are first read. Raises `UnsupportedCheckpoint`,
    `InvalidConfig`, and `MismatchedModels` for an expert that is no fine-tune of the base's architecture.
    """
    base = models[str(recipe.base_model)]
    mixture = mixture_of(base, recipe.architecture, bool(recipe.shared_experts))
    for model in models.values():
        _require_alike(base, model, mixture)
    tied = tied_heads([base])
    tensors: Tensors = {}
    for name in base.tensors:
        part = mlp_part(name)
        if part is None:
            if name not in tied:
                tensors[name] = Leaf(base, name)
            continue
        for number, expert in enumerate(recipe.experts):
            tensors[mixture.expert(part[0], number, part[1])] = _scaled(models, expert, name, part[1])
        for expert in recipe.shared_experts:
            tensors[f"{part[0]}{mixture.block}.{mixture.shared}.{mixture.parts[part[1]]}.weight"] = _scaled(
                models, expert, name, part[1]
            )
    for made in _made(recipe, mixture, base, seed):
        tensors |= {name: Leaf(made, name) for name in made.tensors}
    wanted = BY_NAME[recipe.dtype] if recipe.dtype else promoted(base.tensors[name].dtype for name in _mlps(base))
    planned = []
    for name, leaf in sorted(tensors.items()):
        stored = leaf.leaves[0].entry.dtype
        if not stored.is_floating_point:
            planned.append(TensorPlan(name, stored, Same(leaf.leaves)))
        else:
            planned.append(TensorPlan(name, wanted, leaf))
    width = _shared_width(recipe, models)
    config = mixture.config(base.config, len(recipe.experts), recipe.experts_per_token, width)
    opened = tuple(models[reference] for reference in recipe.references)
    return MergePlan(recipe, tuple(planned), opened, base, with_dtype(config, wanted.name), None, base, {})


def _made(recipe: MixtureRecipe, mixture: Mixture, base: Checkpoint, seed: int) -> list[MadeTensors]:
    """Gates of the experts and of the shared one; and the shared one that adds nothing, where there has to be one."""
    layers = list(dict.fromkeys(part[0] for name in _mlps(base) if (part := mlp_part(name)) is not None))
    layers.sort(key=lambda prefix: layer_of(f"{prefix}x") or ("", 0))
    hidden = base.tensors[f"{layers[0]}mlp.up_proj.weight"].shape[1]
    random = recipe.gate_mode in ("random", "uniform_random")

    def gated(suffix: str, experts: Sequence[Expert], seed: int) -> MadeTensors:
        names = [f"{layer}{mixture.block}.{suffix}.weight" for layer in layers]

        def make() -> dict[str, torch.Tensor]:
            found = gates(recipe.gate_mode, base, experts, len(layers), seed)
            return dict(zip(names, found, strict=True))

        return MadeTensors("gates", dict.fromkeys(names, (len(experts), hidden)), make, random)

    found = [gated("gate", recipe.experts, seed)]
    if mixture.shared is None:
        return found
    if recipe.shared_experts:
        return [*found, gated(f"{mixture.shared}_gate", recipe.shared_experts, seed + 1)]
    inside = {"gate": (_NO_WIDTH, hidden), "up": (_NO_WIDTH, hidden), "down": (hidden, _NO_WIDTH)}
    shapes = {
        f"{layer}{mixture.block}.{mixture.shared}.{mixture.parts[part]}.weight": shape
        for layer in layers
        for part, shape in inside.items()
    }
    shapes |= {f"{layer}{mixture.block}.{mixture.shared}_gate.weight": (1, hidden) for layer in layers}
    zeros = partial(_zeros, shapes)
    return [*found, MadeTensors("no shared expert", shapes, zeros, random=False)]


def _zeros(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def _scaled(models: Mapping[str, Checkpoint], expert: Expert, name: str, part: str) -> Leaf | WeightedSum:
    """A matrix of an expert: what it adds to the residual stream is scaled where it says so."""
    leaf = Leaf(models[str(expert.source_model)], name)
    if expert.residual_scale is None or part != "down":
        return leaf
    return WeightedSum((leaf,), np.array([expert.residual_scale]))


def _shared_width(recipe: MixtureRecipe, models: Mapping[str, Checkpoint]) -> int:
    if not recipe.shared_experts:
        return _NO_WIDTH
    return int(models[str(recipe.shared_experts[0].source_model)].config["intermediate_size"])


def _mlps(model: Checkpoint) -> list[str]:
    return [name for name in model.tensors if mlp_part(name) is not None]


def _require_alike(base: Checkpoint, model: Checkpoint, mixture: Mixture) -> None:
    kind = model.config.get("model_type", mixture.dense[0])
    if kind not in mixture.dense:
        raise MismatchedModels(
            f"{model.id} is a {kind} model; experts of a {mixture.name} are {' or '.join(mixture.dense)} models.",
            hint="Experts are fine-tunes of the base's architecture.",
        )
    acts = [each.config.get("hidden_act", "silu") for each in (base, model)]
    if acts[0] != acts[1]:
        raise MismatchedModels(
            f"The MLPs of {model.id} compute with {acts[1]}, those of {base.id} with {acts[0]}.",
            hint="All experts of a mixture have one activation, that of its base.",
        )
    wanted, found = _mlps(base), _mlps(model)
    names = sorted(set(wanted) ^ set(found))
    name = names[0] if names else next((n for n in wanted if base.tensors[n].shape != model.tensors[n].shape), None)
    if not wanted or name is not None:
        raise MismatchedModels(
            f"The MLPs of {model.id} are not of the form of {base.id}'s" + (f": see {name!r}." if name else "."),
            hint="Experts are fine-tunes of one dense architecture, with gate, up and down projections.",
        )
