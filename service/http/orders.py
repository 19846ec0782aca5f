"""From requests to jobs: each is checked here, and becomes the arguments of one command."""

from dataclasses import dataclass, field

import yaml

from kinship.device import DEVICES
from kinship.errors import InvalidConfig
from kinship.measures.metrics import METRICS
from kinship.validation import nearest
from merging.mixture.recipe import parse_any_recipe
from merging.recipe.documents import separate
from search.comparison.plan import ComparisonPlan
from search.config import RunConfig
from service.answers.jobs import JobKind
from service.http.references import (
    require_config,
    require_evaluation,
    require_plan,
    require_recipe,
    require_reference,
    require_scores,
)
from service.http.requests import (
    AdviceRequest,
    ComparisonRequest,
    MatrixRequest,
    MergeRequest,
    PlanRequest,
    ScoreRequest,
    TreeRequest,
)
from service.http.settings import ServiceSettings
from service.jobs.supervisor import LIGHT

PLAN = "plan.yml"


@dataclass(frozen=True)
class Order:
    """A job to be submitted: see `Board.submit`."""

    kind: JobKind
    title: str
    arguments: list[str]
    files: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    run: str | None = None


def matrix(request: MatrixRequest, settings: ServiceSettings) -> Order:
    """`kinship matrix`. Raises `Refused`, `InvalidConfig`."""
    _require(request, settings)
    if request.device not in DEVICES:
        raise InvalidConfig(f"There is no device {request.device!r}.", hint=nearest(request.device, DEVICES))
    options = [*request.arguments(), f"--vocab={request.vocab}", f"--rank={request.rank}", f"--device={request.device}"]
    given = {name: getattr(request, name) for name in ("by", "include", "exclude")}
    options += [f"--{name}={value}" for name, value in given.items() if value is not None]
    options += ["--dry-run"] if request.dry_run else []
    what = "Plan of kinship" if request.dry_run else "Kinship"
    kind: JobKind = "plan" if request.dry_run else "matrix"
    title = f"{what} of {_counted(request.models)} ({request.metric})"
    device = "cuda" if request.device == "cuda" and not request.dry_run else LIGHT
    return Order(kind, title, ["matrix", *options, "--json", "--", *request.models], device=device)


def advise(request: ComparisonRequest | AdviceRequest, settings: ServiceSettings) -> Order:
    """`kinship advise`. Raises `Refused`, `InvalidConfig`."""
    _require(request, settings)
    if isinstance(request, AdviceRequest) and request.scores is not None:
        require_scores(request.scores, settings)
    options = [*request.arguments(), f"--vocab={request.vocab}", "--json"]
    title = f"Which of {_counted(request.models)} to merge"
    return Order("advise", title, ["advise", *options, "--", *request.models], device=LIGHT)


def tree(request: TreeRequest, settings: ServiceSettings) -> Order:
    """`kinship tree`. Raises `Refused`, `InvalidConfig`."""
    for model in [*request.models, *([request.base] if request.base else [])]:
        require_reference(model, settings)
    _require_metric(request.metric)
    how = {"recorded": ["--recorded"], "recovered": ["--recover"], "both": ["--recorded", "--recover"]}.get(
        request.kind, [f"--joining={request.joining}", f"--metric={request.metric}"]
    )
    if request.kind == "dendrogram" and (request.base is None or len(request.models) < 2):
        raise InvalidConfig("A dendrogram needs a base and at least two models.", hint="Give them.")
    how += [f"--base={request.base}"] if request.base else []
    kind = "recorded and recovered" if request.kind == "both" else request.kind
    title = f"{kind.capitalize()} descent of {_counted(request.models)}"
    device = LIGHT if request.kind in {"recorded", "dendrogram"} else "cpu"
    return Order("tree", title, ["tree", *how, "--json", "--", *request.models], device=device)


