"""Compiled kernels are kept, so that they are compiled once: beside their source, else in the user's cache folder.

Where neither can be written, as in a container that runs as another user, a temporary folder takes their place; where
nothing can, or the disk is full, kernels are compiled in every process. Results are the same.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
from numba.core.caching import FunctionCache

from kinship.errors import InvalidConfig, KinshipWarning
from kinship.temporary import stand_in


def kernel(**options: Any) -> Callable[[Any], Any]:
    """Decorate a function to be compiled by Numba with these ``options``, without Python's lock, and kept.

    Raises `InvalidConfig` where Numba was told not to compile.
    """

    def compiled(function: Any) -> Any:
        if numba.config.DISABLE_JIT:
            raise InvalidConfig(
                "NUMBA_DISABLE_JIT is set, but kernels run compiled only.", hint="Unset that environment variable."
            )
        dispatcher = numba.njit(nogil=True, **options)(function)
        for folder in (None, _temporary):
            try:
                if folder is not None:
                    numba.config.CACHE_DIR = numba.config.CACHE_DIR or folder()
                dispatcher._cache = _Forgiving(function)
            except (RuntimeError, OSError):  # Numba finds no place that can be written
                continue
            break
        return dispatcher

    return compiled


class _Forgiving(FunctionCache):  # type: ignore[misc]
    """A cache whose troubles cost a compilation and nothing else."""

    def load_overload(self, *arguments: Any) -> Any:
        """See `FunctionCache`; None for what cannot be read back."""
        try:
            return super().load_overload(*arguments)
        except Exception:  # damaged files fail as pickles may
            return None

    def save_overload(self, *arguments: Any) -> None:
        """See `FunctionCache`."""
        try:
            super().save_overload(*arguments)
        except Exception as error:  # no room, or a damaged index that it would add to
            _told_once(f"Compiled kernels cannot be kept ({error}): every process compiles them again.")


def _temporary() -> str:
    folder = str(stand_in("kernels"))
    _told_once(f"No cache folder can be written: compiled kernels are kept in {folder}. NUMBA_CACHE_DIR names another.")
    return folder


@cache
def _told_once(text: str) -> None:
    warnings.warn(text, KinshipWarning, stacklevel=4)
