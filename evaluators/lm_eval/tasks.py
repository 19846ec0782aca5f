"""lm-eval task objects for what the settings name: stock tasks, one's own, groups and tags of either."""

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from evaluators.lm_eval.task_files import require_consent, sandboxed_templates
from evaluators.local_code import code_digests
from evaluators.settings import EvaluateSettings, TaskSettings
from kinship.errors import InvalidConfig, ReferenceNotFound, foreign
from kinship.validation import nearest


@dataclass(frozen=True)
class LoadedTask:
    """An lm-eval task object, set up as asked.

    ``public``: one of lm-eval's own, which others report too; ``code``: digests of the Python that others are made of.
    """

    name: str
    task: Any
    metric: str | None
    filter: str | None
    limit: int | None
    public: bool
    code: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def eval_docs(self) -> Any:
        """The documents, of both splits."""
        return self.task.eval_docs

    @property
    def version(self) -> str:
        """As its author counts; empty where nobody does."""
        version = self.task.VERSION
        return "" if version in (None, "Yaml") else str(version)


def load_tasks(settings: EvaluateSettings, root: Path) -> dict[str, LoadedTask]:
    """The tasks by name, groups expanded, in the order of the settings.

    lm-eval's own index, which takes ten seconds, is read only where a name is not found in ``settings.task_path``.
    Raises `InvalidConfig` for a task that is unknown, named twice, cannot be loaded, wants pictures, or runs code
    without consent, and `ReferenceNotFound` for a missing folder.
    """
    from datasets import disable_progress_bars

    disable_progress_bars()  # one a task, gone in a blink
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    folder = _task_folder(settings, root)
    if folder:
        require_consent(folder, given=settings.allow_task_code)
        _forget_modules(folder)
    manager = _manager(settings, folder)
    tasks: dict[str, LoadedTask] = {}
    for wanted in settings.tasks:
        found = _load(manager, wanted.task, settings.allow_code)
        for name, task in found.items():
            if name in tasks:
                raise InvalidConfig(f"The task {name!r} is asked for twice.", hint="Name it, or one group of it, once.")
            _set_up(task, wanted, settings)
            entry = manager.task_index.get(name) or manager.task_index[wanted.task]
            public = folder is None or not entry.yaml_path or not Path(entry.yaml_path).is_relative_to(folder)
            tasks[name] = LoadedTask(
                name,
                task,
                metric=wanted.metric or settings.metric,
                filter=wanted.filter or settings.filter,
                limit=wanted.limit or settings.limit,
                public=public,
                code={} if public else code_digests(_python_of(Path(entry.yaml_path)), [root]),
            )
        if wanted.gen_kwargs and not any(_generates(task) for task in found.values()):
            raise InvalidConfig(f"The task {wanted.task!r} generates nothing, so gen_kwargs mean nothing to it.")
    return tasks


def _python_of(file: Path) -> list[Path]:
    """The Python files that a task's YAML file, or one that it includes, takes functions from."""
    found: dict[Path, None] = {}
    todo, seen = [file], set[Path]()
    while todo:
        file = todo.pop()
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        text = file.read_text(encoding="utf-8")
        for module in re.findall(r"!function\s+[\"']?([\w./-]+)\.\w+", text):
            places = (file.parent / f"{module}.py", file.parent / f"{module.replace('.', '/')}.py")
            found |= dict.fromkeys(place for place in places if place.is_file())
        others = re.findall(r"^\s*include:\s*[\"']?([^\s\"'#]+)", text, re.MULTILINE)
        todo += [file.parent / other for other in others]
    return list(found)


@contextmanager
def code_consent(given: bool) -> Iterator[None]:
    """Within, tasks may run code that a model wrote, if consent is given: some ask the environment for it."""
    with patch.dict(os.environ, {"HF_ALLOW_CODE_EVAL": "1"} if given else {}):
        yield


def _forget_modules(folder: Path) -> None:
    """Have modules in ``folder`` imported anew: a process that loaded them before would go by their dates."""
    below = os.path.join(folder.absolute(), "")
    for name, module in list(sys.modules.items()):  # thousands: no path is made of each
        if str(getattr(module, "__file__", None)).startswith(below):
            del sys.modules[name]


