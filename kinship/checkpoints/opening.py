"""From a reference to an open checkpoint: folders, single files, Hub models, adapters."""

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from kinship.checkpoints.adapted import AdaptedCheckpoint
from kinship.checkpoints.adapter_config import CONFIG_NAME, AdapterConfig, read_adapter_config
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.folder_files import find_file, read_config, read_json
from kinship.checkpoints.header import TensorEntry, read_header
from kinship.checkpoints.lora import WEIGHTS_NAME, read_adapter
from kinship.checkpoints.references import Fetch, Reference, locate, parse_reference
from kinship.checkpoints.tied import unequal_head, untied
from kinship.errors import KinshipWarning, MalformedCheckpoint, UnsupportedCheckpoint
from kinship.file_state import FileState, states_of

# GPTQ and AWQ; bitsandbytes in 4 and 8 bits; compressed-tensors.
_CODES = re.compile(r".*\.(qweight|qzeros|absmax|quant_map|quant_state\..+|SCB|weight_packed)")
_SCALE = re.compile(r"(?P<weight>.+)_scale(_inv)?")  # beside a weight in one byte: float8 or int8 with scales


def refuse_quantised(path: Path, tensors: Mapping[str, TensorEntry]) -> None:
    """Raise `UnsupportedCheckpoint` where names tell that weights are stored as codes; plain float8 is no code."""
    for name in tensors:
        scale = _SCALE.fullmatch(name)
        weight = tensors.get(scale["weight"]) if scale else None
        if _CODES.fullmatch(name) or (weight is not None and weight.dtype.itemsize == 1):
            raise UnsupportedCheckpoint(
                f"{path} is quantised, as the tensor {name!r} tells; its numbers are codes, not weights.",
                hint="Use the original checkpoint, or dequantise it first.",
            )


def refuse_gguf(file: Path) -> None:
    """Raise `UnsupportedCheckpoint` for a GGUF file, whatever it is called."""
    with open(file, "rb") as opened:
        if opened.read(4) == b"GGUF":
            raise UnsupportedCheckpoint(
                f"{file} is a GGUF file, made for inference and mostly quantised.",
                hint="Use the safetensors it was made from; or load it with transformers "
                "(from_pretrained(folder, gguf_file=...)) and save it with save_pretrained.",
            )


INDEX_NAME = "model.safetensors.index.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth")
PICKLE_NAME, PICKLE_INDEX_NAME = "pytorch_model.bin", "pytorch_model.bin.index.json"

_NO_PICKLE = (
    "Pickled weights are never downloaded, and local ones only read when asked for: `kinship matrix --allow-pickle`, "
    "allow_pickle=True in Python. Or save the model with save_pretrained(...), as safetensors."
)

_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")


def open_checkpoint(
    reference: str | Path | Mapping[str, object],
    *,
    id: str | None = None,
    root: Path | None = None,
    allow_pickle: bool = False,
    fetch: Fetch | None = None,
) -> Checkpoint:
    """Open a model: a local folder, a ``.safetensors`` file, a Hub id, any of them with an adapter.

    Relative paths count from ``root`` (or the cwd). ``id`` is the name that results carry; by default the reference as
    given. Reads ``config.json`` (where there is one) and the headers only, adapters whole, and a head beside the
    embedding that the config ties it to: where they differ, it is untied, as for transformers. An adapter's config is
    looked at before its base is downloaded. Nothing outside the model's folder is read. ``allow_pickle`` lets local
    ``.bin``, ``.pt`` and ``.pth`` files be read as well, by a loader that runs no code. ``fetch`` finds Hub models in
    place of `kinship.checkpoints.hub.fetch_snapshot`.
    Raises `ReferenceNotFound`, `MalformedCheckpoint`, `UnsupportedCheckpoint`, and `InvalidConfig` for a reference
    that makes no sense; with an adapter also `MismatchedModels` and `NonFiniteWeights`.
    """
    root = root or Path()
    parsed = parse_reference(reference, root)
    name = id or (str(parsed) if isinstance(reference, Mapping) else str(reference))
    try:
        if parsed.adapter is None:
            return _open_weights(name, locate(parsed, root, fetch), allow_pickle)
        config, beside = _open_adapter(parsed.adapter, root, fetch)
        base = _open_weights(str(replace(parsed, adapter=None)), locate(parsed, root, fetch), allow_pickle)
        made_for = config.settings.get("base_model_name_or_path")
        made_for = made_for if isinstance(made_for, str) else None
        return AdaptedCheckpoint(name, base, read_adapter(config, base), beside, made_for)
    except OSError as error:
        raise MalformedCheckpoint(
            f"{name} cannot be read: {error.strerror or error} ({error.filename}).",
            hint="Check the file's permissions and the disk.",
        ) from error


def _open_adapter(reference: Reference, root: Path, fetch: Fetch | None) -> tuple[AdapterConfig, dict[Path, FileState]]:
    folder = locate(reference, root, fetch)
    file = find_file(folder, CONFIG_NAME)
    if file is None:
        raise UnsupportedCheckpoint(
            f"{reference} is no LoRA adapter: it has no {CONFIG_NAME}.", hint="Write BASE+ADAPTER, in that order."
        )
    beside = states_of(found for name in (CONFIG_NAME, WEIGHTS_NAME) if (found := find_file(folder, name)) is not None)
    return read_adapter_config(file), beside


