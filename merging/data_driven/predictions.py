"""What a model predicts on a batch, with padding and everything else that is no prediction left out."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call

from kinship.errors import InvalidConfig
from merging.data_driven.batches import IGNORED, Batch


@dataclass(frozen=True)
class Predictions:
    """``logits`` (P, C) of P predictions, in fp32 or wider, and their ``labels`` (P) where the batch has them."""

    logits: torch.Tensor
    labels: torch.Tensor | None

    @property
    def entropies(self) -> torch.Tensor:
        """The entropy (P) of each prediction, in nats.

        >>> Predictions(torch.zeros(1, 4), None).entropies.exp()
        tensor([4.])
        """
        logs = self.logits.log_softmax(dim=1)
        return -(logs.exp() * logs).sum(dim=1)


def predict(
    model: nn.Module, batch: Batch, number: int = 1, parameters: Mapping[str, torch.Tensor] | None = None
) -> Predictions:
    """Run ``model`` on a batch, with ``parameters`` in the place of its own if there are any.

    The model gets every tensor but the labels by keyword and returns logits, or an object that has them as
    ``.logits``: (B, C), one prediction an example, or (B, T, C) of a causal language model, whose position t predicts
    token t + 1. Of those count the ones whose label is not `IGNORED`; without labels, those from a token to a token as
    attention_mask has it. Encoder-decoders and token classifiers, which do not shift, are not for this.
    Raises `InvalidConfig` naming the batch's ``number`` where it does not fit the model.
    """
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    try:
        output = model(**inputs) if parameters is None else functional_call(model, dict(parameters), (), inputs)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise InvalidConfig(
            f"Batch {number} ({', '.join(inputs)}) does not fit {type(model).__name__}: {error}",
            hint="Batches are the keyword arguments of the model's forward; was another tokenizer used?",
        ) from error
    logits = getattr(output, "logits", output)
    if not isinstance(logits, torch.Tensor) or logits.dim() not in (2, 3):
        found = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InvalidConfig(
            f"{type(model).__name__} returned {found} for batch {number}; logits (B, C) or (B, T, C) were expected.",
            hint="Use a classifier or a causal language model, with its head.",
        )
    labels = batch.get("labels")
    if labels is not None and labels.shape != logits.shape[:-1]:
        raise InvalidConfig(
            f"Batch {number} has labels {list(labels.shape)} for predictions {list(logits.shape[:-1])}."
        )
    kept = torch.ones(logits.shape[:-1], dtype=torch.bool, device=logits.device)
    if logits.dim() == 3:
        mask = batch.get("attention_mask")
        kept = kept[:, 1:] if mask is None else (mask[:, 1:] != 0) & (mask[:, :-1] != 0)
        logits, labels = logits[:, :-1], None if labels is None else labels[:, 1:]
    if labels is not None:
        kept = kept & (labels != IGNORED)
    wide = torch.promote_types(logits.dtype, torch.float32)
    return Predictions(logits[kept].to(wide), None if labels is None else labels[kept])


@contextmanager
def evaluating(model: nn.Module, device: str, *, gradients: bool) -> Iterator[dict[str, nn.Parameter]]:
    """Yield the model's parameters by name, each once, while it is on ``device``, without dropout.

    ``gradients``: whether its parameters take part in them. Everything but the device is as before afterwards.
    """
    model.to(device)
    training = [module.training for module in model.modules()]
    parameters = dict(model.named_parameters())
    needed = [parameter.requires_grad for parameter in parameters.values()]
    for parameter in parameters.values():
        parameter.requires_grad_(gradients and parameter.is_floating_point())
    model.eval()
    try:
        yield parameters
    finally:
        for module, mode in zip(model.modules(), training, strict=True):
            module.training = mode
        for parameter, need in zip(parameters.values(), needed, strict=True):
            parameter.requires_grad_(need)
