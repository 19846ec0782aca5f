"""Scores of edges and of roots in the distribution over a family's trees: fitted on simulated families.

On 141 of tiny Llamas and 24 grown from stories260K, each with its base and with it withheld: 4,433 models.
tests/kinship/heritage/fitting.py is the fit; what is reported is measured on other families: docs/heritage.md.
"""

import numpy as np

from kinship.gram import Float64
from kinship.heritage.signals import NAMES, ROOTS

# Families are of two kinds, told by which explains one better: training lengthens matrices, as it does in most, or it
# shortens them, as where what a long training built is undone. Signals of direction have a weight for each.
WEIGHTS: dict[str, tuple[float, float]] = {
    "place": (-1.908, -1.908),
    "between": (2.414, 2.414),
    "beyond": (-1.064, -1.064),
    "offshoot": (-6.151, -6.151),
    "overshoot": (-20.636, -20.636),
    "bridge": (1.392, 1.392),
    "frozen": (8.25, 8.25),
    "kept": (2.474, 2.474),
    "kept_most": (0.755, 0.755),
    "elsewhere": (-8.363, -8.363),
    "shorter": (1.438, 1.438),
    "longer": (2.82, -1.153),
    "even": (0.778, 3.429),
    "rooted": (-0.791, -0.791),
    "lengthened": (-8.853, 5.164),
}
# For a family that has one root: its founder is here.
SINGLE = (2.343, 2.343)
# Log odds of the kinds, other things being equal.
ODDS = (0.0, 2.583)
# An edge is told if its probability is more. Told edges count in the F1 if they are right oftener than half the F1.
LEAST = 0.45


def edge_scores(values: Float64) -> Float64:
    """Of ordered pairs, from their signals (..., len(NAMES)), by kind of family (..., 2)."""
    scores: Float64 = values @ np.array([WEIGHTS[name] for name in NAMES])
    return scores


def root_scores(values: Float64) -> Float64:
    """Of models, from their signals (..., len(ROOTS)), by kind of family (..., 2)."""
    scores: Float64 = values @ np.array([WEIGHTS[name] for name in ROOTS])
    return scores
