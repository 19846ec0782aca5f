"""Scoring with what lies beside a model's weights: experts everywhere, heads of Representation Surgery by task."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.base import Candidate, Documents, Evaluator, Task, failing
from evaluators.settings import EvaluateSettings, HeadSettings
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import InvalidConfig, nearest
from merging.output.folder import has_beside

if TYPE_CHECKING:
    import torch

    from evaluators.live import LiveModel
    from merging.beside.files import Beside
    from merging.beside.surgery import Head


def mended_identity(checkpoint: Checkpoint) -> str:
    """Equal for equal weights with equal things beside them only; raises what `read_beside` raises."""
    if not has_beside(checkpoint.path):
        return checkpoint.digest
    from merging.beside.files import read_beside

    return identity_with(checkpoint.digest, read_beside(checkpoint))


def identity_with(weights: str, beside: "Beside") -> str:
    """The identity of ``weights`` (their digest) with what lies ``beside`` them; their own where nothing does."""
    return hashlib.sha256(f"{weights} {beside.digest}".encode()).hexdigest() if beside.digest else weights


class Mended:
    """An `Evaluator` of the tasks of another, run on models that compute with what lies beside their weights.

    Experts (`merging.beside.smile`) are those of the candidate. ``settings.surgery`` says by task which head takes
    part: one that lies beside the candidate (a candidate with none is scored as it is), or one that is fitted to each
    candidate on documents, from the same seed always. Tasks with a head have digests of their own. Raises
    `InvalidConfig` for tasks and heads that are none, for `written` folders, whose engines know of none of this, and
    what opening and running a head's model raises.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        settings: EvaluateSettings,
        template: Checkpoint,
        root: Path | None = None,
        live: "LiveModel | None" = None,
    ) -> None:
        if live is None or settings.written:
            raise InvalidConfig(
                "What lies beside a model's weights takes part in scores in memory alone; the settings say `written`.",
                hint="Leave written out; or remove surgery, and smile.json or surgery.json from the model.",
            )
        self._evaluator, self._live = evaluator, live
        self._wanted = dict(settings.surgery)
        known = [task.name for task in evaluator.tasks]
        for task in self._wanted:
            if task not in known:
                raise InvalidConfig(f"surgery names the task {task!r}, which is not scored.", hint=nearest(task, known))
        self._fitted = {
            task: _Fitting(wanted, template, root or Path(), live)
            for task, wanted in self._wanted.items()
            if isinstance(wanted, HeadSettings)
        }
        self._last: dict[str, tuple[str, Head]] = {}
        self._read: tuple[str, Beside | None] = ("", None)
        self.tasks = [self._with_head(task) for task in evaluator.tasks]
        self.conditions = dict(evaluator.conditions) | ({"surgery": ", ".join(self._wanted)} if self._wanted else {})

    def run(self, candidate: Candidate, documents: Documents) -> dict[str, dict[int, float]]:
        """See `Evaluator.run`."""
        from merging.beside.attached import with_experts, with_head

        with failing(candidate.id, "what lies beside its weights"):
            beside = self._beside(candidate)
            self._live.hold(candidate)
            results: dict[str, dict[int, float]] = {}
            with with_experts(self._live.model, beside.experts, beside.experts_per_token):
                for tasks in self._groups(documents):
                    head = self._head(tasks[0], candidate, beside.heads)
                    with with_head(self._live.model, head):
                        results |= self._evaluator.run(candidate, {task: documents[task] for task in tasks})
        return results

    def _beside(self, candidate: Candidate) -> "Beside":
        """What lies beside it, which its identity tells of: read once, not for every block of documents."""
        from merging.beside.files import NOTHING, Beside, read_beside

        if candidate.beside is None or isinstance(candidate.beside, Beside):
            return candidate.beside or NOTHING
        identity, beside = self._read
        if beside is None or identity != candidate.identity:
            beside = read_beside(candidate.beside)
            self._read = candidate.identity, beside
        return beside

    def _groups(self, documents: Documents) -> list[list[str]]:
        """Tasks that share a head, or have none."""
        groups: dict[str, list[str]] = {}
        for task in documents:
            wanted = self._wanted.get(task, "")
            groups.setdefault(wanted if isinstance(wanted, str) else f"fitted for {task}", []).append(task)
        return list(groups.values())

    def _head(self, task: str, candidate: Candidate, kept: "Mapping[str, Head]") -> "Head | None":
        wanted = self._wanted.get(task)
        if isinstance(wanted, HeadSettings):
            identity, head = self._last.get(task, ("", None))
            if head is None or identity != candidate.identity:
                head = self._fitted[task].head()
                self._last[task] = candidate.identity, head
            return head
        if wanted is not None and candidate.beside is None:
            raise InvalidConfig(
                f"surgery names the head {wanted!r} for {task}, but a search's candidates have none beside them.",
                hint="Give a mapping of model and file: a head is then fitted to each candidate.",
            )
        if wanted is None or not kept:
            return None
        if wanted not in kept:
            raise InvalidConfig(
                f"{candidate.id} has no head {wanted!r} beside its weights, which surgery names for {task}.",
                hint=f"It has: {', '.join(kept)}.",
            )
        return kept[wanted]

    def _with_head(self, task: Task) -> Task:
        wanted = self._wanted.get(task.name)
        if wanted is None:
            return task
        content = [task.digest, wanted] if isinstance(wanted, str) else [task.digest, self._fitted[task.name].about]
        return replace(task, digest=hashlib.sha256(json.dumps(["surgery/1", *content]).encode()).hexdigest())


class _Fitting:
    """Fits one task's head to the live model, as often as it has new weights. Holds the task's own representations."""

    def __init__(self, settings: HeadSettings, template: Checkpoint, root: Path, live: "LiveModel") -> None:
        from kinship.checkpoints.opening import open_checkpoint
        from merging.beside.attached import representations
        from merging.data_driven.batches import TextBatches, digest
        from merging.data_driven.models import load_causal_lm

        settings.require(settings.model)
        self._settings, self._live = settings, live
        file = None if settings.file is None else root / settings.file
        self._stream: TextBatches = TextBatches(
            file, live.tokenizer, field=settings.field, documents=settings.documents, texts=tuple(settings.texts or ())
        )
        reference = str(root / settings.model) if (root / settings.model).exists() else settings.model
        with open_checkpoint(reference) as model:
            self._own: torch.Tensor = representations(load_causal_lm(model, by_name=False), self._stream)
            options = settings.model_dump(include={"rank", "steps", "rate"})
            self.about: dict[str, Any] = {"model": model.digest, "data": digest(self._stream), **options}

    def head(self) -> "Head":
        from merging.beside.attached import representations
        from merging.beside.surgery import fit_head

        found = representations(self._live.model, self._stream, device=self._live.device)
        options = self._settings
        return fit_head(found, self._own, rank=options.rank, steps=options.steps, rate=options.rate)
