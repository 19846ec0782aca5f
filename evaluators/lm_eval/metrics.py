"""A task's metric as one number a document, so that a mean has an error and two models can be paired."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evaluators.lm_eval.tasks import LoadedTask
from kinship.errors import InvalidConfig
from kinship.validation import nearest


@dataclass(frozen=True)
class Measure:
    """``key``: lm-eval's name of the metric; ``name``: what `of` makes of a document's entry, higher is better."""

    key: str
    name: str
    of: Callable[[Any], float]

    def read(self, metrics: Mapping[str, Any]) -> float:
        """The document's value; a task's only metric is it whatever its name, as ``pass@1`` is for ``pass_at_k``."""
        if self.key not in metrics and len(metrics) == 1:
            return self.of(next(iter(metrics.values())))
        if self.key not in metrics:
            raise InvalidConfig(
                f"The task gives no {self.key!r}, but {', '.join(metrics)}.", hint="Name one of them as its metric."
            )
        return self.of(metrics[self.key])


# lm-eval's perplexities are functions of a sum over documents. What is summed, per unit, ranks models alike and has an
# error: it is the logarithm of the perplexity with its sign turned round.
_LOGARITHMS: Mapping[str, tuple[str, Callable[[Any], float]]] = {
    "perplexity": ("log-likelihood of", float),
    "weighted_perplexity": ("log-likelihood per unit of", lambda entry: entry[0] / entry[1]),
    "bits_per_byte": ("negative", lambda entry: entry[0] / entry[1] / math.log(2)),
}


def measure_of(loaded: LoadedTask) -> Measure:
    """The metric asked for, or the task's first; raises `InvalidConfig` where it is unknown or no mean of documents."""
    aggregations = loaded.task.aggregation()
    key = loaded.metric or next(iter(aggregations))
    if key not in aggregations:
        raise InvalidConfig(f"Task {loaded.name} has no metric {key!r}.", hint=nearest(key, aggregations))
    aggregation = getattr(aggregations[key], "__name__", "")
    if aggregation == "mean":
        if loaded.task.higher_is_better().get(key, True):
            return Measure(key, key, float)
        return Measure(key, f"negative {key}", lambda entry: -float(entry))
    if aggregation in _LOGARITHMS:
        prefix, of = _LOGARITHMS[aggregation]
        return Measure(key, f"{prefix} {key}", of)
    raise InvalidConfig(
        f"The metric {key!r} of task {loaded.name} is not a mean over documents, so it has no paired error.",
        hint=f"Choose another of its metrics: {', '.join(aggregations)}.",
    )


def filter_of(loaded: LoadedTask) -> str:
    """Name of the filter asked for, or the task's first; raises `InvalidConfig` for an unknown one."""
    names = [ensemble.name for ensemble in loaded.task._filters]
    if loaded.filter is not None and loaded.filter not in names:
        raise InvalidConfig(f"Task {loaded.name} has no filter {loaded.filter!r}.", hint=nearest(loaded.filter, names))
    return loaded.filter or names[0]
