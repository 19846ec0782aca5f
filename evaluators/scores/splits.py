"""Search and held-out documents, told apart by a hash of their content.

Equal documents have equal hashes, so repeats cannot straddle the splits; a larger limit only adds documents.
"""

import datetime
import decimal
import hashlib
import json
import numbers
import os
import uuid
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, is_dataclass
from typing import Any, Literal

from kinship.errors import InvalidConfig

Split = Literal["search", "held_out"]
SPLITS: tuple[Split, Split] = ("search", "held_out")


# Parts of documents that JSON has no form for and whose text tells all of them.
_VALUES = (numbers.Number, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta, uuid.UUID, os.PathLike)


def plain(part: Any) -> Any:
    """A part of a document that JSON has no form for, as JSON: equal for equal content alone, in every process.

    Arrays, tensors, pictures, bytes and sets count by what is in them. Raises `InvalidConfig` for other objects, whose
    text may leave out what is in them, or tell where they lie in memory.

    >>> json.dumps({"a": b"x", "b": {2, 1}}, default=plain)
    '{"a": "78", "b": [1, 2]}'
    """
    if isinstance(part, _VALUES):
        return str(part)
    if isinstance(part, bytes | bytearray | memoryview):
        return bytes(part).hex()
    if isinstance(part, AbstractSet):
        return sorted(part, key=lambda one: json.dumps(one, sort_keys=True, default=plain))
    if is_dataclass(part) and not isinstance(part, type):
        return asdict(part)
    if hasattr(part, "tolist"):
        return part.tolist()
    if hasattr(part, "tobytes"):
        return [str(getattr(part, "size", "")), part.tobytes().hex()]
    raise InvalidConfig(
        f"A document holds a {type(part).__name__}, and nothing tells all of its content.",
        hint="Give documents as plain data: texts, numbers, lists, mappings.",
    )


def content_hash(document: Any, seed: int = 0) -> str:
    """sha256 of a document's canonical JSON, salted with ``seed``. Raises as `plain` does."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, default=plain)
    return hashlib.sha256(f"{seed}:{text}".encode("utf-8", "surrogatepass")).hexdigest()


def split_documents(
    documents: Iterable[Any], search_fraction: float = 0.5, limit: int | None = None, seed: int = 0
) -> dict[Split, list[int]]:
    """Indices of the documents of each split, ascending; at most ``limit`` in each. A fraction of 1 holds nothing out.

    >>> split_documents(["a", "b", "c", "d", "e", "a"], seed=3)
    {'search': [0, 4, 5], 'held_out': [1, 2, 3]}
    """
    threshold = int(search_fraction * 2**64)
    ranked: dict[Split, list[tuple[str, int]]] = {split: [] for split in SPLITS}
    for index, document in enumerate(documents):
        digest = content_hash(document, seed)
        # The first half of the hash picks the split, the second half the order in which a limit takes documents.
        split: Split = "search" if int(digest[:16], 16) < threshold else "held_out"
        ranked[split].append((digest[32:], index))
    return {split: _take(pairs, limit) for split, pairs in ranked.items()}


def _take(pairs: Sequence[tuple[str, int]], limit: int | None) -> list[int]:
    return sorted(index for _, index in sorted(pairs)[:limit])
