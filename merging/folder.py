"""A merge on disk: a complete Hugging Face folder, written beside its place and renamed last."""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from kinship.checkpoint import Checkpoint
from kinship.opening import INDEX_NAME
from kinship.output import output_folder
from merging.recipe import Recipe

SHARD_BYTES = 5_000_000_000

# Files that belong to a model beside its weights; weights, cards and indices are written anew.
_KEPT = ("*.json", "*.model", "*.txt", "*.jinja", "LICENSE*")
_NOT_KEPT = {INDEX_NAME, "lineage.json", "pytorch_model.bin.index.json"}


def write_model_folder(
    path: Path,
    tensors: Iterable[tuple[str, torch.Tensor]],
    *,
    template: Checkpoint,
    recipe: Recipe,
    lineage: dict[str, Any],
    parents: list[str],
    scores: dict[str, float] | None = None,
    force: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write ``tensors`` as a model folder at ``path``, whole or not at all.

    Config and tokenizer come from ``template``. Beside them: ``mergekit_config.yml`` (the recipe), ``lineage.json``, a
    model card with ``parents`` and ``scores``, and ``SHA256SUMS`` over everything. Holds one shard in memory.
    Raises `OutputExists` or `OutputNotWritable`, leaving nothing behind.
    """
    with output_folder(path, force=force) as folder:
        dtypes = _write_shards(folder, tensors, shard_bytes)
        _copy_companions(template, folder, dtypes)
        (folder / "mergekit_config.yml").write_text(recipe.to_yaml(), encoding="utf-8")
        (folder / "lineage.json").write_text(json.dumps(lineage, indent=2) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(_model_card(path.name, recipe, parents, scores or {}), encoding="utf-8")
        sums = "".join(f"{_sha256(file)}  {file.name}\n" for file in sorted(folder.iterdir()))
        (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")


def _write_shards(folder: Path, tensors: Iterable[tuple[str, torch.Tensor]], shard_bytes: int) -> set[torch.dtype]:
    """Write the weights with their index; returns the dtypes of the weights, buffers of integers aside."""
    shards: list[list[str]] = []
    shard: dict[str, torch.Tensor] = {}
    total, dtypes = 0, set()

    def flush() -> None:
        file = folder / f"shard-{len(shards)}"
        file.touch()
        usual = file.stat().st_mode
        save_file(shard, file, metadata={"format": "pt"})
        file.chmod(usual)  # the library leaves files that only their owner can read
        shards.append(list(shard))
        shard.clear()

    for name, tensor in tensors:
        size = tensor.nbytes
        if shard and sum(part.nbytes for part in shard.values()) + size > shard_bytes:
            flush()
        shard[name] = tensor.contiguous()
        total += size
        if tensor.is_floating_point():
            dtypes.add(tensor.dtype)
    flush()
    if len(shards) == 1:
        (folder / "shard-0").rename(folder / "model.safetensors")
        return dtypes
    weight_map: dict[str, str] = {}
    for index, names in enumerate(shards):
        file = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"shard-{index}").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    index_content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX_NAME).write_text(json.dumps(index_content, indent=2) + "\n", encoding="utf-8")
    return dtypes


def _copy_companions(template: Checkpoint, folder: Path, dtypes: set[torch.dtype]) -> None:
    if not template.path.is_dir():
        return
    for pattern in _KEPT:
        for file in sorted(template.path.glob(pattern)):
            if file.name not in _NOT_KEPT and file.is_file():
                shutil.copyfile(file, folder / file.name)
    if template.config and len(dtypes) == 1:
        key = "torch_dtype" if "torch_dtype" in template.config else "dtype"
        config = template.config | {key: str(dtypes.pop()).removeprefix("torch.")}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _model_card(name: str, recipe: Recipe, parents: list[str], scores: dict[str, float]) -> str:
    front = {
        "base_model": parents,
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["merge", "model-kinship"],
    }
    rows = "".join(f"| {task} | {value:.4f} |\n" for task, value in scores.items())
    table = f"\n| task | score |\n| --- | ---: |\n{rows}" if scores else ""
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {name}\n\n"
        f"A merge of {', '.join(f'`{parent}`' for parent in parents)}, made with model-kinship.\n{table}\n"
        f"```yaml\n{recipe.to_yaml()}```\n"
    )


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
