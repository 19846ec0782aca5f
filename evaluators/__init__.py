"""Evaluation: from weights to scores that can be trusted.

The public names are imported on first use, so that ``import evaluators`` stays fast: see PEP 562.
"""

from typing import TYPE_CHECKING

from kinship.faces import lazy_face

if TYPE_CHECKING:
    from evaluators.base import Candidate as Candidate
    from evaluators.base import Evaluator as Evaluator
    from evaluators.base import Task as Task
    from evaluators.cache import ScoreCache as ScoreCache
    from evaluators.cache import open_cache as open_cache
    from evaluators.cached import CachedEvaluator as CachedEvaluator
    from evaluators.make import make_evaluator as make_evaluator
    from evaluators.scores.aggregates import Aggregate as Aggregate
    from evaluators.scores.aggregates import fitness as fitness
    from evaluators.scores.intervals import PairedDifference as PairedDifference
    from evaluators.scores.intervals import paired_difference as paired_difference
    from evaluators.scores.score import Estimate as Estimate
    from evaluators.scores.score import Score as Score
    from evaluators.scores.score import TaskScore as TaskScore
    from evaluators.settings import EvaluateSettings as EvaluateSettings
    from evaluators.workers.base import Failure as Failure
    from evaluators.workers.base import WorkerPool as WorkerPool
    from evaluators.workers.make import make_pool as make_pool
    from evaluators.workers.settings import WorkerSettings as WorkerSettings

_HOMES = {
    "Aggregate": "evaluators.scores.aggregates",
    "CachedEvaluator": "evaluators.cached",
    "Candidate": "evaluators.base",
    "Estimate": "evaluators.scores.score",
    "EvaluateSettings": "evaluators.settings",
    "Evaluator": "evaluators.base",
    "Failure": "evaluators.workers.base",
    "PairedDifference": "evaluators.scores.intervals",
    "Score": "evaluators.scores.score",
    "ScoreCache": "evaluators.cache",
    "Task": "evaluators.base",
    "TaskScore": "evaluators.scores.score",
    "WorkerPool": "evaluators.workers.base",
    "WorkerSettings": "evaluators.workers.settings",
    "fitness": "evaluators.scores.aggregates",
    "make_evaluator": "evaluators.make",
    "make_pool": "evaluators.workers.make",
    "open_cache": "evaluators.cache",
    "paired_difference": "evaluators.scores.intervals",
}

__all__ = sorted(_HOMES)


__getattr__ = lazy_face(__name__, _HOMES)
