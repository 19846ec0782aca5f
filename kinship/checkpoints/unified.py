"""Several checkpoints of one architecture whose files differ in form, by the same names."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kinship.checkpoints.architecture import Architecture, Place, architecture_of, is_buffer
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.header import TensorEntry
from kinship.checkpoints.tied import tied_heads

IGNORED = "a buffer that transformers ignores"


class _Part(NamedTuple):
    """Elements from ``first`` on of the tensor ``name``, in ``shape``."""

    name: str
    first: int
    shape: tuple[int, ...]


class RenamedCheckpoint(Checkpoint):
    """``source`` by other names: each a tensor of it, or a run of elements of one; what is not named is not there."""

    def __init__(self, source: Checkpoint, parts: Mapping[str, _Part]) -> None:
        tensors = {name: _entry(name, source.tensors[part.name], part) for name, part in parts.items()}
        super().__init__(source.id, source.path, tensors, source.config, source.beside)
        self.source = source
        self._parts = dict(parts)

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """See `Checkpoint.read_into`."""
        part = self._parts[name]
        self.source.read_into(part.name, part.first + start, view)

    @property
    def digest(self) -> str:
        """That of the source: the weights are the same."""
        return self.source.digest

    def _fingerprint(self) -> str | None:
        source = self.source._fingerprint()
        return source and hashlib.sha256(repr((source, sorted(self._parts.items()))).encode()).hexdigest()

    def close(self) -> None:
        """Close the files of the source."""
        self.source.close()


def unified(models: Sequence[Checkpoint]) -> tuple[list[Checkpoint], dict[str, str]]:
    """``models`` by the tensor names of the first, as far as transformers reads their files alike; and, with the
    reason, what it reads of none of them and so is left out.

    Models whose files agree, or of an architecture that transformers alone does not know, are returned as they are.
    Experts that lie fused in some files and apart in others are shown apart. No weight is read; where files disagree,
    transformers is imported (seconds).
    """
    if not _in_doubt(models) or (architecture := architecture_of(models[0])) is None:
        return list(models), {}
    # A model of more layers than the first has places of its own.
    places = [_Places([architecture, architecture_of(model)]) for model in models]
    found = [_by_key(model, place) for model, place in zip(models, places, strict=True)]
    _take_apart(found, places, architecture)
    everywhere = set(found[0]).intersection(*found[1:])
    ignored = {
        key: IGNORED if is_buffer(part.name) else _missing_from(key, models, found)
        for parts, place in zip(found, places, strict=True)
        for key, part in parts.items()
        if place(part.name) is None and (is_buffer(part.name) or key not in everywhere)
    }
    shown: dict[str, str] = {}
    for parts in found:
        for key, part in parts.items():
            whole = part.first == 0 and key not in _split_keys(found, key, part)
            shown.setdefault(key, part.name if whole else key)
    return [
        _renamed(model, {shown[key]: part for key, part in parts.items() if key not in ignored})
        for model, parts in zip(models, found, strict=True)
    ], {shown[key]: reason for key, reason in sorted(ignored.items())}


def unified_by_kind(models: Sequence[Checkpoint]) -> list[Checkpoint]:
    """`unified` among the models of each ``model_type``, in their order; what is left out there is left out here."""
    found = list(models)
    for kind in dict.fromkeys(model.config.get("model_type") for model in models):
        places = [place for place, model in enumerate(models) if kind and model.config.get("model_type") == kind]
        if len(places) > 1:
            for place, model in zip(places, unified([models[place] for place in places])[0], strict=True):
                found[place] = model
    return found


def _split_keys(found: Sequence[Mapping[str, _Part]], key: str, part: _Part) -> set[str]:
    """``key``, if ``part`` is one of several that are taken of the same tensor."""
    return {key for parts in found if sum(other.name == part.name for other in parts.values()) > 1}


def _in_doubt(models: Sequence[Checkpoint]) -> bool:
    names = [model.tensors.keys() for model in models]
    heads = tied_heads(models).keys()
    differ = set().union(*names) - set(names[0]).intersection(*names[1:]) - heads
    return bool(differ) or any(is_buffer(name) for name in names[0])


def _missing_from(key: str, models: Sequence[Checkpoint], found: Sequence[Mapping[str, _Part]]) -> str:
    lacking = [model.id for model, parts in zip(models, found, strict=True) if key not in parts]
    return f"missing from {', '.join(lacking)}"


class _Places:
    """Where a tensor goes by the first of ``architectures`` that has a place for it."""

    def __init__(self, architectures: Sequence[Architecture | None]) -> None:
        self._architectures = [each for each in architectures if each is not None]

    def __call__(self, name: str) -> Place | None:
        return next((place for each in self._architectures if (place := each.place(name)) is not None), None)


def _by_key(model: Checkpoint, place_of: _Places) -> dict[str, _Part]:
    """The tensors of ``model`` by a name that is the same in every file that transformers reads alike."""
    found: dict[str, _Part] = {}
    for name, entry in model.tensors.items():
        place = place_of(name)
        key = name if place is None or place.name in found else place.name
        found[key] = _Part(name, 0, entry.shape)
    return found


def _take_apart(found: Sequence[dict[str, _Part]], places: Sequence[_Places], architecture: Architecture) -> None:
    """Where some models hold a parameter in parts, show the parts of those that hold it whole."""
    apart: dict[str, dict[str, tuple[int, ...]]] = {}
    for parts, place_of in zip(found, places, strict=True):
        for key, part in parts.items():
            place = place_of(part.name)
            if place is not None and place.pattern is not None:
                apart.setdefault(place.parameter, {})[key] = part.shape
    for parts in found:
        for parameter, shapes in apart.items():
            if parameter in parts:
                pieces = architecture.pieces_of(parameter, shapes)
                if pieces is not None and math.prod(parts[parameter].shape) == sum(map(math.prod, shapes.values())):
                    whole = parts.pop(parameter)
                    parts |= {key: _Part(whole.name, first, shapes[key]) for key, first in pieces.items()}


def _renamed(model: Checkpoint, parts: Mapping[str, _Part]) -> Checkpoint:
    same = parts.keys() == model.tensors.keys() and all(name == part.name for name, part in parts.items())
    return model if same else RenamedCheckpoint(model, parts)


def _entry(name: str, entry: TensorEntry, part: _Part) -> TensorEntry:
    size = entry.dtype.itemsize
    offset, nbytes = entry.offset + part.first * size, math.prod(part.shape) * size
    return TensorEntry(name, entry.dtype, part.shape, entry.file, offset, nbytes, entry.state)
