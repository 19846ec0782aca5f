"""What documents cost, in tokens that a model runs: a race asks the cheap ones sooner."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

from evaluators.lm_eval.limits import most_generated

SAMPLE = 16  # documents of a task that stand for all: the pace of a race goes by the root of their mean price

Item = TypeVar("Item")


def some(items: Sequence[Item]) -> list[Item]:
    """About `SAMPLE` of ``items``, evenly spread.

    >>> len(some(range(1000))), some(range(3))
    (16, [0, 1, 2])
    """
    return [items[place * len(items) // SAMPLE] for place in range(SAMPLE)] if len(items) > SAMPLE else list(items)


def tokens_asked(lm: Any, requests: Sequence[Any], sharing: bool) -> float:
    """Tokens that ``lm`` runs for one document's ``requests``; of a generation, all that it may have.

    sharing: a context is run once for all that follows it.
    """
    contexts: Counter[str] = Counter()
    total = 0.0
    for request in requests:
        context, *rest = request.args
        contexts[context] += request.repeats
        if request.request_type == "generate_until":
            total += request.repeats * most_generated(lm, rest[0])
        elif rest:
            total += request.repeats * _tokens(lm, rest[0])
    return total + sum(_tokens(lm, context) * (1 if sharing else times) for context, times in contexts.items())


def _tokens(lm: Any, text: str) -> int:
    return len(lm.tok_encode(text, add_special_tokens=False))
