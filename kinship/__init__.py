"""Kinship of fine-tuned models: from weights to relatedness.

``__all__`` is what others may rely on: see docs/python.md. The names are imported on first use, so that
``import kinship`` (and every ``kinship --help``) stays fast: see PEP 562.
"""

from typing import TYPE_CHECKING

from kinship.faces import lazy_face

if TYPE_CHECKING:
    from kinship.checkpoints.checkpoint import Checkpoint as Checkpoint
    from kinship.checkpoints.opening import open_checkpoint as open_checkpoint
    from kinship.errors import CacheError as CacheError
    from kinship.errors import EvaluationFailed as EvaluationFailed
    from kinship.errors import IncomparableScores as IncomparableScores
    from kinship.errors import InputsChanged as InputsChanged
    from kinship.errors import InvalidConfig as InvalidConfig
    from kinship.errors import KinshipError as KinshipError
    from kinship.errors import KinshipWarning as KinshipWarning
    from kinship.errors import LedgerError as LedgerError
    from kinship.errors import MalformedCheckpoint as MalformedCheckpoint
    from kinship.errors import MismatchedModels as MismatchedModels
    from kinship.errors import NonFiniteWeights as NonFiniteWeights
    from kinship.errors import OutputExists as OutputExists
    from kinship.errors import OutputNotWritable as OutputNotWritable
    from kinship.errors import ReferenceNotFound as ReferenceNotFound
    from kinship.errors import SystemRefused as SystemRefused
    from kinship.errors import UnsupportedCheckpoint as UnsupportedCheckpoint
    from kinship.errors import WorkersFailed as WorkersFailed
    from kinship.heritage import Heritage as Heritage
    from kinship.heritage import recover as recover
    from kinship.measures.advice import advise as advise
    from kinship.measures.comparison import Comparison as Comparison
    from kinship.measures.comparison import compare as compare
    from kinship.measures.comparison import kinship_matrix as kinship_matrix
    from kinship.measures.gram import GramTable as GramTable
    from kinship.measures.matrix import KinshipMatrix as KinshipMatrix
    from kinship.measures.metrics import METRICS as METRICS
    from kinship.measures.metrics import Metric as Metric
    from kinship.measures.metrics import get_metric as get_metric
    from kinship.measures.options import ComparisonOptions as ComparisonOptions
    from kinship.measures.preflight import Preflight as Preflight
    from kinship.measures.preflight import preflight as preflight
    from kinship.measures.table import Table as Table
    from kinship.trees.dendrogram import cluster as cluster
    from kinship.trees.dendrogram import neighbour_joining as neighbour_joining
    from kinship.trees.dendrogram import newick as newick
    from kinship.trees.recorded import recorded_tree as recorded_tree

_NAMES = {
    "kinship.checkpoints.checkpoint": ("Checkpoint",),
    "kinship.checkpoints.opening": ("open_checkpoint",),
    "kinship.errors": (
        "CacheError",
        "EvaluationFailed",
        "IncomparableScores",
        "InputsChanged",
        "InvalidConfig",
        "KinshipError",
        "KinshipWarning",
        "LedgerError",
        "MalformedCheckpoint",
        "MismatchedModels",
        "NonFiniteWeights",
        "OutputExists",
        "OutputNotWritable",
        "ReferenceNotFound",
        "SystemRefused",
        "UnsupportedCheckpoint",
        "WorkersFailed",
    ),
    "kinship.heritage": ("Heritage", "recover"),
    "kinship.measures.advice": ("advise",),
    "kinship.measures.comparison": ("Comparison", "compare", "kinship_matrix"),
    "kinship.measures.gram": ("GramTable",),
    "kinship.measures.matrix": ("KinshipMatrix",),
    "kinship.measures.metrics": ("METRICS", "Metric", "get_metric"),
    "kinship.measures.options": ("ComparisonOptions",),
    "kinship.measures.preflight": ("Preflight", "preflight"),
    "kinship.measures.table": ("Table",),
    "kinship.trees.dendrogram": ("cluster", "neighbour_joining", "newick"),
    "kinship.trees.recorded": ("recorded_tree",),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)


__getattr__ = lazy_face(__name__, _HOMES)
