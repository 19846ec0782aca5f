"""The lm-eval harness on a live model: weights are swapped in place, so an offspring costs its forward passes."""

from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evaluators.base import Candidate, Documents, failing
from evaluators.conditions import conditions, decisive
from evaluators.live import LiveModel
from evaluators.lm_eval.model import as_lm_eval
from evaluators.lm_eval.suite import Suite
from evaluators.lm_eval.tasks import load_tasks
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import InvalidConfig

__all__ = ["Harness", "load_tasks"]


class Harness:
    """An `Evaluator` that runs lm-eval tasks on weights loaded into one live model.

    ``template`` gives architecture and tokenizer; ``live``, made of it, may be shared with other evaluators.
    Raises `InvalidConfig` for unknown tasks, metrics or filters, a tokenizer without the chat template asked for, or
    answers longer than the model's context, and as `LiveModel`.
    """

    def __init__(
        self,
        settings: EvaluateSettings,
        template: Checkpoint,
        root: Path | None = None,
        live: LiveModel | None = None,
    ) -> None:
        self._live = live or LiveModel(template, settings.device, settings.dtype, settings.text_only)
        self._lm = as_lm_eval(self._live, settings)
        shared = decisive(self._live, template, settings)
        if settings.apply_chat_template:
            shared["chat_template"] = _choose_chat_template(self._lm, template.id, settings.apply_chat_template)
        self._suite = Suite(settings, root or Path(), shared)
        self._suite.require_fitting(self._lm)
        price = partial(self._suite.price, self._lm)
        self.tasks = [replace(task, price=partial(price, task.name)) for task in self._suite.tasks]
        self.conditions = conditions(self._live, settings) | {"lm_eval": version("lm_eval")}

    def run(self, candidate: Candidate, documents: Documents) -> dict[str, dict[int, float]]:
        """See `Evaluator.run`."""
        with failing(candidate.id, "lm-eval"):
            self._live.hold(candidate)
            return self._suite.run(self._lm, candidate.id, documents)


def _choose_chat_template(lm: Any, model: str, wanted: bool | str) -> str:
    template = lm.tokenizer.chat_template
    if isinstance(template, dict):
        name = wanted if isinstance(wanted, str) else "default"
        if name not in template:
            raise InvalidConfig(f"{model} has no chat template {name!r}.", hint=f"It has: {', '.join(template)}.")
        lm.tokenizer.chat_template = template[name]
    elif template is None or isinstance(wanted, str):
        found = "none" if template is None else "one, without a name"
        raise InvalidConfig(
            f"{model} has {found}, but evaluate.apply_chat_template is {wanted!r}.",
            hint="Set it to true for the only chat template, or to false.",
        )
    return str(lm.tokenizer.chat_template)
