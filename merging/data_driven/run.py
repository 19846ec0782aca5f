"""Whole models: statistics of checkpoints kept as files, and merges that stream over models and statistics."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.device import choose_device, full_precision
from kinship.errors import InvalidConfig, MismatchedModels, NonFiniteWeights, OutputExists
from kinship.output import require_writable
from merging.data_driven.batches import Batches, digest, require_repeatable
from merging.data_driven.diagonals import Labels, fisher_diagonal
from merging.data_driven.fisher import average, fisher_average, require_weights
from merging.data_driven.grams import input_grams
from merging.data_driven.models import (
    CheckpointWeights,
    Weights,
    label_of,
    load_causal_lm,
    require_alike,
    stacked,
    weights_of,
)
from merging.data_driven.regmean import regmean
from merging.data_driven.statistics import Kind, Statistics, load_statistics

Tensors = Iterator[tuple[str, torch.Tensor]]
Kernel = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def fisher_statistics(
    checkpoint: Checkpoint,
    batches: Batches,
    path: Path,
    *,
    labels: Labels = "sampled",
    seed: int = 0,
    device: str = "cpu",
) -> Statistics:
    """The Fisher diagonal of a causal language model, from the file ``path``, or measured and written there.

    A file of the same weights, data and settings is taken as it is. The stream is read twice: once for its digest. The
    model is loaded only where there is something to measure, in fp32, and is gone afterwards; what is returned reads
    its tensors from the file. ``seed``: of the labels that are sampled. See `fisher_diagonal`.
    Raises `OutputExists` where the file holds something else, and what loading, measuring and writing raise.
    """
    settings = {"labels": labels} | ({"seed": str(seed)} if labels == "sampled" else {})

    def measure(model: nn.Module) -> Statistics:
        generator = torch.Generator().manual_seed(seed)
        return fisher_diagonal(model, batches, labels=labels, generator=generator, device=device)

    return _measured(checkpoint, batches, path, "fisher", settings, measure)


def gram_statistics(checkpoint: Checkpoint, batches: Batches, path: Path, *, device: str = "cpu") -> Statistics:
    """RegMean's matrices of a causal language model, from the file ``path``, or measured and written there.

    As `fisher_statistics`, with `input_grams`.
    """
    return _measured(checkpoint, batches, path, "grams", {}, lambda model: input_grams(model, batches, device=device))


def _measured(
    checkpoint: Checkpoint,
    batches: Batches,
    path: Path,
    kind: Kind,
    settings: dict[str, str],
    measure: Callable[[nn.Module], Statistics],
) -> Statistics:
    require_repeatable(batches)
    model, data = checkpoint.digest, digest(batches)
    if path.exists():
        found = load_statistics(path)
        same = (found.kind, found.model, found.data) == (kind, model, data)
        if same and settings.items() <= found.settings.items():
            return found
        raise OutputExists(
            f"{path} holds statistics of another model, other data or other settings than {checkpoint.id}'s {kind}.",
            hint="Choose another name, or remove the file.",
        )
    require_writable(path)
    measure(load_causal_lm(checkpoint)).about(model, data).save(path)
    return load_statistics(path)


def fisher_merge(
    models: Sequence[Weights | Checkpoint],
    statistics: Sequence[Statistics],
    *,
    weights: Sequence[float] | None = None,
    normalize: bool = True,
    floor: float = 1e-6,
    device: str = "cpu",
) -> Tensors:
    """Yield (name, tensor) of the Fisher-weighted average of p models with their ``fisher`` statistics.

    weights: of each model, 1 by default; hyperparameters, says the paper. normalize: Fishers are divided by their root
    mean square over the whole model, as in the authors' code, where it is the norm; a Fisher's scale says how sure a
    model is of its predictions. floor: the least that an entry counts, in units of that root mean square (the authors
    have 1e-6 of the norm, and for the first model alone); it decides where no model depends on an entry: the average.
    Tensors without statistics are averaged. Holds one tensor of each model at a time; statistics are read twice.
    Raises `InvalidConfig`, `MismatchedModels` or `NonFiniteWeights` naming what is wrong.
    """
    if not 0.0 <= floor < float("inf"):
        raise InvalidConfig(f"The floor of a Fisher merge is {floor}; 0 or more was expected.")
    factors = require_weights(weights, len(models))
    sources = _checked(models, statistics, "fisher")
    scales = root_mean_squares(sources, statistics)
    if not normalize:
        scales = [sum(scales) / len(scales)] * len(scales)

    def kernel(vectors: torch.Tensor, fishers: torch.Tensor) -> torch.Tensor:
        units = fishers.new_tensor(scales).reshape(-1, *[1] * (fishers.dim() - 1))
        return fisher_average(vectors, (fishers / units).to(vectors.dtype), factors, floor)

    return _merged(sources, statistics, kernel, factors, device)


def regmean_merge(
    models: Sequence[Weights | Checkpoint],
    statistics: Sequence[Statistics],
    *,
    weights: Sequence[float] | None = None,
    alpha: float = 0.9,
    device: str = "cpu",
) -> Tensors:
    """Yield (name, tensor) of the RegMean merge of p models with their ``grams`` statistics.

    weights: of each model, 1 by default. alpha: what products of different inputs are multiplied by; 0.9 suits most
    models, says the paper, and less T5. Tensors without statistics, which are all but the weights of linear layers, are
    averaged. Holds one tensor of each model and its matrices at a time.
    Raises `InvalidConfig`, `MismatchedModels` or `NonFiniteWeights` naming what is wrong.
    """
    if not 0.0 <= alpha <= 1.0:
        raise InvalidConfig(f"RegMean's alpha is {alpha}; 0 to 1 was expected.", hint="0.9 suits most models.")
    factors = require_weights(weights, len(models))
    sources = _checked(models, statistics, "grams")
    return _merged(sources, statistics, lambda vectors, grams: regmean(vectors, grams, factors, alpha), factors, device)


def _checked(models: Sequence[Weights | Checkpoint], statistics: Sequence[Statistics], kind: Kind) -> list[Weights]:
    """The models, after checking that each has statistics of the right kind that are its own."""
    sources = [weights_of(model) for model in models]
    if len(statistics) != len(sources):
        raise InvalidConfig(f"{len(statistics)} statistics were given for {len(sources)} models.")
    require_alike(sources)
    for place, (source, own) in enumerate(zip(sources, statistics, strict=True)):
        name = label_of(source, place)
        if own.kind != kind:
            raise InvalidConfig(f"The statistics of {name} are {own.kind!r}; {kind!r} were expected.")
        if own.model and isinstance(source, CheckpointWeights) and own.model != source.checkpoint.digest:
            raise MismatchedModels(
                f"The {kind!r} statistics given for {name} were measured of other weights.",
                hint="Give models and statistics in the same order, or measure again.",
            )
        unknown = sorted(own.keys() - source.keys())
        if unknown:
            raise MismatchedModels(f"There are statistics of {unknown[0]!r}, but {name} has no such tensor.")
    return sources


def _merged(
    sources: Sequence[Weights],
    statistics: Sequence[Statistics],
    kernel: Kernel,
    weights: Sequence[float],
    device: str,
) -> Tensors:
    device = choose_device(device)
    with full_precision(device):
        for name in sorted(sources[0]):
            tensors = [source[name] for source in sources]
            if not tensors[0].is_floating_point():
                if not all(torch.equal(tensor, tensors[0]) for tensor in tensors):
                    raise MismatchedModels(f"The integer buffer {name!r} differs between the models of a merge.")
                yield name, tensors[0]
                continue
            vectors = stacked(name, tensors).to(device)
            measured = [own.get(name) for own in statistics]
            known = next((found for found in measured if found is not None), None)
            if known is None:
                merged = average(vectors, weights)
            else:
                # A model that no prediction depends on here, or whose layer saw no data, has nothing to say.
                found = stacked(name, [torch.zeros_like(known) if one is None else one for one in measured])
                require_fit(name, tuple(vectors.shape[1:]), found, statistics[0].kind)
                merged = kernel(vectors, found.to(device))
            if not merged.isfinite().all():
                raise NonFiniteWeights(
                    f"Tensor {name!r} of the merge holds NaN or infinity.",
                    hint="Look for a damaged checkpoint or damaged statistics.",
                )
            yield name, merged.cpu()


def require_fit(name: str, shape: tuple[int, ...], found: torch.Tensor, kind: Kind) -> None:
    """Raise `MismatchedModels` unless statistics ``found`` (p, ..) of ``kind`` are for a tensor of this ``shape``."""
    expected = shape if kind == "fisher" else (shape[-1], shape[-1])
    if tuple(found.shape[1:]) != expected:
        raise MismatchedModels(
            f"The statistics of {name!r} have shape {list(found.shape[1:])}; {list(expected)} was expected."
        )


def root_mean_squares(sources: Sequence[Weights], statistics: Sequence[Statistics]) -> list[float]:
    """Of each model's Fisher over all entries that some model has one of; reads them all.

    Raises `NonFiniteWeights`, and `InvalidConfig` for a Fisher that is zero throughout.
    """
    sizes: dict[str, int] = {}
    sums = []
    for place, own in enumerate(statistics):
        total = 0.0
        for name, fisher in own.items():
            sizes[name] = fisher.numel()
            if fisher.lt(0).any() or not fisher.isfinite().all():
                raise NonFiniteWeights(f"The Fisher of {name!r} of {label_of(sources[place], place)} is no variance.")
            total += float(fisher.double().square().sum())
        if total == 0.0:
            raise InvalidConfig(
                f"The Fisher of {label_of(sources[place], place)} is zero throughout.",
                hint="It is certain of every prediction; use other data.",
            )
        sums.append(total)
    return [(total / sum(sizes.values())) ** 0.5 for total in sums]
