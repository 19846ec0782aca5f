"""Models with different vocabularies brought onto one: rows of embeddings and heads moved, added and filled in."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.folder_files import find_file, read_json
from kinship.checkpoints.shared_vocabulary import MAX_TOKENIZER_BYTES, TOKENIZER_NAME, SelectedRows, read_vocabulary
from kinship.checkpoints.token_rows import token_rows, vocabulary_tensors
from kinship.errors import InvalidConfig
from kinship.validation import nearest
from merging.kernels.rounding import narrow
from merging.recipe.tokenizer import Row, TokenizerSettings, TokenSettings

Vocabulary = dict[str, int]
SPARE_ROWS = 1 << 16  # beyond twice what the models have: more is no padding
_UNLIKELY = -100.0  # log probability of a token added to a Unigram tokenizer


@dataclass(frozen=True)
class Aligned:
    """``models`` by reference, all with ``rows`` rows a vocabulary tensor; ``tokenizer``: whose files they go with.

    files: texts of tokenizer files that are new.
    """

    models: dict[str, Checkpoint]
    rows: int
    tokenizer: Checkpoint
    files: dict[str, str]


class TokenRow(NamedTuple):
    """Row ``id`` of the vocabulary tensors of ``model``."""

    model: str
    id: int


Chosen = TokenRow | None


class TokenRows(SelectedRows):
    """``inner`` with its vocabulary's rows in another order, and new ones (``filled``: ids, bytes) in between."""

    def __init__(
        self,
        inner: Checkpoint,
        rows: Mapping[str, NDArray[np.int64]],
        filled: Mapping[str, tuple[NDArray[np.int64], NDArray[np.uint8]]],
    ) -> None:
        super().__init__(inner, rows)
        self._filled = dict(filled)

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """See `Checkpoint.read_into`."""
        super().read_into(name, start, view)
        ids, values = self._filled.get(name, (np.empty(0, dtype=np.int64), np.empty((0, 1), dtype=np.uint8)))
        width, begin = values.shape[1], start * self.tensors[name].dtype.itemsize
        first = np.searchsorted(ids, begin // width)
        target = np.frombuffer(view, dtype=np.uint8)
        for id, row in zip(ids[first:].tolist(), values[first:], strict=True):
            place = id * width - begin
            if place >= len(target):
                return
            part = row[max(0, -place) :]
            place = max(0, place)
            target[place : place + len(part)] = part[: len(target) - place]


def align_vocabularies(settings: TokenizerSettings, models: Mapping[str, Checkpoint], base: str | None) -> Aligned:
    """``models`` (by reference; the first lends the tokenizer of ``base`` and ``union``) on one vocabulary.

    A token that a model lacks has there the row that ``settings.tokens`` give it; or that of ``base`` if it has one, or
    the mean of those of the models that do, as in mergekit; rows without a token (padding) are zero. Reads the rows of
    such tokens alone. Raises `UnsupportedCheckpoint` for a model without ``tokenizer.json``, `InvalidConfig` for a
    source that is no model and for a token that is not there.
    """
    first = next(iter(models))
    source = first if settings.source in ("base", "union") else settings.source
    if source not in models:
        raise InvalidConfig(
            f"tokenizer source {source!r} is none of the models.",
            hint=f"Say base, union, or one of {', '.join(models)}.",
        )
    vocabularies = {reference: read_vocabulary(model) for reference, model in models.items()}
    target, files = dict(vocabularies[source]), {}
    if settings.source == "union":
        free = 1 + max(target.values(), default=-1)
        for vocabulary in vocabularies.values():
            new = sorted(vocabulary.keys() - target.keys(), key=lambda token: (vocabulary[token], token))
            target |= {token: id for id, token in enumerate(new, free)}
            free += len(new)
        files[TOKENIZER_NAME] = _union_tokenizer(models[source], target, list(models.values()))
    size = 1 + max(target.values(), default=-1)
    names = vocabulary_tensors(models[source])
    held = sum(len(vocabulary) for vocabulary in vocabularies.values()) + sum(
        token_rows(entry) for model in models.values() for name, entry in model.tensors.items() if name in names
    )
    if settings.pad_to_multiple_of is None:  # rows beyond the tokens, which pad a vocabulary for speed, stay
        size = max([size, *(token_rows(models[source].tensors[name]) for name in names)])
    size += -size % (settings.pad_to_multiple_of or 1)
    if size > 2 * held + SPARE_ROWS:
        raise InvalidConfig(
            f"The vocabulary of the result would have {size} rows; the models have {held} tokens and rows in all.",
            hint="Correct pad_to_multiple_of in the recipe, or the ids in tokenizer.json.",
        )
    known = {reference: _ids(target, vocabulary, size) for reference, vocabulary in vocabularies.items()}
    chosen = {
        _id_of(token, target, "the merge's tokenizer"): _row_of(token, wanted, vocabularies)
        for token, wanted in settings.tokens.items()
        if wanted.source is not None
    }
    forced = [target[token] for token, wanted in settings.tokens.items() if wanted.force]
    rows: dict[str, dict[str, NDArray[np.int64]]] = {reference: {} for reference in models}
    filled: dict[str, dict[str, tuple[NDArray[np.int64], NDArray[np.uint8]]]] = {reference: {} for reference in models}
    for name in names:
        if not all(name in model.tensors for model in models.values()):
            continue  # which the plan refuses, or leaves out
        ids = {reference: _within(known[reference], model, name) for reference, model in models.items()}
        defaults_from = {reference: own.copy() for reference, own in ids.items()}
        for own in ids.values():
            own[forced] = -1
        lacking = np.flatnonzero(np.min(list(ids.values()), axis=0) < 0)
        defaults = _defaults(name, lacking, defaults_from, chosen, models, base)
        for reference, model in models.items():
            missing = np.flatnonzero(ids[reference] < 0)
            values = narrow(defaults[np.searchsorted(lacking, missing)], model.tensors[name].dtype)
            rows[reference][name] = np.where(ids[reference] < 0, 0, ids[reference])
            filled[reference][name] = missing, values.view(np.uint8)
    aligned: dict[str, Checkpoint] = {
        reference: TokenRows(model, rows[reference], filled[reference]) for reference, model in models.items()
    }
    return Aligned(aligned, size, models[source], files)


def _ids(target: Vocabulary, vocabulary: Vocabulary, size: int) -> NDArray[np.int64]:
    """For each row of the target the model's id of that token; -1 where it has none."""
    ids = np.full(size, -1, dtype=np.int64)
    for token, id in target.items():
        ids[id] = vocabulary.get(token, -1)
    return ids


def _within(ids: NDArray[np.int64], model: Checkpoint, name: str) -> NDArray[np.int64]:
    """``ids`` that have a row in tensor ``name``; -1 for others."""
    return np.where(ids < token_rows(model.tensors[name]), ids, -1)


def _defaults(
    name: str,
    lacking: NDArray[np.int64],
    ids: Mapping[str, NDArray[np.int64]],
    chosen: Mapping[int, Chosen],
    models: Mapping[str, Checkpoint],
    base: str | None,
) -> NDArray[np.float32]:
    """Rows of tensor ``name`` for tokens ``lacking`` in some model: as ``chosen``, the base's, or the mean of all."""
    entry = next(iter(models.values())).tensors[name]
    width = entry.count // token_rows(entry)
    found = np.zeros((len(lacking), width), dtype=np.float32)
    for row, token in zip(found, lacking.tolist(), strict=True):
        if token in chosen:
            source = chosen[token]
            if source is not None:
                row += _read_row(name, models[source.model], source, width)
            continue
        owners = [reference for reference in models if ids[reference][token] >= 0]
        if base in owners:
            owners = [str(base)]
        for reference in owners:
            row += models[reference].floats(name, int(ids[reference][token]) * width, width)
        row /= max(1, len(owners))
    return found


def _row_of(token: str, wanted: TokenSettings, vocabularies: Mapping[str, Vocabulary]) -> Chosen:
    """The row that a recipe wants for ``token``; None for zeros."""
    source = wanted.source
    if isinstance(source, Row) and source.kind == "zero":
        return None
    model = str(source.model) if isinstance(source, Row) else str(source)
    if model not in vocabularies:
        raise InvalidConfig(
            f"The token {token!r} is to come from {model!r}, which is none of the models.",
            hint=f"Name one of {', '.join(vocabularies)}.",
        )
    if isinstance(source, Row) and source.token_id is not None:
        return TokenRow(model, source.token_id)
    name = source.token if isinstance(source, Row) and source.token is not None else token
    return TokenRow(model, _id_of(name, vocabularies[model], model))


def _id_of(token: str, vocabulary: Vocabulary, owner: str) -> int:
    if token not in vocabulary:
        raise InvalidConfig(f"{owner} has no token {token!r}.", hint=nearest(token, vocabulary))
    return vocabulary[token]


def _read_row(name: str, model: Checkpoint, row: TokenRow, width: int) -> NDArray[np.float32]:
    height = token_rows(model.tensors[name])
    if row.id >= height:
        raise InvalidConfig(f"{row.model} has no row {row.id} in {name!r}, which has {height}.")
    return model.floats(name, row.id * width, width)


def _union_tokenizer(model: Checkpoint, target: Vocabulary, models: Sequence[Checkpoint]) -> str:
    """The ``tokenizer.json`` of ``model`` with the tokens of all; how it splits text stays as it is.

    Tokens that others added (as chat markers are) are matched as they are there.
    """
    content = _tokenizer(model)
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):
        scores = dict(vocabulary)
        ordered = sorted(target, key=target.__getitem__)
        content["model"]["vocab"] = [[token, scores.get(token, _UNLIKELY)] for token in ordered]
    else:
        content["model"]["vocab"] = dict(target)
    added = {token["content"]: token for token in content.get("added_tokens") or []}
    for other in models:
        for token in _tokenizer(other).get("added_tokens") or []:
            added.setdefault(token["content"], token | {"id": target[token["content"]]})
    content["added_tokens"] = sorted(added.values(), key=lambda token: int(token["id"]))
    return json.dumps(content, ensure_ascii=False)


def _tokenizer(model: Checkpoint) -> dict[str, Any]:
    file = find_file(model.path, TOKENIZER_NAME)
    assert file is not None  # its vocabulary was read from it
    return read_json(file, MAX_TOKENIZER_BYTES)
