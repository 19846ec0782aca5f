"""Which tensors have a row for each token: embeddings, heads, their biases, by whatever names."""

import math
from collections.abc import Collection, Sequence

from kinship.checkpoints.architecture import Architecture, architecture_of
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.header import TensorEntry
from kinship.checkpoints.tied import has_token_rows
from kinship.errors import UnsupportedCheckpoint


def vocabulary_tensors(model: Checkpoint) -> list[str]:
    """The tensors of ``model`` with a row for each token: as transformers makes them, else by their names.

    Cost: as `architecture_of`, twice. Raises `UnsupportedCheckpoint` for one whose tokens are no rows, and for a tensor
    that transformers has no place for and that is as long as the vocabulary.
    """
    architecture = architecture_of(model)
    known = architecture.vocabulary if architecture is not None else {}
    found: list[str] = []
    unknown: list[str] = []
    for name, entry in model.tensors.items():
        place = architecture.place(name) if architecture is not None and known else None
        if place is None:
            (found if has_token_rows(name) and entry.shape else unknown).append(name)
        elif place.parameter in known:
            _require_rows(model, name, known[place.parameter])
            found.append(name)
    _require_none_left(model, found, unknown, architecture)
    return found


def token_rows(entry: TensorEntry) -> int:
    """How many tokens a tensor has an entry for, that has one for each."""
    return entry.shape[tokens_at(entry)]


def tokens_at(entry: TensorEntry) -> int:
    """The dimension of a tensor's tokens, the first that is one: BART's bias of the head has (1, tokens)."""
    return next((place for place, size in enumerate(entry.shape) if size != 1), 0)


def have_token_rows(model: Checkpoint, names: Collection[str]) -> bool:
    """Whether one of the tensors ``names`` of ``model`` has a row for each token."""
    if not names or any(map(has_token_rows, names)):
        return bool(names)
    architecture = architecture_of(model)
    places = architecture.places(names) if architecture is not None else {}
    return architecture is not None and any(place.parameter in architecture.vocabulary for place in places.values())


def heights_differ(models: Sequence[Checkpoint]) -> bool:
    """Whether a tensor with a row for each token has more of them in some of the ``models`` than in others."""
    differing = [
        name
        for name, entry in models[0].tensors.items()
        if any(name in model.tensors and model.tensors[name].shape != entry.shape for model in models[1:])
    ]
    return have_token_rows(models[0], differing)


def _require_rows(model: Checkpoint, name: str, dimension: int) -> None:
    if math.prod(model.tensors[name].shape[:dimension]) != 1:
        raise UnsupportedCheckpoint(
            f"{model.id} has its tokens in dimension {dimension} of {name!r}; only rows can be moved.",
            hint="Merge models with one vocabulary, or compare them with --vocab same.",
        )


def _require_none_left(
    model: Checkpoint, found: Sequence[str], unknown: Sequence[str], architecture: Architecture | None
) -> None:
    """Raise `UnsupportedCheckpoint` for an ``unknown`` tensor of the length of those ``found``."""
    heights = {token_rows(model.tensors[name]) for name in found}
    sizes = heights - {size for name in found for size in model.tensors[name].shape[1:]} - {1}
    for name in unknown:
        shape = model.tensors[name].shape
        if sizes.intersection(shape) and not (architecture is not None and architecture.ignores(name)):
            raise UnsupportedCheckpoint(
                f"{model.id}: tensor {name!r} of shape {list(shape)} is as long as the vocabulary, and whether it has "
                "a row for each token is not known.",
                hint="Give a folder with a config.json that transformers knows, or models with one vocabulary.",
            )
    if not found:
        raise UnsupportedCheckpoint(
            f"{model.id} has no tensor that is known to have a row for each token.",
            hint="Give a folder with a config.json that transformers knows, or models with one vocabulary.",
        )
