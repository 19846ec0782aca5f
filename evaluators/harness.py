"""The lm-eval harness on a live model.

The task manager indexes only what is asked for, tasks are built once, and weights are swapped in place, so an offspring
costs its forward passes and little else.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

from evaluators.base import Candidate, Task
from evaluators.live import LiveModel
from evaluators.settings import EvaluateSettings
from evaluators.splits import content_hash, split_documents
from kinship.checkpoint import Checkpoint
from kinship.errors import EvaluationFailed, InvalidConfig, ReferenceNotFound
from kinship.validation import nearest


class Harness:
    """An `Evaluator` that runs lm-eval tasks on weights loaded into one live model.

    ``template`` gives architecture and tokenizer. Raises `InvalidConfig` for unknown tasks or metrics.
    """

    def __init__(self, settings: EvaluateSettings, template: Checkpoint, root: Path | None = None) -> None:
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self._settings = settings
        self._tasks = load_tasks(settings, (root or Path()))
        for task in self._tasks.values():
            _build_requests_once(task)
        self._live = LiveModel(template, settings.device)
        self._lm = _quiet_model(
            pretrained=self._live.model,
            tokenizer=self._live.tokenizer,
            batch_size=settings.batch_size,
            device=settings.device,
        )
        conditions = {
            "versions": [version(package) for package in ("lm_eval", "torch", "transformers")],
            "config": template.config,
            "generation": self._live.model.generation_config.to_dict(),
            "tokenizer": self._live.tokenizer.backend_tokenizer.to_str(),
            "device": settings.device,
            "dtype": str(self._live.dtype),
            "batch_size": settings.batch_size,
        }
        self.tasks = [self._describe(name, task, conditions) for name, task in self._tasks.items()]

    def run(self, candidate: Candidate, documents: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
        """See `Evaluator.run`."""
        from lm_eval.evaluator import evaluate

        self._live.load(candidate.tensors())
        if self._live.gives_nan():
            raise _gives_nan(candidate, "already after one token")
        chosen = {name: sorted(ids) for name, ids in documents.items() if ids}
        with _lean():
            result = evaluate(
                lm=self._lm,
                task_dict={"tasks": {name: self._tasks[name] for name in chosen}},
                samples=chosen,
                bootstrap_iters=0,
                log_samples=True,
            )
        metrics = {task.name: task.metric for task in self.tasks}
        return {
            name: {
                int(sample["doc_id"]): self._value(candidate, name, metrics[name], sample)
                for sample in result["samples"][name]
                if sample["filter"] == result["samples"][name][0]["filter"]
            }
            for name in chosen
        }

    def _value(self, candidate: Candidate, task: str, metric: str, sample: dict[str, Any]) -> float:
        value = float(sample[metric])
        likelihoods = [response[0] for response in sample["filtered_resps"] if isinstance(response, tuple | list)]
        if not math.isfinite(value) or any(isinstance(x, float) and math.isnan(x) for x in likelihoods):
            raise _gives_nan(candidate, f"on document {sample['doc_id']} of {task}")
        return value if self._tasks[task].higher_is_better()[metric] else -value

    def _describe(self, name: str, task: Any, conditions: dict[str, Any]) -> Task:
        metric = self._settings.metric or next(iter(task.aggregation()))
        if metric not in task.aggregation():
            raise InvalidConfig(f"Task {name} has no metric {metric!r}.", hint=nearest(metric, task.aggregation()))
        if getattr(task.aggregation()[metric], "__name__", "") != "mean":
            raise InvalidConfig(
                f"The metric {metric!r} of task {name} is not a mean over documents, so it has no paired error.",
                hint=f"Choose another of its metrics: {', '.join(task.aggregation())}.",
            )
        documents = list(task.eval_docs)
        definition = task.dump_config()
        for place in ("metadata", "dataset_path", "dataset_kwargs"):
            definition.pop(place, None)  # where the documents lie does not matter, what they say does
        sha = hashlib.sha256(
            json.dumps([definition, metric, conditions], sort_keys=True, default=_stable_name).encode()
        )
        for document in [*documents, *(task.fewshot_docs() if definition.get("num_fewshot") else ())]:
            sha.update(content_hash(document).encode())
        settings = self._settings
        splits = split_documents(documents, settings.search_fraction, settings.limit, settings.split_seed)
        for split, ids in splits.items():
            if len(ids) < 2:
                raise InvalidConfig(f"Task {name} has too few documents for its {split} split: {len(ids)}.")
        return Task(name, metric, sha.hexdigest(), splits)


def _gives_nan(candidate: Candidate, where: str) -> EvaluationFailed:
    return EvaluationFailed(
        f"{candidate.id} gives NaN {where}.",
        hint="Its weights are unusable: merge with smaller weights or leave it out.",
    )


def load_tasks(settings: EvaluateSettings, root: Path) -> dict[str, Any]:
    """lm-eval task objects by name, in the order of the settings; its own index is read only when needed."""
    from datasets import disable_progress_bars
    from lm_eval.tasks import TaskManager

    disable_progress_bars()  # one a task, gone in a blink

    folder = None
    if settings.task_path is not None:
        folder = root / Path(settings.task_path).expanduser()
        if not folder.is_dir():
            raise ReferenceNotFound(f"There is no task folder {folder}.", hint="Correct evaluate.task_path.")
    manager = TaskManager(include_path=str(folder) if folder else None, include_defaults=folder is None)
    if not set(settings.tasks) <= manager.task_index.keys():
        manager = TaskManager(include_path=str(folder) if folder else None)
    for name in settings.tasks:
        if name not in manager.task_index:
            raise InvalidConfig(f"There is no task {name!r}.", hint=nearest(name, manager.task_index))
    tasks: dict[str, Any] = {}
    for name in settings.tasks:
        tasks |= manager.load([_with_absolute_data(name, manager.task_index[name].yaml_path, folder)])["tasks"]
    return tasks


def _with_absolute_data(name: str, yaml_path: Path | None, folder: Path | None) -> str | dict[str, Any]:
    """The task ``name``; where it is one of the user's, with data files counted from its YAML file's folder."""
    from lm_eval.tasks._yaml_loader import load_yaml

    if folder is None or yaml_path is None or not Path(yaml_path).is_relative_to(folder):
        return name
    config: dict[str, Any] = load_yaml(yaml_path)
    options = config.get("dataset_kwargs") or {}
    if "data_files" not in options:
        return name
    here = Path(yaml_path).parent.resolve()
    config["dataset_kwargs"] = options | {"data_files": _below(here, options["data_files"])}
    return config


def _below(here: Path, files: Any) -> Any:
    """``files`` (a name, a list of names, or either by split) counted from the folder ``here``."""
    match files:
        case dict():
            return {split: _below(here, part) for split, part in files.items()}
        case list():
            return [_below(here, file) for file in files]
        case _:
            return files if "://" in str(files) else str(here / str(files))


def _stable_name(value: object) -> str:
    """How a function in a task's definition enters its digest: by name, not by address."""
    return getattr(value, "__qualname__", None) or str(value)