def _task_folder(settings: EvaluateSettings, root: Path) -> Path | None:
    if settings.task_path is None:
        return None
    folder = root / Path(settings.task_path).expanduser()
    if not folder.is_dir():
        raise ReferenceNotFound(
            f"There is no task folder {folder}.", hint="Correct evaluate.task_path, or --task-path."
        )
    return folder


def _manager(settings: EvaluateSettings, folder: Path | None) -> Any:
    from lm_eval.tasks import TaskManager

    names = [wanted.task for wanted in settings.tasks]
    manager = TaskManager(include_path=str(folder) if folder else None, include_defaults=folder is None)
    if not set(names) <= manager.task_index.keys():
        manager = TaskManager(include_path=str(folder) if folder else None)
    for name in names:
        if name not in manager.task_index:
            hint = nearest(name, manager.task_index)
            if len(hint) > 1000:  # of lm-eval's thousands, none is near
                hint = "`lm-eval ls tasks` lists lm-eval's own; evaluate.task_path is the folder of yours."
            raise InvalidConfig(f"There is no task {name!r}.", hint=hint)
    if folder:
        _count_data_files_from_their_folder(manager, folder)
    return manager


def _count_data_files_from_their_folder(manager: Any, folder: Path) -> None:
    """Paths of data files in the YAML files of ``folder`` count from the YAML file, not from the working directory."""
    factory = manager._factory
    load = factory._load_full_config

    def load_with_absolute_data(entry: Any, overrides: Any = None) -> dict[str, Any]:
        config: dict[str, Any] = load(entry, overrides)
        options = config.get("dataset_kwargs") or {}
        if entry.yaml_path and "data_files" in options and Path(entry.yaml_path).is_relative_to(folder):
            here = Path(entry.yaml_path).parent.resolve()
            config["dataset_kwargs"] = options | {"data_files": _below(here, options["data_files"])}
        return config

    factory._load_full_config = load_with_absolute_data


def _below(here: Path, files: Any) -> Any:
    """``files`` (a name, a list of names, or either by split) counted from the folder ``here``."""
    match files:
        case dict():
            return {split: _below(here, part) for split, part in files.items()}
        case list():
            return [_below(here, file) for file in files]
        case _:
            place = here / str(files)
            if "://" not in str(files) and place.is_file() and not _has_text(place):
                raise InvalidConfig(
                    f"The data file {place} has no documents.", hint="Write one, or correct data_files."
                )
            return files if "://" in str(files) else str(place)


def _has_text(file: Path) -> bool:
    with file.open("rb") as content:
        return bool(content.read(4096).strip())


def _load(manager: Any, name: str, allow_code: bool) -> dict[str, Any]:
    if not allow_code and (manager.task_index[name].cfg or {}).get("unsafe_code"):
        raise _no_consent(name)
    hint = "Its data may not be on this machine, or its definition is at fault."
    with (
        foreign(InvalidConfig, f"The task {name!r} could not be loaded", hint=hint),
        code_consent(allow_code),
        sandboxed_templates(),
    ):
        tasks: dict[str, Any] = manager.load([name])["tasks"]
    for leaf, task in tasks.items():
        if getattr(task, "UNSAFE_CODE", False) and not allow_code:
            raise _no_consent(leaf)
        if getattr(task, "MULTIMODAL", False):
            raise InvalidConfig(f"The task {leaf!r} wants pictures or sound; only text can be evaluated here.")
    return tasks


def _no_consent(name: str) -> InvalidConfig:
    return InvalidConfig(
        f"The task {name!r} runs code that the model wrote, on this machine and unprotected.",
        hint="Say `allow_code: true` in evaluate where that is acceptable, best in a container.",
    )


def _set_up(task: Any, wanted: TaskSettings, settings: EvaluateSettings) -> None:
    own = task.get_config("num_fewshot")
    if wanted.num_fewshot is not None:
        shots = wanted.num_fewshot
    elif settings.num_fewshot is not None and own != 0:  # as in lm-eval, a task that says 0 means it
        shots = settings.num_fewshot
    else:
        shots = own or 0
    task.set_config(key="num_fewshot", value=shots)
    kwargs = settings.gen_kwargs | wanted.gen_kwargs
    if kwargs and _generates(task):
        task.set_config(key="generation_kwargs", value=kwargs, update=True)


def _generates(task: Any) -> bool:
    return bool(task.OUTPUT_TYPE == "generate_until")
