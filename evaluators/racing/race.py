"""Racing: candidates that will almost surely not enter the k best are not evaluated to the end.

The candidates of a batch are scored side by side on growing parts of each task's documents, of cheap tasks the sooner.
After each block the full score of everyone is estimated from what has been seen (`control_variates`). A candidate is
stopped when k rivals, known models or others still racing, are each ahead of it by a paired one-sided test: if it
belongs among the k best, one of any k rivals is truly no better: a wrong stop takes a wrong test, whoever the k best
turn out to be.

Tests are repeated at each look, so each look has only its share of the error rate (Bonferroni, spent in proportion to
the documents seen; compare Lan and DeMets, Biometrika 70, 1983). Everything is a function of settings, seed and
results, so that a killed run replays to the same decisions.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from evaluators.racing.control_variates import Extrapolation, Indices, Panel, extrapolate, part_of
from evaluators.scores.score import Estimate, Results
from kinship.arrays import Float64
from kinship.validation import Strict

if TYPE_CHECKING:
    from evaluators.racing.reduced import Subset

TIE = 1e-12  # rounding, not a difference
LEFT = 0.15  # of the documents: what fewer unseen ones add up to is far from normal, and saves little


class RaceSettings(Strict):
    """Whether and how candidates are stopped early."""

    enabled: bool = Field(False, description="stop evaluating candidates that will almost surely not enter the k best")
    error_rate: float = Field(
        0.05, gt=0, lt=0.5, description="chance that a candidate that belongs among the k best is stopped"
    )
    first_share: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="share of what all documents cost, in tokens where these are known, in the first block",
    )
    block_share: float = Field(0.1, gt=0, lt=1, description="the same in each further block")
    minimum: int = Field(100, ge=2, description="documents seen, over all tasks, before a candidate may be stopped")
    reduced: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of documents in the first block, picked by reduced evaluation instead of by first_share",
    )


@dataclass(frozen=True)
class Verdict:
    """Why a candidate was stopped.

    documents: how many it was evaluated on. estimate: of its score on all of them. rival: the worst of the k models
    ahead of it, ``statistic`` standard errors of their difference ahead, where ``boundary`` were enough. look: after
    how many blocks.
    """

    documents: int
    estimate: Estimate
    rival: str
    statistic: float
    boundary: float
    look: int


class Race:
    """The race of one batch. Call `ask` and `tell` in turn until `ask` gives nothing.

    tasks: the documents of the split by task. references: full results by id of every model that may be among the k
    best and was scored before. candidates: ids, in order. controls: full results of models that help to estimate but
    are no rivals, such as the base. shares: how much each task counts in the score; default: all the same. prices: what
    a document of each task costs; default: all the same, as where documents were picked (``reduced``).
    Raises ValueError where ids repeat, KeyError where a result is missing.
    """

    def __init__(
        self,
        settings: RaceSettings,
        tasks: Mapping[str, Sequence[int]],
        references: Mapping[str, Results],
        candidates: Sequence[str],
        k: int,
        seed: int,
        *,
        controls: Mapping[str, Results] | None = None,
        shares: Mapping[str, float] | None = None,
        prices: Mapping[str, float] | None = None,
    ) -> None:
        known = {**(controls or {}), **references}
        if len(set(candidates)) < len(candidates) or set(candidates) & known.keys():
            raise ValueError("ids in a race must differ")
        self._panel = Panel.of(tasks, known, shares)
        self._subset = None
        if settings.reduced is not None:
            from evaluators.racing.reduced import pick  # scipy.optimize, which who reads settings does without

            self._subset = pick(known, tasks, settings.reduced, seed, shares)
        self._references = {id: float(self._panel.scores([references[id]])[0]) for id in sorted(references)}
        self._racing = list(candidates)
        self._k = k
        spread = None if prices is None or settings.reduced is not None else [prices[task] for task in tasks]
        self._blocks = _blocks(settings, self._panel, _generator(seed, candidates), self._subset, spread)
        self._boundaries = _boundaries(settings, [len(block) for block in self._blocks])
        self._look = 0
        self._results: dict[str, dict[str, dict[int, float]]] = {id: {} for id in candidates}
        self._stopped: dict[str, Verdict] = {}

    def ask(self) -> dict[str, dict[str, list[int]]]:
        """The next block: documents by task for each candidate still racing; empty when the race is over."""
        if self._look == len(self._blocks):
            return {}
        block = self._panel.by_task(self._blocks[self._look])
        return {id: {task: list(documents) for task, documents in block.items()} for id in self._racing}

    def tell(self, results: Mapping[str, Results | None]) -> None:
        """Take the results of the block last asked for; None: that candidate failed and leaves the race.

        Raises ValueError for results of others than were asked for, KeyError where a document's is missing.
        """
        asked = self.ask()
        if results.keys() != asked.keys():
            raise ValueError(f"results of {sorted(asked)} were asked for, not of {sorted(results)}")
        for id, block in asked.items():
            found = results[id]
            if found is None:
                self._racing.remove(id)
                continue
            for task, documents in block.items():
                values = {document: float(found[task][document]) for document in documents}
                self._results[id].setdefault(task, {}).update(values)
        self._look += 1
        self._stop()

    def stopped(self) -> Mapping[str, Verdict]:
        """Candidates stopped so far, in the order of the batch."""
        return {id: self._stopped[id] for id in self._results if id in self._stopped}

    def _stop(self) -> None:
        boundary = self._boundaries[self._look - 1]
        if math.isinf(boundary) or not self._racing:
            return
        seen, found = self._estimate()
        leads = _leads(found, self._racing, self._references)
        for place, id in enumerate(list(self._racing)):
            ahead = sorted(leads[id].items(), key=lambda pair: (-pair[1], pair[0]))[: self._k]
            rival, statistic = ahead[-1]
            if len(ahead) == self._k and statistic >= boundary:
                verdict = Verdict(seen, found.estimate(place), rival, statistic, boundary, self._look)
                self._stopped[id] = verdict
                self._racing.remove(id)

    def _estimate(self) -> tuple[int, Extrapolation]:
        """Documents seen, and what they tell of the scores of those racing."""
        results = [self._results[id] for id in self._racing]
        rows = np.sort(np.concatenate(self._blocks[: self._look]))
        if self._look == 1 and self._subset is not None and self._subset.way == "information":
            # These documents are no sample. The error is known from cross-validation, and nothing of pairs.
            scores = np.array([self._subset.estimate(result).value for result in results])
            return len(rows), Extrapolation(scores, np.eye(len(scores)) * self._subset.error**2)
        return len(rows), extrapolate(self._panel, rows, self._panel.values(results, rows))


def _leads(found: Extrapolation, racing: Sequence[str], references: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """By how many standard errors of the difference each rival is ahead of each candidate."""
    names = [*racing, *references]
    scores = np.concatenate([found.scores, list(references.values())])
    covariance = np.zeros((len(names), len(names)))
    covariance[: len(racing), : len(racing)] = found.covariance
    variance = np.diag(covariance)
    difference = scores[None, :] - scores[:, None]
    error = np.sqrt(np.maximum(variance[None, :] + variance[:, None] - 2 * covariance, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        lead = np.where(np.abs(difference) < TIE, 0.0, difference / error)
    return {id: {rival: float(lead[i, j]) for j, rival in enumerate(names) if j != i} for i, id in enumerate(racing)}


def _generator(seed: int, candidates: Sequence[str]) -> np.random.Generator:
    """Of its own for each batch, so that no document is early in all of them by chance."""
    digest = hashlib.sha256(json.dumps([seed, *candidates]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def _blocks(
    settings: RaceSettings,
    panel: Panel,
    generator: np.random.Generator,
    subset: "Subset | None",
    prices: Sequence[float] | None,
) -> list[Indices]:
    """Every document in one block, each block with its share of every task; first of all those of ``subset``."""
    first = settings.first_share if settings.reduced is None else settings.reduced
    shares = np.arange(first, 1.0 - 1e-9, settings.block_share)
    seen = paces([len(documents) for documents in panel.tasks.values()], shares, prices)
    chosen = (
        {(task, document) for task, documents in subset.documents.items() for document in documents} if subset else {}
    )
    blocks: list[list[Indices]] = [[] for _ in range(len(shares) + 1)]
    for task, rows in enumerate(panel.shuffled(generator)):
        rows = np.array(sorted(rows, key=lambda row: panel.places[row] not in chosen), dtype=np.intp)  # stable
        ends = [part_of(share, rows) for share in seen[:, task]]
        for block, part in zip(blocks, np.split(rows, ends), strict=True):
            block.append(part)
    joined = [np.sort(np.concatenate(block)) for block in blocks]
    return [block for block in joined if len(block)]


def paces(sizes: Sequence[int], spent: Float64, prices: Sequence[float] | None = None) -> Float64:
    """Which shares (looks, tasks) of tasks of ``sizes`` documents are seen when these shares (looks,) of the cost of
    all are ``spent``.

    A task's documents come at a pace of one over the root of their price: the errors of sums are least so, for what is
    spent (Neyman allocation with costs: Cochran, Sampling Techniques, section 5.5).

    >>> paces([10, 10], np.array([0.5]), [1.0, 4.0]).round(3).tolist()
    [[0.833, 0.417]]
    """
    if prices is None or len(set(prices)) == 1:
        return np.tile(spent[:, None], len(sizes))
    price = np.asarray(prices, dtype=np.float64)
    pace, cost = price**-0.5, price * np.asarray(sizes)
    whole = np.append(0.0, np.sort(1 / pace))  # when each task is seen whole
    times = np.interp(spent * cost.sum(), np.minimum(whole[:, None] * pace, 1.0) @ cost, whole)
    return np.asarray(np.minimum(times[:, None] * pace, 1.0))


def _boundaries(settings: RaceSettings, sizes: Sequence[int]) -> list[float]:
    """The one-sided critical value of each look; infinite where nobody is stopped: too early, or nearly all is seen."""
    from scipy.special import ndtri

    seen = np.cumsum(sizes)
    last = (1 - LEFT) * seen[-1]
    looks = [look for look in range(len(sizes) - 1) if settings.minimum <= seen[look] <= last]
    boundaries = [math.inf] * len(sizes)
    spent = 0
    for look in looks:
        part = (seen[look] - spent) / seen[looks[-1]]
        boundaries[look] = -float(ndtri(settings.error_rate * part))
        spent = seen[look]
    return boundaries
