"""What to evaluate on: the ``evaluate`` part of a run file."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from evaluators.scores.splits import Split, split_documents
from kinship.errors import InvalidConfig
from kinship.validation import Strict
from merging.recipe.data import DataSource, SurgerySettings


class TaskSettings(Strict):
    """One lm-eval task or group, with what differs from the settings common to all; its name alone will do."""

    task: str = Field(description="name of an lm-eval task, group or tag")
    metric: str | None = Field(None, description="metric; default: the task's first")
    filter: str | None = Field(None, description="which of the task's filters reads the answers; default: the first")
    num_fewshot: int | None = Field(None, ge=0, description="examples before each question; default: as the task says")
    gen_kwargs: dict[str, Any] = Field(default_factory=dict, description="generation settings that replace the task's")
    limit: int | None = Field(None, ge=2, description="at most this many documents in each split")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"task": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _to_name(self, as_dict: SerializerFunctionWrapHandler) -> Any:
        """As a run file would say it: what was not set is left out, a name alone is a name."""
        given = {key: value for key, value in as_dict(self).items() if value not in (None, {})}
        return given if len(given) > 1 else self.task


class TextSettings(Strict):
    """The likelihood of a text file as a task."""

    file: str = Field(description="text file, UTF-8")
    name: str | None = Field(None, description="name of the task; default: the file's, without its ending")
    documents: Literal["chunks", "lines"] = Field("chunks", description="what counts as a document")
    characters: int = Field(1000, ge=1, le=10**9, description="length of a chunk, which ends where a word does")
    per: Literal["byte", "token"] = Field("byte", description="log-likelihood is taken per byte or per token")


class FunctionSettings(Strict):
    """A Python function as a task."""

    function: str = Field(description="module:name, or the name of an entry point in model_kinship.evaluators")
    name: str | None = Field(None, description="name of the task; default: the function's")
    options: dict[str, Any] = Field(default_factory=dict, description="arguments it is made with")


class WrittenSettings(Strict):
    """lm-eval tasks on a written model folder, by any backend of lm-eval, in a process of its own."""

    backend: str = Field("hf", description="lm-eval's name for it: hf, vllm, sglang, gguf, local-completions ...")
    model_args: dict[str, Any] = Field(
        default_factory=dict,
        description="arguments of the backend; {folder} in a text stands for the model's folder; default for hf, vllm "
        "and sglang: pretrained",
    )
    serve: list[str] = Field(
        default_factory=list, description="command that serves the model meanwhile, its arguments in a list"
    )
    url: str | None = Field(None, description="address that answers once the server is ready")
    dtype: Literal["stored", "float32", "bfloat16", "float16"] = Field(
        "stored", description="dtype of the written weights; stored: as in the base model"
    )
    scratch: str | None = Field(None, description="folder for the written models; default: the system's temporary one")
    seconds: float = Field(3600, gt=0, description="the longest that one evaluation may take")

    @model_validator(mode="after")
    def _check_server(self) -> Self:
        if self.serve and not self.url:
            raise ValueError("serve needs url: the address that answers once the server is ready")
        return self


class HeadSettings(SurgerySettings, DataSource):
    """A head of Representation Surgery that is fitted anew to every model scored."""

    model: str = Field(description="the task's own model, whose representations are to be met")
    documents: int | None = Field(None, ge=1, description="at most this many documents; default: all")


class EvaluateSettings(Strict):
    """Tasks and how to run them; at least one of ``tasks``, ``perplexity`` and ``functions``."""

    tasks: list[TaskSettings] = Field(
        default_factory=list, description="lm-eval tasks and groups: names, or mappings of task and its own settings"
    )
    perplexity: list[TextSettings] = Field(
        default_factory=list, description="text files, each a task: mappings of file, documents, per ..."
    )
    functions: list[FunctionSettings] = Field(
        default_factory=list, description="Python functions, each a task: mappings of function, name, options"
    )
    task_path: str | None = Field(None, description="folder with task YAML files of your own, beside lm-eval's")
    metric: str | None = Field(None, description="metric of every task; default: each task's first")
    filter: str | None = Field(None, description="filter of every task; default: each task's first")
    num_fewshot: int | None = Field(None, ge=0, description="examples before each question; default: as each task says")
    gen_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="generation settings that replace those of every task"
    )
    apply_chat_template: bool | str = Field(
        False, description="put prompts into the tokenizer's chat template, or into the one of this name"
    )
    system_instruction: str | None = Field(None, description="what the system says before every prompt")
    fewshot_as_multiturn: bool = Field(True, description="with a chat template, examples are turns of the conversation")
    allow_code: bool = Field(False, description="consent to tasks that run code which the model wrote")
    allow_task_code: bool = Field(
        False, description="consent to task files of task_path that run Python (!function, class, metrics of their own)"
    )
    text_only: bool = Field(
        False, description="consent to scoring vision-language models by their text, which shows nothing of their sight"
    )
    public_benchmarks: Literal["acknowledged"] | None = Field(
        None, description="acknowledged: the search may select on public benchmarks, whose scores then prove little"
    )
    surgery: dict[str, str | HeadSettings] = Field(
        default_factory=dict,
        description="by task, the head that mends representations there: the name of one that lies beside the model "
        "scored, or a mapping of model, file ... by which one is fitted to each",
    )
    search_fraction: float = Field(
        0.5, gt=0, le=1, description="share of documents that the search may see; 1: all, and nothing is held out"
    )
    limit: int | None = Field(None, ge=2, description="at most this many documents of a task in each split")
    split_seed: int = Field(0, description="which documents are held out")
    seed: int = Field(1234, ge=0, description="seed of few-shot examples and of sampled generations")
    batch_size: int | Literal["auto"] = Field(
        64, description="documents in one forward pass, halved where memory runs out; auto: as large as fits"
    )
    share_prefixes: bool = Field(
        False,
        description="run the question of a multiple choice once for all its answers; log-likelihoods then differ from "
        "lm-eval's by rounding",
    )
    device: str = Field("cpu", description="cpu or cuda")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="dtype of the weights in memory; auto: float32 on the CPU, bfloat16 elsewhere"
    )
    written: WrittenSettings | None = Field(
        None, description="run lm-eval tasks on written folders instead: a mapping of backend, model_args ..."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.tasks or self.perplexity or self.functions):
            raise ValueError("there is nothing to evaluate: give tasks, perplexity or functions")
        if isinstance(self.batch_size, int) and self.batch_size < 1:
            raise ValueError("batch_size is at least 1")
        if self.written and self.share_prefixes:
            raise ValueError("share_prefixes is of models in memory; with written, the backend has its own way")
        return self

    def split(self, task: str, documents: Sequence[Any], limit: int | None) -> dict[Split, list[int]]:
        """Indices of the ``documents`` of ``task`` in each split, at most ``limit`` in each: see `split_documents`.

        Where the search sees all there is no held-out split. Raises `InvalidConfig` where a split has too few documents
        for an error.
        """
        splits = split_documents(documents, self.search_fraction, limit, self.split_seed)
        if self.search_fraction == 1:
            del splits["held_out"]
        for split, ids in splits.items():
            if len(ids) < 2:
                raise InvalidConfig(
                    f"Task {task} has too few documents for its {split} split: {len(ids)} of {len(documents)} fall to "
                    "it, and 2 were expected.",
                    hint="Give it more; documents of the same content fall to one split. With search_fraction: 1 none"
                    " are held out.",
                )
        return splits
