"""Which models and files a request may name: those of the workspace, of allowed folders, and of the Hub."""

import os
from collections.abc import Iterable
from pathlib import Path

from evaluators.settings import EvaluateSettings
from kinship.checkpoints.references import HUB_ID, Reference, parse_reference
from kinship.errors import InvalidConfig, KinshipError, ReferenceNotFound
from merging.mixture.recipe import AnyRecipe
from search.comparison.plan import ComparisonPlan
from search.config import RunConfig
from service.http.settings import ServiceSettings
from service.jobs.errors import Refused

LONGEST = 4096


def require_reference(given: str, settings: ServiceSettings) -> str:
    """``given``, which may be named, and is there unless it is a Hub id.

    Raises `Refused` for what leads elsewhere, whether it is there or not, `ReferenceNotFound` and `InvalidConfig`.
    """
    if len(given) > LONGEST or "\0" in given:
        raise InvalidConfig("A model reference is no path.", hint="Give a folder of the workspace, or a Hub id.")
    if _leads_out(given, settings) and not HUB_ID.fullmatch(given.partition("+")[0]):
        raise _refused(given)  # before anything is looked for there
    try:
        parsed: Reference | None = parse_reference(given, settings.folder)
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"The reference {given!r} cannot be used: {error}.") from None
    while parsed is not None:
        path = settings.folder / os.path.expanduser(parsed.path)
        if os.path.exists(path) or not HUB_ID.fullmatch(parsed.path):
            require_path(parsed.path, settings)
            if not os.path.exists(path):
                raise ReferenceNotFound(
                    f"There is no model {parsed.path[:200]!r} in the workspace.", hint="GET /api/v1/models lists them."
                )
            _require_own_files(path, settings)
        parsed = parsed.adapter
    return given


def require_path(given: str, settings: ServiceSettings) -> str:
    """``given``, which lies in the workspace or an allowed folder, links followed. Raises `Refused`."""
    if len(given) > LONGEST or "\0" in given or _leads_out(given, settings):
        raise _refused(given)
    return given


def require_scores(given: str, settings: ServiceSettings) -> str:
    """``given``, a file with scores or a run's folder in the workspace, no database. Raises `Refused`."""
    if "://" in given:
        raise _refused(given)
    return require_path(given, settings)


def require_config(config: RunConfig, settings: ServiceSettings) -> RunConfig:
    """``config``, which may be run. Raises `Refused`."""
    for reference in config.references.values():
        require_reference(reference, settings)
    require_evaluation(config.evaluate, settings)
    if config.workers.address is not None and not settings.allow_code:
        raise _needs_code("A Ray cluster's address")
    return config


def require_evaluation(evaluate: EvaluateSettings, settings: ServiceSettings) -> EvaluateSettings:
    """``evaluate``, which may be run. Raises `Refused`."""
    texts = [text.file for text in evaluate.perplexity]
    for path in [*texts, *([evaluate.task_path] if evaluate.task_path else [])]:
        require_path(path, settings)
    for task in evaluate.tasks:
        if os.path.isabs(task.task) or ".." in Path(task.task).parts:
            raise _refused(task.task)
    if settings.allow_code:
        return evaluate
    for asked, what in (
        (evaluate.functions, "A Python function as an evaluator"),
        (evaluate.written, "Another backend"),
        (evaluate.allow_code, "A task that runs code which the model wrote"),
    ):
        if asked:
            raise _needs_code(what)
    return evaluate


def require_recipe(recipe: AnyRecipe, settings: ServiceSettings) -> AnyRecipe:
    """``recipe``, whose models may be named. Raises `Refused`."""
    names: Iterable[str] = recipe.references
    for reference in names:
        require_reference(str(reference), settings)
    for path in recipe.data_paths:
        require_path(path, settings)
    return recipe


def require_plan(plan: ComparisonPlan, settings: ServiceSettings) -> ComparisonPlan:
    """``plan``, which may be carried out. Raises `Refused`, and `InvalidConfig` for a method that is not there."""
    for reference in plan.models:
        require_reference(reference, settings)
    for path in filter(None, [plan.data.file, *(cell.data for cell in plan.cells.values())]):
        require_path(path, settings)
    require_evaluation(plan.evaluate, settings)
    plan.require_methods()
    return plan


def allowed(path: Path, settings: ServiceSettings) -> bool:
    """Whether ``path``, links followed, lies in the workspace, an allowed folder or the Hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    real = Path(os.path.realpath(path))
    roots = (settings.folder, *settings.roots, Path(HF_HUB_CACHE))
    return any(real.is_relative_to(os.path.realpath(root)) for root in roots)


def _leads_out(given: str, settings: ServiceSettings) -> bool:
    try:
        return not allowed(settings.folder / os.path.expanduser(given), settings)
    except (OSError, ValueError):
        return True


def _require_own_files(path: Path, settings: ServiceSettings) -> None:
    """A link among a model's files must not lead out either."""
    if path.is_dir():
        for file in os.scandir(path):
            if file.is_symlink() and not allowed(Path(file.path), settings):
                raise _refused(f"{path.name}/{file.name}")


def _refused(given: str) -> KinshipError:
    return Refused(
        f"{given[:200]!r} leads out of the workspace.",
        hint="Give a folder below it, a Hub id, or start the server with --models FOLDER.",
    )


def _needs_code(what: str) -> KinshipError:
    return Refused(f"{what} can run code of others.", hint="Start the server with --allow-code where that is wanted.")
