"""Short names for people, where ids are long paths."""

from collections.abc import Sequence
from pathlib import PurePath


def short_names(ids: Sequence[str]) -> list[str]:
    """The last part of each id where that tells them apart, more where it must.

    >>> short_names(["runs/a/model", "runs/b/model"]), short_names(["x/math", "x/code.safetensors"])
    (['a/model', 'b/model'], ['math', 'code'])
    """
    parts = [PurePath(id.removesuffix(".safetensors")).parts or (id,) for id in ids]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(ids)
