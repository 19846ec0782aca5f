"""A model in memory that computes with what lies beside its weights: hooks, which are gone afterwards."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from kinship.device import choose_device, full_precision
from kinship.errors import InvalidConfig, MismatchedModels, UnsupportedCheckpoint
from merging.beside.smile import Expert, routed
from merging.beside.surgery import Head, mended
from merging.data_driven.batches import Batches, checked
from merging.data_driven.predictions import evaluating, predict


def output_layer(model: nn.Module) -> nn.Module:
    """The layer that makes logits of a model's last representations; raises `UnsupportedCheckpoint` without one."""
    find: Any = getattr(model, "get_output_embeddings", None)
    layer = find() if find is not None else None
    if not isinstance(layer, nn.Module):
        raise UnsupportedCheckpoint(
            f"{type(model).__name__} has no layer that makes logits of its representations.",
            hint="Surgery is for language models with a head.",
        )
    return layer


def representations(model: nn.Module, batches: Batches, *, device: str = "cpu") -> torch.Tensor:
    """What ``model`` makes logits of, for every token of the ``batches`` that is no padding: (tokens, d) fp32.

    Memory: model, activations and the result. Raises `InvalidConfig` and what `output_layer` raises.
    """
    device = choose_device(device)
    found: list[torch.Tensor] = []
    mask: torch.Tensor | None = None

    def collect(layer: nn.Module, args: tuple[Any, ...]) -> None:
        rows = args[0].detach().float().reshape(-1, args[0].shape[-1])
        if mask is not None and len(rows) != mask.numel():
            raise InvalidConfig(f"A batch of {mask.numel()} tokens gave {len(rows)} representations.")
        found.append((rows if mask is None else rows[mask.reshape(-1)]).cpu())

    handle = output_layer(model).register_forward_pre_hook(collect)
    try:
        with full_precision(device), evaluating(model, device, gradients=False), torch.no_grad():
            for number, batch in checked(batches, device):
                given = batch.get("attention_mask")
                mask = None if given is None else given != 0
                predict(model, batch, number)
    finally:
        handle.remove()
    return torch.cat(found)


@contextmanager
def with_head(model: nn.Module, head: Head | None) -> Iterator[None]:
    """``model`` with its representations `mended` by ``head``; as it is without one. Raises `MismatchedModels`."""
    if head is None:
        yield
        return
    layer = output_layer(model)
    there = next(layer.parameters())
    placed = Head(*(part.to(there.device, there.dtype) for part in head))
    if there.shape[-1] != placed.down.shape[1]:
        raise MismatchedModels(
            f"The head mends representations of {placed.down.shape[1]} numbers; the model's have {there.shape[-1]}."
        )
    handle = layer.register_forward_pre_hook(lambda module, args: (mended(args[0], placed), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def with_experts(model: nn.Module, layers: Mapping[str, Sequence[Expert]], experts_per_token: int) -> Iterator[None]:
    """``model`` whose linear ``layers``, by name, add what experts make of an input. Raises `MismatchedModels`."""
    modules = dict(model.named_modules())
    missing = sorted(layers.keys() - modules.keys())
    if missing:
        raise MismatchedModels(f"There are experts of {missing[0]!r}, but the model has no such layer.")
    with ExitStack() as stack:
        for name, experts in layers.items():
            handle = modules[name].register_forward_hook(_adding(modules[name], experts, experts_per_token))
            stack.callback(handle.remove)
        yield


def _adding(module: nn.Module, experts: Sequence[Expert], per_token: int) -> Callable[..., torch.Tensor]:
    there = next(module.parameters())
    placed = [Expert(*(None if part is None else part.to(there) for part in expert)) for expert in experts]  # type: ignore[arg-type]

    def hook(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        return output + routed(args[0], placed, per_token)

    return hook
