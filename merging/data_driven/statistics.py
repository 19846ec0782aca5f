"""What was measured of one model on data: tensors by the name of the weight they are about, kept as a file."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self, get_args

import torch
from pydantic import ValidationError

from kinship.checkpoints.checkpoint import Checkpoint, unchanged
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import InvalidConfig, MalformedCheckpoint, ReferenceNotFound
from kinship.output import output_file
from kinship.validation import Strict

Kind = Literal["fisher", "grams"]

VERSION = "1"


@dataclass(frozen=True, eq=False)
class Statistics(Mapping[str, torch.Tensor]):
    """Statistics of one model, by the name of the weight.

    kind: ``fisher``, of the shape of the weight, or ``grams``, (in, in) of the inputs of a linear layer's weight
    (out, in). settings: how they were measured. model, data: digests of the weights and of the batches; "" if unknown.
    """

    kind: Kind
    tensors: Mapping[str, torch.Tensor]
    settings: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    data: str = ""

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def about(self, model: str, data: str) -> Self:
        """The same, said to be of these weights and batches."""
        return replace(self, model=model, data=data)

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write one safetensors file, whole or not at all; raises `OutputExists` or `OutputNotWritable`."""
        from safetensors.torch import save_file

        about = {"version": VERSION, "kind": self.kind, "model": self.model, "data": self.data}
        # One entry: the library writes several in an order that changes from run to run.
        header = {"statistics": json.dumps(about | {"settings": dict(self.settings)}, sort_keys=True)}
        with output_file(path, force=force) as partial:
            partial.touch()
            usual = partial.stat().st_mode
            save_file({name: tensor.cpu().contiguous() for name, tensor in self.items()}, partial, metadata=header)
            partial.chmod(usual)  # the library leaves files that only their owner can read


class _Header(Strict):
    """What a file says of its tensors."""

    version: Literal["1"]
    kind: Kind
    model: str
    data: str
    settings: dict[str, str]


class _Stored(Mapping[str, torch.Tensor]):
    """The tensors of an open safetensors file, each read when it is asked for; not mapped, since files change."""

    def __init__(self, file: Checkpoint) -> None:
        self._file = file

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._file.tensors:
            raise KeyError(name)
        with unchanged([self._file]):
            return self._file.tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.tensors)

    def __len__(self) -> int:
        return len(self._file.tensors)


def load_statistics(path: Path) -> Statistics:
    """Open what `Statistics.save` wrote; tensors are read one by one, when they are asked for.

    Raises `ReferenceNotFound`, `MalformedCheckpoint`, or `InvalidConfig` for a safetensors file of something else.
    Reading a tensor raises `InputsChanged` once the file is no longer as it was.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ReferenceNotFound(f"There is no file of statistics at {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("statistics")
    except (SafetensorError, OSError) as error:
        raise MalformedCheckpoint(f"{path} is no safetensors file: {error}.", hint="Measure it again.") from None
    if header is None:
        raise InvalidConfig(f"{path} holds no statistics.", hint="Is it a model? Give a file of statistics.")
    try:
        about = _Header.model_validate_json(header)
    except ValidationError as error:
        raise InvalidConfig(
            f"{path} holds statistics that cannot be understood: version {VERSION}, kinds {', '.join(get_args(Kind))}, "
            f"were expected.",
            hint="Measure them again.",
        ) from error
    return Statistics(about.kind, _Stored(open_checkpoint(path)), about.settings, about.model, about.data)
