"""How many threads work at once."""

import os


def worker_count() -> int:
    """The processors this process may use; ``KINSHIP_THREADS`` overrides it. Results never depend on it."""
    chosen = os.environ.get("KINSHIP_THREADS", "")
    return max(1, int(chosen)) if chosen.isdigit() else len(os.sched_getaffinity(0))
