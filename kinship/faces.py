"""Faces of packages: their public names, imported on first use (PEP 562), so that importing a package costs little."""

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_face(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """The ``__getattr__`` of ``package`` whose public names lie in the modules ``homes``, by name.

    What is returned raises `AttributeError` for any other name.

    >>> lazy_face("example", {"sqrt": "math"})("sqrt")(9.0)
    3.0
    """

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return find