def _open_weights(name: str, path: Path, allow_pickle: bool) -> Checkpoint:
    if os.path.isfile(path):
        return _open_files(name, path, [path], {}, allow_pickle, {})
    config_file = find_file(path, "config.json")
    beside = states_of([config_file] if config_file else [])
    config = read_config(config_file) if config_file else {}
    if config.get("quantization_config") is not None:
        raise UnsupportedCheckpoint(
            f"{path} is quantised; its integers are codes, not weights.",
            hint="Use the original checkpoint, or dequantise it first.",
        )
    model = _open_files(name, path, _weight_files(path, allow_pickle), config, allow_pickle, beside)
    if (index := find_file(path, INDEX_NAME)) is not None:
        _warn_of_absent(index, model)
    if unequal_head(model, config):
        model.config = untied(config)
    return model


def _open_files(
    name: str,
    path: Path,
    files: Sequence[Path],
    config: dict[str, Any],
    allow_pickle: bool,
    beside: Mapping[Path, FileState],
) -> Checkpoint:
    for file in files:
        refuse_gguf(file)
    if any(file.suffix in PICKLE_SUFFIXES for file in files):
        if not allow_pickle:
            raise UnsupportedCheckpoint(f"{path} is a pickle, which is not read unless asked for.", hint=_NO_PICKLE)
        from kinship.checkpoints.pickles import PickledCheckpoint, read_pickle  # torch, which nothing else here needs

        states = states_of(files)
        pickled = PickledCheckpoint(name, path, {file: read_pickle(file) for file in files}, config, states, beside)
        refuse_quantised(path, pickled.tensors)
        return pickled
    tensors: dict[str, TensorEntry] = {}
    for file in files:
        for tensor, entry in read_header(file).items():
            if tensor in tensors:
                raise MalformedCheckpoint(f"{path}: tensor {tensor!r} is stored in two files.", hint="Save it again.")
            tensors[tensor] = entry
    refuse_quantised(path, tensors)
    return Checkpoint(name, path, tensors, config, beside)


def _weight_files(folder: Path, allow_pickle: bool) -> list[Path]:
    # In the order of transformers: a single file counts before an index that an older save may have left beside it.
    single, index = find_file(folder, "model.safetensors"), find_file(folder, INDEX_NAME)
    if single is not None:
        return [single]
    if index is not None:
        return _indexed_files(folder, index)
    names = sorted(file.name for file in folder.glob("*.safetensors") if file.name != WEIGHTS_NAME)
    files = [file for name in names if (file := find_file(folder, name)) is not None]
    if not files:
        return _pickled_files(folder, allow_pickle)
    _require_all_shards(folder, files)
    return files


def _pickled_files(folder: Path, allow_pickle: bool) -> list[Path]:
    index, single = find_file(folder, PICKLE_INDEX_NAME), find_file(folder, PICKLE_NAME)
    if allow_pickle and index is not None:
        return _indexed_files(folder, index)
    if allow_pickle and single is not None:
        return [single]
    raise _no_weights(folder)


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise MalformedCheckpoint(
            f"{index} has no weight_map of tensor names to file names.", hint="Save the model again."
        )
    return weight_map


def _warn_of_absent(index: Path, model: Checkpoint) -> None:
    # Not an error: the Hub's converter leaves tied tensors in an index that it drops from the files.
    try:
        listed = _weight_map(index)
    except MalformedCheckpoint as error:
        warnings.warn(f"{error.message} The weights were read without it.", KinshipWarning, stacklevel=2)
        return
    files = {entry.file.name for entry in model.tensors.values()}
    absent = sorted(name for name, file in listed.items() if file in files and name not in model.tensors)
    if absent:
        text = f"{index} names {len(absent)} tensors that its files do not hold, such as {absent[0][:200]!r}."
        warnings.warn(text, KinshipWarning, stacklevel=2)


def _indexed_files(folder: Path, index: Path) -> list[Path]:
    files = []
    for name in sorted(set(_weight_map(index).values())):
        file = find_file(folder, name) if Path(name).name == name and os.path.isfile(folder / name) else None
        if file is None:
            raise MalformedCheckpoint(
                f"{index} names the shard {name[:200]!r}, which is not a file in that folder.",
                hint="Download the missing shards.",
            )
        files.append(file)
    return files


def _require_all_shards(folder: Path, files: list[Path]) -> None:
    """Shards without an index tell by their names how many there should be."""
    for match in filter(None, (_SHARD.fullmatch(file.name) for file in files)):
        found = sum(
            (other["stem"], other["count"]) == (match["stem"], match["count"])
            for other in filter(None, (_SHARD.fullmatch(file.name) for file in files))
        )
        if found != int(match["count"]):
            raise MalformedCheckpoint(
                f"{folder} holds {found} of the {int(match['count'])} shards that {match[0]} is one of.",
                hint="Download the missing shards.",
            )


def _no_weights(folder: Path) -> UnsupportedCheckpoint:
    if not folder.is_dir():
        return UnsupportedCheckpoint(
            f"{folder} is neither a folder nor a regular file.", hint="Give a model's folder or .safetensors file."
        )
    if find_file(folder, CONFIG_NAME) is not None:
        return UnsupportedCheckpoint(
            f"{folder} is a LoRA adapter, not a whole model.", hint="Name its base too: BASE+ADAPTER."
        )
    for name in sorted(file.name for file in folder.glob("*.gguf")):
        if (file := find_file(folder, name)) is not None:
            refuse_gguf(file)
    pickled = sorted(file.name for file in folder.glob("*.bin"))
    found = f"only {', '.join(pickled)}" if pickled else "no weights"
    inside = [] if pickled else [one.parent.name for one in islice(folder.glob("*/*.safetensors"), 100)]
    hint = f"There are models in it: {', '.join(sorted(set(inside))[:5])}. Give one of those." if inside else _NO_PICKLE
    return UnsupportedCheckpoint(f"{folder} holds {found}; safetensors files were expected.", hint=hint)
