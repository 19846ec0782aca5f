"""The sparse sums: TIES, DARE, DELLA and Breadcrumbs, each with and without election of signs.

All keep some elements of each task vector and add up what is kept. A row of `TABLE` says how it chooses what it keeps,
whether signs are elected, and its defaults; `sparse_sum` does the rest.

>>> import torch
>>> from merging.registry import get_method
>>> values = {"weight": [1, 1], "density": [0.7, 0.7], "normalize": True, "rescale": False}
>>> get_method("ties").tensor(
...     torch.tensor([[4.0, 1.0, -2.0], [0.1, -2.0, -1.0]]), values | {"lambda": 1.0, "int8_mask": False}, has_base=True
... )
tensor([ 4.0000, -2.0000, -1.5000])
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import Signature, signature
from typing import TYPE_CHECKING, Any

from merging.registry import Parameter, tensor_method

if TYPE_CHECKING:
    import torch

    from merging.kernels.sparsify import Keep

DENSITY = Parameter(
    "density", "fraction of this task vector's elements to keep", 1.0, per_model=True, low=0.0, high=1.0
)
EPSILON = Parameter(
    "epsilon", "how far, up and down from density, the chance to be kept goes in a row", 0.15, per_model=True, low=0.0
)
GAMMA = Parameter("gamma", "fraction of the largest elements to drop", 0.01, per_model=True, low=0.0, high=1.0)


def largest(vectors: "torch.Tensor", density: Sequence[float]) -> "list[Keep]":
    """Of each of the vectors (p, \\*shape) the max(1, int(density * n)) largest magnitudes; none where density is 0.

    Of equals those of lower index (TIES, arXiv 2306.01708, algorithm 1).
    """
    from merging.kernels.sparsify import flat, keep_magnitudes

    size = vectors[0].numel()
    counts = [max(1, int(share * size)) if share > 0.0 else 0 for share in density]
    return [keep_magnitudes(row, 0, count) for row, count in zip(flat(vectors), counts, strict=True)]


def middle(vectors: "torch.Tensor", density: Sequence[float], gamma: Sequence[float]) -> "list[Keep]":
    """Neither the largest nor the smallest: see `keep_middle` (Breadcrumbs, arXiv 2312.06795, section 3)."""
    from merging.kernels.sparsify import flat, keep_middle

    rows = flat(vectors)
    return [keep_middle(row, share, outliers) for row, share, outliers in zip(rows, density, gamma, strict=True)]


def drawn(vectors: "torch.Tensor", density: Sequence[float], generator: "torch.Generator") -> "list[Keep]":
    """Each element with probability ``density`` (DARE, arXiv 2311.03099, section 3.2).

    As in mergekit ``rescale`` restores the L1 norm of each task vector rather than divide by density, which is the same
    on average; a task vector of which nothing stayed is zero. Draws one number per model from ``generator``.
    """
    from merging.kernels.sparsify import keep_drawn

    return [keep_drawn(share, generator) for share in density]


def pruned(
    vectors: "torch.Tensor", density: Sequence[float], epsilon: Sequence[float], generator: "torch.Generator"
) -> "list[Keep]":
    """Larger elements more often, row by row: see `magprune` (DELLA, arXiv 2406.11617, section 3).

    Overwrites ``vectors``. Draws one number from ``generator`` for each model of which something is dropped.
    """
    from merging.kernels.magprune import magprune

    return [
        magprune(vector, share, spread, generator=generator)
        for vector, share, spread in zip(vectors, density, epsilon, strict=True)
    ]


@dataclass(frozen=True)
class Sparse:
    """One method: how it chooses (`largest`, `middle`, `drawn` or `pruned`), by which parameters, and what follows."""

    name: str
    summary: str
    choose: "Callable[..., list[Keep]]"
    parameters: tuple[Parameter, ...]
    formula: str
    reference: str
    elect: bool = False
    normalize: bool = False
    rescale: bool = False

    @property
    def kernel(self) -> "Callable[..., torch.Tensor]":
        """The kernel: it takes what `choose` takes, and what all the methods do."""

        def kernel(
            vectors: "torch.Tensor",
            *,
            weight: Sequence[float],
            normalize: bool,
            rescale: bool,
            lambda_: float,
            int8_mask: bool,
            **own: Any,
        ) -> "torch.Tensor":
            from merging.kernels.sparsify import sparse_sum

            vectors = vectors.contiguous()
            keeps = self.choose(vectors, **own)
            return sparse_sum(
                vectors, keeps, weight, elect=self.elect, normalize=normalize, rescale=rescale, factor=lambda_
            )

        common = list(signature(kernel).parameters.values())[:-1]
        own = [one.replace(kind=one.KEYWORD_ONLY) for one in list(signature(self.choose).parameters.values())[1:]]
        kernel.__signature__ = Signature([*common, *own])  # type: ignore[attr-defined]
        return kernel

    def register(self) -> None:
        """Make it a method; the generator is for those whose choice is drawn."""
        tensor_method(
            self.name,
            Parameter("weight", "factor of this model's task vector", per_model=True),
            *self.parameters,
            Parameter("normalize", "divide by the weights that took part", default=self.normalize),
            Parameter(
                "rescale", "stretch what is kept of each task vector to its L1 norm before", default=self.rescale
            ),
            Parameter("lambda", "factor of the merged task vector", default=1.0),
            Parameter("int8_mask", "accepted for mergekit's sake; changes nothing", default=False),
            base="needed",
            random="generator" in signature(self.choose).parameters,
            summary=self.summary,
            taxon="sparsified",
            formula=self.formula,
            reference=self.reference,
        )(self.kernel)


_DROPPED_AT_RANDOM = "mᵢ ~ Bernoulli(density),  sᵢ = |τᵢ|₁ / |mᵢ ⊙ τᵢ|₁"
_MIDDLE = "mᵢ = 1[gamma n < rank |τᵢ| ≤ (gamma + density) n]"

TABLE = (
    Sparse(
        "ties",
        "TIES: trim, elect signs, and merge what agrees.",
        largest,
        (DENSITY,),
        "θ = θ₀ + λ Σᵢ∈A wᵢ topk(τᵢ) / Σᵢ∈A wᵢ;  A = {i : sgn wᵢ topk(τᵢ) = sgn Σⱼ wⱼ topk(τⱼ)}",
        "Yadav et al., TIES-Merging, arXiv 2306.01708",
        elect=True,
        normalize=True,
    ),
    Sparse(
        "dare_linear",
        "DARE: drop elements of task vectors at random and rescale the rest.",
        drawn,
        (DENSITY,),
        f"θ = θ₀ + λ Σᵢ wᵢ sᵢ mᵢ ⊙ τᵢ;  {_DROPPED_AT_RANDOM}",
        "Yu et al., Language Models are Super Mario, arXiv 2311.03099",
        rescale=True,
    ),
    Sparse(
        "dare_ties",
        "DARE with sign election.",
        drawn,
        (DENSITY,),
        f"θ = θ₀ + λ Σᵢ∈A wᵢ sᵢ mᵢ ⊙ τᵢ;  {_DROPPED_AT_RANDOM},  A as in TIES",
        "Yu et al., Language Models are Super Mario, arXiv 2311.03099",
        elect=True,
        rescale=True,
    ),
    Sparse(
        "della",
        "DELLA: drop small elements of task vectors more often, elect signs, and merge what agrees.",
        pruned,
        (DENSITY, EPSILON),
        "θ = θ₀ + λ Σᵢ∈A wᵢ sᵢ mᵢ ⊙ τᵢ / Σᵢ∈A wᵢ;  mᵢ ~ Bernoulli(pᵢ),  pᵢ = density ± ε by rank;  A as in TIES",
        "Deep et al., DELLA-Merging, arXiv 2406.11617",
        elect=True,
        normalize=True,
        rescale=True,
    ),
    Sparse(
        "della_linear",
        "DELLA without sign election.",
        pruned,
        (DENSITY, EPSILON),
        "θ = θ₀ + λ Σᵢ wᵢ sᵢ mᵢ ⊙ τᵢ;  mᵢ ~ Bernoulli(pᵢ),  pᵢ = density ± ε by rank of |τᵢ|",
        "Deep et al., DELLA-Merging, arXiv 2406.11617",
        rescale=True,
    ),
    Sparse(
        "breadcrumbs",
        "Model Breadcrumbs: drop the largest and the smallest elements of task vectors.",
        middle,
        (DENSITY, GAMMA),
        f"θ = θ₀ + λ Σᵢ wᵢ mᵢ ⊙ τᵢ;  {_MIDDLE}",
        "Davari & Belilovsky, Model Breadcrumbs, arXiv 2312.06795",
    ),
    Sparse(
        "breadcrumbs_ties",
        "Model Breadcrumbs with sign election.",
        middle,
        (DENSITY, GAMMA),
        f"θ = θ₀ + λ Σᵢ∈A wᵢ mᵢ ⊙ τᵢ;  {_MIDDLE},  A as in TIES",
        "Davari & Belilovsky, Model Breadcrumbs, arXiv 2312.06795",
        elect=True,
    ),
)

for method in TABLE:
    method.register()
