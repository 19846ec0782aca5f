"""What to evaluate on: the ``evaluate`` part of a run file."""

from pydantic import Field

from kinship.validation import Strict


class EvaluateSettings(Strict):
    """Tasks of the lm-eval harness and how to run them."""

    tasks: list[str] = Field(min_length=1, description="lm-eval task names; the score is their unweighted mean")
    task_path: str | None = Field(None, description="folder with task YAML files of your own, beside lm-eval's")
    metric: str | None = Field(None, description="metric of every task; default: each task's first")
    search_fraction: float = Field(0.5, gt=0, lt=1, description="share of documents that the search may see")
    limit: int | None = Field(None, ge=2, description="at most this many documents of a task in each split")
    split_seed: int = Field(0, description="which documents are held out")
    batch_size: int = Field(64, ge=1, description="documents in one forward pass")
    device: str = Field("cpu", description="cpu or cuda")
