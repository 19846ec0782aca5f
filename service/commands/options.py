"""Options that several commands have. Their choices are those of the registries, which are cheap to import."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from kinship.checkpoints.tensor_names import GROUPINGS
from kinship.device import DEVICES
from kinship.file_state import VERIFY
from kinship.measures.metrics import METRICS

if TYPE_CHECKING:
    MetricName: TypeAlias = str
    DeviceName: TypeAlias = str
    GroupingName: TypeAlias = str
else:
    MetricName = Literal[tuple(METRICS)]
    DeviceName = Literal[tuple(DEVICES)]
    GroupingName = Literal[tuple(GROUPINGS)]


def _verify(context: typer.Context, wanted: bool) -> bool:
    """Tell this process and its workers, for as long as the command runs."""
    if wanted:
        before = os.environ.get(VERIFY)
        os.environ[VERIFY] = "1"
        context.call_on_close(lambda: os.environ.pop(VERIFY) if before is None else os.environ.update({VERIFY: before}))
    return wanted


VerifyInputs = Annotated[
    bool,
    typer.Option(
        "--verify-inputs",
        help=f"Hash every byte of the models instead of a sample, as {VERIFY}=1 does.",
        callback=_verify,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what exists.")]
Models = Annotated[
    list[str],
    typer.Argument(
        help="Folders, .safetensors files, Hub ids (org/name@revision), or BASE+ADAPTER.", show_default=False
    ),
]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Read local .bin, .pt and .pth too, running no code in them.")
]
Base = Annotated[str, typer.Option(help="The model they were fine-tuned from.", show_default=False)]
Metric = Annotated[MetricName, typer.Option(help="How kinship is measured.")]
Vocab = Annotated[
    Literal["same", "shared"],
    typer.Option(help="shared: embeddings and heads by the tokens that all tokenizers have."),
]
ShardSize = Annotated[
    str, typer.Option("--shard-size", help="The most that a file of weights takes, as 5GB, 500MB or a number of bytes.")
]
DTypeOption = Annotated[
    Literal["float32", "float16", "bfloat16"] | None,
    typer.Option("--dtype", help="Dtype of the result; default: as the recipe says.", show_default=False),
]
Ledger = Annotated[
    str | None, typer.Option(metavar="URL#NAME", help="Keep the run in this Postgres database.", show_default=False)
]
ScoreCacheFile = Annotated[
    Path | None, typer.Option("--cache", help="Score cache; default: the user's.", show_default=False)
]
