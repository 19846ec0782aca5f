"""A Python function as an evaluator: what no benchmark asks, one asks oneself."""

import hashlib
import importlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from evaluators.base import Candidate, Documents, Task, failing, is_result
from evaluators.conditions import conditions, decisive
from evaluators.live import LiveModel
from evaluators.local_code import code_digests, from_source
from evaluators.scores.splits import plain
from evaluators.settings import EvaluateSettings, FunctionSettings
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import EvaluationFailed, InvalidConfig, foreign
from kinship.validation import nearest

GROUP = "model_kinship.evaluators"


class Judge(Protocol):
    """What ``module:name`` makes when it is called with the ``options`` of the settings: a class, or a function.

    It may have ``version``, a text that enters the digest; raise it where results change and its source file does not;
    and ``metric``, what its numbers are, where they may be averaged with others: ``acc``, say.
    """

    def documents(self) -> Sequence[Any]:
        """What is judged on: plain data (JSON), in a fixed order."""
        ...

    def score(self, model: Any, tokenizer: Any, documents: Sequence[Any]) -> Sequence[float]:
        """One finite number for each of ``documents``, higher is better.

        ``model`` is a transformers model, in evaluation mode, without gradients; ``tokenizer`` is its tokenizer. A
        number may depend on weights and document alone: not on the other documents, their order, or chance. The model
        must be left as it is found.
        """
        ...


class FunctionEvaluator:
    """An `Evaluator` of Python functions on the live model.

    They run in this process with all its rights: only a run file that is trusted may name them.
    Raises `InvalidConfig` where a function cannot be found, made, or keep to `Judge`.
    """

    def __init__(
        self, settings: EvaluateSettings, template: Checkpoint, root: Path | None = None, live: LiveModel | None = None
    ) -> None:
        self._live = live or LiveModel(template, settings.device, settings.dtype, settings.text_only)
        self._judges: dict[str, tuple[Judge, list[Any]]] = {}
        self.tasks: list[Task] = []
        self.conditions = conditions(self._live, settings)
        for wanted in settings.functions:
            factory = find_function(wanted.function, root or Path())
            name = wanted.name or wanted.function.rpartition(":")[2]
            with from_source():
                judge = _make(factory, wanted)
                with foreign(InvalidConfig, f"The function {name} gives no documents", hint="Mend it; see its file."):
                    documents = list(judge.documents())
            code = code_digests(_sources(wanted, factory, judge), [root or Path()])
            digest = _digest(wanted, code, judge, documents, decisive(self._live, template, settings))
            self._judges[name] = (judge, documents)
            version = str(getattr(judge, "version", ""))
            splits = settings.split(name, documents, settings.limit)
            self.tasks.append(Task(name, str(getattr(judge, "metric", "score")), digest, splits, version))

    def run(self, candidate: Candidate, documents: Documents) -> dict[str, dict[int, float]]:
        """See `Evaluator.run`."""
        return {name: self._run(candidate, name, ids) for name, ids in documents.items() if ids}

    def _run(self, candidate: Candidate, name: str, indices: Sequence[int]) -> dict[int, float]:
        import torch

        judge, documents = self._judges[name]
        with failing(candidate.id, f"the function {name}"), torch.no_grad(), from_source():
            self._live.hold(candidate)
            values = judge.score(self._live.model, self._live.tokenizer, [documents[index] for index in indices])
            numbers = [float(value) for value in values]
        if len(numbers) != len(indices):
            raise EvaluationFailed(
                f"The function {name} gave {len(numbers)} numbers for {len(indices)} documents.",
                hint="It has to give one number a document, in their order.",
            )
        for index, number in zip(indices, numbers, strict=True):
            if not is_result(number):
                raise EvaluationFailed(
                    f"The function {name} gave {number} for {candidate.id} on document {index}.",
                    hint="A score is a number, neither infinite nor enormous; a model that gives none has failed.",
                )
        return dict(zip(indices, numbers, strict=True))


def find_function(name: str, root: Path) -> Any:
    """What ``module:attribute`` or an entry point names; modules are looked for in ``root`` first.

    Importing runs the module. Raises `InvalidConfig`.
    """
    if ":" not in name:
        known = {point.name: point for point in entry_points(group=GROUP)}
        if name not in known:
            hint = nearest(name, known) if known else "None is installed; write module:function."
            raise InvalidConfig(f"There is no evaluator {name!r} among the entry points {GROUP}.", hint=hint)
        return known[name].load()
    module, _, attribute = name.partition(":")
    try:
        with _importable(root), from_source():
            found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the module raises when it is imported
        raise InvalidConfig(
            f"The function {name!r} cannot be imported: {type(error).__name__}: {error}",
            hint=f"The module must be installed or lie in {root.absolute()}.",
        ) from error
    return found


@contextmanager
def _importable(root: Path) -> Iterator[None]:
    place = str(root.absolute())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)


def _make(factory: Any, settings: FunctionSettings) -> Judge:
    try:
        judge: Judge = factory(**settings.options)
    except Exception as error:
        raise InvalidConfig(
            f"{settings.function} could not be made with the options {settings.options}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not all(callable(getattr(judge, method, None)) for method in ("documents", "score")):
        raise InvalidConfig(
            f"{settings.function} makes {type(judge).__name__}, which lacks documents() or score().",
            hint="See evaluators.function.Judge.",
        )
    return judge


def _sources(settings: FunctionSettings, factory: Any, judge: Judge) -> list[Path]:
    """The files of the module that is named, of what it was found to be, and of what that made."""
    found = [getattr(sys.modules.get(settings.function.partition(":")[0]), "__file__", None)]
    for each in (factory, type(judge)):
        try:
            found.append(inspect.getsourcefile(inspect.unwrap(each)))
        except TypeError:  # built in, or an instance
            continue
    return [Path(file) for file in dict.fromkeys(found) if file]


def _digest(
    settings: FunctionSettings,
    code: Mapping[str, list[str]],
    judge: Judge,
    documents: Sequence[Any],
    shared: Mapping[str, Any],
) -> str:
    content = [
        "function/2", settings.function, settings.options, code, str(getattr(judge, "version", "")), documents, shared
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=plain).encode()).hexdigest()
