"""Log odds that one model was fine-tuned from another: a logistic fit on simulated families.

33 families of seeds below 100 (tests/kinship/heritage/growth.py), each with its base and with it withheld: 12,176
ordered pairs, L2 penalty 1 on standardised signals. What is reported is measured on other seeds: docs/heritage.md.
"""

import numpy as np

from kinship.gram import Float64
from kinship.heritage.signals import NAMES

INTERCEPT = -3.652
WEIGHTS = {
    "farther_than_nearest": -0.048,
    "farther_for_parent": -0.011,
    "longer": 2.496,
    "outward": 0.041,
    "between": 1.345,
    "branching": -0.314,
    "branching_second": -0.003,
    "beyond": -0.451,
    "frozen": -0.052,
    "most_frozen": 1.568,
    "heavier_tails": 1.946,
    "bridge": 1.296,
    "drawn": 0.729,
    "draws": -0.122,
    "cosine": -0.261,
    "shortcut": -1.649,
    "alone": 0.0,
}

# A model is left without a parent where the best has lower log odds than this: edges right one time in eight are told,
# at that confidence, since a tree with doubtful edges is of more use than none.
LEAST_ODDS = -2.0


def log_odds(values: Float64) -> Float64:
    """Of ordered pairs, from their signals (..., len(NAMES))."""
    odds: Float64 = values @ np.array([WEIGHTS[name] for name in NAMES]) + INTERCEPT
    return odds