def _quiet_model(**arguments: Any) -> Any:
    """lm-eval's model class without its progress bars; a search draws its own."""
    from lm_eval.models.huggingface import HFLM

    class QuietModel(HFLM):  # type: ignore[misc]
        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().generate_until(requests, disable_tqdm=True)

    return QuietModel(**arguments)


def _build_requests_once(task: Any) -> None:
    """Build the prompts of all documents when first asked for some, and from then on pick from them.

    Prompts do not depend on weights. Built together, with lm-eval's own seed for few-shot examples, they do not depend
    on which documents are asked for either, nor on what was asked before.
    """
    from lm_eval.defaults import DEFAULT_OTHER_SEED

    build, built = task.build_all_requests, dict[int, list[Any]]()

    def pick(*, samples: list[int], **options: Any) -> None:
        if not built:
            task.set_fewshot_seed(DEFAULT_OTHER_SEED)
            build(**options)
            for instance in task._instances:
                built.setdefault(instance.doc_id, []).append(instance)
        # lm-eval counts documents by their place among those asked for.
        for place, document in enumerate(samples):
            for instance in built[document]:
                instance.doc_id, instance.resps, instance.filtered_resps = place, [], {}
        task._instances = [instance for document in samples for instance in built[document]]

    task.build_all_requests = pick


@contextmanager
def _lean() -> Iterator[None]:
    """Spare lm-eval a bar per task and a template compilation per document."""
    from lm_eval.utils import env
    from tqdm import tqdm

    with (
        patch("lm_eval.api.task.tqdm", partial(tqdm, disable=True)),
        patch.object(env, "from_string", lru_cache(maxsize=1024)(env.from_string)),
    ):
        yield
