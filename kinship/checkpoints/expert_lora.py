"""LoRA of stacked experts (peft's ``target_parameters``): one pair of factors for all the experts of a parameter."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kinship.checkpoints.adapter_config import AGAIN, MERGE_IT, AdapterConfig
from kinship.checkpoints.architecture import Architecture, architecture_of
from kinship.checkpoints.changes import Change, Stack
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.header import TensorEntry
from kinship.checkpoints.low_rank import LowRank
from kinship.errors import MalformedCheckpoint, UnsupportedCheckpoint


class Experts(NamedTuple):
    """A ``parameter`` of shape (experts, n, m) of a live model. turned: m and n are what a layer has out and in."""

    parameter: str
    shape: tuple[int, ...]
    turned: bool


def stacked_targets(config: AdapterConfig, model: Checkpoint) -> dict[str, Experts]:
    """The experts that an adapter changes, by the module that its file says of their factors.

    peft wraps a module once for each of its parameters, in their order, so that the last is outermost. Raises
    `UnsupportedCheckpoint` where transformers does not tell what ``target_parameters`` are in ``model``.
    """
    targets = config.target_parameters
    architecture = architecture_of(model) if targets else None
    if architecture is None:
        if all(name.endswith(".weight") for name in targets):  # of modules, such as a router
            return {}
        raise UnsupportedCheckpoint(
            f"{config.folder} uses target_parameters, {', '.join(targets)[:200]}, and what they are in {model.id} is "
            "not known.",
            hint=MERGE_IT,
        )
    found = {}
    for name, module in architecture.model.named_modules():
        own = [f"{name}.{own}" for own, _ in module.named_parameters(recurse=False)]
        wrapped = [one for one in own if any(one == each or one.endswith(f".{each}") for each in targets)]
        for depth, parameter in enumerate(reversed(wrapped)):
            shape = architecture.parameters.get(parameter, ())
            if len(shape) == 3:
                turned = bool(getattr(module, "is_transposed", False))
                found[name + ".base_layer" * depth] = Experts(parameter, shape, turned)
    return found


def require_fitting(config: AdapterConfig, experts: Experts, factors: Mapping[str, TensorEntry]) -> None:
    """Raise `MalformedCheckpoint` unless ``factors`` are A (experts r, in) and B (out, r experts) of floats, and
    `UnsupportedCheckpoint` for experts that lost a start to them, or are brought to lengths: peft knows none.
    """
    if config.start or config.dora:
        raise UnsupportedCheckpoint(
            f"{config.folder} changes the experts {experts.parameter} by more than factors.", hint=MERGE_IT
        )
    count, *sizes = experts.shape
    out, width = reversed(sizes) if experts.turned else sizes
    shapes = {side: entry.shape for side, entry in factors.items() if entry.dtype.is_floating_point}
    rank = config.rank(experts.parameter, next(iter(shapes.get("A", ())), 0) // count)
    if type(rank) is not int or rank < 1 or shapes != {"A": (rank * count, width), "B": (out, rank * count)}:
        found = ", ".join(f"{entry.name} of {entry.dtype} {list(entry.shape)}" for entry in factors.values())
        raise MalformedCheckpoint(
            f"{config.folder} holds {found} for {experts.parameter}; A and B of rank {rank} for {count} experts of "
            f"{out} x {width} were expected.",
            hint=AGAIN,
        )


def expert_changes(
    config: AdapterConfig, experts: Experts, factors: Mapping[str, NDArray[np.float32]], model: Checkpoint
) -> dict[str, Change]:
    """What ``factors``, of shapes as `require_fitting` wants them, fp32, do to the tensors of ``model``, by name.

    Experts that lie apart in its files are changed each on its own. Raises `UnsupportedCheckpoint` where files hold the
    experts in a form that has no place for the change.
    """
    count, height, width = experts.shape
    left, right = factors["B"], factors["A"]
    rank = right.shape[0] // count
    ups = left.reshape(-1, rank, count).transpose(2, 0, 1)  # (experts, out, r)
    downs = right.reshape(count, rank, -1)  # (experts, r, in)
    if experts.turned:
        ups, downs = downs.transpose(0, 2, 1), ups.transpose(0, 2, 1)
    ups, downs = np.ascontiguousarray(ups), np.ascontiguousarray(downs)
    scale = config.scale(experts.parameter, rank)
    architecture = architecture_of(model)
    assert architecture is not None  # it told of the experts
    whole = architecture.tensor_of(experts.parameter, model.tensors)
    if whole is not None:
        return {whole: Change(stack=Stack(ups, downs, scale))}
    found = {}
    pieces = expert_pieces(experts.parameter, experts.shape, architecture, model)
    if pieces is None:
        raise UnsupportedCheckpoint(
            f"{config.folder} changes {experts.parameter}, which the files of {model.id} hold in another form.",
            hint=MERGE_IT,
        )
    for name, first in pieces.items():
        expert, row = divmod(first // width, height)
        rows = slice(row, row + model.tensors[name].shape[0])
        found[name] = Change(low_rank=LowRank(ups[expert, rows], downs[expert], scale))
    return found


def expert_pieces(
    parameter: str, shape: tuple[int, ...], architecture: Architecture, model: Checkpoint
) -> dict[str, int] | None:
    """The tensors of ``model`` that the experts ``parameter`` of ``shape`` are fused of, or the one that they are, with
    the first element that each has there; None where files hold them in another form, or not.
    """
    whole = architecture.tensor_of(parameter, model.tensors)
    if whole is not None:
        return {whole: 0}
    parts = {
        place.name: name for name, place in architecture.places(model.tensors).items() if place.parameter == parameter
    }
    shapes = {key: model.tensors[name].shape for key, name in parts.items()}
    pieces = architecture.pieces_of(parameter, shapes) if parts else None
    if pieces is None or sum(map(math.prod, shapes.values())) != math.prod(shape):
        return None
    return {parts[key]: first for key, first in pieces.items()}
