"""THE registry of metrics. Data alone, so that importing it is cheap; code is named, and imported on use.

A new metric is a row here, and its code in one module: a kernel, where it follows from the Gram matrix of task vectors,
or else a reader (`kinship.measures.table.Reader`) of a table of its own.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from kinship.errors import InvalidConfig

if TYPE_CHECKING:
    from kinship.measures.gram_metrics import Kernel


@dataclass(frozen=True)
class Metric:
    """A metric and its direction: ``higher_is_closer`` is true of similarities, false of distances.

    ``kernel`` computes it from a Gram matrix; None where it does not follow from one. ``reader`` reads the weights for
    it. Both as ``module:function``. ``unrelated``: what it is between unrelated models, where that is known.
    ``of_differences``: it depends on the differences of models that hardly differ, so these are read once more.
    """

    name: str
    label: str
    higher_is_closer: bool
    kernel: str | None = None
    reader: str = "kinship.measures.gram_memory:read_gram"
    unrelated: float | None = None
    of_differences: bool = False

    def closeness(self, value: float) -> float:
        """A number that grows with kinship, whatever the direction of the metric."""
        return value if self.higher_is_closer else -value


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("pcc", "Pearson correlation", True, kernel="kinship.measures.gram_metrics:pcc", unrelated=0.0),
        Metric("cosine", "cosine similarity", True, kernel="kinship.measures.gram_metrics:cosine", unrelated=0.0),
        Metric(
            "euclidean",
            "Euclidean distance",
            False,
            kernel="kinship.measures.gram_metrics:euclidean",
            of_differences=True,
        ),
        Metric("sign", "sign agreement", True, reader="kinship.measures.signs:read_signs", unrelated=0.5),
        Metric("subspace", "subspace overlap", True, reader="kinship.measures.subspaces:read_overlaps"),
    )
}


def get_metric(name: str) -> Metric:
    """The metric called ``name``. Raises `InvalidConfig` naming those there are."""
    if name not in METRICS:
        raise InvalidConfig(f"There is no metric {name!r}.", hint=f"Use one of: {', '.join(METRICS)}.")
    return METRICS[name]


def gram_kernel(name: str) -> "Kernel":
    """How the metric called ``name`` follows from a Gram matrix. Raises `InvalidConfig` where it does not."""
    kernel = get_metric(name).kernel
    if kernel is None:
        follow = ", ".join(metric.name for metric in METRICS.values() if metric.kernel)
        raise InvalidConfig(f"{name} does not follow from inner products.", hint=f"Use one of: {follow}.")
    function: Kernel = named(kernel)
    return function


def named(place: str) -> Any:
    """What a ``module:function`` of the registry names."""
    module, _, function = place.partition(":")
    return getattr(import_module(module), function)
