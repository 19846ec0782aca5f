"""Log odds that one model was fine-tuned from another, against its having no parent here: fitted on simulated families.

66 families of seeds below 100, each with its base and with it withheld: 1,492 children, and 19,906 trees that differ
from the true one by one child's place. tests/kinship/heritage/fitting.py is the fit; what is reported is measured on
other seeds: docs/heritage.md.
"""

import numpy as np

from kinship.gram import Float64
from kinship.heritage.signals import NAMES

INTERCEPT = -0.058
WEIGHTS = {
    "farther_than_nearest": 0.035,
    "between": 3.625,
    "beyond": -2.104,
    "offshoot": -7.995,
    "overshoot": -26.726,
    "bridge": 1.812,
    "drawn": 0.540,
    "shortcut": -3.755,
    "frozen": 2.942,
    "longer": 4.827,
    "outward": 0.522,
    "even": 2.701,
    "stretched": -1.106,
}

# A model is left without a parent where the best has lower log odds than this: below zero, since most have one.
LEAST_ODDS = -0.75


def log_odds(values: Float64) -> Float64:
    """Of ordered pairs, from their signals (..., len(NAMES))."""
    odds: Float64 = values @ np.array([WEIGHTS[name] for name in NAMES]) + INTERCEPT
    return odds
