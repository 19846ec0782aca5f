"""How many threads work at once."""

import os

from kinship.errors import InvalidConfig

VARIABLE = "KINSHIP_THREADS"


def worker_count() -> int:
    """The processors this process may use; ``KINSHIP_THREADS`` overrides it. Results never depend on it.

    Raises `InvalidConfig` where that is set to anything but a whole number from 1.
    """
    chosen = os.environ.get(VARIABLE, "").strip()
    if not chosen:
        return len(os.sched_getaffinity(0))
    if not (chosen.isascii() and chosen.isdecimal() and len(chosen) < 7 and int(chosen)):
        raise InvalidConfig(
            f"The environment variable {VARIABLE} is {chosen!r}: a whole number of threads, 1 or more, was expected.",
            hint=f"Correct it, or unset {VARIABLE}: all processors are used.",
        )
    return int(chosen)
