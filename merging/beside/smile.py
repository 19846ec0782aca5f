"""SMILE: the task vectors of linear layers as low-rank experts, chosen token by token by what they do to an input."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from merging.kernels.spectral import low_rank_factors


class Expert(NamedTuple):
    """One model's change of one linear layer: ``left`` (out, k) times ``right`` (k, in), and of its ``bias`` (out).

    gate: (g, in), the leading right singular vectors of the change, in whose span it expects its inputs. A layer that
    the model did not change has k = g = 0.
    """

    left: torch.Tensor
    right: torch.Tensor
    gate: torch.Tensor
    bias: torch.Tensor | None = None


def expert_of(change: torch.Tensor, rank: int, gate_rank: int, bias: torch.Tensor | None = None) -> Expert:
    """The expert of a ``change`` (out, in) of a weight, cut to ``rank``, fp32 (Tang et al., arXiv 2408.10174, eq. 7).

    Cost: an eigendecomposition of the smaller side in float64. Raises `NonFiniteWeights`.
    """
    left, right = low_rank_factors(change.double(), rank)
    gate = torch.nn.functional.normalize(right[:gate_rank], dim=1)  # rows are singular vectors but for their length
    return Expert(left.float(), right.float(), gate.float(), bias)


def shares(inputs: torch.Tensor, gates: Sequence[torch.Tensor], experts_per_token: int) -> torch.Tensor:
    """What each of p experts counts for each of the ``inputs`` (.., in): (.., p), all but ``experts_per_token`` 0.

    The softmax of the lengths of an input's projections onto the experts' ``gates`` (g, in), over those longest
    (the same, eq. 8); equal ones go by number.

    >>> gates = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])]
    >>> shares(torch.tensor([[3.0, -4.0], [2.0, 1.0]]), gates, 1)
    tensor([[0., 1.],
            [1., 0.]])
    """
    lengths = torch.stack([(inputs @ gate.T).norm(dim=-1) for gate in gates], dim=-1)
    order = lengths.argsort(dim=-1, descending=True, stable=True)[..., :experts_per_token]
    chosen = torch.full_like(lengths, -torch.inf).scatter(-1, order, lengths.gather(-1, order))
    return chosen.softmax(dim=-1)


def routed(inputs: torch.Tensor, experts: Sequence[Expert], experts_per_token: int) -> torch.Tensor:
    """What the chosen ``experts`` add to a layer's output (.., out) for ``inputs`` (.., in): a sum by `shares`."""
    parts = shares(inputs, [expert.gate for expert in experts], experts_per_token)
    added = inputs.new_zeros(*inputs.shape[:-1], len(experts[0].left))
    for number, expert in enumerate(experts):
        own = (inputs @ expert.right.T) @ expert.left.T
        added = added + parts[..., number, None] * (own if expert.bias is None else own + expert.bias)
    return added
