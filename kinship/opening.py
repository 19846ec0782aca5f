"""From a reference to an open checkpoint: folders, single files, Hub models, adapters."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinship.adapted import AdaptedCheckpoint
from kinship.checkpoint import Checkpoint
from kinship.errors import MalformedCheckpoint, UnsupportedCheckpoint
from kinship.lora import is_adapter, read_adapter
from kinship.references import Reference, locate, parse_reference
from kinship.safetensors_header import TensorEntry, read_header

INDEX_NAME = "model.safetensors.index.json"


def open_checkpoint(
    reference: str | Path | Mapping[str, object], *, id: str | None = None, root: Path | None = None
) -> Checkpoint:
    """Open a model: a local folder, a ``.safetensors`` file, a Hub id, any of them with an adapter.

    Relative paths count from ``root`` (or the cwd). ``id`` is the name that results carry; by default the reference as
    given. Reads ``config.json`` (where there is one) and the headers only, and adapters whole.
    Raises `ReferenceNotFound`, `MalformedCheckpoint` or `UnsupportedCheckpoint`.
    """
    root = root or Path()
    parsed = parse_reference(reference, root)
    name = id or (str(parsed) if isinstance(reference, Mapping) else str(reference))
    if parsed.adapter is None:
        return _open_weights(name, locate(parsed, root))
    base = _open_weights(name, locate(parsed, root))
    folder = _adapter_folder(parsed.adapter, root)
    shapes = {tensor: entry.shape for tensor, entry in base.tensors.items()}
    return AdaptedCheckpoint(name, base, read_adapter(folder, shapes))


def _adapter_folder(reference: Reference, root: Path) -> Path:
    folder = locate(reference, root)
    if not is_adapter(folder):
        raise UnsupportedCheckpoint(
            f"{reference} is no LoRA adapter: it has no adapter_config.json.", hint="Write base+adapter, in that order."
        )
    return folder


def _open_weights(name: str, path: Path) -> Checkpoint:
    if os.path.isfile(path):
        return Checkpoint(name, path, read_header(path), {})
    if is_adapter(path) and not (path / "config.json").exists():
        raise UnsupportedCheckpoint(
            f"{path} is a LoRA adapter, not a whole model.", hint="Name its base too: BASE+ADAPTER."
        )
    config = _read_json(path / "config.json") if (path / "config.json").exists() else {}
    if config.get("quantization_config"):
        raise UnsupportedCheckpoint(
            f"{path} is quantised; its integers are codes, not weights.",
            hint="Use the original checkpoint, or dequantise it first.",
        )
    tensors: dict[str, TensorEntry] = {}
    for file in _weight_files(path):
        _require_inside(path, file)
        for tensor, entry in read_header(file).items():
            if tensor in tensors:
                raise MalformedCheckpoint(f"{path}: tensor {tensor!r} is stored in two files.", hint="Save it again.")
            tensors[tensor] = entry
    return Checkpoint(name, path, tensors, config)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX_NAME).exists():
        weight_map = _read_json(folder / INDEX_NAME).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise MalformedCheckpoint(f"{folder / INDEX_NAME} has no weight_map of tensor names to file names.")
        names = sorted(set(weight_map.values()))
        for name in names:
            if Path(name).name != name or not os.path.isfile(folder / name):
                raise MalformedCheckpoint(
                    f"{folder / INDEX_NAME} names the shard {name!r}, which is not a file in that folder.",
                    hint="Download the missing shards.",
                )
        return [folder / name for name in names]
    files = [folder / "model.safetensors"]
    if not files[0].is_file():
        files = sorted(file for file in folder.glob("*.safetensors") if file.is_file())
    if not files:
        pickled = sorted(file.name for file in folder.glob("*.bin"))
        found = f"only {', '.join(pickled)}" if pickled else "no weights"
        raise UnsupportedCheckpoint(
            f"{folder} holds {found}; safetensors files were expected.",
            hint="Save the model with save_pretrained(..., safe_serialization=True).",
        )
    return files


def _require_inside(folder: Path, file: Path) -> None:
    """Refuse links that lead out of the model's folder; the Hub cache's own links to its blobs are fine."""
    allowed = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":
        allowed.append(folder.resolve().parents[1] / "blobs")
    if not any(file.resolve().is_relative_to(place) for place in allowed):
        raise MalformedCheckpoint(
            f"{file} is a link to {file.resolve()}, outside the model's folder.",
            hint="Put the file itself into the folder, or give the folder it is in.",
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise MalformedCheckpoint(f"{path} is not valid JSON: {error}.", hint="Save the file again.") from None
    if not isinstance(content, dict):
        raise MalformedCheckpoint(f"{path} holds no JSON object.", hint="Save the file again.")
    return content
