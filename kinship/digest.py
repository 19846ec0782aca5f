"""Identity of weights by content, taken as they are read or written."""

import hashlib
import json
from collections.abc import Iterable

from kinship.dtypes import DType

Named = tuple[str, DType, tuple[int, ...]]


class ContentDigest:
    """sha256 over names, dtypes, shapes and bytes of ``tensors`` (name, dtype, shape), in order of names.

    Independent of sharding, file names and metadata.
    """

    def __init__(self, tensors: Iterable[Named]) -> None:
        self._sha = hashlib.sha256()
        self._coming = iter(sorted(tensors, key=lambda tensor: tensor[0]))
        self._name: str | None = None

    def update(self, name: str, data: memoryview) -> None:
        """Further bytes of tensor ``name``; raises `ValueError` where they come out of order, which is a bug."""
        while name != self._name:
            if not self._begin():
                raise ValueError(f"tensor {name!r} comes out of order")
        self._sha.update(data)

    def hexdigest(self) -> str:
        """The digest, once all bytes were given."""
        while self._begin():
            pass
        return self._sha.hexdigest()

    def _begin(self) -> bool:
        """Go on to the next tensor, if there is one."""
        tensor = next(self._coming, None)
        if tensor is None:
            return False
        self._name, dtype, shape = tensor
        self._sha.update(json.dumps([self._name, str(dtype), shape]).encode())
        return True
