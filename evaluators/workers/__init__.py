"""Workers that evaluate: in this process, in others of this machine, or on a Ray cluster."""

from evaluators.workers.base import Failure, Handle, Setup, WorkerPool
from evaluators.workers.make import make_pool
from evaluators.workers.settings import WorkerSettings

__all__ = ["Failure", "Handle", "Setup", "WorkerPool", "WorkerSettings", "make_pool"]
