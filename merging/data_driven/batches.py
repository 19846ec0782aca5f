"""A stream of batches: dicts of tensors as a model's forward takes them, and how a text file becomes one."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kinship.errors import InvalidConfig, ReferenceNotFound

# Tensors by name, one example a row: the keyword arguments of a model's forward, such as input_ids and attention_mask
# (1: a token, 0: padding), and ``labels``, which is not passed on. A label of IGNORED is none.
Batch = Mapping[str, torch.Tensor]
Batches = Iterable[Batch]

IGNORED = -100

# Longer lines are no documents; reading them would cost memory without bound.
MAX_LINE = 1 << 24


@dataclass(frozen=True)
class TextBatches:
    """The documents of a text file as batches for a causal language model; may be iterated any number of times.

    A ``.jsonl`` file has an object a line, whose ``field`` is a document; in other files each line that is not blank is
    one; without a ``path``, ``texts`` are the documents. They keep their order and are cut at ``max_length`` tokens;
    those of fewer than 2 tokens predict nothing and are left out. At most ``documents`` are taken. ``tokenizer``: one
    of transformers, or what is called like it. Batches have input_ids, attention_mask and labels, (batch_size, longest)
    int64 padded on the right; the last may have fewer rows. Holds one batch. Raises, when iterated,
    `ReferenceNotFound`, or `InvalidConfig` naming file and line, or a file without documents.
    """

    path: Path | None
    tokenizer: Any
    batch_size: int = 8
    max_length: int = 512
    field: str = "text"
    documents: int | None = None
    texts: Sequence[str] = ()

    def __iter__(self) -> Iterator[Batch]:
        rows: list[list[int]] = []
        taken = 0
        for text in self._texts():
            if taken == self.documents:
                break
            tokens = self.tokenizer(text, truncation=True, max_length=self.max_length)["input_ids"]
            if len(tokens) < 2:
                continue
            rows.append(tokens)
            taken += 1
            if len(rows) == self.batch_size:
                yield padded(rows)
                rows = []
        if rows:
            yield padded(rows)
        if not taken:
            raise InvalidConfig(
                f"{self.path or 'What texts: gives'} holds no document of two tokens or more.",
                hint="Give a document a line, each of some words.",
            )

    def _texts(self) -> Iterator[str]:
        if self.path is None:
            yield from self.texts
            return
        for number, line in self._lines(self.path):
            if not line.strip():
                continue
            if self.path.suffix != ".jsonl":
                yield line.rstrip("\r\n")
                continue
            try:
                text = json.loads(line)[self.field]
            except (ValueError, KeyError, TypeError, RecursionError):
                text = None
            if not isinstance(text, str):
                raise InvalidConfig(
                    f"Line {number} of {self.path} is no JSON object with a text {self.field!r}.",
                    hint="Name the field that holds the documents.",
                )
            yield text

    def _lines(self, path: Path) -> Iterator[tuple[int, str]]:
        if not path.is_file():
            raise ReferenceNotFound(f"There is no text file at {path}.", hint="Give a .txt or .jsonl file.")
        number = 0
        try:
            with open(path, encoding="utf-8") as stream:
                while line := stream.readline(MAX_LINE):
                    number += 1
                    if len(line) == MAX_LINE:
                        raise InvalidConfig(f"Line {number} of {path} has {MAX_LINE} characters or more.")
                    yield number, line
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidConfig(f"{path} cannot be read as UTF-8 text: {error}.") from None


def padded(rows: list[list[int]]) -> Batch:
    """Token ids of several lengths as one batch, padded on the right.

    >>> padded([[5, 6, 7], [8, 9]])["labels"]
    tensor([[   5,    6,    7],
            [   8,    9, -100]])
    """
    longest = max(map(len, rows))
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, IGNORED)}


def checked(batches: Batches, device: str = "cpu") -> Iterator[tuple[int, Batch]]:
    """Each batch with its number, from 1, on ``device``.

    Raises `InvalidConfig` for a stream without batches, and for a batch without rows or of unequal numbers of them.
    """
    number = 0
    for number, batch in enumerate(batches, 1):
        rows = {name: len(tensor) if tensor.dim() else 0 for name, tensor in batch.items()}
        if len(set(rows.values())) != 1 or 0 in rows.values():
            shown = ", ".join(f"{name} {count}" for name, count in rows.items()) or "no tensors"
            raise InvalidConfig(
                f"Batch {number} has these rows: {shown}; as many of each tensor, and at least one, were expected."
            )
        yield number, {name: tensor.to(device) for name, tensor in batch.items()}
    if number == 0:
        raise InvalidConfig("The stream of batches is empty.", hint="Give at least one document of two tokens.")


def require_repeatable(batches: Batches) -> None:
    """Raise `InvalidConfig` for a stream that can be read only once, such as a generator."""
    if iter(batches) is batches:
        raise InvalidConfig(
            "The stream of batches can be read only once, but is needed several times.",
            hint="Give a list, or an object whose iteration starts anew, such as TextBatches.",
        )


def examples(batch: Batch) -> Iterator[Batch]:
    """The rows of a batch, as batches of one."""
    for row in range(len(next(iter(batch.values())))):
        yield {name: tensor[row : row + 1] for name, tensor in batch.items()}


def digest(batches: Batches) -> str:
    """Identity of the data: sha256 over names, dtypes, shapes and bytes in order. Reads the stream once."""
    sha = hashlib.sha256()
    for _, batch in checked(batches):
        for name, tensor in sorted(batch.items()):
            sha.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
            sha.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return sha.hexdigest()
