"""Heritage: descent recovered from weights alone, with no metadata and the base perhaps unknown.

What recovers is imported on first use, so that what was recovered (`kinship.heritage.pedigree`) is had without it.
"""

from typing import TYPE_CHECKING

from kinship.heritage.pedigree import Edge, Heritage, Latent, Node

if TYPE_CHECKING:
    from kinship.heritage.recovery import recover as recover

__all__ = ["Edge", "Heritage", "Latent", "Node", "recover"]


def __getattr__(name: str) -> object:
    if name == "recover":
        from kinship.heritage.recovery import recover

        return recover
    raise AttributeError(f"module 'kinship.heritage' has no attribute {name!r}")
