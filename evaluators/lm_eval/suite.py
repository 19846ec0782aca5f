"""Tasks that are ready to be asked of a model: prompts are built once, results come by document."""

import hashlib
import inspect
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluators.base import Documents, Task
from evaluators.lm_eval.data import read_by_content
from evaluators.lm_eval.examples import Examples
from evaluators.lm_eval.limits import require_fitting
from evaluators.lm_eval.metrics import filter_of, measure_of
from evaluators.lm_eval.prices import some, tokens_asked
from evaluators.lm_eval.reading import Reading
from evaluators.lm_eval.task_files import sandboxed_templates
from evaluators.lm_eval.tasks import LoadedTask, code_consent, load_tasks
from evaluators.local_code import code_digests, from_source
from evaluators.scores.splits import content_hash, split_documents
from evaluators.settings import EvaluateSettings
from kinship.errors import InvalidConfig, foreign


class Suite:
    """The lm-eval tasks of ``settings``. ``conditions``: what else decides results, plain data, for the digests.

    Prompts are built for documents that are asked for, once each: they depend on the document alone. What lm-eval's
    ``evaluate`` does beside asking the model (hashes, aggregates, logs) is not done. Raises as `load_tasks`.
    """

    def __init__(self, settings: EvaluateSettings, root: Path, conditions: Mapping[str, Any]) -> None:
        self._settings = settings
        conditions = {**conditions, "version": version("lm_eval"), "seed": settings.seed, "prompts": _prompts(settings)}
        with ExitStack() as stack:
            if settings.task_path is not None:
                stack.enter_context(from_source())
                stack.enter_context(read_by_content())
            self._tasks: dict[str, _Prepared] = {}
            for name, loaded in load_tasks(settings, root).items():
                with _of_task(name):
                    self._tasks[name] = _Prepared(loaded, settings, conditions)
        self.tasks: list[Task] = [prepared.describe for prepared in self._tasks.values()]

    def run(self, lm: Any, candidate: str, documents: Documents) -> dict[str, dict[int, float]]:
        """Ask ``lm``, an lm-eval model; results as `Evaluator.run`. Raises `EvaluationFailed` for NaN."""
        with sandboxed_templates(), code_consent(self._settings.allow_code), from_source():
            asked = {name: self._tasks[name].requests(lm, ids) for name, ids in documents.items() if ids}
            by_kind: dict[str, list[Any]] = defaultdict(list)
            for requests in asked.values():
                for request in requests:
                    request.resps, request.filtered_resps = [], {}
                    by_kind[request.request_type] += [request] * request.repeats
            for kind, requests in by_kind.items():
                for request, answer in zip(requests, getattr(lm, kind)(requests), strict=True):
                    request.resps.append(answer)
            return {name: self._tasks[name].reading.values(candidate, requests) for name, requests in asked.items()}

    def price(self, lm: Any, name: str) -> float:
        """Tokens that a document of the search split of a task costs: the mean of some of them."""
        prepared = self._tasks[name]
        with sandboxed_templates(), code_consent(self._settings.allow_code), from_source(), _of_task(name):
            asked = [prepared.requests(lm, [index]) for index in some(prepared.describe.documents["search"])]
            return fmean(tokens_asked(lm, requests, self._settings.share_prefixes) for requests in asked)

    def require_fitting(self, lm: Any) -> None:
        """Raise `InvalidConfig` where an answer to a document of either split is too long for ``lm``: before a search,
        which would else end at the first candidate, or at its end with the held-out documents."""
        with sandboxed_templates():
            for name, prepared in self._tasks.items():
                with _of_task(name):
                    prepared.require_fitting(lm)


