"""EMR-Merging: one unified task vector for all tasks, and for each task a mask and a factor that turn it into its own.

Not one model but a way to keep many: the unified vector once, and per task one bit an entry and one number
(Huang et al., EMR-Merging, arXiv 2405.17461). Elect, mask and rescale are pure functions over one tensor, which a
caller applies to each tensor of a model.
"""

from collections.abc import Sequence

import torch

from kinship.errors import InvalidConfig
from merging.registry import Parameter, tensor_method


def unify(vectors: torch.Tensor) -> torch.Tensor:
    """Elect: the unified task vector (\\*shape) of task vectors (p, \\*shape).

    The sign of the sum, and the largest magnitude among those of that sign. Where the sum is 0, so is the result (the
    paper's sgn; the authors' code elects minus there).

    >>> unify(torch.tensor([[1.0, -2.0, 3.0], [2.0, 1.0, -3.0]]))
    tensor([ 2., -2.,  0.])
    """
    elected = vectors.sum(dim=0).sign()
    return elected * (vectors * elected).amax(dim=0)


def mask(vector: torch.Tensor, unified: torch.Tensor) -> torch.Tensor:
    """Mask: where (\\*shape) bool a task vector has the sign of the unified one.

    >>> mask(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([2.0, -2.0, 1.0]))
    tensor([ True, False, False])
    """
    return vector * unified.sign() > 0


def rescale(vectors: Sequence[torch.Tensor], unified: Sequence[torch.Tensor]) -> float:
    """Rescale: the factor that gives the masked unified tensors the mean magnitude of a task's own.

    ``vectors``: one task's tensors; ``unified``: the unified tensors in the same order. All tensors of a model give
    the paper's factor, one tensor its own. Sums are over entries (the authors' code adds up the means of tensors). 0
    where the task agrees with the unified vector nowhere. Accumulated in float64.

    >>> rescale([torch.tensor([1.0, 3.0])], [torch.tensor([2.0, -2.0])])
    2.0
    """
    own = shared = 0.0
    for vector, common in zip(vectors, unified, strict=True):
        own += float(vector.abs().sum(dtype=torch.float64))
        shared += float((common * mask(vector, common)).abs().sum(dtype=torch.float64))
    return own / shared if shared > 0.0 else 0.0


def restore(unified: torch.Tensor, kept: torch.Tensor, factor: float) -> torch.Tensor:
    """A task's vector (\\*shape) from the unified one: ``factor * unified`` where its mask ``kept`` is set, else 0.

    >>> restore(torch.tensor([2.0, -2.0]), torch.tensor([True, False]), 0.5)
    tensor([1., 0.])
    """
    return torch.where(kept, factor * unified, 0.0)


@tensor_method(
    "emr",
    Parameter("task", "whose model to restore, by its place in the list of models, from 0", kind="integer", low=0),
    base="needed",
    on_device=True,
    taxon="sparsified",
    formula="base + (|d_t|_1 / |m_t u|_1) m_t u;  u = s max_i(s d_i), s = sign(sum_i d_i);  m_t = [d_t u > 0]",
    reference="Huang et al., EMR-Merging, arXiv 2405.17461",
)
def emr(vectors: torch.Tensor, *, task: int) -> torch.Tensor:
    """The vector that EMR-Merging of task vectors (p, \\*shape) fp32 restores for model number ``task``.

    It shows what a task keeps of itself in the unified model. The paper has one factor a model; here every tensor
    has its own, since tensors are merged one by one: it fits each at least as well in size. Two passes over the input.
    Raises `InvalidConfig` where there is no such model.

    >>> emr(torch.tensor([[1.0, 3.0], [2.0, -1.0]]), task=1)
    tensor([3., 0.])
    """
    if not 0 <= task < len(vectors):
        raise InvalidConfig(
            f"emr cannot restore task {task}: the merge has {len(vectors)} models.",
            hint=f"Set task between 0 (the first model) and {len(vectors) - 1}.",
        )
    own, unified = vectors[int(task)], unify(vectors)
    return restore(unified, mask(own, unified), rescale([own], [unified]))
