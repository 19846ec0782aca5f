"""What children outside the span will cost a search, for its dry run."""

import time
from dataclasses import dataclass

from kinship.measures import gram
from kinship.measures.gram_row import GramRow
from merging.basis import Basis, pieces, stored_bytes
from merging.engine import peak_memory
from merging.plan import TensorPlan
from merging.recipe import Recipe

# So much of a child is made for the estimate of its time.
_TRIAL_BYTES = 16 << 20


@dataclass(frozen=True)
class Cost:
    """What making children takes. bytes_stored: what stays on disk. peak_memory: bytes, beside the program itself.

    seconds: from a trial on the first tensors; without waiting for the disk.
    """

    bytes_read: int
    bytes_stored: int
    peak_memory: int
    seconds: float


def cost_of_children(basis: Basis, recipe: Recipe, children: int = 1) -> Cost:
    """What ``children`` made one after another by ``recipe``, of members of ``basis``, take: nothing in its span.

    Every child is read for the kinship of those after it, so that reading grows with the square of their number. Costs
    reading some 16 MB of every member, for the trial.
    """
    if basis.span.holds(recipe.check()):
        return Cost(0, 0, 0, 0.0)
    plans = basis.plan(recipe, {id: basis.span.founder(id) for id in basis.span.ids})
    stored, merged = stored_bytes(plans), sum(plan.bytes_read for plan in plans)
    members = sum(model.tensors[plan.name].nbytes for plan in plans for model in basis.models)
    read = children * (merged + members) + children * (children - 1) // 2 * stored
    first: list[TensorPlan] = []
    size = 0
    for plan in plans:
        if plan.spec.nbytes and (size < _TRIAL_BYTES or not first):
            first.append(plan)
            size += plan.bytes_read + sum(model.tensors[plan.name].nbytes for model in basis.models)
    row, took = GramRow(basis.table, basis.models), 0.0
    for chosen in (first[:1], first):  # kernels are compiled or loaded in the first round, not timed
        started = time.perf_counter()
        for _ in pieces(chosen, row, 0):
            pass
        took = time.perf_counter() - started
    memory = peak_memory(plans) + gram.peak_memory(len(basis.models))
    return Cost(read, children * stored, memory, took / size * read if size else 0.0)
