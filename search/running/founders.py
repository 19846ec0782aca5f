"""The models that a search starts from: by one set of names, on one vocabulary, in the frame its offspring get."""

import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.folder_files import find_file
from kinship.checkpoints.frame import FRAME_FILES, TOKENIZER_FILES, choose_frame
from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.own_heads import with_own_heads
from kinship.checkpoints.shared_vocabulary import read_vocabulary
from kinship.checkpoints.token_rows import heights_differ
from kinship.checkpoints.unified import unified
from kinship.errors import InvalidConfig, UnsupportedCheckpoint
from kinship.file_state import FileState, states_of
from kinship.measures.alignment import require_same_tensors
from merging.output.folder import require_weights_alone
from merging.planning.config import with_vocabulary
from merging.planning.vocabulary import align_vocabularies
from merging.recipe.tokenizer import TokenizerSettings
from search.config import RunConfig
from search.strategies.recipes import BASE


class Founders(NamedTuple):
    """``models``: the base and the founders. ``template``: lends architecture and frame to all that is scored and to
    what is written. ``ignored``: tensors of their files that transformers passes over, with the reason. ``pinned``: the
    states of all files that they were made of, tokenizers and templates too, from before they were read.
    """

    models: list[Checkpoint]
    template: Checkpoint
    ignored: dict[str, str]
    pinned: dict[Path, FileState]


def open_founders(config: RunConfig, root: Path | None) -> Founders:
    """Open base and founders of ``config``, whose paths count from ``root``.

    What can be wrong with them is found here, from headers and small files: raises the errors of `open_checkpoint`,
    `choose_frame`, `align_vocabularies` and `require_same_tensors`.
    """
    opened = [open_checkpoint(path, id=id, root=root) for id, path in config.references.items()]
    try:
        for model in opened:
            require_weights_alone(model)
        pinned = {file: state for model in opened for file, state in states_to_pin(model).items()}
        frame = choose_frame(config.frame, opened[0], opened[1:])
        models, ignored = unified(opened)
        models = with_own_heads(models)
        frame = next(model for model in models if model.id == frame.id)
        lends = _tokenizer_of(config, models, frame)
        settings, files = dict(frame.config), {}
        if config.tokenizer_source == "union" or not _one_vocabulary(models):
            source = "union" if config.tokenizer_source == "union" else lends.id
            order = [lends.id, *(model.id for model in models if model.id != lends.id)]
            by_id = {model.id: model for model in models}
            aligned = align_vocabularies(TokenizerSettings(source=source), {id: by_id[id] for id in order}, BASE)
            models = [aligned.models[model.id] for model in models]
            settings, files = with_vocabulary(settings, aligned.rows), aligned.files
        require_same_tensors(models[0], models[1:])
    except BaseException:
        for model in opened:
            model.close()
        raise
    return Founders(models, _template(frame, lends, settings, files, models[0]), ignored, pinned)


def states_to_pin(model: Checkpoint) -> dict[Path, FileState]:
    """Of every file that decides what ``model`` scores: weights, config, tokenizer and templates."""
    if not model.path.is_dir():
        return model.states
    files = {file for pattern in FRAME_FILES for file in model.path.glob(pattern) if file.is_file()}
    return model.states | states_of(sorted(files))


def _tokenizer_of(config: RunConfig, models: Sequence[Checkpoint], frame: Checkpoint) -> Checkpoint:
    """Whose tokenizer everybody gets, or, of a union, whose it grows from."""
    wanted = frame.id if config.tokenizer_source in (None, "union") else str(config.tokenizer_source)
    found = {model.id: model for model in models}.get(wanted)
    if found is None:
        raise InvalidConfig(
            f"tokenizer_source: {wanted!r} is none of the models.",
            hint=f"Say union, or one of: {', '.join(model.id for model in models)}.",
        )
    return found


def _one_vocabulary(models: Sequence[Checkpoint]) -> bool:
    """Whether rows of the same number are of the same token in all ``models``, as far as their tokenizers tell.

    A token that some lack is no matter where there is a row for it.
    """
    if heights_differ(models):
        return False
    try:
        vocabularies = [read_vocabulary(model) for model in models]
    except UnsupportedCheckpoint:  # without a tokenizer.json there is nothing to go by but the rows
        return True
    owners: dict[int, str] = {}
    ids: dict[str, int] = {}
    return all(
        owners.setdefault(id, token) == token and ids.setdefault(token, id) == id
        for vocabulary in vocabularies
        for token, id in vocabulary.items()
    )


def _template(
    frame: Checkpoint, lends: Checkpoint, config: Mapping[str, Any], files: Mapping[str, str], base: Checkpoint
) -> Checkpoint:
    """Tensors as ``base`` has them, and the folder of the model whose ``frame`` it is, where its own files will do;
    else a folder with what is to be different.
    """
    same_tokenizer = lends.path == frame.path
    if config == frame.config and same_tokenizer and not files:
        return base if base.path == frame.path else Checkpoint(frame.id, frame.path, base.tensors, frame.config)
    folder = Path(tempfile.mkdtemp(prefix="kinship-frame-"))
    _copy(frame.path, folder, FRAME_FILES)
    if not same_tokenizer:
        for pattern in TOKENIZER_FILES:
            for file in folder.glob(pattern):
                file.unlink()
        _copy(lends.path, folder, TOKENIZER_FILES)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    template = Checkpoint(frame.id, folder, base.tensors, dict(config))
    weakref.finalize(template, shutil.rmtree, folder, ignore_errors=True)
    return template


def _copy(source: Path, folder: Path, patterns: Sequence[str]) -> None:
    for name in {file.name for pattern in patterns for file in source.glob(pattern)}:
        file = find_file(source, name)
        if file is not None:
            shutil.copyfile(file, folder / name)
