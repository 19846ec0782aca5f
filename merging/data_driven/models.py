"""Models as names and tensors: of a checkpoint, read as asked for, and of a causal language model made from one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from kinship.checkpoints.architecture import Architecture, is_buffer
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.tied import tie_as_told, tied_heads
from kinship.errors import MismatchedModels, UnsupportedCheckpoint, foreign

# The tensors of a model by name: `CheckpointWeights`, or those of a module, each once. A tensor of several names, as a
# tied head, is listed by the first, as named_parameters does; a state dict lists it by all of them.
Weights = Mapping[str, torch.Tensor]


class CheckpointWeights(Mapping[str, torch.Tensor]):
    """The tensors of a checkpoint, each read when it is asked for, without heads that are the embedding again and
    buffers that transformers passes over.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        tied = tied_heads([checkpoint])
        self._names = [name for name in checkpoint.tensors if name not in tied and not is_buffer(name)]

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.checkpoint.tensors:
            raise KeyError(name)
        return self.checkpoint.tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def weights_of(model: Weights | Checkpoint) -> Weights:
    """The tensors of a checkpoint; what is no checkpoint has them already."""
    return CheckpointWeights(model) if isinstance(model, Checkpoint) else model


def label_of(weights: Weights, place: int) -> str:
    """A model for people: its id, or which of the models it is, counted from 0."""
    return weights.checkpoint.id if isinstance(weights, CheckpointWeights) else f"model {place}"


def require_alike(models: Sequence[Weights]) -> None:
    """Raise `MismatchedModels` unless all models hold tensors of the same names. Reads no tensor."""
    for place, model in enumerate(models[1:], 1):
        for name in sorted(models[0].keys() ^ model.keys()):
            owner, other = label_of(models[0], 0), label_of(model, place)
            if name in model:
                owner, other = other, owner
            raise MismatchedModels(
                f"{owner} has the tensor {name!r}, {other} has not.",
                hint="Models that are merged must be fine-tunes of one architecture.",
            )


def stacked(name: str, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """One tensor of p models as (p, \\*shape), in fp32 or wider; raises `MismatchedModels` where shapes differ."""
    shapes = sorted({tuple(tensor.shape) for tensor in tensors})
    if len(shapes) > 1:
        raise MismatchedModels(
            f"Tensor {name!r} has shape {list(shapes[0])} in one model and {list(shapes[1])} in another.",
            hint="Models that are merged must be fine-tunes of one architecture.",
        )
    wide = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    return torch.stack([tensor.to(wide) for tensor in tensors])


def load_causal_lm(
    checkpoint: Checkpoint, device: str = "cpu", dtype: torch.dtype = torch.float32, *, by_name: bool = True
) -> nn.Module:
    """The causal language model that ``checkpoint``, with its adapter if it has one, is the weights of.

    by_name: what is measured of its parameters is to be found again by their names in the files. Memory: one model in
    ``dtype``. No remote code is run, and the global random state stays as it is.
    Raises `UnsupportedCheckpoint` for a bare weights file, for a model that is no causal language model (data are
    predicted token by token), and ``by_name`` for files whose tensors are not parameters by name (fused experts,
    Pythia's head); `MismatchedModels` naming a tensor without its place.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if not checkpoint.config or not checkpoint.path.is_dir():
        raise UnsupportedCheckpoint(
            f"{checkpoint.id} has no config.json, so it cannot be run on data.",
            hint="Give a Hugging Face model folder with config and tokenizer.",
        )
    refused = f"transformers makes no causal language model of {checkpoint.path}"
    with foreign(UnsupportedCheckpoint, refused, hint="Mend its config.json, or choose a method without data."):
        config = tie_as_told(
            AutoConfig.from_pretrained(checkpoint.path, local_files_only=True, trust_remote_code=False), checkpoint
        )
        named = config.architectures or []
        try:
            with torch.random.fork_rng(devices=[]):
                model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
        except ValueError as error:  # an architecture that has no causal class
            raise _not_causal(checkpoint, named) from error
    if named and type(model).__name__ not in named:
        raise _not_causal(checkpoint, named)
    model.config.use_cache = False
    architecture = Architecture(model)
    places = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    missing = {id(place): name for name, place in model.named_parameters()}
    weights: Iterable[tuple[str, torch.Tensor]] = CheckpointWeights(checkpoint).items()
    if not by_name:
        weights = architecture.converted(weights, list(CheckpointWeights(checkpoint)))
    with torch.no_grad():
        for name, tensor in weights:
            place = places.get(name)
            found = architecture.place(name) if place is None else None
            if found is not None:
                raise UnsupportedCheckpoint(
                    f"{checkpoint.id} stores {name!r}, of which transformers makes {found.parameter!r}: "
                    "what is measured on data would have no place in its files.",
                    hint="Merge such models by a method without data, as task_arithmetic, ties or dare_ties.",
                )
            if place is None or place.shape != tensor.shape:
                made = "no such tensor" if place is None else f"{list(place.shape)}"
                raise MismatchedModels(
                    f"{checkpoint.id} stores {name!r} {list(tensor.shape)}, but by its config.json there is {made}."
                )
            place.copy_(tensor)
            missing.pop(id(place), None)
    if missing:
        raise MismatchedModels(
            f"{checkpoint.id} holds no tensor {next(iter(missing.values()))!r} that the model needs."
        )
    loaded: nn.Module = model.to(device).eval()
    return loaded


def _not_causal(checkpoint: Checkpoint, named: Sequence[str]) -> UnsupportedCheckpoint:
    return UnsupportedCheckpoint(
        f"{checkpoint.id} is a {' or '.join(named) or checkpoint.config.get('model_type')}; what measures "
        "models on data (fisher, regmean, adamerging, surgery) takes causal language models.",
        hint="Merge such models by a method without data, as task_arithmetic, ties or dare_ties.",
    )
