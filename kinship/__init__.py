"""Kinship of fine-tuned models: from weights to relatedness.

The public names are imported on first use, so that ``import kinship`` (and every ``kinship --help``)
stays fast: see PEP 562.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinship.checkpoints.checkpoint import Checkpoint as Checkpoint
    from kinship.checkpoints.opening import open_checkpoint as open_checkpoint
    from kinship.errors import KinshipError as KinshipError
    from kinship.measures.comparison import kinship_matrix as kinship_matrix
    from kinship.measures.gram import GramTable as GramTable
    from kinship.measures.matrix import KinshipMatrix as KinshipMatrix

_HOMES = {
    "Checkpoint": "kinship.checkpoints.checkpoint",
    "open_checkpoint": "kinship.checkpoints.opening",
    "kinship_matrix": "kinship.measures.comparison",
    "KinshipError": "kinship.errors",
    "GramTable": "kinship.measures.gram",
    "KinshipMatrix": "kinship.measures.matrix",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'kinship' has no attribute {name!r}")
