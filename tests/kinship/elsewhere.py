"""A program for `test_device`: our code on tensors that lie on a device that is not the CPU, and that have no numbers.

torch knows of each such tensor where it lies and of what shape and dtype it is, and raises as it would on a GPU where
tensors of two devices meet. Prints what was gone through, as JSON.
"""

import dataclasses
import json
import sys
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend  # type: ignore[attr-defined]

from evaluators.lm_eval.likelihoods import Prepared, prepare, score
from kinship.measures.moments import _device_moments
from merging.registry import methods

ELSEWHERE = "elsewhere:0"
VOCABULARY = 20


def moments() -> str:
    """The device's part of the Gram pass."""
    gram, sums = _device_moments(torch.empty(3, 1000, device=ELSEWHERE))
    assert gram.shape == (3, 3), gram.shape
    return f"{gram.device.type} {sums.device.type}"


def likelihoods(mode: FakeTensorMode, prepared: Prepared) -> int:
    """How many log-likelihoods of continuations there are, under a model of one table."""

    def faked(value: Any) -> Any:
        return mode.from_tensor(value) if isinstance(value, torch.Tensor) else value

    batches = [
        dataclasses.replace(batch, **{name: faked(value) for name, value in vars(batch).items()})
        for batch in prepared.batches
    ]
    spans = [(requests, faked(where)) for requests, where in prepared.spans]
    table = torch.empty(VOCABULARY, VOCABULARY, device=ELSEWHERE)
    with torch.inference_mode():
        found = score(
            dataclasses.replace(prepared, batches=batches, spans=spans), lambda ids: table[ids], torch.device(ELSEWHERE)
        )
    return len(found)


def kernels() -> dict[str, str]:
    """Where each merge method leaves what it merges, of those that say that they run on a device."""
    found = {}
    for name, method in methods().items():
        if method.on_device:
            own = {parameter.name: parameter.default or 0 for parameter in method.parameters}
            values = {
                part.name: [own[part.name]] * 3 if part.per_model else own[part.name] for part in method.parameters
            }
            vectors = torch.randn(3, 20, 10, device=ELSEWHERE)
            found[name] = method.tensor(vectors, values, has_base=True).device.type
    return found


def together() -> str:
    """What this program is for: two devices do not meet unseen."""
    try:
        return str(torch.empty(3, device=ELSEWHERE) + torch.empty(3))
    except RuntimeError as error:
        return type(error).__name__


def taken(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    """``tensor[index]``, all of it where that depends on numbers."""
    if isinstance(index, torch.Tensor) and index.dtype == torch.bool:
        assert index.device == tensor.device, (index.device, tensor.device)
        return tensor.reshape(-1, *tensor.shape[index.ndim :])
    return torch.Tensor.__getitem__(tensor, index)


def main() -> None:
    _setup_privateuseone_for_python_backend("elsewhere")  # for good: not where others may import this
    # Where code goes by a number it goes on as if that were 1, and a mask takes everything.
    ones = {"__bool__": lambda _: True, "__float__": lambda _: 1.0, "__int__": lambda _: 1, "__getitem__": taken}
    prepared = prepare([((1, 2), (3,)), ((1, 2), (3, 4)), ((5,), (3, 4, 7))], 2, 32)
    with FakeTensorMode(shape_env=ShapeEnv()) as mode, patch.multiple(FakeTensor, **ones):
        json.dump(
            {
                "together": together(),
                "moments": moments(),
                "likelihoods": likelihoods(mode, prepared),
                "kernels": kernels(),
            },
            sys.stdout,
        )


if __name__ == "__main__":
    main()