class _Prepared:
    """One task with its documents, examples and the requests built so far."""

    def __init__(self, loaded: LoadedTask, settings: EvaluateSettings, conditions: Mapping[str, Any]) -> None:
        self._task = task = loaded.task
        self._name = loaded.name
        measure, filter = measure_of(loaded), filter_of(loaded)
        self._chat: dict[str, Any] = _prompts(settings)
        self._documents = list(task.eval_docs)
        self.reading = Reading(loaded.name, task, self._documents, measure, filter)
        self._built: dict[int, list[Any]] = {}
        splits = settings.split(loaded.name, self._documents, loaded.limit)
        held_out = split_documents(self._documents, settings.search_fraction, None, settings.split_seed)["held_out"]
        self._examples = Examples(loaded.name, task, self._documents, held_out, settings.seed)
        sha = hashlib.sha256(
            json.dumps(
                [_definition(task), measure.name, filter, loaded.version, loaded.code, conditions],
                sort_keys=True,
                default=_stable,
            ).encode()
        )
        for digest in [*map(content_hash, self._documents), *self._examples.digests]:
            sha.update(digest.encode())
        self.describe = Task(loaded.name, measure.name, sha.hexdigest(), splits, loaded.version, public=loaded.public)

    def require_fitting(self, lm: Any) -> None:
        asked = sorted(index for ids in self.describe.documents.values() for index in ids)
        require_fitting(self._name, self._task, {index: self._documents[index] for index in asked}, lm)

    def requests(self, lm: Any, documents: Sequence[int]) -> list[Any]:
        for document in documents:
            if document not in self._built:
                self._built[document] = self._build(lm, document)
        return [request for document in sorted(documents) for request in self._built[document]]

    def _build(self, lm: Any, index: int) -> list[Any]:
        """What lm-eval's ``Task.build_all_requests`` does for one document."""
        task, document = self._task, self._documents[index]
        self._examples.hand_to(task, index)
        chat = {
            "apply_chat_template": bool(self._chat["apply_chat_template"]),
            "chat_template": lm.apply_chat_template if self._chat["apply_chat_template"] else None,
        }
        context = task.fewshot_context(
            document,
            num_fewshot=self._examples.count,
            system_instruction=self._chat["system_instruction"],
            fewshot_as_multiturn=self._chat["fewshot_as_multiturn"],
            gen_prefix=task.doc_to_prefix(document),
            **chat,
        )
        requests = task.construct_requests(
            doc=document, ctx=context, metadata=(self._name, index, task.config.repeats), **chat
        )
        return requests if isinstance(requests, list) else [requests]


def _of_task(name: str) -> AbstractContextManager[None]:
    """What the task's definition or code raises names it."""
    return foreign(InvalidConfig, f"The task {name!r} cannot be used", hint="Mend its definition, or leave it out.")


def _prompts(settings: EvaluateSettings) -> dict[str, Any]:
    """What shapes prompts beside the task."""
    return {
        "apply_chat_template": settings.apply_chat_template,
        "system_instruction": settings.system_instruction,
        "fewshot_as_multiturn": bool(settings.apply_chat_template) and settings.fewshot_as_multiturn,
    }


def _definition(task: Any) -> dict[str, Any]:
    """The task's configuration but for where its data lie: what they say matters."""
    definition: dict[str, Any] = task.config.to_dict(keep_callable=True)
    for place in ("metadata", "dataset_path", "dataset_kwargs"):
        definition.pop(place, None)
    return definition | {"class": type(task)}


def _stable(value: object) -> str:
    """How an object in a definition enters the digest: functions with the whole source files they are from."""
    if isinstance(value, partial):
        return f"partial {_stable(value.func)} {value.args!r} {sorted(value.keywords.items())!r}"
    if callable(value):
        name = getattr(value, "__qualname__", type(value).__qualname__)
        try:
            file = inspect.getsourcefile(inspect.unwrap(value))
        except TypeError:  # built in, or an instance
            return str(name)
        return f"{name} {code_digests([Path(file)]) if file and Path(file).is_file() else ''}"
    says_its_address = type(value).__str__ is object.__str__ and type(value).__repr__ is object.__repr__
    return type(value).__qualname__ if says_its_address else str(value)
