"""Heritage: descent recovered from weights alone, with no metadata and the base perhaps unknown."""

from kinship.heritage.pedigree import Edge, Heritage, Latent, Node
from kinship.heritage.recover import recover

__all__ = ["Edge", "Heritage", "Latent", "Node", "recover"]
