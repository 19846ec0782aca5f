"""AdaMerging: coefficients of task vectors found by making the merged model sure of its predictions."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import nn

from kinship.arrays import Float64
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.module_kinds import kind_in
from kinship.checkpoints.tensor_names import group_labels
from kinship.device import choose_device, full_precision
from kinship.errors import InvalidConfig, MismatchedModels, NonFiniteWeights
from merging.data_driven.batches import Batch, Batches, checked, require_repeatable
from merging.data_driven.models import Weights, label_of, stacked, weights_of
from merging.data_driven.predictions import evaluating, predict
from merging.recipe.schema import Recipe, parse_recipe

Grouping = Literal["task", "layer", "tensor"]


@dataclass(frozen=True, eq=False)
class TaskVectors:
    """``base + sum_k coefficients[k, group] * vectors[k]``, tensor by tensor.

    base: tensors (\\*shape) by name. vectors: (p, \\*shape) by name. groups: the column of each name, those of tied
    parameters that share a tensor included. labels: what the columns are called.
    """

    base: Mapping[str, torch.Tensor]
    vectors: Mapping[str, torch.Tensor]
    groups: Mapping[str, int]
    labels: tuple[str, ...]

    def merged(self, coefficients: torch.Tensor) -> dict[str, torch.Tensor]:
        """The model at ``coefficients`` (p, G), through which gradients flow."""
        return {
            name: base + torch.tensordot(coefficients[:, self.groups[name]].to(base), self.vectors[name], dims=1)
            for name, base in self.base.items()
        }


@dataclass(frozen=True, eq=False)
class AdaMerged:
    """What AdaMerging found: ``coefficients`` (p, G) of p task vectors in G groups called ``labels``.

    groups: the column of each tensor's name. before, after: mean entropy in nats of the predictions on each task's
    data, at the start and at the end. Lower entropy is what was asked for; it does not say that the model is better.
    """

    coefficients: Float64
    labels: tuple[str, ...]
    groups: Mapping[str, int]
    before: tuple[float, ...]
    after: tuple[float, ...]

    def recipe(self, base: str, models: Sequence[str]) -> Recipe:
        """Task arithmetic with these coefficients as weights, for the span algebra and for mergekit."""
        entries = [
            {"model": model, "parameters": {"weight": setting}}
            for model, setting in zip(models, self.settings(self.groups), strict=True)
        ]
        content = {"merge_method": "task_arithmetic", "base_model": base, "models": entries}
        return parse_recipe(content | {"parameters": {"normalize": False}}, "AdaMerging's recipe")

    def report(self) -> dict[str, Any]:
        """Plain data: coefficients by label, one a task vector, and the entropies."""
        columns = dict(zip(self.labels, self.coefficients.T.tolist(), strict=True))
        return {"coefficients": columns, "entropy_before": list(self.before), "entropy_after": list(self.after)}

    def settings(self, names: Collection[str]) -> list[Any]:
        """The coefficients of each task vector as recipes write them, for those of the tensors ``names`` it has."""
        # Filters are substrings and the first match wins, so a longer name must come before any part of it.
        known = sorted(self.groups.keys() & set(names), key=lambda name: (-len(name), name))
        rows = self.coefficients.tolist()
        if len(self.labels) == 1:
            return [row[0] for row in rows]
        return [[{"filter": name, "value": row[self.groups[name]]} for name in known] for row in rows]


def adamerge(
    model: nn.Module,
    base: Weights | Checkpoint,
    models: Sequence[Weights | Checkpoint],
    batches: Sequence[Batches],
    *,
    by: Grouping = "layer",
    steps: int = 500,
    rate: float = 1e-3,
    start: float | Sequence[float] = 0.3,
    low: float = 0.0,
    high: float = 1.0,
    device: str = "cpu",
) -> AdaMerged:
    """Train coefficients of the task vectors of ``models`` by entropy minimisation (Yang et al., arXiv 2310.02575).

    Minimises ``sum_k mean_x H(f(x; base + sum_i c_i tau_i))``, x from each task's unlabelled ``batches``, by Adam at
    ``rate`` from ``start`` (of all, or of each), with one batch of each task a step, in order and over again; defaults
    are the authors', but that coefficients are put back into low .. high after a step (theirs stay outside and are cut
    when used) and that they shuffle. by: one coefficient a ``task`` vector (task-wise), or one for each ``layer`` too,
    with embeddings, head and norms as layers of their own, or for each ``tensor``, which the authors' code calls
    layer-wise.

    model: the architecture; its own weights are not used, its buffers are.

    The paper is about classifiers. A language model's entropy is that of its next-token predictions, and low entropy
    is no sign of a good one: merging a 260K-parameter Llama's fine-tunes on two texts, entropy fell by a fifth while
    the loss rose above the plain average's. Compare the losses before using the result on a language model.

    Memory: base, task vectors, merged model, its gradient and activations: p + 4 models. Each step a forward and a
    backward pass a task. No randomness; deterministic on the CPU, up to its number of threads; CUDA is untested.
    Raises `InvalidConfig`, `MismatchedModels`, or `NonFiniteWeights` naming task and step.
    """
    starts = [start] * len(models) if isinstance(start, int | float) else list(start)
    within = len(starts) == len(models) and all(low <= each <= high for each in starts)
    if by not in get_args(Grouping) or not (steps >= 0 and rate > 0 and within):
        raise InvalidConfig(
            f"AdaMerging by {by!r} with steps {steps}, rate {rate}, start {start} in {low} .. {high} cannot be run.",
            hint=f"by: one of {', '.join(get_args(Grouping))}; steps: 0 or more; rate: above 0; low <= start <= high.",
        )
    if not models or not batches:
        raise InvalidConfig(f"AdaMerging was given {len(models)} models and {len(batches)} streams of batches.")
    for stream in batches:
        require_repeatable(stream)
    device = choose_device(device)
    with full_precision(device), evaluating(model, device, gradients=False):
        vectors = task_vectors(model, weights_of(base), [weights_of(one) for one in models], by, device)
        coefficients = torch.tensor(starts, dtype=torch.float64)[:, None].repeat(1, len(vectors.labels))
        before = _mean_entropies(model, vectors, coefficients, batches, device)
        optimiser = torch.optim.Adam([coefficients], lr=rate)
        streams = [_repeated(stream, device) for stream in batches]
        for step in range(1, steps + 1):
            _, coefficients.grad = entropy_gradient(
                model, vectors, coefficients, map(next, streams), f" at step {step}"
            )
            optimiser.step()
            coefficients.clamp_(low, high)
        after = _mean_entropies(model, vectors, coefficients, batches, device) if steps else before
    return AdaMerged(coefficients.numpy(), vectors.labels, vectors.groups, before, after)


def task_vectors(
    model: nn.Module, base: Weights, models: Sequence[Weights], by: Grouping, device: str = "cpu"
) -> TaskVectors:
    """The parameters of ``model`` as ``base`` and p task vectors, in fp32 or wider, grouped ``by``.

    Raises `MismatchedModels` naming a parameter that one of them lacks or has in another shape.
    """
    bases: dict[str, torch.Tensor] = {}
    vectors: dict[str, torch.Tensor] = {}
    columns: dict[str, int] = {}
    labels: dict[int, str] = {}
    names = [name for name, _ in model.named_parameters()]
    groups = ["all"] * len(names) if by == "task" else group_labels(names, by, partial(kind_in, model))
    for (name, parameter), label in zip(model.named_parameters(), groups, strict=True):
        for place, source in enumerate((base, *models)):
            if name not in source:
                owner = "the base" if place == 0 else label_of(source, place - 1)
                raise MismatchedModels(f"The model has a parameter {name!r}, but {owner} has not.")
        rows = stacked(name, [source[name] for source in (base, *models)]).to(device)
        if rows.shape[1:] != parameter.shape:
            raise MismatchedModels(
                f"Tensor {name!r} has shape {list(rows.shape[1:])}, but the model makes it {list(parameter.shape)}."
            )
        bases[name], vectors[name] = rows[0].clone(), rows[1:] - rows[0]
        labels[id(parameter)] = label
    order = {text: column for column, text in enumerate(dict.fromkeys(labels.values()))}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        columns[name] = order[labels[id(parameter)]]
    return TaskVectors(bases, vectors, columns, tuple(order))


def entropy_gradient(
    model: nn.Module, vectors: TaskVectors, coefficients: torch.Tensor, batches: Iterator[Batch], when: str = ""
) -> tuple[tuple[float, ...], torch.Tensor]:
    """Mean entropy on each task's batch, and the gradient (p, G) of their sum with respect to ``coefficients``.

    Raises `NonFiniteWeights` naming the task, counted from 1, and ``when``.
    """
    point = coefficients.detach().clone().requires_grad_()
    merged = vectors.merged(point)
    # The tasks' gradients meet at the merged weights, so that one task's activations are gone before the next's come.
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in merged.items()}
    found = []
    for task, batch in enumerate(batches, 1):
        predictions = predict(model, batch, parameters=leaves)
        if not len(predictions.logits):
            raise InvalidConfig(f"A batch of task {task} holds nothing to predict.", hint="Is all of it padding?")
        entropy = predictions.entropies.mean()
        if not entropy.isfinite():
            raise NonFiniteWeights(
                f"The entropy of task {task}{when} is NaN or infinite.", hint="Look for a damaged checkpoint."
            )
        entropy.backward()  # type: ignore[no-untyped-call]
        found.append(float(entropy.detach()))
    used = [name for name, leaf in leaves.items() if leaf.grad is not None]
    torch.autograd.backward([merged[name] for name in used], [leaves[name].grad for name in used])
    gradient = torch.zeros_like(point) if point.grad is None else point.grad
    if not gradient.isfinite().all():
        raise NonFiniteWeights(f"The gradient of the coefficients{when} holds NaN or infinity.")
    return tuple(found), gradient


def _mean_entropies(
    model: nn.Module, vectors: TaskVectors, coefficients: torch.Tensor, batches: Sequence[Batches], device: str
) -> tuple[float, ...]:
    """Over all predictions of each task."""
    means = []
    with torch.no_grad():
        merged = vectors.merged(coefficients)
        for stream in batches:
            total, count = 0.0, 0
            for number, batch in checked(stream, device):
                entropies = predict(model, batch, number, merged).entropies
                total, count = total + float(entropies.double().sum()), count + len(entropies)
            means.append(total / max(count, 1))
    return tuple(means)


def _repeated(batches: Batches, device: str) -> Iterator[Batch]:
    """The batches in order, over and over again."""
    while True:
        for _, batch in checked(batches, device):
            yield batch
