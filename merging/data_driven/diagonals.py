"""The diagonal of a model's Fisher information, measured on data."""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import nn

from kinship.device import choose_device, full_precision
from kinship.errors import InvalidConfig, NonFiniteWeights
from merging.data_driven.batches import Batches, checked, examples
from merging.data_driven.predictions import Predictions, evaluating, predict
from merging.data_driven.statistics import Statistics

Labels = Literal["exact", "sampled", "given"]


def fisher_diagonal(
    model: nn.Module,
    batches: Batches,
    *,
    labels: Labels = "sampled",
    generator: torch.Generator | None = None,
    device: str = "cpu",
) -> Statistics:
    """The mean over predictions of squared gradients of log p(y | x) with respect to each parameter.

    Which y (Matena and Raffel, arXiv 2111.09832, on estimating the diagonal Fisher):

    - ``exact``: the expectation over all classes, as the authors' code for classifiers has it; for one
      prediction an example. As many backward passes an example as there are classes.
    - ``sampled``: one draw from the model itself by ``generator`` (of the CPU), as the paper says where there are many
      classes; unbiased. Of a language model every token is drawn given the text before it, so that the products of the
      gradients of two tokens vanish in expectation and a document costs one backward pass.
    - ``given``: the batches' own labels. This is the empirical Fisher, which is NOT the Fisher information, and not
      what the paper uses, though much software does. A document's gradients are summed before they are squared.

    Returns ``fisher`` statistics in the dtype of the parameters, fp32 at least, for every parameter that a prediction
    depends on, in at least one of the batches; tied parameters count once, by their first name. Gradients are taken
    example by example, the squares added up in order: sums of N terms >= 0 in fp32, within N * 6e-8 relative.
    Memory: model, gradients and sums. Deterministic on the CPU, up to its number of threads; CUDA is untested.
    Raises `InvalidConfig` for batches that do not fit and `NonFiniteWeights` naming batch and parameter.
    """
    if labels not in get_args(Labels):
        raise InvalidConfig(f"There are no {labels!r} labels.", hint=f"Use one of: {', '.join(get_args(Labels))}.")
    if labels == "sampled" and generator is None:
        raise InvalidConfig("Sampled labels need a generator.", hint="Give generator=torch.Generator().manual_seed(0).")
    device = choose_device(device)
    sums: dict[str, torch.Tensor] = {}
    count = 0
    with full_precision(device), evaluating(model, device, gradients=True) as parameters:
        learned = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        for number, batch in checked(batches, device):
            for example in examples(batch):
                predictions = predict(model, example, number)
                if not len(predictions.logits):
                    continue
                count += len(predictions.logits)
                for weight, score in _scores(predictions, labels, generator, number):
                    found = torch.autograd.grad(score, list(learned.values()), retain_graph=True, allow_unused=True)
                    for (name, parameter), gradient in zip(learned.items(), found, strict=True):
                        if gradient is not None:
                            wide = gradient.to(torch.promote_types(parameter.dtype, torch.float32))
                            _add_square(sums, name, wide, weight)
            _require_finite(sums, number)
    if count == 0:
        raise InvalidConfig("The batches hold nothing to predict.", hint="All labels are ignored, or all is padding.")
    settings = {"labels": labels, "predictions": str(count)}
    if labels == "sampled" and generator is not None:
        settings["seed"] = str(generator.initial_seed())
    return Statistics("fisher", {name: total / count for name, total in sums.items()}, settings)


def _scores(
    predictions: Predictions, labels: Labels, generator: torch.Generator | None, number: int
) -> Iterator[tuple[float, torch.Tensor]]:
    """(weight, log-likelihood) whose squared gradients, so weighted, add up to the Fisher of one example."""
    logs = predictions.logits.log_softmax(dim=1)
    if logs.isnan().any():
        raise NonFiniteWeights(
            f"The model's predictions on batch {number} hold NaN or infinity.", hint="Look for a damaged checkpoint."
        )
    chances = logs.detach().exp()
    if labels == "exact":
        if len(logs) > 1:
            raise InvalidConfig(
                f"Batch {number} has {len(logs)} predictions in one example; exact labels are for one.",
                hint="Use labels='sampled'.",
            )
        yield from zip(chances[0].tolist(), logs[0], strict=True)
        return
    if labels == "sampled":
        # Drawn on the CPU, so that a seed means the same draws wherever the model runs.
        chosen = torch.multinomial(chances.cpu(), 1, generator=generator).to(logs.device)
    elif predictions.labels is None:
        raise InvalidConfig(f"Batch {number} has no labels.", hint="Add them, or use labels='sampled'.")
    else:
        chosen = predictions.labels[:, None]
        if not ((chosen >= 0) & (chosen < logs.shape[1])).all():
            raise InvalidConfig(f"Batch {number} has a label beyond the model's {logs.shape[1]} classes.")
    yield 1.0, logs.gather(1, chosen).sum()


def _add_square(sums: dict[str, torch.Tensor], name: str, gradient: torch.Tensor, weight: float) -> None:
    if name not in sums:
        sums[name] = torch.zeros_like(gradient)
    sums[name].addcmul_(gradient, gradient, value=weight)


def _require_finite(sums: dict[str, torch.Tensor], number: int) -> None:
    for name, total in sums.items():
        if not total.isfinite().all():
            raise NonFiniteWeights(
                f"The gradient of {name!r} on batch {number} holds NaN or infinity, or is too large to square.",
                hint="Look for a damaged checkpoint, or run the model in float32.",
            )
