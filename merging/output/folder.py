"""A merge on disk: a complete Hugging Face folder, written beside its place and renamed last."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import yaml
from numpy.typing import NDArray

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.folder_files import companions, copy_regular, read_text
from kinship.checkpoints.frame import TOKENIZER_FILES
from kinship.checkpoints.opening import INDEX_NAME
from kinship.errors import UnsupportedCheckpoint
from kinship.output import output_folder
from kinship.outside import in_code, in_markdown, markdown_block
from merging.output.writer import SHARD_BYTES, ShardWriter, sha256
from merging.planning.config import with_dtype
from merging.planning.graph import Spec

if TYPE_CHECKING:
    from merging.mixture.recipe import AnyRecipe

BESIDE_NAMES = ("surgery.json", "smile.json")
SUMS_NAME, LINEAGE_NAME, RECIPE_NAME = "SHA256SUMS", "lineage.json", "mergekit_config.yml"

# Files that belong to a model beside its weights; weights, cards and indices are written anew.
# Code that a config names (auto_map) travels with it and is never run here; terms of use travel, too.
_KEPT = (
    "*.json", "*.model", "*.txt", "*.jinja", "*.py", "*.tiktoken", "*.bpe",
    "LICENSE*", "LICENCE*", "NOTICE*", "COPYING*", "*USE_POLICY*",
)  # fmt: skip
_TOKENIZER = (*TOKENIZER_FILES, "*.jinja", "chat_template.json")
# What lies beside a model's weights belongs to these weights alone.
_NOT_KEPT = {INDEX_NAME, LINEAGE_NAME, "pytorch_model.bin.index.json", *BESIDE_NAMES}


Told = Callable[[str], None]


class Weights(Protocol):
    """Tensors known by ``specs``, whose bytes come in ``pieces``: (name, first byte, bytes)."""

    @property
    def specs(self) -> Sequence[Spec]:
        """Names, dtypes and shapes."""
        ...

    def pieces(self) -> Iterable[tuple[str, int, NDArray[np.uint8]]]:
        """All bytes of all tensors, best in the order of ``specs``."""
        ...


def write_model_folder(
    path: Path,
    weights: Weights,
    *,
    template: Checkpoint,
    recipe: "AnyRecipe",
    lineage: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    parents: Sequence[str],
    scores: Mapping[str, float] | None = None,
    verdict: str = "",
    licences: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    tokenizer: Checkpoint | None = None,
    files: Mapping[str, str] | None = None,
    force: bool = False,
    shard_bytes: int = SHARD_BYTES,
    beside: Callable[[Path], str] | None = None,
    told: Told = lambda text: None,
) -> None:
    """Write ``weights`` as a model folder at ``path``, whole or not at all.

    Config (or ``config``) comes from ``template``, its tokenizer too (or from ``tokenizer``); ``files`` (texts by name)
    replace what they are called. Beside them: ``mergekit_config.yml`` (the recipe), ``lineage.json`` (asked for when
    the weights are written, if it is a function), a model card with ``parents``, their ``licences``, ``scores`` and
    the ``verdict`` on them, and ``SHA256SUMS`` over everything. ``beside`` puts more into the folder once it has
    weights and config, and returns what the card says of it.
    Only regular files inside the folders are copied; ``told`` is told of others, which are left out.
    Memory: a piece of the weights. Raises `OutputExists` or `OutputNotWritable`, leaving nothing behind.
    """
    with output_folder(path, force=force, foreign=foreign_in_model) as folder:
        with ShardWriter(folder, weights.specs, shard_bytes) as writer:
            for name, start, data in weights.pieces():
                writer.write(name, start, data)
        _copy_companions(template, folder, _KEPT, told)
        if tokenizer is not None and tokenizer.path != template.path:
            for pattern in _TOKENIZER:
                for file in folder.glob(pattern):
                    file.unlink()
            _copy_companions(tokenizer, folder, _TOKENIZER, told)
        if config is None and template.path.is_dir():
            config = _config_of(template, weights.specs)
        texts = {"config.json": _json(config)} if config else {}
        texts |= dict(files or {})
        _write_texts(folder, texts)
        verdict = f"{verdict} {beside(folder)}".strip() if beside is not None else verdict
        texts = {RECIPE_NAME: recipe.to_yaml()}
        texts[LINEAGE_NAME] = _json(lineage() if callable(lineage) else lineage)
        texts["README.md"] = _model_card(path.name, recipe, parents, scores or {}, licences or {}, verdict)
        _write_texts(folder, texts)
        sums = {file.name: writer.sums.get(file.name) or sha256(file) for file in sorted(folder.iterdir())}
        text = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
        (folder / SUMS_NAME).write_text(text, encoding="utf-8")


def has_beside(folder: Path) -> bool:
    """Whether anything lies beside the weights in ``folder``: see `merging.beside`."""
    return any((folder / name).is_file() for name in BESIDE_NAMES)


def require_weights_alone(model: Checkpoint) -> None:
    """Raise `UnsupportedCheckpoint` for a model whose weights are a part of it only: breeding them loses the rest."""
    if (model.path / BESIDE_NAMES[1]).is_file():
        raise UnsupportedCheckpoint(
            f"{model.id} keeps experts beside its weights ({BESIDE_NAMES[1]}), which a merge of weights would lose.",
            hint=f"Merge the models that it was made of; or remove {BESIDE_NAMES[1]} to take its weights without.",
        )


def _write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def foreign_in_model(folder: Path) -> str | None:
    """What in ``folder`` no merge has put there, by its checksums' list; None where it is a merged model, whole or not.

    The `Foreign` of model folders, see `kinship.output`.
    """
    ours = {SUMS_NAME}
    if all((folder / name).is_file() and not (folder / name).is_symlink() for name in (SUMS_NAME, LINEAGE_NAME)):
        lines = (read_text(folder, SUMS_NAME) or "").splitlines()
        ours |= {line.split("  ", 1)[-1] for line in lines}
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    return next((entry.name for entry in entries if entry.name not in ours or entry.is_dir()), None)


def _copy_companions(template: Checkpoint, folder: Path, patterns: Iterable[str], told: Told) -> None:
    if not template.path.is_dir():
        return
    files, left_out = companions(template.path, patterns)
    for file in files:
        if file.name not in _NOT_KEPT:
            (folder / file.name).unlink(missing_ok=True)
            copy_regular(file, folder / file.name)
    for name, reason in left_out.items():
        if name not in _NOT_KEPT:
            told(f"{template.path / name} is left out: it is {reason}.")


def _config_of(template: Checkpoint, specs: Iterable[Spec]) -> dict[str, Any]:
    dtypes = {spec.dtype.name for spec in specs if spec.dtype.is_floating_point}
    if not template.config or len(dtypes) != 1:
        return template.config
    return with_dtype(template.config, dtypes.pop())


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"


def _model_card(
    name: str,
    recipe: "AnyRecipe",
    parents: Sequence[str],
    scores: Mapping[str, float],
    licences: Mapping[str, str],
    verdict: str,
) -> str:
    front: dict[str, Any] = {
        "base_model": list(parents),
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["merge", "model-kinship"],
    }
    different = sorted(set(licences.values()))
    if different:
        front |= {"license": different[0] if len(different) == 1 and len(licences) == len(parents) else "other"}
    rows = "".join(f"| {in_markdown(task)} | {value:.4f} |\n" for task, value in scores.items())
    table = f"\n| task | score (higher is better) |\n| --- | ---: |\n{rows}" if scores else ""
    table += f"\n{in_markdown(verdict)}\n" if verdict else ""
    stated = {parent: in_markdown(licences.get(parent, "not stated")) for parent in parents}
    terms = "".join(f"* {in_code(parent)}: {licence}\n" for parent, licence in stated.items()) if licences else ""
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {in_markdown(name)}\n\n"
        f"A merge of {', '.join(map(in_code, parents))}, made with model-kinship.\n{table}\n"
        + (f"Licences of the parents, which bind this model too:\n\n{terms}\n" if terms else "")
        + markdown_block(recipe.to_yaml(), "yaml")
    )
