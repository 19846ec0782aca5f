"""From an arm to weights in memory."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from evaluators.base import Candidate
from evaluators.mended import identity_with
from kinship.checkpoints.checkpoint import ContentDigest
from kinship.checkpoints.opening import open_checkpoint
from merging.beside.files import NOTHING, Beside
from merging.beside.making import experts_beside
from merging.execution.values import Bytes
from merging.merge import planned
from merging.offspring.span import child_seed
from merging.offspring.weights import Tensors, held_stream, made_tensors, stream_of
from merging.planning.plan import MergePlan, TensorPlan
from search.comparison.arms import Arm
from search.comparison.cost import Cost, measured_cost
from search.comparison.plan import ComparisonPlan

if TYPE_CHECKING:
    import torch

Watch = TypeVar("Watch")


@dataclass
class Made:
    """Weights, and what they cost. merge: None for a model as it is; statistics: for a method that sees no data."""

    candidate: Candidate
    merge: Cost | None = None
    statistics: Cost | None = None


def make(plan: ComparisonPlan, arm: Arm, label: str, statistics: str | None = None) -> Made:
    """The weights of ``arm``, held in memory unless they are a model's own.

    statistics: folder in which what is measured of models is kept for the next arm. Raises what opening and merging do.
    """
    if arm.kind == "model":
        return Made(_model(arm.models[0]))
    if arm.kind == "random_vector":
        with measured_cost() as cost:
            held = random_average(plan.base, arm.models, arm.seed)
        return Made(_held(held, label), cost)
    with _prepared(plan, arm, statistics, measured_cost) as (ready, measuring):
        for _ in made_tensors(_samples(ready), ready.rounding, arm.seed, ready.statistics):
            pass
        with measured_cost() as cost:
            held = dict(made_tensors(ready.tensors, ready.rounding, arm.seed, ready.statistics))
            beside = experts_beside(ready)
    return Made(_held(held, label, beside), cost, measuring)


def counted_flops(plan: ComparisonPlan, arm: Arm, empty: str) -> tuple[int, int | None]:
    """Floating-point operations of merge and statistics of ``arm``, which is done once more for it; the latter None for
    a method that sees no data.

    empty: a folder without statistics. Raises as `make`.
    """
    from search.comparison.flops import counted, merge_flops

    with _prepared(plan, arm, empty, counted) as (ready, measuring):
        with counted() as experts:
            experts_beside(ready)
        return merge_flops(ready, arm.seed) + experts.flops, None if measuring is None else measuring.flops


@contextmanager
def _prepared(
    plan: ComparisonPlan, arm: Arm, statistics: str | None, watched: Callable[[], AbstractContextManager[Watch]]
) -> Iterator[tuple[MergePlan, Watch | None]]:
    """The merge of ``arm``, its models measured, and what the measuring was ``watched`` to take; None where the method
    sees no data.
    """
    with ExitStack() as stack:
        ready = stack.enter_context(planned(arm.recipe(plan, statistics), arm.seed))
        measuring = None
        if ready.recipe.method.measures:
            from merging.data_driven.prepare import measured

            with watched() as measuring:
                ready = stack.enter_context(measured(ready, seed=arm.seed))
        yield ready, measuring


def _samples(plan: MergePlan) -> list[TensorPlan]:
    """The smallest tensor of each number of dimensions: made first, they have compiled what a merge compiles once."""
    smallest: dict[int, TensorPlan] = {}
    for tensor in sorted(plan.tensors, key=lambda tensor: tensor.spec.size):
        smallest.setdefault(len(tensor.spec.shape), tensor)
    return list(smallest.values())


def random_average(base: str, models: tuple[str, ...], seed: int) -> "dict[str, torch.Tensor]":
    """The base and the mean of random task vectors, one for each of ``models``, in the base's dtypes.

    Each has, tensor by tensor, the length of its model's task vector and a random direction: what a merge gains beyond
    it is not owed to moving that far. Memory: one model and a few tensors.
    """
    import torch

    from merging.methods.random_vector import random_vector

    with ExitStack() as stack:
        start, *others = (stack.enter_context(open_checkpoint(path)) for path in (base, *models))
        found = {}
        for name in start.tensors:
            own = start.tensor(name)
            if not own.is_floating_point():
                found[name] = own
                continue
            total = torch.zeros(own.shape, dtype=torch.float64)
            for place, model in enumerate(others):
                moved = model.tensor(name).float() - own.float()
                generator = torch.Generator().manual_seed(child_seed(seed, f"{place}:{name}"))
                total += random_vector(moved[None], generator=generator)
            found[name] = (own.double() + total / len(others)).to(own.dtype)
        return found


def _model(reference: str) -> Candidate:
    with open_checkpoint(reference) as model:
        identity = model.digest

    def tensors() -> Tensors:
        with open_checkpoint(reference) as again:
            return held_stream(stream_of(again))

    return Candidate(reference, identity, tensors, model.require_unchanged)


def _held(tensors: "Mapping[str, torch.Tensor]", label: str, beside: Beside = NOTHING) -> Candidate:
    """Weights in memory, known by their content as a checkpoint is, and what lies beside them."""
    import torch

    digest = ContentDigest(held_stream(iter(tensors.items())).specs)
    for name in sorted(tensors):
        data: Bytes = tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(name, data.data)
    identity = identity_with(digest.hexdigest(), beside)
    return Candidate(label, identity, lambda: held_stream(iter(tensors.items())), beside=beside)
