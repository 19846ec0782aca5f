"""The inner products of a linear layer's inputs, measured on data by hooks."""

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn

from kinship.device import choose_device, full_precision
from kinship.errors import InvalidConfig, NonFiniteWeights
from merging.data_driven.batches import Batches, checked
from merging.data_driven.predictions import evaluating, predict
from merging.data_driven.statistics import Statistics


def input_grams(
    model: nn.Module, batches: Batches, *, device: str = "cpu", only: Collection[str] | None = None
) -> Statistics:
    """``X^T X / rows`` (in, in) of the inputs X (rows, in) of every `torch.nn.Linear` (Jin et al., arXiv 2212.09849).

    Padding (attention_mask 0) is left out. The paper adds up without dividing; here models count alike however much
    data each has seen, and its own sums are those with weights in proportion to the rows. Layers that see no data, and
    those whose weight another module has too, as a tied head, have no entry; with ``only``, no others than these
    weights.

    Returns ``grams`` statistics in fp32 (float64 of inputs in float64). Products of a batch are taken in fp32 (float64
    of float64), and added up in float64. Memory: the model, and 8 in^2 bytes for each layer. CUDA is untested.
    Raises `InvalidConfig` for batches that do not fit and `NonFiniteWeights` naming batch and layer.
    """
    device = choose_device(device)
    owners = Counter(id(weight) for module in model.modules() for weight in module.parameters(recurse=False))
    layers = {
        f"{name}.weight" if name else "weight": module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and owners[id(module.weight)] == 1
    }
    layers = {name: module for name, module in layers.items() if only is None or name in only}
    collected = _Collected()
    handles = [
        layer.register_forward_pre_hook(collected.hook(name), with_kwargs=True) for name, layer in layers.items()
    ]
    try:
        with full_precision(device), evaluating(model, device, gradients=False), torch.no_grad():
            for number, batch in checked(batches, device):
                mask = batch.get("attention_mask")
                collected.start(number, None if mask is None or mask.dim() != 2 else mask != 0)
                predict(model, batch, number)
    finally:
        for handle in handles:
            handle.remove()
    if not collected.sums:
        raise no_linear_layer(model)
    means = {name: (total / collected.rows[name]).to(collected.dtypes[name]) for name, total in collected.sums.items()}
    return Statistics("grams", means, {"rows": str(max(collected.rows.values()))})


def no_linear_layer(model: nn.Module) -> InvalidConfig:
    """The error for a model of other layers (GPT-2's are Conv1D)."""
    return InvalidConfig(
        f"{type(model).__name__} has no linear layer (torch.nn.Linear) that the data reached.",
        hint="There are no inputs to measure here: merge by a method without data, as linear or ties.",
    )


class _Collected:
    """Sums of products (in, in) float64 and numbers of rows, by weight."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.rows: Counter[str] = Counter()
        self.dtypes: dict[str, torch.dtype] = {}
        self._number = 0
        self._mask: torch.Tensor | None = None

    def start(self, number: int, mask: torch.Tensor | None) -> None:
        """What follows is batch ``number``, with tokens where ``mask`` (B, T) is set."""
        self._number, self._mask = number, mask

    def hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        """The hook for the layer whose weight is ``name``."""

        def before(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            inputs = (args[0] if args else kwargs["input"]).detach()
            rows = self._unpadded(name, inputs)
            if not len(rows):
                return
            rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
            products = (rows.T @ rows).double()
            if not products.isfinite().all():
                raise NonFiniteWeights(f"The inputs of {name!r} on batch {self._number} hold NaN or infinity.")
            self.sums[name] = self.sums[name].add_(products) if name in self.sums else products
            self.rows[name] += len(rows)
            self.dtypes[name] = rows.dtype

        return before

    def _unpadded(self, name: str, inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1])
        if self._mask is None or self._mask.all():
            return rows
        if len(rows) != self._mask.numel():
            raise InvalidConfig(
                f"The inputs of {name!r} on batch {self._number}, {list(inputs.shape)}, cannot be told from padding.",
                hint="Give batches without padding: documents of one length, or one a batch.",
            )
        return rows[self._mask.reshape(-1)]
