"""Search and held-out documents, told apart by a hash of their content.

Equal documents have equal hashes, so repeats cannot straddle the splits; a larger limit only adds documents.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

Split = Literal["search", "held_out"]
SPLITS: tuple[Split, Split] = ("search", "held_out")


def content_hash(document: Any, seed: int = 0) -> str:
    """sha256 of a document's canonical JSON, salted with ``seed``."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, default=str)
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
