"""What can be asked of a service beside looking: the bodies of its requests."""

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, StringConstraints

from evaluators.settings import EvaluateSettings
from kinship.device import DEVICES
from kinship.measures.metrics import METRICS
from kinship.validation import Strict
from search.comparison.plan import ComparisonPlan
from search.config import RunConfig, StopSettings
from service.answers.dendrogram import Joining

MOST_MODELS = 1000
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Models = Annotated[list[ModelName], Field(min_length=1, max_length=MOST_MODELS)]
_MODELS = Field(description="folders of the workspace, Hub ids (org/name@revision), or BASE+ADAPTER")


class RunRequest(Strict):
    """A search to be started."""

    name: Name = Field(description="of its folder, which must not be there yet")
    config: RunConfig = Field(description="as in a run file; relative paths count from the workspace")


class PlanRequest(Strict):
    """A search to be planned."""

    config: RunConfig = Field(description="as in a run file; relative paths count from the workspace")
    timed: bool = Field(False, description="score a founder on a few documents, to tell how long it will take")


class ExtendRequest(Strict):
    """When an earlier search is to stop instead."""

    stop: StopSettings = Field(description="as in a run file")


class ComparisonRequest(Strict):
    """Models to be compared."""

    models: Models = _MODELS
    base: ModelName = Field(description="the model they were fine-tuned from")
    metric: str = Field("pcc", description=f"one of {', '.join(METRICS)}", json_schema_extra={"enum": list(METRICS)})
    vocab: Literal["same", "shared"] = Field("same", description="shared: by the tokens that all tokenizers have")

    def arguments(self) -> list[str]:
        """Of a command."""
        return [f"--base={self.base}", f"--metric={self.metric}"]


class AdviceRequest(ComparisonRequest):
    """Pairs to be ranked for merging."""

    scores: ModelName | None = Field(
        None, description="of the models: a CSV, `kinship score --json`, or a run's folder, in the workspace"
    )

    def arguments(self) -> list[str]:
        """Of a command."""
        return [*super().arguments(), *([f"--scores={self.scores}"] if self.scores is not None else [])]


class MatrixRequest(ComparisonRequest):
    """A kinship matrix to be measured."""

    by: Literal["layer", "module", "tensor"] | None = Field(None, description="also apart within each of these")
    rank: int = Field(16, ge=1, le=4096, description="singular directions of each matrix, for subspace")
    include: str | None = Field(None, max_length=1000, description="regex of the tensors compared")
    exclude: str | None = Field(None, max_length=1000, description="regex of the tensors left out")
    device: str = Field("cpu", description="what computes the products", json_schema_extra={"enum": list(DEVICES)})
    dry_run: bool = Field(False, description="tell what would be read, from headers alone")


class TreeRequest(Strict):
    """Descent to be told."""

    models: Models = _MODELS
    kind: Literal["recorded", "recovered", "both", "dendrogram"] = Field(
        "recorded", description="by what their files say, by their weights, by both; or by kinship to a base"
    )
    base: ModelName | None = Field(None, description="the root, if known; a dendrogram needs it")
    joining: Joining = Field("upgma", description="how a dendrogram is built")
    metric: str = Field("pcc", description="of a dendrogram", json_schema_extra={"enum": list(METRICS)})


class MergeRequest(Strict):
    """A merge to be made, or planned."""

    name: Name = Field(description="of the model's folder")
    recipe: dict[str, JsonValue] = Field(description="in mergekit's words")
    seed: int = Field(0, ge=0, le=2**63, description="of methods that draw at random")
    dry_run: bool = Field(False, description="check everything and tell what it takes, from headers alone")


class ScoreRequest(Strict):
    """Models to be scored."""

    models: Models = _MODELS
    evaluate: EvaluateSettings = Field(description="as in a run file; relative paths count from the workspace")


class MethodsRequest(Strict):
    """Merge methods to be compared."""

    name: Name = Field(description="of the comparison's folder, which must not be there yet")
    plan: ComparisonPlan = Field(description="as in a plan's file; relative paths count from the workspace")
    extend: bool = Field(
        False, description="go on in the folder of a comparison that is there: what is alike is not done again"
    )


class MoveRequest(Strict):
    """A new place in the queue."""

    before: int | None = Field(None, description="the job to go before; null: last")


class ModelRequest(Strict):
    """A model to be remembered."""

    reference: ModelName = Field(description="a folder of the workspace, a Hub id, or BASE+ADAPTER")


def example(**values: Any) -> dict[str, Any]:
    """Of a request's body, for the OpenAPI document."""
    return {"openapi_examples": {"typical": {"value": values}}}
