"""Pickled weights (``.bin``, ``.pt``, ``.pth``), read by PyTorch's weights-only loader, which runs no code."""

import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.dtypes import BY_NAME
from kinship.checkpoints.header import TensorEntry
from kinship.errors import MalformedCheckpoint, UnsupportedCheckpoint
from kinship.file_state import FileState, require_unchanged

# Where training scripts put the state dict.
_KEYS = ("state_dict", "model_state_dict", "model")


class PickledCheckpoint(Checkpoint):
    """Tensors that `read_pickle` loaded, mapped from their file where it allows."""

    def __init__(
        self,
        id: str,
        path: Path,
        files: Mapping[Path, dict[str, torch.Tensor]],
        config: dict[str, Any],
        states: Mapping[Path, FileState] | None = None,
        beside: Mapping[Path, FileState] | None = None,
    ) -> None:
        states = states or {}
        entries: dict[str, TensorEntry] = {}
        self._tensors: dict[str, torch.Tensor] = {}
        for file, tensors in files.items():
            for name, tensor in tensors.items():
                if name in entries:
                    raise MalformedCheckpoint(f"{path}: tensor {name!r} is stored in two files.", hint="Save it again.")
                entries[name] = TensorEntry(
                    name, BY_NAME[_dtype_name(tensor)], tuple(tensor.shape), file, 0, tensor.nbytes, states.get(file)
                )
                dense = tensor.resolve_neg().contiguous()
                self._tensors[name] = dense.as_strided((dense.numel(),), (1,))  # flatten() may keep strides of its own
        super().__init__(id, path, entries, config, beside)

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """See `Checkpoint.read_into`; a mapped file that was cut short would end the process, so it is looked at."""
        entry = self.tensors[name]
        if entry.state is not None and os.path.getsize(entry.file) < entry.state.size:
            require_unchanged({entry.file: entry.state})
        count = len(view) // self.tensors[name].dtype.itemsize
        view[:] = self._tensors[name][start : start + count].view(torch.uint8).numpy().data


def read_pickle(file: Path) -> dict[str, torch.Tensor]:
    """The state dict in ``file``, which may be it or hold it under a usual key; what is no tensor in it is passed over.

    Raises `UnsupportedCheckpoint` for what is not plain weights and `MalformedCheckpoint` for what cannot be loaded.
    """
    try:
        with open(file, "rb"), warnings.catch_warnings(action="ignore"):  # of old protocols and storages
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_archive(file))
    except OSError as error:
        if error.filename is not None:  # nobody may read it
            raise
        raise MalformedCheckpoint(
            f"{file} cannot be loaded as pickled weights ({error.strerror}).", hint="Save it again."
        ) from error
    except pickle.UnpicklingError:
        raise UnsupportedCheckpoint(
            f"{file} is damaged, or needs code to be run to load it, which may do anything.",
            hint="If you trust it, load it yourself and save its state dict as safetensors.",
        ) from None
    except Exception as error:  # whatever else a loader of damaged archives and pickles can end with
        raise MalformedCheckpoint(
            f"{file} cannot be loaded as pickled weights ({type(error).__name__}).", hint="Save it again."
        ) from error
    for holder in (*(content.get(key) for key in _KEYS if isinstance(content, Mapping)), content):
        if isinstance(holder, Mapping):
            found = {key: value.detach() for key, value in holder.items() if isinstance(value, torch.Tensor)}
            if found:
                _require_plain(file, found)
                return found
    raise UnsupportedCheckpoint(
        f"{file} holds no state dict, neither as a whole nor under {', '.join(_KEYS)}.",
        hint="Save model.state_dict().",
    )


def _is_archive(file: Path) -> bool:
    """Whether ``file`` is a zip archive as PyTorch 1.6 and later write it, which can be mapped into memory."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        stored = sum(info.file_size for info in archive.infolist())
        if stored > os.path.getsize(file) or any(info.compress_type for info in archive.infolist()):
            raise ValueError("compressed")  # PyTorch compresses nothing; a bomb would
    return True


def _require_plain(file: Path, tensors: Mapping[Any, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        plain = isinstance(name, str) and tensor.layout == torch.strided and _dtype_name(tensor) in BY_NAME
        # An expanded tensor names more elements than are stored: without end, in a hostile file.
        if not plain or tensor.device.type != "cpu" or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise UnsupportedCheckpoint(
                f"{file}: {str(name)[:200]!r} is no plain tensor of weights.", hint="Save model.state_dict()."
            )


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