def merge(request: MergeRequest, settings: ServiceSettings) -> Order:
    """`kinship merge`; the model is made in the job's folder. Raises `Refused`, `InvalidConfig`."""
    recipe = require_recipe(parse_any_recipe(request.recipe), settings)
    files = {"recipe.yml": yaml.safe_dump_all(separate(recipe.to_dict()), sort_keys=False)}  # however deep it nests
    options = [f"--seed={request.seed}", "--json", *(["--dry-run"] if request.dry_run else [])]
    arguments = ["merge", *options, "--", "{job}/recipe.yml", f"{{work}}/{request.name}"]
    what = "Plan of the merge" if request.dry_run else "Merge"
    title = f"{what} {request.name} ({recipe.merge_method})"
    return Order("plan" if request.dry_run else "merge", title, arguments, files, LIGHT if request.dry_run else "cpu")


def score(request: ScoreRequest, settings: ServiceSettings) -> Order:
    """`kinship score`. Raises `Refused`."""
    for model in request.models:
        require_reference(model, settings)
    evaluate = require_evaluation(request.evaluate, settings)
    content = evaluate.model_dump(mode="json")
    files = {"evaluate.yml": yaml.safe_dump(_from_workspace(content, settings), sort_keys=False)}
    arguments = ["score", "--json", "--config", "{job}/evaluate.yml", "--", *request.models]
    return Order("score", f"Scores of {_counted(request.models)}", arguments, files, _kind(evaluate.device))


def plan(request: PlanRequest, settings: ServiceSettings) -> Order:
    """`kinship evolve --dry-run`. Raises `Refused`."""
    config = require_config(request.config, settings)
    options = ["--root=.", "--dry-run", "--json", *(["--time"] if request.timed else [])]
    arguments = ["evolve", *options, "--out", "{work}/run", "--", "{job}/run.yml"]
    return Order("plan", f"Plan of a search by {config.strategy.name}", arguments, run_file(config), LIGHT)


def search(config: RunConfig, run: str, root: str, ledger: str | None, settings: ServiceSettings) -> Order:
    """`kinship evolve --resume` in the folder ``run``; paths of ``config`` count from ``root``. Raises `Refused`."""
    require_config(config, settings)
    options = [f"--root={root}", f"--out={run}", "--resume", "--json", *([f"--ledger={ledger}"] if ledger else [])]
    title = f"Search {run}, {config.strategy.name}"
    arguments = ["evolve", *options, "--", "{job}/run.yml"]
    return Order("evolve", title, arguments, run_file(config), _kind(config.evaluate.device), run)


def compare(plan: ComparisonPlan, folder: str, settings: ServiceSettings) -> Order:
    """`kinship compare` in a folder of the workspace. Raises `Refused`, `InvalidConfig`."""
    require_plan(plan, settings)
    content = plan.model_dump(mode="json", exclude_unset=True)
    arguments = ["compare", "--root=.", f"--out={folder}", "--json", "--", f"{{job}}/{PLAN}"]
    files = {PLAN: yaml.safe_dump(content, sort_keys=False)}
    title = f"Comparison {folder} of {len(plan.methods)} methods"
    return Order("compare", title, arguments, files, _kind(plan.evaluate.device), folder)


def run_file(config: RunConfig) -> dict[str, str]:
    """The run file of a job, by name."""
    return {"run.yml": yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)}


def _require(request: ComparisonRequest, settings: ServiceSettings) -> None:
    for model in [request.base, *request.models]:
        require_reference(model, settings)
    _require_metric(request.metric)


def _require_metric(metric: str) -> None:
    if metric not in METRICS:
        raise InvalidConfig(f"There is no metric {metric!r}.", hint=nearest(metric, METRICS))


def _from_workspace(content: dict[str, object], settings: ServiceSettings) -> dict[str, object]:
    """Settings whose relative paths count from the workspace, for a file that lies elsewhere."""
    texts = content["perplexity"]
    assert isinstance(texts, list)
    content["perplexity"] = [text | {"file": str(settings.folder / text["file"])} for text in texts]
    if content["task_path"] is not None:
        content["task_path"] = str(settings.folder / str(content["task_path"]))
    return content


def _kind(device: str) -> str:
    return "cuda" if device.startswith("cuda") else "cpu"


def _counted(models: list[str]) -> str:
    return f"{len(models)} models" if len(models) > 1 else models[0]
