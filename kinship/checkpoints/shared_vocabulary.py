"""Models whose vocabularies differ: the rows of the tokens that all tokenizers share, in one order."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.folder_files import find_file, read_json
from kinship.checkpoints.tied import has_token_rows
from kinship.checkpoints.token_rows import have_token_rows, heights_differ, token_rows, tokens_at, vocabulary_tensors
from kinship.errors import KinshipError, MalformedCheckpoint, MismatchedModels, UnsupportedCheckpoint

TOKENIZER_NAME = "tokenizer.json"
MAX_TOKENIZER_BYTES = 256 << 20  # those of 250,000 tokens have 33 MB


class SelectedRows(Checkpoint):
    """``inner`` with only the given rows, in the order given, of the tensors that ``rows`` names."""

    def __init__(self, inner: Checkpoint, rows: Mapping[str, NDArray[np.int64]]) -> None:
        tensors = dict(inner.tensors)
        for name, chosen in rows.items():
            shape, place = tensors[name].shape, tokens_at(tensors[name])
            entry = replace(tensors[name], shape=(*shape[:place], len(chosen), *shape[place + 1 :]))
            tensors[name] = replace(entry, nbytes=entry.count * entry.dtype.itemsize)
        super().__init__(inner.id, inner.path, tensors, inner.config, inner.beside)
        self.inner = inner
        self._rows = dict(rows)
        self._runs = {name: _run_lengths(chosen) for name, chosen in rows.items()}

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """See `Checkpoint.read_into`; rows that lie side by side are read at once."""
        rows, entry = self._rows.get(name), self.tensors[name]
        if rows is None:
            self.inner.read_into(name, start, view)
            return
        width, size = entry.count // len(rows), entry.dtype.itemsize
        while view:
            row, column = divmod(start, width)
            count = min(int(self._runs[name][row]) * width - column, len(view) // size)
            self.inner.read_into(name, int(rows[row]) * width + column, view[: count * size])
            start, view = start + count, view[count * size :]

    def _fingerprint(self) -> str | None:
        inner = self.inner._fingerprint()
        if inner is None:
            return None
        sha = hashlib.sha256(f"{inner}:rows".encode())
        for name, rows in sorted(self._rows.items()):
            sha.update(json.dumps([name, len(rows)]).encode() + rows.tobytes())
        return sha.hexdigest()

    def close(self) -> None:
        """Close the files of ``inner`` too."""
        super().close()
        self.inner.close()


def share_vocabulary(models: Sequence[Checkpoint]) -> tuple[list[Checkpoint], dict[str, str]]:
    """``models`` (the first is the base) with embeddings and heads cut down to the tokens that all of them have.

    Rows are in the order of the base's ids. Models are returned as they are where nothing differs. Also returned: what
    to say of each tensor of which rows are left out. Tokens without a row, and rows without a token (padding), are not
    shared. Raises `UnsupportedCheckpoint` for a model without ``tokenizer.json``, `MismatchedModels` where no token is
    shared.
    """
    known: dict[Path, dict[str, int]] = {}
    for model in models:
        if model.path not in known:
            known[model.path] = read_vocabulary(model)
    vocabularies = [known[model.path] for model in models]
    differ = any(vocabulary != vocabularies[0] for vocabulary in vocabularies)
    rows: list[dict[str, NDArray[np.int64]]] = [{} for _ in models]
    reasons = {}
    for name in vocabulary_tensors(models[0]) if differ or heights_differ(models) else ():
        if not all(name in model.tensors and model.tensors[name].shape for model in models):
            continue
        heights = [token_rows(model.tensors[name]) for model in models]
        if not differ and len(set(heights)) == 1:
            continue
        shared = _shared_rows(vocabularies, heights)
        if not shared.size:
            raise MismatchedModels(
                f"{', '.join(model.id for model in models)} have no token with a row in {name!r} in common.",
                hint="Leave the vocabulary out of the comparison: --vocab same.",
            )
        for chosen, ids in zip(rows, shared.T, strict=True):
            chosen[name] = np.ascontiguousarray(ids)
        if len(shared) < max(heights):
            reasons[name] = f"all but the rows of the {len(shared)} tokens that all tokenizers share"
    if not rows[0]:
        return list(models), {}
    return [SelectedRows(model, chosen) for model, chosen in zip(models, rows, strict=True)], reasons


def moved_tokens(models: Sequence[Checkpoint], names: Collection[str]) -> tuple[str, ...]:
    """What to say of models whose tokenizers give tokens other ids than the first's.

    Only if tensors with a row for each token are among ``names``: their rows are compared one by one. A model without
    ``tokenizer.json`` is passed over, and one whose file is damaged is noted: nothing is raised. Tokens that only one
    model has do not count: mostly reserved rows, renamed. Equal files are not parsed. Cost: a hash of each file.
    """
    if not any(map(has_token_rows, names)) and not models[0].config.get("model_type"):
        return ()
    notes: list[str] = []
    alike: dict[str, list[Checkpoint]] = {}
    digests: dict[Path, str | None] = {}
    for model in models:
        try:
            if model.path not in digests:
                digests[model.path] = _tokenizer_digest(model.path)
        except (KinshipError, OSError) as error:
            notes.append(_unread([model], error))
        else:
            if digest := digests[model.path]:
                alike.setdefault(digest, []).append(model)
    first: tuple[str, dict[str, int]] | None = None
    for group in alike.values() if len(alike) > 1 and have_token_rows(models[0], names) else ():
        try:
            vocabulary = read_vocabulary(group[0])
        except (KinshipError, OSError) as error:
            notes.append(_unread(group, error))
            continue
        if first is None:
            first = group[0].id, vocabulary
        elif moved := sum(vocabulary.get(token, id) != id for token, id in first[1].items()):
            notes.append(
                f"{_ids(group)}: {moved} of {len(vocabulary)} tokens have another id than in {first[0]}, so that rows "
                "of different tokens were compared; --vocab shared compares them by token."
            )
    return tuple(notes)


def read_vocabulary(model: Checkpoint) -> dict[str, int]:
    """Ids by token from the ``tokenizer.json`` in the folder of ``model``, added tokens among them."""
    file = find_file(model.path, TOKENIZER_NAME)
    if file is None:
        raise UnsupportedCheckpoint(
            f"{model.id} has no {TOKENIZER_NAME}, so its tokens are not known.",
            hint="Give the model's folder with that file in it (save_pretrained of a fast tokenizer writes it), "
            "or leave the vocabulary out of the comparison: --vocab same.",
        )
    content = read_json(file, MAX_TOKENIZER_BYTES)
    try:
        vocabulary = content["model"]["vocab"]
        if isinstance(vocabulary, list):  # of Unigram: tokens with their log probabilities
            vocabulary = {token: id for id, (token, _) in enumerate(vocabulary)}
        found = vocabulary | {token["content"]: token["id"] for token in content.get("added_tokens") or []}
        if not all(isinstance(token, str) and type(id) is int and 0 <= id < 2**63 for token, id in found.items()):
            raise TypeError
    except (KeyError, TypeError, ValueError):
        raise MalformedCheckpoint(
            f"{file} does not give its tokens as tokenizers do (model.vocab, added_tokens).",
            hint="Save the tokenizer again.",
        ) from None
    return dict(found)


def _tokenizer_digest(folder: Path) -> str | None:
    """Hash of the ``tokenizer.json`` in ``folder``; None where there is none."""
    file = find_file(folder, TOKENIZER_NAME)
    if file is None:
        return None
    if file.stat().st_size > MAX_TOKENIZER_BYTES:
        raise MalformedCheckpoint(f"{file} has more than {MAX_TOKENIZER_BYTES} bytes.")
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _unread(models: Sequence[Checkpoint], error: Exception) -> str:
    return (
        f"{_ids(models)}: whether embeddings were compared token by token is not known. "
        f"{error.message if isinstance(error, KinshipError) else error}"
    )


def _ids(models: Sequence[Checkpoint]) -> str:
    return ", ".join(model.id for model in models)


def _shared_rows(vocabularies: Sequence[Mapping[str, int]], heights: Sequence[int]) -> NDArray[np.int64]:
    """Ids (tokens, models) of the tokens that have a row in every model, by id in the first."""
    shared = [
        ids
        for token in vocabularies[0]
        if -1 not in (ids := [vocabulary.get(token, -1) for vocabulary in vocabularies])
        and all(id < height for id, height in zip(ids, heights, strict=True))
    ]
    return np.array(sorted(shared), dtype=np.int64).reshape(-1, len(vocabularies))


def _run_lengths(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each place, how many entries from there on are consecutive.

    >>> _run_lengths(np.array([4, 5, 6, 2, 9, 10])).tolist()
    [3, 2, 1, 1, 2, 1]
    """
    ends = np.append(np.flatnonzero(np.diff(rows) != 1) + 1, len(rows))
    places = np.arange(len(rows))
    return ends[np.searchsorted(ends, places, side="right")] - places
