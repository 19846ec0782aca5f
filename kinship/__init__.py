"""Kinship of fine-tuned models: from weights to relatedness.

The public names are imported on first use, so that ``import kinship`` (and every ``kinship --help``)
stays fast: see PEP 562.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinship.checkpoint import Checkpoint as Checkpoint
    from kinship.compute import kinship_matrix as kinship_matrix
    from kinship.errors import KinshipError as KinshipError
    from kinship.gram import GramTable as GramTable
    from kinship.matrix import KinshipMatrix as KinshipMatrix
    from kinship.opening import open_checkpoint as open_checkpoint

_HOMES = {
    "Checkpoint": "kinship.checkpoint",
    "open_checkpoint": "kinship.opening",
    "kinship_matrix": "kinship.compute",
    "KinshipError": "kinship.errors",
    "GramTable": "kinship.gram",
    "KinshipMatrix": "kinship.matrix",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'kinship' has no attribute {name!r}")
